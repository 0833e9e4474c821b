"""A task exists exactly if the transaction that enqueued it commits."""

import threading
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.db import OperationalError, connections, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import Signal
from django.http import HttpResponse
from django.test import Client, TestCase
from django.urls import path

from django_bgtasks import enqueue_on, task_committed, task_enqueued, wakeups
from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.compat import TaskResultDoesNotExist, task_backends
from django_bgtasks.db import operations_for
from django_bgtasks.exceptions import InvalidArguments, WaitInTransaction, WaitTimeout
from django_bgtasks.models import QueuedTask
from tests import factories
from tests.sample_tasks import answer, note, take
from tests.sessions import committed_finished_ids, committed_ids, is_committed

DATABASE = "django_bgtasks.DatabaseBackend"


class Deliberate(Exception):
    """What the tests raise to leave a block."""


@contextmanager
def rolled_back(using="default"):
    """Run a block in a transaction, or in a savepoint, that an exception ends."""
    with pytest.raises(Deliberate), transaction.atomic(using=using):  # noqa: PT012
        yield
        raise Deliberate


# Views of the test of ATOMIC_REQUESTS.


def enqueue_and_answer(request):
    note.enqueue("answered")
    return HttpResponse(str(len(committed_ids())))


def enqueue_and_raise(request):
    note.enqueue("raised")
    raise Deliberate


urlpatterns = [path("answers/", enqueue_and_answer), path("raises/", enqueue_and_raise)]


@pytest.fixture
def committed():
    """The results that task_committed was sent for, in order."""
    seen = []

    def receive(sender, task_result, **kwargs):
        assert sender is DatabaseBackend
        seen.append(task_result.id)

    task_committed.connect(receive)
    yield seen
    task_committed.disconnect(receive)


# One database


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "enqueue",
    [
        lambda: note.enqueue(1),
        lambda: async_to_sync(note.aenqueue)(1),
        lambda: note.enqueue_many([(1,)])[0],
        lambda: note.enqueue_many([(1,), (2,)])[0],
        lambda: async_to_sync(note.aenqueue_many)([(1,), (2,)])[0],
    ],
    ids=["enqueue", "aenqueue", "enqueue_many of one", "enqueue_many", "aenqueue_many"],
)
class TestOneDatabase:
    def test_a_task_is_invisible_to_others_until_the_commit(self, enqueue):
        with transaction.atomic():
            result = enqueue()
            assert note.get_result(result.id) == result
            assert not is_committed(result)
        assert is_committed(result)

    def test_a_task_vanishes_with_a_rollback(self, enqueue):
        with rolled_back():
            result = enqueue()
        assert committed_ids() == set()
        with pytest.raises(TaskResultDoesNotExist):
            result.refresh()

    def test_a_task_vanishes_with_the_rollback_of_its_savepoint(self, enqueue):
        with transaction.atomic():
            before = note.enqueue(0)
            with rolled_back():
                inside = enqueue()
            with pytest.raises(TaskResultDoesNotExist):
                inside.refresh()
        assert committed_ids() == {before.id.replace("-", "")}

    def test_a_released_savepoint_still_depends_on_the_transaction(self, enqueue):
        with rolled_back():
            with transaction.atomic():
                enqueue()
            assert QueuedTask.objects.exists()
        assert committed_ids() == set()

    def test_without_a_transaction_a_task_is_committed_at_once(self, enqueue):
        assert is_committed(enqueue())


@pytest.mark.django_db(transaction=True)
def test_no_worker_can_claim_a_task_before_the_commit():
    claimed = []

    def work():
        try:
            claimed.append(len(factories.claim()))
        finally:
            connections.close_all()

    def run_worker():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with transaction.atomic():
        result = note.enqueue(1)
        run_worker()
    run_worker()
    result.refresh()
    assert claimed == [0, 1]
    assert result.status == "RUNNING"


@pytest.mark.django_db(transaction=True)
def test_the_data_and_the_task_commit_together():
    with rolled_back():
        Group.objects.create(name="editors")
        note.enqueue(1)
    assert not Group.objects.exists()
    with transaction.atomic():
        Group.objects.create(name="editors")
        result = note.enqueue(1)
    assert Group.objects.exists()
    assert is_committed(result)


@pytest.mark.django_db(transaction=True)
def test_a_refused_call_leaves_the_transaction_usable():
    with transaction.atomic():
        with pytest.raises(InvalidArguments):
            note.enqueue({1})
        result = note.enqueue(1)
    assert is_committed(result)


@pytest.mark.django_db(transaction=True)
def test_cancel_in_a_transaction_is_undone_by_its_rollback():
    result = note.enqueue(1)
    with rolled_back():
        assert result.cancel()
        assert committed_finished_ids() == set()
    assert is_committed(result)
    assert committed_finished_ids() == set()


# ATOMIC_REQUESTS


@pytest.fixture
def atomic_requests(settings, monkeypatch, transactional_db):
    settings.ROOT_URLCONF = "tests.test_commit_safety"
    settings.MIDDLEWARE = []
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    return Client(raise_request_exception=False)


def test_a_view_that_answers_commits_its_task(atomic_requests):
    response = atomic_requests.get("/answers/")
    assert response.content == b"0"
    assert len(committed_ids()) == 1


def test_a_view_that_raises_enqueues_nothing(atomic_requests):
    assert atomic_requests.get("/raises/").status_code == 500
    assert committed_ids() == set()


def test_without_atomic_requests_the_task_of_a_view_that_raises_stays(atomic_requests, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", False)
    assert atomic_requests.get("/raises/").status_code == 500
    assert len(committed_ids()) == 1


# task_committed


@pytest.mark.django_db(transaction=True)
def test_task_committed_follows_the_commit_once(committed):
    with transaction.atomic():
        result = note.enqueue(1)
        with transaction.atomic():
            inner = note.enqueue(2)
        assert committed == []
    assert committed == [result.id, inner.id]


@pytest.mark.django_db(transaction=True)
def test_task_committed_is_sent_for_each_of_many(committed):
    with transaction.atomic():
        results = note.enqueue_many([(1,), (2,), (3,)])
        assert committed == []
    assert committed == [result.id for result in results]


@pytest.mark.django_db(transaction=True)
def test_task_committed_is_sent_at_once_without_a_transaction(committed):
    result = note.enqueue(1)
    assert committed == [result.id]


@pytest.mark.django_db(transaction=True)
def test_task_committed_never_follows_a_rollback(committed):
    with rolled_back():
        note.enqueue(1)
    with transaction.atomic(), rolled_back():
        note.enqueue(2)
    assert committed == []


@pytest.mark.django_db(transaction=True)
def test_a_row_is_visible_to_others_when_task_committed_is_sent():
    seen = []

    def receive(sender, task_result, **kwargs):
        seen.append(is_committed(task_result))

    task_committed.connect(receive)
    try:
        with transaction.atomic():
            note.enqueue(1)
        note.enqueue(2)
    finally:
        task_committed.disconnect(receive)
    assert seen == [True, True]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("in_transaction", [True, False])
def test_task_enqueued_comes_before_task_committed(in_transaction):
    order = []

    def enqueued(**kwargs):
        order.append("enqueued")

    def committed(**kwargs):
        order.append("committed")

    task_enqueued.connect(enqueued)
    task_committed.connect(committed)
    try:
        if in_transaction:
            with transaction.atomic():
                note.enqueue(1)
        else:
            note.enqueue(1)
    finally:
        task_enqueued.disconnect(enqueued)
        task_committed.disconnect(committed)
    assert order == ["enqueued", "committed"]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_of_task_enqueued_that_raises_can_abort_the_transaction(committed):
    def receive(**kwargs):
        raise Deliberate

    task_enqueued.connect(receive)
    try:
        with pytest.raises(Deliberate), transaction.atomic():
            note.enqueue(1)
        assert committed_ids() == set()
        assert committed == []
        with pytest.raises(Deliberate):
            note.enqueue(2)
    finally:
        task_enqueued.disconnect(receive)
    assert len(committed_ids()) == len(committed) == 1


@pytest.mark.django_db(transaction=True)
def test_a_receiver_of_task_committed_that_raises_harms_nobody(committed, caplog):
    def receive(**kwargs):
        raise Deliberate

    called = []
    task_committed.connect(receive)
    try:
        with transaction.atomic():
            note.enqueue(1)
            transaction.on_commit(lambda: called.append("later callback"))
    finally:
        task_committed.disconnect(receive)
    assert called == ["later callback"]
    assert len(committed) == 1
    assert "Deliberate" in caplog.text


# Waiting for a task


@pytest.mark.django_db(transaction=True)
def test_waiting_in_the_transaction_of_the_enqueue_is_refused():
    text = (
        "This task was enqueued in the transaction that is still open, so no worker can see it. "
        "Wait after the block ends."
    )
    with transaction.atomic():
        result = note.enqueue(1)
        with pytest.raises(WaitInTransaction) as caught:
            result.get(timeout=60)
        assert str(caught.value) == text
        with transaction.atomic(), pytest.raises(WaitInTransaction):
            result.get()
        with pytest.raises(WaitInTransaction):
            async_to_sync(result.aget)()
    factories.succeed(result, 3)
    assert result.get() == 3


@pytest.mark.django_db(transaction=True)
def test_waiting_in_a_later_transaction_is_possible():
    result = note.enqueue(1)
    factories.succeed(result, "value")
    with transaction.atomic():
        assert result.get() == "value"
        assert note.get_result(result.id).get(timeout=0) == "value"


@pytest.mark.django_db(transaction=True)
def test_waiting_in_a_later_transaction_gives_up_like_anywhere():
    with transaction.atomic():
        inside = note.enqueue(1)
    outside = note.enqueue(2)
    (third, fourth) = note.enqueue_many([(3,), (4,)])
    with transaction.atomic():
        for result in (inside, outside, third, fourth):
            with pytest.raises(WaitTimeout):
                result.get(timeout=0)


# Workers of the same process


@pytest.fixture
def woken(monkeypatch):
    """The queues that workers were told of."""
    told = []
    monkeypatch.setattr(wakeups, "_last", {})
    operations = operations_for("default")
    monkeypatch.setattr(operations, "notify", told.extend, raising=False)

    def insert_and_notify(rows, queue):
        operations.insert(rows)
        told.append(queue)

    monkeypatch.setattr(operations, "insert_and_notify", insert_and_notify, raising=False)
    return told


@pytest.mark.django_db(transaction=True)
def test_workers_are_told_of_a_task_after_the_commit(woken):
    with transaction.atomic():
        note.using(queue_name="emails").enqueue(1)
        assert woken == []
    assert woken == ["emails"]
    note.enqueue(2)
    assert woken == ["emails", "default"]


@pytest.mark.django_db(transaction=True)
def test_workers_are_told_nothing_of_a_rollback_nor_of_a_later_task(woken):
    with rolled_back():
        note.enqueue(1)
    note.using(delay=60).enqueue(2)
    assert woken == []


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_cannot_be_told_does_no_harm_to_the_commit(monkeypatch):
    def fail(queues):
        raise OperationalError("The server is away.")

    called = []
    monkeypatch.setattr(wakeups, "_last", {})
    monkeypatch.setattr(operations_for("default"), "notify", fail, raising=False)
    with transaction.atomic():
        result = note.enqueue(1)
        transaction.on_commit(lambda: called.append("later callback"))
    assert called == ["later callback"]
    assert is_committed(result)


@pytest.mark.django_db(transaction=True)
def test_workers_are_told_at_most_once_in_an_interval(woken):
    for _ in range(5):
        note.enqueue(1)
    assert woken == ["default"]


# django.test.TestCase


class TestsOfAProject(TestCase):
    databases = {"default"}

    def test_rows_are_visible_within_the_test(self):
        result = note.enqueue(1)
        assert note.get_result(result.id) == result
        assert committed_ids() == set()

    def test_rows_of_another_test_are_gone(self):
        assert not QueuedTask.objects.exists()
        note.enqueue(1)
        assert QueuedTask.objects.count() == 1

    def test_task_committed_is_sent_when_callbacks_are_captured(self):
        seen = []

        def receive(sender, task_result, **kwargs):
            seen.append(task_result.id)

        task_committed.connect(receive)
        self.addCleanup(task_committed.disconnect, receive)
        note.enqueue(0)
        with self.captureOnCommitCallbacks(execute=True):
            result = note.enqueue(1)
            self.assertEqual(seen, [])
        self.assertEqual(seen, [result.id])

    def test_a_rollback_within_the_test_takes_the_rows_with_it(self):
        with self.assertRaises(Deliberate), transaction.atomic():
            note.enqueue(1)
            raise Deliberate
        self.assertFalse(QueuedTask.objects.exists())

    def test_the_value_of_a_task_that_has_finished_can_be_asked_for(self):
        result = note.enqueue(1)
        with self.assertRaises(WaitInTransaction):
            result.get()
        factories.succeed(note.get_result(result.id), "value")
        self.assertEqual(result.get(), "value")

    def test_cancel_and_retry_work(self):
        result = note.enqueue(1)
        self.assertTrue(result.cancel())
        result.retry()
        self.assertEqual(result.state, "READY")


# Tasks in a database of their own


@pytest.fixture
def second_database(settings):
    settings.TASKS = {
        "default": {
            "BACKEND": DATABASE,
            "QUEUES": ["default", "emails", "reports"],
            "OPTIONS": {"DATABASE": "other"},
        }
    }


@pytest.mark.usefixtures("second_database")
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestSecondDatabase:
    def test_the_option_says_where_the_rows_are(self):
        result = note.enqueue(1)
        assert task_backends["default"].database == "other"
        assert result.database == "other"
        assert is_committed(result)
        assert committed_ids("default") == set()
        assert note.get_result(result.id) == result

    def test_a_task_is_written_when_the_transaction_of_the_data_commits(self, committed):
        with transaction.atomic():
            result = note.enqueue(1)
            assert len(result.id) == 36
            assert committed_ids("other") == set()
            assert not QueuedTask.objects.using("other").exists()
            assert committed == []
        assert is_committed(result)
        assert committed == [result.id]
        result.refresh()
        assert result.status == "READY"

    def test_a_task_vanishes_with_the_rollback_of_the_data(self, committed):
        with rolled_back():
            note.enqueue(1)
        with transaction.atomic(), rolled_back():
            note.enqueue_many([(1,), (2,)])
        assert committed_ids("other") == set()
        assert committed == []

    def test_many_tasks_are_written_together(self, committed):
        with transaction.atomic():
            results = note.enqueue_many([(1,), (2,)])
            assert committed_ids("other") == set()
        assert len(committed_ids("other")) == 2
        assert committed == [result.id for result in results]

    def test_a_transaction_of_the_tasks_database_is_waited_for_as_any(self):
        with rolled_back(using="other"):
            result = note.enqueue(1)
            assert note.get_result(result.id) == result
        assert committed_ids("other") == set()

    def test_waiting_before_the_commit_is_refused(self):
        with transaction.atomic():
            result = note.enqueue(1)
            with pytest.raises(WaitInTransaction):
                result.get()
        factories.succeed(result, 5)
        assert result.get() == 5

    def test_a_result_that_is_not_written_yet_cannot_be_found(self):
        with transaction.atomic():
            result = note.enqueue(1)
            with pytest.raises(TaskResultDoesNotExist):
                note.get_result(result.id)
        assert note.get_result(result.id) == result

    def test_waiting_for_what_was_rolled_back_says_that_it_is_not_there(self):
        with rolled_back():
            result = note.enqueue(1)
        with pytest.raises(TaskResultDoesNotExist):
            result.get()

    def test_arguments_are_those_of_the_call_and_not_of_the_commit(self):
        given = {"amount": 1}
        with transaction.atomic():
            note.enqueue(given)
            given["amount"] = 2
        assert QueuedTask.objects.using("other").get().args == [{"amount": 1}]

    def test_a_refused_call_is_refused_at_once(self):
        with transaction.atomic(), pytest.raises(InvalidArguments):
            note.enqueue({1})
        assert committed_ids("other") == set()


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_data_of_another_database_are_waited_for_as_well():
    with rolled_back(using="other"):
        note.enqueue(1)
    assert committed_ids() == set()
    with transaction.atomic(using="other"):
        result = note.enqueue(1)
        assert committed_ids() == set()
    assert is_committed(result)


# enqueue_on


@contextmanager
def connected(signal, **options):
    """Connect enqueue_on for the length of a block."""
    before = list(signal.receivers)
    returned = enqueue_on(signal, **options)
    try:
        yield returned
    finally:
        signal.receivers = before
        with signal.lock:
            signal.sender_receivers_cache.clear()


def arguments():
    """Return the arguments of all tasks in the order of their enqueue."""
    return [row.args if not row.kwargs else row.kwargs for row in QueuedTask.objects.order_by("id")]


@pytest.mark.django_db(transaction=True)
class TestEnqueueOn:
    def test_a_saved_object_enqueues_its_primary_key(self):
        with connected(post_save, sender=Group, task=note) as returned:
            group = Group.objects.create(name="editors")
        assert returned is note
        assert arguments() == [[group.pk]]

    def test_many_saves_of_an_object_in_one_transaction_enqueue_once(self):
        with connected(post_save, sender=Group, task=note):
            with transaction.atomic():
                group = Group.objects.create(name="editors")
                group.save()
                with transaction.atomic():
                    Group.objects.get(pk=group.pk).save()
            assert arguments() == [[group.pk]]
            with transaction.atomic():
                group.save()
            assert arguments() == [[group.pk]] * 2

    def test_each_object_has_its_own_task(self):
        with connected(post_save, sender=Group, task=note), transaction.atomic():
            one = Group.objects.create(name="one")
            two = Group.objects.create(name="two")
        assert arguments() == [[one.pk], [two.pk]]

    def test_objects_of_two_models_with_the_same_key_are_two(self):
        with connected(post_save, sender=[Group, User], task=note), transaction.atomic():
            Group.objects.create(pk=7, name="seven")
            User.objects.create(pk=7, username="seven")
        assert arguments() == [[7], [7]]

    def test_two_tasks_on_one_signal_are_both_enqueued(self):
        with (
            connected(post_save, sender=Group, task=note),
            connected(post_save, sender=Group, task=take),
            transaction.atomic(),
        ):
            Group.objects.create(name="editors").save()
        names = sorted(row.task_name for row in QueuedTask.objects.all())
        assert names == ["note", "take"]

    def test_two_signals_about_an_object_are_both_heard(self):
        with (
            connected(post_save, sender=Group, task=note),
            connected(post_delete, sender=Group, task=note, args=lambda group: "deleted"),
            transaction.atomic(),
        ):
            group = Group.objects.create(name="editors")
            pk = group.pk
            group.delete()
        assert arguments() == [[pk], ["deleted"]]

    def test_nothing_is_enqueued_by_a_rollback(self):
        with (
            connected(post_save, sender=Group, task=note),
            rolled_back(),
        ):
            Group.objects.create(name="editors")
        assert committed_ids() == set()

    def test_a_save_after_a_rollback_enqueues_again(self):
        with connected(post_save, sender=Group, task=note):
            group = Group.objects.create(name="editors")
            QueuedTask.objects.all().delete()
            with rolled_back():
                group.save()
            with transaction.atomic():
                group.save()
        assert arguments() == [[group.pk]]

    def test_a_save_after_the_rollback_of_the_savepoint_of_the_first_enqueues(self):
        group = Group.objects.create(name="editors")
        with connected(post_save, sender=Group, task=note), transaction.atomic():
            with rolled_back():
                group.save()
            assert arguments() == []
            group.save()
            group.save()
        assert arguments() == [[group.pk]]

    def test_that_holds_beside_other_callbacks_of_the_transaction(self):
        group, other = [Group.objects.create(name=name) for name in ("editors", "authors")]
        with connected(post_save, sender=Group, task=note), transaction.atomic():
            transaction.on_commit(lambda: None)
            other.save()
            with rolled_back():
                group.save()
            group.save()
            other.save()
        assert arguments() == [[other.pk], [group.pk]]

    def test_a_rolled_back_second_save_leaves_the_task_of_the_first(self):
        group = Group.objects.create(name="editors")
        with connected(post_save, sender=Group, task=note), transaction.atomic():
            group.save()
            with rolled_back():
                group.save()
            group.save()
        assert arguments() == [[group.pk]]

    def test_each_save_without_a_transaction_enqueues(self):
        group = Group.objects.create(name="editors")
        with connected(post_save, sender=Group, task=note):
            group.save()
            group.save()
        assert arguments() == [[group.pk]] * 2

    def test_created_limits_to_new_or_to_old_objects(self):
        with connected(post_save, sender=Group, task=note, created=True):
            group = Group.objects.create(name="editors")
            group.save()
        assert arguments() == [[group.pk]]
        QueuedTask.objects.all().delete()
        with connected(post_save, sender=Group, task=note, created=False):
            old = Group.objects.create(name="old")
            assert arguments() == []
            old.save()
        assert arguments() == [[old.pk]]

    def test_update_fields_limits_to_saves_that_may_have_changed_them(self):
        user = User.objects.create(username="ann")
        with connected(post_save, sender=User, task=note, update_fields=["email", "username"]):
            user.save(update_fields=["first_name"])
            assert arguments() == []
            user.save(update_fields=["first_name", "email"])
            assert arguments() == [[user.pk]]
            user.save()
            assert arguments() == [[user.pk]] * 2

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda group: group.name, ["editors"]),
            (lambda group: (group.name,), ["editors"]),
            (lambda group: ((group.name, 1),), [["editors", 1]]),
            (lambda group: [group.name, 1], [["editors", 1]]),
            (lambda group: {"value": group.name}, {"value": "editors"}),
            (lambda group: None, [None]),
        ],
    )
    def test_args_makes_the_arguments(self, make, expected):
        with connected(post_save, sender=Group, task=note, args=make):
            Group.objects.create(name="editors")
        assert arguments() == [expected]

    def test_an_empty_tuple_calls_a_task_without_arguments(self):
        with connected(post_save, sender=Group, task=answer, args=lambda group: ()):
            Group.objects.create(name="editors")
        assert arguments() == [[]]

    def test_a_sender_may_be_named_as_a_string(self):
        with connected(post_save, sender="auth.Group", task=note):
            group = Group.objects.create(name="editors")
            User.objects.create(username="ann")
        assert arguments() == [[group.pk]]

    def test_other_senders_are_not_heard(self):
        with connected(post_save, sender=[User], task=note):
            Group.objects.create(name="editors")
        assert arguments() == []

    def test_without_a_sender_all_are_heard(self):
        with connected(post_save, task=note, args=lambda instance: type(instance).__name__):
            Group.objects.create(name="editors")
            User.objects.create(username="ann")
        assert arguments() == [["Group"], ["User"]]

    def test_as_a_decorator_it_returns_the_task(self):
        before = list(post_save.receivers)
        try:
            assert enqueue_on(post_save, sender=Group)(note) is note
            group = Group.objects.create(name="editors")
        finally:
            post_save.receivers = before
            with post_save.lock:
                post_save.sender_receivers_cache.clear()
        assert arguments() == [[group.pk]]

    def test_connecting_twice_enqueues_once(self):
        with (
            connected(post_save, sender=Group, task=note),
            connected(post_save, sender=Group, task=note),
        ):
            group = Group.objects.create(name="editors")
        assert arguments() == [[group.pk]]

    def test_changes_of_a_relation_are_heard(self):
        user = User.objects.create(username="ann")
        group = Group.objects.create(name="editors")
        with connected(m2m_changed, sender=User.groups.through, task=note):
            user.groups.add(group)
        assert arguments() == [[user.pk]]

    def test_a_function_that_is_no_task_is_refused(self):
        with pytest.raises(TypeError, match="Put enqueue_on above @task, not below"):
            enqueue_on(post_save, sender=Group)(note.func)

    def test_an_enqueue_that_was_refused_does_not_count_as_the_first(self):
        values = iter([{1}, "stored"])
        with (
            connected(post_save, sender=Group, task=note, args=lambda group: next(values)),
            transaction.atomic(),
        ):
            with pytest.raises(InvalidArguments):
                Group(name="editors").save()
            Group.objects.get(name="editors").save()
        assert arguments() == [["stored"]]

    def test_a_signal_of_ones_own_about_an_object_is_heard(self):
        paid = Signal()
        user = User.objects.create(username="ann")
        with connected(paid, task=note), transaction.atomic():
            paid.send(sender=None, instance=user)
            paid.send(sender=None, instance=user)
        assert arguments() == [[user.pk]]


class EnqueueOnInTestCase(TestCase):
    def test_a_save_after_the_captured_commit_enqueues_again(self):
        with connected(post_save, sender=Group, task=note):
            with self.captureOnCommitCallbacks(execute=True):
                group = Group.objects.create(name="editors")
                group.save()
            self.assertEqual(arguments(), [[group.pk]])
            with self.captureOnCommitCallbacks(execute=True):
                group.save()
            self.assertEqual(arguments(), [[group.pk]] * 2)


@pytest.mark.usefixtures("second_database")
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_enqueue_on_waits_for_the_data_when_tasks_have_their_own_database():
    with connected(post_save, sender=Group, task=note):
        with rolled_back():
            Group.objects.create(name="editors")
        assert committed_ids("other") == set()
        with transaction.atomic():
            Group.objects.create(name="editors").save()
            assert committed_ids("other") == set()
        assert len(committed_ids("other")) == 1
