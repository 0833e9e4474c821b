"""The address of a progress bar: what it answers, to whom, and at which cost."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient

from django_bgtasks import chain, transitions
from django_bgtasks.ids import new_id
from django_bgtasks.models import FinishedTask, Workflow
from django_bgtasks.progress import progress_url
from django_bgtasks.progress.links import SALT, Link
from tests import factories
from tests.sample_tasks import note
from tests.workflows import tasks as workflow_tasks

from . import hooks

pytestmark = pytest.mark.django_db


@pytest.fixture
def task():
    return note.enqueue("secret-argument")


def report(result, **progress):
    """Have a worker claim result's task, which says how far it is; return the claim."""
    (claimed,) = factories.claim(limit=1)
    assert claimed.id == result.id
    notes = json.dumps({"progress": {"message": "", "at": 0, **progress}})
    assert transitions.note(result.database, (claimed.id, claimed.claim_id), notes)
    return claimed


def token_of(*payload):
    return f"/bgtasks/progress/{signing.dumps(list(payload), salt=SALT)}/"


# What it answers


def test_a_task_is_followed_from_its_enqueue_to_its_end(task, client):
    address = progress_url(task)
    assert client.get(address).json()["text"] == "Waiting to start"
    claimed = report(task, current=1, total=4)
    told = client.get(address).json()
    assert (told["state"], told["progress"]["fraction"]) == ("RUNNING", 0.25)
    factories.end(claimed)
    told = client.get(address).json()
    assert (told["text"], told["finished"], told["failed"]) == ("Done", True, False)


def test_a_failure_is_a_generic_sentence(task, client):
    factories.fail(task, "secret.Error")
    answer = client.get(progress_url(task))
    assert answer.json()["text"] == "Something went wrong"
    assert "secret" not in answer.content.decode()


def test_a_task_that_was_pruned_is_gone(task, client):
    factories.succeed(task)
    FinishedTask.objects.all().delete()
    answer = client.get(progress_url(task))
    assert answer.status_code == 410
    assert answer.json() == {"error": "gone", "text": "Not available any more"}


def test_a_workflow_is_followed_until_it_is_pruned(driver, client):
    flow = chain(workflow_tasks.give.with_args(1), workflow_tasks.add.with_args(1)).enqueue()
    address = progress_url(flow)
    driver.step()
    assert client.get(address).json()["detail"] == "1 of 2 steps"
    driver.drain()
    assert client.get(address).json()["text"] == "Done"
    Workflow.objects.all().delete()
    assert client.get(address).status_code == 410


@pytest.mark.parametrize("is_workflow", [False, True])
def test_a_backend_that_is_gone_or_keeps_nothing_has_nothing_any_more(
    is_workflow, settings, client
):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}}
    for backend in ("default", "former"):
        answer = client.get(token_of(str(new_id()), backend, None, is_workflow))
        assert answer.status_code == 410


def test_what_has_not_changed_is_not_sent_again(task, client):
    address = progress_url(task)
    first = client.get(address)
    headers = {"If-None-Match": first["ETag"]}
    same = client.get(address, headers=headers)
    assert (same.status_code, same.content) == (304, b"")
    report(task, current=1, total=4)
    other = client.get(address, headers=headers)
    assert other.status_code == 200
    assert other["ETag"] != first["ETag"]


def test_no_answer_is_stored_on_its_way(task, client):
    for address in (
        progress_url(task),
        token_of("no", "default", None, False),
        "/bgtasks/progress/x/",
    ):
        assert set(client.get(address)["Cache-Control"].split(", ")) == {"private", "no-store"}


def test_it_can_only_be_read(task, client):
    assert client.head(progress_url(task)).status_code == 200
    assert client.post(progress_url(task)).status_code == 405


def test_it_answers_where_django_is_asynchronous(task):
    answer = async_to_sync(AsyncClient().get)(progress_url(task))
    assert answer.json()["text"] == "Waiting to start"


def test_a_site_that_asks_everybody_to_sign_in_sends_no_form(task, client, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    assert client.get(progress_url(task)).status_code == 200


# At which cost


def test_a_live_task_costs_one_query_and_a_finished_one_two(
    task, client, django_assert_num_queries
):
    address = progress_url(task)
    with django_assert_num_queries(1):
        client.get(address)
    factories.succeed(task)
    with django_assert_num_queries(2):
        client.get(address)


def test_a_workflow_costs_two_queries_and_a_finished_one_one(
    driver, client, django_assert_num_queries
):
    flow = chain(workflow_tasks.give.with_args(1), workflow_tasks.add.with_args(1)).enqueue()
    address = progress_url(flow)
    with django_assert_num_queries(2):
        client.get(address)
    driver.drain()
    with django_assert_num_queries(1):
        client.get(address)


def test_of_a_user_only_session_and_account_are_read_besides(
    task, signed_in, django_assert_num_queries
):
    ann = signed_in("ann")
    with django_assert_num_queries(3):
        ann.get(progress_url(task, user=ann.user))


def test_a_wrong_token_costs_nothing(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        client.get("/bgtasks/progress/wrong/")


# To whom


def test_a_link_for_a_user_is_for_no_other(task, signed_in, client):
    ann, eve = signed_in("ann"), signed_in("eve")
    address = progress_url(task, user=ann.user)
    assert ann.get(address).status_code == 200
    for other in (eve, client):
        assert other.get(address).status_code == 404


def test_a_link_for_nobody_is_for_whoever_has_it(task, signed_in, client):
    ann = signed_in("ann")
    for address in (progress_url(task), progress_url(task, user=AnonymousUser())):
        assert client.get(address).status_code == 200
        assert ann.get(address).status_code == 200


def test_a_link_for_a_user_is_for_nobody_where_there_are_no_users(task, rf):
    from django_bgtasks.progress.views import progress

    link = Link(task.id, "default", "1", False)
    assert progress(rf.get("/"), link.token).status_code == 404


def test_a_stranger_learns_nothing_not_even_that_there_is_a_task(task, signed_in, client):
    ann = signed_in("ann")
    good = progress_url(task, user=ann.user)
    pruned = token_of(str(new_id()), "default", str(ann.user.pk), False)
    token = good.split("/")[3]
    body, rest = token.split(":", 1)
    forged = signing.dumps([task.id, "default", None, False], salt="another", key="guessed")
    addresses = [
        good,
        pruned,
        f"/bgtasks/progress/{token[:-1]}{'A' if token[-1] != 'A' else 'B'}/",
        f"/bgtasks/progress/{body[:-2]}AA:{rest}/",
        f"/bgtasks/progress/{forged}/",
        f"/bgtasks/progress/{task.id}/",
        "/bgtasks/progress/é:\x00:/",
        token_of("of another version"),
        token_of(),
    ]
    answers = {(a.status_code, a.content) for a in map(client.get, addresses)}
    assert answers == {
        (404, b'{"error": "not_found", "text": "There is nothing here that you may see."}')
    }


def test_a_link_is_good_for_a_time(task, client, options, monkeypatch):
    address = progress_url(task)
    options(PROGRESS_MAX_AGE=60)
    assert client.get(address).status_code == 200
    stamp = signing.time.time()
    monkeypatch.setattr(signing.time, "time", lambda: stamp + 61)
    late = client.get(address)
    assert (late.status_code, late.json()["error"]) == (410, "expired")
    options(PROGRESS_MAX_AGE=None)
    assert client.get(address).status_code == 200


def test_a_new_secret_key_lets_old_links_live_as_long_as_its_fallback(task, client, settings):
    address = progress_url(task)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["tests"]
    assert client.get(address).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert client.get(address).status_code == 404


@pytest.mark.parametrize("rule", ["is_ann", "is_ann_too"])
def test_the_projects_rule_takes_the_place_of_ours(rule, task, signed_in, client, options):
    options(PROGRESS_PERMISSION=f"tests.progress.hooks.{rule}")
    ann, bob = signed_in("ann"), signed_in("bob")
    for address in (progress_url(task, user=bob.user), progress_url(task)):
        assert ann.get(address).status_code == 200
        assert bob.get(address).status_code == 404


def test_the_projects_rule_is_given_the_request_and_the_result(task, signed_in, options):
    options(PROGRESS_PERMISSION="tests.progress.hooks.is_ann")
    hooks.asked.clear()
    ann = signed_in("ann")
    ann.get(progress_url(task))
    ((request, result),) = hooks.asked
    assert (request.user, result.id, result.args) == (ann.user, task.id, ["secret-argument"])


def test_a_rule_that_breaks_lets_nobody_see(task, client, options):
    options(PROGRESS_PERMISSION="tests.progress.hooks.breaks")
    with pytest.raises(RuntimeError):
        client.get(progress_url(task))


def test_the_project_may_tell_more(task, client, options):
    factories.succeed(task, {"rows": 5})
    assert "result" not in client.get(progress_url(task)).json()
    options(PROGRESS_DETAILS="tests.progress.hooks.value")
    assert client.get(progress_url(task)).json()["result"] == {"rows": 5}


def test_the_project_may_explain_a_failure_and_not_deny_it(task, client, options):
    factories.fail(task)
    options(PROGRESS_DETAILS="tests.progress.hooks.value")
    told = client.get(progress_url(task)).json()
    assert (told["text"], told["state"], told["failed"]) == ("The file is empty.", "FAILED", True)


def test_a_project_without_the_addresses_is_told_what_to_type(task, settings):
    settings.ROOT_URLCONF = "tests.progress.no_urls"
    with pytest.raises(ImproperlyConfigured, match=r'path\("bgtasks/", include'):
        progress_url(task)
