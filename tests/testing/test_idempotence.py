"""assert_idempotent(): tasks that may run again, and tasks that may not."""

import pytest
from django.contrib.auth.models import Group, User

from django_bgtasks.models import FinishedTask, QueuedTask
from django_bgtasks.testing import assert_idempotent, capture_tasks
from django_bgtasks.testing.crashes import _WRITES
from tests.models import Effect

from . import tasks
from .cases import IN_BOTH


@pytest.fixture
def account(request):
    """A row that tasks change; made once the test has its database."""
    request.getfixturevalue("transactional_db" if _without_transaction(request) else "db")
    return Effect.objects.create(name="account", number=10)


def _without_transaction(request):
    return bool(request.node.get_closest_marker("django_db").kwargs.get("transaction"))


def difference(*args, **kwargs):
    with pytest.raises(AssertionError) as raised:
        assert_idempotent(*args, **kwargs)
    return str(raised.value)


@IN_BOTH
def test_a_task_that_adds_is_found(in_transaction, account):
    text = difference(tasks.credit, (account.pk, 5))
    assert text.startswith("credit() is not idempotent. Its process died after statement 1, UPDATE")
    assert text.endswith(f"tests.Effect {account.pk}: number is 20, after one run 15")


@IN_BOTH
def test_a_task_that_sets_is_idempotent(in_transaction, account):
    assert_idempotent(tasks.set_number, [account.pk], {"number": 7})


@IN_BOTH
def test_nothing_is_left_of_it(in_transaction, account):
    with capture_tasks() as found:
        difference(tasks.credit, (account.pk, 5))
        assert_idempotent(tasks.make_one, ("a",))
    account.refresh_from_db()
    assert account.number == 10
    assert Effect.objects.count() == 1
    assert not QueuedTask.objects.exists()
    assert not FinishedTask.objects.exists()
    assert found == []


@IN_BOTH
def test_an_atomic_task_is_idempotent(in_transaction, account):
    assert_idempotent(tasks.credit_atomic, (account.pk, 5))


@IN_BOTH
def test_a_crash_between_two_statements_is_found(in_transaction, account):
    text = difference(tasks.credit_and_mark, (account.pk, 5))
    assert "after statement 2, UPDATE" in text
    assert f"tests.Effect {account.pk}: number is 20, after one run 15" in text


@IN_BOTH
def test_a_block_of_atomic_closes_the_gap(in_transaction, account):
    assert_idempotent(tasks.credit_and_mark_together, (account.pk, 5))


@IN_BOTH
def test_a_block_without_savepoint_is_one_piece_of_work(in_transaction, account):
    assert_idempotent(tasks.delete_and_make, ("a",))


@IN_BOTH
def test_a_row_that_is_made_twice_is_found(in_transaction, account):
    text = difference(tasks.note, ("a", 3))
    assert text.endswith("tests.Effect(name='a', number=3): 2 rows, after one run 1 row")


@IN_BOTH
def test_a_row_that_is_made_once_has_another_key_each_time(in_transaction, account):
    assert_idempotent(tasks.make_one, ("a",))


@IN_BOTH
def test_a_task_that_is_enqueued_twice_is_found(in_transaction, account):
    text = difference(tasks.enqueue_another)
    assert "tests.testing.tasks.note('child', 0) on default is enqueued twice" in text


@IN_BOTH
def test_the_key_of_a_new_row_may_be_an_argument(in_transaction, account):
    assert_idempotent(tasks.make_and_enqueue, ("a",))
    text = difference(tasks.make_and_enqueue_twice, ("a",))
    assert "is enqueued twice, after one run once" in text


@IN_BOTH
def test_a_second_run_that_fails_is_found(in_transaction, account):
    text = difference(tasks.refuse_a_second_time, ("a",))
    assert "it fails with ValueError('It is there already.')" in text


@IN_BOTH
def test_a_step_is_taken_once(in_transaction, account):
    assert_idempotent(tasks.credit_in_a_step, (account.pk, 5))


@IN_BOTH
def test_an_async_task_is_tried(in_transaction, account):
    assert "number is 20, after one run 15" in difference(tasks.credit_async, (account.pk, 5))


@IN_BOTH
def test_a_task_that_retries_is_tried_to_its_end(in_transaction, account):
    assert_idempotent(tasks.fail_twice, ("a",))


@pytest.mark.django_db
def test_what_is_outside_of_the_database_is_observed():
    assert_idempotent(tasks.tell_outside, ("a",))
    text = difference(
        tasks.tell_outside,
        ("a",),
        observe=lambda: list(tasks.outside),
        reset=tasks.outside.clear,
    )
    assert "observe() returns ['a', 'a'], after one run ['a']" in text


@pytest.mark.django_db
def test_the_time_stands_still():
    assert_idempotent(tasks.note_the_time, ("a",))


@pytest.mark.django_db
def test_models_and_fields_are_ignored_on_demand():
    account = Effect.objects.create(name="account", number=10)
    assert_idempotent(tasks.credit, (account.pk, 5), ignore=["tests.Effect.number"])
    assert_idempotent(tasks.credit, (account.pk, 5), ignore=["tests.Effect"])
    for name in ("tests.Effect.no_such", "tests.Nothing", "Effect", "nothing.Effect.number"):
        with pytest.raises(ValueError, match="neither"):
            assert_idempotent(tasks.credit, (account.pk, 5), ignore=[name])


@pytest.mark.django_db
def test_a_task_that_fails_at_once_is_raised():
    with pytest.raises(ValueError, match=r"^a\n") as raised:
        assert_idempotent(tasks.make_and_fail, ("a",))
    assert raised.value.args == ("a",)
    assert "make_and_fail" in raised.value.__notes__[0]


@pytest.mark.django_db
def test_rows_that_point_to_new_rows_are_compared():
    assert_idempotent(tasks.make_a_member, ("ann",))
    User.objects.create_user("ann")
    Group.objects.create(name="there")
    assert_idempotent(tasks.make_a_member, ("ann",))


@pytest.mark.django_db(databases=["default", "other"])
def test_all_databases_of_the_test_are_looked_at():
    account = Effect.objects.using("other").create(name="account", number=10)
    assert_idempotent(tasks.set_elsewhere, (account.pk, 5))
    assert "number is 20, after one run 15" in difference(tasks.credit_elsewhere, (account.pk, 5))
    account.refresh_from_db()
    assert account.number == 10


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ('INSERT INTO "shop_order" ("id") VALUES (1)', "shop_order"),
        ("INSERT OR IGNORE INTO shop_order VALUES (1)", "shop_order"),
        ("REPLACE INTO `shop_order` VALUES (1)", "shop_order"),
        ("\n  update shop_order SET a = 1", "shop_order"),
        ("DELETE FROM shop_order", "shop_order"),
        ("DELETE `shop_order` FROM `shop_order` INNER JOIN x ON 1", "shop_order"),
        ("WITH a AS (SELECT 1) UPDATE shop_order SET a = 1", "shop_order"),
        ("SELECT * FROM shop_order FOR UPDATE", None),
    ],
)
def test_tables_are_found_in_statements(statement, table):
    found = _WRITES.match(statement)
    assert (found and found[1]) == table
