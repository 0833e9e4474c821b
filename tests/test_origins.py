"""Who or what enqueued a task is written to its row, where it is known, and nothing else is."""

import asyncio

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from django_bgtasks import chain, origins, task
from django_bgtasks.context import enter, leave
from django_bgtasks.middleware import OriginMiddleware
from django_bgtasks.models import FinishedTask, QueuedTask
from tests.tasks import add
from tests.workflows.driver import Driver

pytestmark = pytest.mark.django_db


@task(max_attempts=3, labels={"kind": "sum"})
def labelled(a):
    return a


@task
def enqueue_another():
    return add.enqueue(1, 2).id


def origin(result):
    options = QueuedTask.objects.get(pk=result.id).options
    return None if options is None else options.get("origin")


class User:
    is_authenticated = True
    pk = 7

    def get_username(self):
        return "ann"


class Anonymous(User):
    is_authenticated = False


def answer(view, *, user=None, path="/orders/7/"):
    request = RequestFactory().get(path)
    if user is not None:
        request.user = user
    return OriginMiddleware(view)(request)


def test_a_plain_enqueue_writes_no_options():
    assert QueuedTask.objects.get(pk=add.enqueue(1, 2).id).options is None


def test_a_task_that_is_enqueued_by_another_names_it():
    class Execution:
        class row:
            id = "01a20000-0000-7000-8000-000000000000"

    token = enter(Execution())
    try:
        one, two = add.enqueue_many([(1, 2), (3, 4)])
        other = labelled.enqueue(1)
    finally:
        leave(token)
    for result in (one, two, other):
        assert origin(result) == {"task": Execution.row.id}
    assert QueuedTask.objects.get(pk=other.id).options["labels"] == {"kind": "sum"}
    assert origin(add.enqueue(1, 2)) is None


def test_a_worker_runs_what_has_an_origin_and_gives_one(monkeypatch):
    monkeypatch.setattr("django_bgtasks.worker.execution.clean_connections", lambda *args: None)
    first = enqueue_another.enqueue()
    Driver().drain()
    first.refresh()
    second = FinishedTask.objects.get(pk=first.return_value)
    assert second.options == {"origin": {"task": first.id}}
    assert (second.status, second.return_value) == ("SUCCESSFUL", 3)


def test_a_task_that_is_enqueued_by_a_request_names_its_path_and_user():
    results = []

    def view(request):
        results.append(add.enqueue(1, 2))
        return HttpResponse()

    answer(view, user=User())
    answer(view, user=Anonymous())
    answer(view)
    assert [origin(result) for result in results] == [
        {"path": "/orders/7/", "user": "ann", "user_id": "7"},
        {"path": "/orders/7/"},
        {"path": "/orders/7/"},
    ]
    assert origin(add.enqueue(1, 2)) is None


def test_each_task_of_a_workflow_names_the_request():
    def view(request):
        chain(add.with_args(1, 2), add.with_args(3, 4)).enqueue()
        return HttpResponse()

    answer(view)
    assert [row.options["origin"] for row in QueuedTask.objects.all()] == [
        {"path": "/orders/7/"}
    ] * 2


def test_the_user_is_asked_for_only_when_something_is_enqueued():
    class Lazy:
        asked = 0

        @property
        def is_authenticated(self):
            Lazy.asked += 1
            return False

    answer(lambda request: HttpResponse(), user=Lazy())
    assert Lazy.asked == 0

    def view(request):
        add.enqueue(1, 2)
        return HttpResponse()

    answer(view, user=Lazy())
    assert Lazy.asked == 1


def test_a_user_that_can_not_be_read_keeps_nobody_from_enqueueing():
    class Broken:
        @property
        def is_authenticated(self):
            raise RuntimeError("the sessions are away")

    results = []

    def view(request):
        results.append(add.enqueue(1, 2))
        return HttpResponse()

    answer(view, user=Broken())
    assert origin(results[0]) == {"path": "/orders/7/"}


def test_what_a_stand_in_runs_is_a_part_of_the_request():
    results = []

    def view(request):
        token = enter(object())
        try:
            results.append(add.enqueue(1, 2))
        finally:
            leave(token)
        return HttpResponse()

    answer(view)
    assert origin(results[0]) == {"path": "/orders/7/"}


def test_a_path_that_no_database_stores_is_mended_and_cut():
    results = []

    def view(request):
        results.append(add.enqueue(1, 2))
        return HttpResponse()

    answer(view, path="/a%00b/" + "x" * 1000)
    assert origin(results[0])["path"] == "/a\ufffdb/" + "x" * 195


@pytest.mark.django_db(transaction=True)
def test_views_that_are_asynchronous_name_their_requests_apart():
    async def view(request):
        # Others answer meanwhile, in the same thread.
        await asyncio.sleep(0)
        return await add.aenqueue(1, 2)

    middleware = OriginMiddleware(view)

    async def both():
        make = AsyncRequestFactory().get
        return await asyncio.gather(middleware(make("/one/")), middleware(make("/two/")))

    one, two = async_to_sync(both)()
    assert (origin(one), origin(two)) == ({"path": "/one/"}, {"path": "/two/"})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["manage.py", "import_orders", "--all"], {"command": "import_orders"}),
        (["/srv/shop/manage.py", "shell"], {"command": "shell"}),
        (["/usr/bin/django-admin", "nightly"], {"command": "nightly"}),
        (["manage.py", "runserver"], None),
        (["manage.py", "runworker", "emails"], None),
        (["manage.py", "bgtasks", "bench"], None),
        (["manage.py", "test"], None),
        (["manage.py"], None),
        (["manage.py", "--version"], None),
        (["/usr/bin/gunicorn", "shop.wsgi"], None),
        ([""], None),
        ([], None),
    ],
)
def test_what_a_process_is_for_says_whether_a_command_enqueues(argv, expected):
    assert origins.command_of(argv) == expected


def test_a_task_that_is_enqueued_by_a_command_names_it(monkeypatch):
    monkeypatch.setattr(origins, "_COMMAND", {"command": "import_orders"})
    assert origin(add.enqueue(1, 2)) == {"command": "import_orders"}
    results = []
    answer(lambda request: results.append(add.enqueue(1, 2)))
    assert origin(results[0]) == {"path": "/orders/7/"}
