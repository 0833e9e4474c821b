"""The list of workflows, the page of one, and what the pages of its tasks say."""

import re

import pytest
from django.contrib.admin.models import LogEntry

from django_bgtasks import chain, group, previous
from django_bgtasks.models import FinishedTask, QueuedTask, Workflow
from tests.workflows import tasks
from tests.workflows.driver import Driver

from .conftest import VIEW
from .pages import act, changelist, page, plain, said, text

SEE = (*VIEW, "view_workflow", "view_payload")
ACT = (*SEE, "cancel_workflow", "retry_workflow", "retry_finishedtask")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_clean_up(monkeypatch):
    monkeypatch.setattr("django_bgtasks.worker.execution.clean_connections", lambda *args: None)


@pytest.fixture
def seer(client_with):
    return client_with(*SEE)


@pytest.fixture
def actor(client_with):
    return client_with(*ACT)


def nightly():
    return chain(
        tasks.give.with_args({"id": 7}).named("download <b>"),
        group(tasks.add.with_args(previous["id"], n) for n in range(3)),
        tasks.total.with_args(previous),
        name="nightly import",
    ).enqueue()


def failed():
    workflow = chain(tasks.give, tasks.fail, tasks.show.with_args(previous)).enqueue(name="broken")
    Driver().drain()
    return workflow


def test_list_shows_workflows_and_reads_a_bounded_number_of_rows(
    seer, django_assert_max_num_queries
):
    nightly()
    failed()
    with django_assert_max_num_queries(12):
        shown = text(seer.get(changelist("workflow")))
    assert "nightly import" in shown
    assert "Running" in shown
    assert "Failed" in shown
    only = text(seer.get(changelist("workflow") + "?status=FAILED"))
    assert "broken" in only
    assert "nightly import" not in only


def test_page_shows_graph_tasks_and_progress(seer):
    workflow = nightly()
    Driver().step()
    shown = text(seer.get(page("workflow", workflow.id)))
    assert "1 of 5 tasks is done" in plain(shown) or "1 of 5 tasks are done" in plain(shown)
    svg = re.search(r"<svg[^>]*bgtasks-graph.*?</svg>", shown, re.DOTALL)[0]
    assert svg.count("<rect") == 5
    assert 'role="group"' in svg
    assert "download &lt;b&gt;" in svg
    assert "<b>" not in svg
    for result in workflow.results:
        model = "finishedtask" if result.state == "SUCCESSFUL" else "queuedtask"
        assert f'href="{page(model, result.id)}"' in shown


def test_large_workflow_is_drawn_in_bundles(seer, django_assert_max_num_queries):
    workflow = chain(
        group(tasks.give.with_args(n) for n in range(300)), tasks.total.with_args(previous)
    ).enqueue()
    with django_assert_max_num_queries(40):
        shown = text(seer.get(page("workflow", workflow.id)))
    assert shown.count("<rect") == 2
    assert "give ×300" in shown
    assert "201 more are not shown." in shown


def test_failure_is_retried_from_the_page(actor):
    workflow = failed()
    shown = text(actor.get(page("workflow", workflow.id)))
    assert "Skipped: fail" in shown
    assert "Retry what failed" in shown
    response = actor.post(page("workflow", workflow.id, "retry"))
    assert said(response) == ["2 tasks will run again."]
    workflow.refresh()
    assert workflow.state == "RUNNING"
    assert LogEntry.objects.filter(object_id=workflow.id).count() == 1
    again = actor.post(page("workflow", workflow.id, "retry"))
    assert "Nothing of workflow" in said(again)[0]


def test_workflow_is_cancelled_from_the_page_by_name(actor):
    workflow = nightly()
    response = actor.post(page("workflow", workflow.id, "cancel"))
    assert said(response) == ["The workflow was cancelled."]
    assert Workflow.objects.get().reason == f"Cancelled by {actor.user.username}."
    assert "Cancel" not in re.findall(
        r'formaction="[^"]*"\s+value="([^"]*)"', text(actor.get(page("workflow", workflow.id)))
    )


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_who_may_only_look_can_do_nothing(seer, verb):
    workflow = failed()
    assert "formaction" not in text(seer.get(page("workflow", workflow.id)))
    assert seer.post(page("workflow", workflow.id, verb)).status_code == 403
    assert seer.get(page("workflow", workflow.id, verb)).status_code == 405
    workflow.refresh()
    assert workflow.state == "FAILED"


def test_who_may_not_look_sees_nothing(viewer):
    workflow = nightly()
    assert viewer.get(changelist("workflow")).status_code == 403
    assert viewer.get(page("workflow", workflow.id)).status_code == 403


def test_workflow_that_is_gone(actor):
    gone = "0190f5b2-0000-7000-8000-000000000000"
    response = actor.post(page("workflow", gone, "cancel"))
    assert said(response) == [f"There is no workflow {gone}. It may have been pruned."]


def test_page_of_a_waiting_member_says_where_it_is_and_for_what_it_waits(seer):
    workflow = nightly()
    row = QueuedTask.objects.get(task_path=tasks.total.module_path)
    shown = text(seer.get(page("queuedtask", row.pk)))
    assert f'<a href="{page("workflow", workflow.id)}">nightly import</a> · total' in shown
    assert "waits for 3 that come before it" in shown
    assert "numbers = &quot;previous&quot;" in shown or 'numbers = "previous"' in plain(shown)
    other = QueuedTask.objects.filter(task_path=tasks.add.module_path).first()
    assert "previous['id']" in plain(text(seer.get(page("queuedtask", other.pk))))


def test_action_on_results_says_what_waits_again_and_what_cannot_run(actor):
    workflow = failed()
    ids = {r.task.name: r.id for r in workflow.results}
    assert act(actor, "finishedtask", "retry", [ids["show"]]) == [
        "1 was skipped: retry what it waits for in its workflow."
    ]
    assert act(actor, "finishedtask", "retry", [ids["fail"]]) == [
        "1 task will be retried. 1 task that was skipped because of that waits again."
    ]
    assert FinishedTask.objects.count() == 1
