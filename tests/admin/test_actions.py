"""Cancel, retry, pause: who may, what it does, what it says, what it records."""

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import transitions
from django_bgtasks.models import Cancellation, FinishedTask, QueuedTask, Step
from tests import factories
from tests.tasks import add

from .conftest import VIEW
from .pages import act, changelist, page, plain, said, text

pytestmark = pytest.mark.django_db


def states(*results):
    for result in results:
        result.refresh()
    return [result.state for result in results]


def failed(n=1):
    result = add.enqueue(n, 2)
    return factories.fail(result)


def ids(*results):
    return [result.id for result in results]


# Cancel


def test_ticked_tasks_are_cancelled_by_name(operator):
    one, two, three = (add.enqueue(n, 2) for n in range(3))
    assert act(operator, "queuedtask", "cancel", ids(one, three)) == ["2 tasks were cancelled."]
    assert states(one, two, three) == ["CANCELLED", "READY", "CANCELLED"]
    assert one.reason == f"Cancelled by {operator.user.username}."


def test_running_tasks_are_asked_to_end_and_counted_for_themselves(operator):
    running, ready, also = (add.enqueue(n, 2) for n in range(3))
    factories.claim(limit=1)
    assert act(operator, "queuedtask", "cancel", ids(running, ready, also)) == [
        "2 tasks were cancelled. 1 running task was asked to end."
    ]
    assert states(running, ready) == ["RUNNING", "CANCELLED"]
    request = Cancellation.objects.get()
    assert str(request.task_id) == running.id
    assert request.reason == f"Cancelled by {operator.user.username}."
    assert not request.force
    entries = {entry.object_id: entry.change_message for entry in LogEntry.objects.all()}
    assert entries == {
        running.id: "Asked to end.",
        ready.id: "Cancelled.",
        also.id: "Cancelled.",
    }


def test_tasks_that_have_left_meanwhile_are_counted(operator):
    one = factories.succeed(add.enqueue(1, 2))
    two, three = (add.enqueue(n, 2) for n in range(2))
    two.cancel()
    assert act(operator, "queuedtask", "cancel", ids(one, two, three)) == [
        "1 task was cancelled. 2 were skipped: they are no longer here."
    ]


def test_an_action_is_for_the_ticked_rows_alone(operator):
    one, two = (add.enqueue(n, 2) for n in range(2))
    act(operator, "queuedtask", "cancel", ids(one), select_across="1")
    assert states(one, two) == ["CANCELLED", "READY"]
    data = {"action": "cancel", "index": "0", "select_across": "1"}
    response = operator.post(changelist("queuedtask"), data, follow=True)
    assert "Items must be selected" in text(response)
    assert states(two) == ["READY"]


@pytest.mark.parametrize("garbage", ["x", "\x00", "1' OR 1=1", ""])
def test_keys_that_are_none_are_ignored(operator, garbage):
    one = add.enqueue(1, 2)
    messages = act(operator, "queuedtask", "cancel", [one.id, garbage])
    assert messages == ["1 task was cancelled."]


def test_live_tasks_can_not_be_deleted(operator):
    one = add.enqueue(1, 2)
    operator.user.is_superuser = True
    operator.user.save()
    assert "delete_selected" not in text(operator.get(changelist("queuedtask")))
    operator.post(
        changelist("queuedtask"),
        {"action": "delete_selected", "_selected_action": [one.id], "post": "yes"},
    )
    assert operator.post(page("queuedtask", one.id, "delete"), {"post": "yes"}).status_code == 403
    assert states(one) == ["READY"]


# Retry


def test_ticked_results_are_retried_by_name(operator):
    one, two = failed(), failed()
    two.retry()
    two.cancel()
    done = factories.succeed(add.enqueue(1, 2))
    assert act(operator, "finishedtask", "retry", ids(one, two, done)) == [
        "2 tasks will be retried. 1 was skipped: it was successful."
    ]
    assert states(one, two, done) == ["READY", "READY", "SUCCESSFUL"]
    assert one.reason == f"Retried by {operator.user.username}."


def test_a_retry_that_others_did_first_is_skipped(operator):
    one, two = failed(), failed()
    two.retry()
    assert act(operator, "finishedtask", "retry", ids(one, two)) == [
        "1 task will be retried. 1 was skipped: it is no longer here."
    ]


def test_results_are_deleted_with_their_permission(operator, client_with):
    one, two = failed(), failed()
    data = {"action": "delete_selected", "_selected_action": [one.id], "post": "yes"}
    client_with(*VIEW, "retry_finishedtask").post(changelist("finishedtask"), data)
    assert FinishedTask.objects.count() == 2
    question = {name: value for name, value in data.items() if name != "post"}
    assert "Are you sure" in text(operator.post(changelist("finishedtask"), question))
    assert FinishedTask.objects.count() == 2
    operator.post(changelist("finishedtask"), data)
    operator.post(page("finishedtask", two.id, "delete"), {"post": "yes"})
    assert not FinishedTask.objects.exists()


def step_of(result):
    now = timezone.now()
    return Step.objects.create(task_id=result.id, name="one", value=1, attempt=1, made_at=now)


def test_steps_go_with_their_results(operator):
    one, two, three, kept = (failed() for _ in range(4))
    for result in (one, two, three, kept):
        step_of(result)
    operator.post(page("finishedtask", one.id, "delete"), {"post": "yes"})
    assert Step.objects.count() == 3
    act_on = {"action": "delete_selected", "_selected_action": ids(two, three), "post": "yes"}
    with CaptureQueriesContext(connection) as queries:
        operator.post(changelist("finishedtask"), act_on)
    assert [str(step.task_id) for step in Step.objects.all()] == [kept.id]
    deleted = [q["sql"] for q in queries.captured_queries if q["sql"].startswith("DELETE")]
    assert len([sql for sql in deleted if "bgtasks" in sql]) == 2


def test_a_task_that_is_retried_before_it_is_deleted_keeps_its_steps(operator, rf):
    result = failed()
    step_of(result)
    results = admin.site.get_model_admin(FinishedTask)
    asked = FinishedTask.objects.filter(pk=result.id)
    row = asked.get()
    result.retry()
    results.delete_queryset(rf.post("/"), asked)
    results.delete_model(rf.post("/"), row)
    assert Step.objects.count() == 1
    assert states(result) == ["READY"]


# Who may

VERBS = [
    ("queuedtask", "cancel", "cancel_queuedtask"),
    ("finishedtask", "retry", "retry_finishedtask"),
]


@pytest.fixture
def row(request):
    """The key of a row on which the verb of the test works, and what it is now."""

    def make(model, verb):
        if model == "queuedtask":
            result = add.enqueue(1, 2)
            return result.id, lambda: states(result)
        result = failed()
        return result.id, lambda: states(result)

    return make


@pytest.mark.parametrize(("model", "verb", "permission"), VERBS)
def test_a_viewer_sees_no_button_and_no_action(viewer, row, model, verb, permission):
    pk, _ = row(model, verb)
    for content in (text(viewer.get(changelist(model))), text(viewer.get(page(model, pk)))):
        assert page(model, pk, verb) not in content
        assert f'value="{verb}"' not in content


@pytest.mark.parametrize(("model", "verb", "permission"), VERBS)
def test_a_viewer_can_not_act_by_hand_either(viewer, client_with, row, model, verb, permission):
    pk, now = row(model, verb)
    before = now()
    every = {p for _, _, p in VERBS} | {"view_payload", "delete_finishedtask"}
    for client in (viewer, client_with(*VIEW, *(every - {permission}))):
        client.post(changelist(model), {"action": verb, "_selected_action": [pk]})
        assert client.post(page(model, pk, verb)).status_code == 403
    assert now() == before
    assert not LogEntry.objects.filter(content_type__app_label="bgtasks").exists()


@pytest.mark.parametrize(("model", "verb", "permission"), VERBS)
def test_a_permission_to_act_needs_that_to_see(client_with, row, model, verb, permission):
    pk, now = row(model, verb)
    before = now()
    client = client_with(permission)
    assert client.post(page(model, pk, verb)).status_code == 403
    assert now() == before


@pytest.mark.parametrize(("model", "verb", "permission"), VERBS)
def test_the_own_permission_is_enough(client_with, row, model, verb, permission):
    pk, now = row(model, verb)
    before = now()
    client = client_with(f"view_{model}", permission)
    assert f'action="{page(model, pk, verb)}"' in text(client.get(page(model, pk)))
    assert f'value="{verb}"' in text(client.get(changelist(model)))
    assert client.post(page(model, pk, verb)).status_code == 302
    assert now() != before


@pytest.mark.parametrize(("model", "verb", "permission"), VERBS)
def test_a_button_is_a_post_with_a_csrf_token(client_with, row, model, verb, permission):
    pk, now = row(model, verb)
    before = now()
    client = client_with(f"view_{model}", permission, csrf=True)
    # A page that asks, or nothing.
    assert client.get(page(model, pk, verb)).status_code == (200 if verb == "cancel" else 405)
    assert client.post(page(model, pk, verb)).status_code == 403
    assert now() == before
    client.get(page(model, pk))
    token = client.cookies["csrftoken"].value
    answer = client.post(page(model, pk, verb), {"csrfmiddlewaretoken": token})
    assert answer.status_code == 302
    assert now() != before


@pytest.mark.parametrize(("model", "verb", "permission"), VERBS)
def test_who_is_not_logged_in_is_sent_to_log_in(db, row, model, verb, permission):
    pk, now = row(model, verb)
    before = now()
    response = Client().post(page(model, pk, verb))
    assert "login" in response.url
    assert now() == before


# The button


def test_the_button_leads_to_where_the_task_is_then(operator):
    result = add.enqueue(1, 2)
    response = operator.post(page("queuedtask", result.id, "cancel"))
    assert response.url == page("finishedtask", result.id)
    assert said(response) == ["1 task was cancelled."]
    response = operator.post(page("finishedtask", result.id, "retry"))
    assert response.url == page("queuedtask", result.id)
    assert "1 task will be retried." in said(response)


def test_who_may_not_see_results_returns_to_the_list(client_with):
    client = client_with("view_queuedtask", "cancel_queuedtask")
    response = client.post(page("queuedtask", add.enqueue(1, 2).id, "cancel"))
    assert response.url == changelist("queuedtask")


def test_there_is_no_button_for_what_the_state_forbids(operator):
    ready = add.enqueue(1, 2)
    assert page("queuedtask", ready.id, "force") not in text(
        operator.get(page("queuedtask", ready.id))
    )
    done = factories.succeed(ready)
    assert page("finishedtask", done.id, "retry") not in text(
        operator.get(page("finishedtask", done.id))
    )


@pytest.mark.parametrize(
    ("verb", "answer", "record", "force"),
    [
        ("cancel", "1 running task was asked to end.", "Asked to end.", False),
        (
            "force",
            "1 running task was asked to end, and is killed if it does not.",
            "Asked to end, by force.",
            True,
        ),
    ],
)
def test_a_running_task_has_two_buttons_that_ask(operator, verb, answer, record, force):
    running = add.enqueue(1, 2)
    factories.claim()
    url = page("queuedtask", running.id)
    assert f'href="{page("queuedtask", running.id, verb)}"' in text(operator.get(url))
    question = plain(text(operator.get(page("queuedtask", running.id, verb))))
    assert "It is running." in question
    assert ("its process is killed" in question) is force
    assert not Cancellation.objects.exists()
    response = operator.post(page("queuedtask", running.id, verb))
    assert said(response) == [answer]
    assert response.url == url
    assert states(running) == ["RUNNING"]
    assert Cancellation.objects.get().force is force
    assert LogEntry.objects.get().change_message == record
    content = plain(text(operator.get(url)))
    assert f"Cancelled by {operator.user.username}. ·" in content
    assert ("by force: its process is killed" in content) is force


def test_force_is_a_post_with_a_token_and_a_permission(viewer, client_with):
    running = add.enqueue(1, 2)
    factories.claim()
    url = page("queuedtask", running.id, "force")
    assert url not in text(viewer.get(page("queuedtask", running.id)))
    assert viewer.get(url).status_code == 403
    assert viewer.post(url).status_code == 403
    assert client_with("cancel_queuedtask").post(url).status_code == 403
    permitted = client_with("view_queuedtask", "cancel_queuedtask", csrf=True)
    assert permitted.get(url).status_code == 200
    assert permitted.post(url).status_code == 403
    assert not Cancellation.objects.exists()
    permitted.get(page("queuedtask", running.id))
    token = permitted.cookies["csrftoken"].value
    assert permitted.post(url, {"csrfmiddlewaretoken": token}).status_code == 302
    assert Cancellation.objects.exists()


def test_force_on_what_no_longer_runs_cancels_it(operator):
    ready = add.enqueue(1, 2)
    response = operator.post(page("queuedtask", ready.id, "force"))
    assert said(response) == ["1 task was cancelled."]
    assert states(ready) == ["CANCELLED"]
    assert LogEntry.objects.get().change_message == "Cancelled."


def test_a_request_to_end_is_told_to_each_viewer_and_runs_nothing(viewer):
    running = add.enqueue(1, 2)
    factories.claim()
    transitions.ask_to_end("default", [running.id], by="<b>bob", why="<script>too slow")
    content = text(viewer.get(page("queuedtask", running.id)))
    assert "Cancelled by &lt;b&gt;bob: &lt;script&gt;too slow" in content
    assert "<script>too slow" not in content


def test_a_button_pressed_too_late_says_so(operator):
    result = factories.succeed(add.enqueue(1, 2))
    response = operator.post(page("queuedtask", result.id, "cancel"))
    assert response.url == page("finishedtask", result.id)
    assert said(response) == ["1 was skipped: it was successful."]


@pytest.mark.parametrize("pk", ["01a20000-0000-7000-8000-000000000000", "x", "a/b", "%00"])
def test_a_button_for_no_task_says_that_there_is_none(operator, pk):
    response = operator.post(page("queuedtask", pk, "cancel"))
    assert response.url == changelist("queuedtask")
    assert "There is no task" in said(response)[0]


# The record


def test_each_verb_writes_a_log_entry(operator):
    result, other = add.enqueue(1, 2), add.enqueue(3, 4)
    act(operator, "queuedtask", "cancel", ids(result, other))
    operator.post(page("finishedtask", result.id, "retry"))
    entries = LogEntry.objects.filter(object_id=result.id).order_by("pk")
    assert [(e.change_message, e.user, e.object_repr) for e in entries] == [
        ("Cancelled.", operator.user, f"add {result.id[-8:]}"),
        ("Retried.", operator.user, f"add {result.id[-8:]}"),
    ]
    assert LogEntry.objects.filter(object_id=other.id).count() == 1


def test_the_history_goes_with_the_task(operator):
    result = add.enqueue(1, 2)
    operator.post(page("queuedtask", result.id, "cancel"))
    content = plain(text(operator.get(page("finishedtask", result.id, "history"))))
    assert "Cancelled." in content
    response = operator.get(page("queuedtask", result.id, "history"))
    assert response.url == page("finishedtask", result.id)


def test_what_is_skipped_is_not_logged(operator):
    result = factories.succeed(add.enqueue(1, 2))
    operator.post(page("queuedtask", result.id, "cancel"))
    act(operator, "finishedtask", "retry", ids(result))
    assert not LogEntry.objects.exists()


def test_an_action_costs_the_same_for_many_rows(operator):
    def cost(results):
        with CaptureQueriesContext(connection) as queries:
            act(operator, "queuedtask", "cancel", ids(*results))
        # SQLite moves row by row.
        return len(
            [
                q
                for q in queries.captured_queries
                if "INSERT INTO bgtasks" not in q["sql"] and "DELETE FROM bgtasks" not in q["sql"]
            ]
        )

    cost([add.enqueue(1, 2)])
    few = cost(add.enqueue_many([(n, n) for n in range(2)]))
    assert cost(add.enqueue_many([(n, n) for n in range(50)])) == few


@pytest.mark.django_db(transaction=True)
def test_actions_work_within_the_transaction_of_the_request(operator):
    result = add.enqueue(1, 2)
    settings = connection.settings_dict
    settings["ATOMIC_REQUESTS"] = True
    try:
        operator.post(page("queuedtask", result.id, "cancel"))
        assert states(result) == ["CANCELLED"]
        assert act(operator, "finishedtask", "retry", [result.id]) != []
        assert states(result) == ["READY"]
    finally:
        settings["ATOMIC_REQUESTS"] = False


def test_messages_are_in_the_language_of_the_viewer_and_the_log_is_not(operator):
    result = add.enqueue(1, 2)
    with override_settings(LANGUAGE_CODE="de"):
        act(operator, "queuedtask", "cancel", ids(result))
    assert LogEntry.objects.get().change_message == "Cancelled."
    assert QueuedTask.objects.count() == 0
