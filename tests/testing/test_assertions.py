"""What was enqueued: TaskTestMixin and capture_tasks()."""

from datetime import timedelta

from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.utils import timezone

from django_bgtasks import chain, previous, schedule
from django_bgtasks.exceptions import InvalidArguments
from django_bgtasks.testing import TaskTestMixin, capture_tasks, run_tasks
from tests.workflows import tasks as flows

from . import tasks

IMMEDIATE = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend", "QUEUES": []}}
DUMMY = {"default": {"BACKEND": "django_bgtasks.DummyBackend", "QUEUES": []}}


class AssertionTests(TaskTestMixin, TestCase):
    """In a plain TestCase."""

    def said_by(self, assertion, *args, **kwargs):
        with self.assertRaises(self.failureException) as raised:
            assertion(*args, **kwargs)
        return str(raised.exception)

    def test_a_task_that_was_enqueued_is_found_and_returned(self):
        result = tasks.send_receipt.enqueue(order_id=1)
        self.assertEqual(self.assertEnqueued(tasks.send_receipt, order_id=1), result)
        self.assertEqual(self.assertEnqueued(tasks.send_receipt), result)
        self.assertNotEnqueued(tasks.charge_card)

    def test_the_message_says_what_was_enqueued(self):
        tasks.send_receipt.enqueue(order_id=2)
        tasks.charge_card.enqueue(1)
        self.assertEqual(
            self.said_by(self.assertEnqueued, tasks.send_receipt, order_id=1, queue_name="emails"),
            "send_receipt(order_id=1) was not enqueued on 'emails'.\n"
            "Enqueued: send_receipt(order_id=2) on emails · charge_card(order_id=1) on default",
        )
        self.assertEqual(
            self.said_by(self.assertNotEnqueued, tasks.charge_card),
            "charge_card() was enqueued.\n"
            "Enqueued: send_receipt(order_id=2) on emails · charge_card(order_id=1) on default",
        )

    def test_the_message_says_that_nothing_was(self):
        self.assertEqual(
            self.said_by(self.assertEnqueued, tasks.charge_card, 1, priority=3),
            "charge_card(order_id=1) was not enqueued with priority=3.\nNothing was enqueued.",
        )

    def test_a_long_message_is_a_list(self):
        for number in range(5):
            tasks.send_receipt.enqueue(number)
        text = self.said_by(self.assertEnqueued, tasks.charge_card)
        self.assertEqual(len(text.splitlines()), 7)
        self.assertIn("\n  send_receipt(order_id=4) on emails", text)

    def test_hidden_arguments_are_not_shown(self):
        tasks.log_in.enqueue("ann", password="swordfish")
        text = self.said_by(self.assertEnqueued, tasks.charge_card)
        self.assertIn("name='ann'", text)
        self.assertNotIn("swordfish", text)
        self.assertEnqueued(tasks.log_in, password="swordfish")
        text = self.said_by(self.assertEnqueued, tasks.log_in, password="trout, as it was")
        self.assertNotIn("trout", text)

    def test_arguments_are_compared_by_name_as_json_has_them(self):
        tasks.send_receipt.enqueue((1, 2))
        self.assertEnqueued(tasks.send_receipt, (1, 2))
        self.assertEnqueued(tasks.send_receipt, order_id=[1, 2])
        self.assertEnqueued(tasks.send_receipt, copies=1)
        self.assertNotEnqueued(tasks.send_receipt, copies=2)

    def test_arguments_that_the_function_has_not_are_refused(self):
        with self.assertRaisesRegex(InvalidArguments, "charge_card.*order"):
            self.assertNotEnqueued(tasks.charge_card, order=1)
        with self.assertRaisesRegex(InvalidArguments, "charge_card"):
            self.assertNotEnqueued(tasks.charge_card, 1, 2)

    def test_an_argument_that_is_called_as_an_option_is_the_argument(self):
        tasks.prefers.enqueue("a queue")
        self.assertEnqueued(tasks.prefers, queue_name="a queue", priority=3)
        self.assertNotEnqueued(tasks.prefers, queue_name="default")

    def test_options_are_compared(self):
        later = timezone.now() + timedelta(hours=1)
        tasks.charge_card.using(priority=7, run_after=later, queue_name="emails").enqueue(1)
        self.assertEnqueued(
            tasks.charge_card, order_id=1, priority=7, run_after=later, queue_name="emails"
        )
        self.assertNotEnqueued(tasks.charge_card, priority=6)

    def test_what_was_rolled_back_was_not_enqueued(self):
        with self.assertRaises(KeyError), transaction.atomic():
            tasks.charge_card.enqueue(1)
            raise KeyError
        self.assertNotEnqueued(tasks.charge_card)

    def test_what_has_run_was_enqueued(self):
        tasks.enqueue_another.enqueue()
        run_tasks()
        self.assertEnqueued(tasks.note, "child", 0)
        self.assertEqual(len(self.enqueued), 2)

    def test_what_schedules_and_workflows_enqueue_is_seen(self):
        schedule("0 * * * *", name="hourly", args=["hourly"])(tasks.note)
        chain(flows.give.with_args(3), flows.show.with_args(previous)).enqueue()
        self.assertEnqueued(flows.show)
        run_tasks(until=timedelta(hours=1))
        self.assertEnqueued(tasks.note, "hourly")

    def test_a_task_for_later_is_found(self):
        tasks.charge_card.using(run_after=timedelta(days=1)).enqueue(1)
        self.assertEnqueued(tasks.charge_card)

    def test_a_block_is_captured(self):
        tasks.charge_card.enqueue(1)
        with capture_tasks() as found:
            tasks.send_receipt.enqueue(2)
        tasks.charge_card.enqueue(3)
        self.assertEqual([(r.task, r.args) for r in found], [(tasks.send_receipt, [2])])

    def test_each_test_begins_anew(self):
        self.assertEqual(self.enqueued, [])


class WithoutATransaction(TaskTestMixin, TransactionTestCase):
    def test_tasks_are_found(self):
        tasks.charge_card.enqueue(1)
        self.assertEnqueued(tasks.charge_card, 1)
        self.assertNotEnqueued(tasks.charge_card, 2)


class InSetUp(TaskTestMixin, TestCase):
    def setUp(self):
        # Without super(): nothing is lost by it.
        tasks.charge_card.enqueue(1)

    def test_what_setup_enqueues_is_seen(self):
        self.assertEnqueued(tasks.charge_card, 1)


class StandIns(TaskTestMixin, SimpleTestCase):
    """Without a database."""

    @override_settings(TASKS=IMMEDIATE)
    def test_what_ran_at_once_is_found(self):
        tasks.charge_card.enqueue(1)
        self.assertEnqueued(tasks.charge_card, 1)
        self.assertNotEnqueued(tasks.send_receipt)

    @override_settings(TASKS=DUMMY)
    def test_what_never_runs_is_found(self):
        tasks.charge_card.enqueue(1)
        self.assertEnqueued(tasks.charge_card, order_id=1)


class Debugged(TaskTestMixin, SimpleTestCase):
    def test_nothing_is_enqueued(self):
        self.assertEqual(self.enqueued, [])


def test_a_test_runs_without_a_result_too():
    """As debuggers have it."""
    Debugged("test_nothing_is_enqueued").debug()
