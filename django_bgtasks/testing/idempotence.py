"""assert_idempotent(): whether a task that is run again leaves what one run leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend import DatabaseBackend
from ..compat import task_backends
from ..definition import DatabaseTask
from ..exceptions import TaskFailed
from ..models import FinishedTask, QueuedTask
from ..results import result_of
from ..states import FinalStatus
from .clock import Clock
from .crashes import Witness, undone
from .recording import unseen
from .running import no_backend
from .slot import Callbacks, Slot, TestedExecution
from .tables import NEW, Contents, Reader, Table, differences

#: Attempts in which a run must come to its end.
MOST_ATTEMPTS = 100
#: Characters of a statement that a message shows.
SHOWN = 120


@dataclass
class _State:
    """What one past has left: tables, tasks that were enqueued, what the observer saw."""

    tables: dict[Table, Contents]
    #: Path, arguments by name or place, and queue.
    enqueued: list[tuple[str, Any, str]]
    observed: Any
    error: Exception | None

    def calls(self, keys: set[str]) -> Counter[str]:
        """Return the tasks that were enqueued in words, with NEW in the place of keys."""
        return Counter(
            f"{path}({_json(arguments, keys)}) on {queue}"
            for path, arguments, queue in self.enqueued
        )

    def differences(self, other: _State, *, by_keys: bool) -> list[str]:
        """Return what is different in other, a line each; by_keys: the keys of new rows, too."""
        mine, theirs = (
            set() if by_keys else set().union(*(c.keys for c in state.tables.values()))
            for state in (self, other)
        )
        lines = list(
            differences(
                {table: contents.without(mine) for table, contents in self.tables.items()},
                {table: contents.without(theirs) for table, contents in other.tables.items()},
            )
        )
        once, again = self.calls(mine), other.calls(theirs)
        for text in sorted({*once, *again}):
            if once[text] != again[text]:
                times = _times(again[text]), _times(once[text])
                lines.append("{} is enqueued {}, after one run {}".format(text, *times))
        return lines


def assert_idempotent(
    task: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    observe: Callable[[], Any] | None = None,
    reset: Callable[[], Any] | None = None,
    ignore: Iterable[str] = (),
) -> None:
    """
    Fail if a task that runs again leaves anything else than one run does.

    It is run once. Then, each time from the same start, its process dies after
    the first of its statements, after the second, and so on, and when all is
    done but nobody knows; and it runs again, as after a real crash. What is
    then in the tables that it wrote to, and what it has enqueued, is compared
    with what one run left. In the end all of it is undone.

    observe returns what the task did outside of the databases, to be compared;
    reset is called before each run from the start, to forget it. ignore names
    models and fields, "shop.Order" or "shop.Order.updated_at", that may differ.
    timezone.now() stands still meanwhile.

    Raise what the first run raises if that fails already, and RuntimeError
    within transaction.atomic().
    """
    _Trial(task, args, kwargs or {}, observe, reset, ignore).run()


class _Trial:
    """One task, and the pasts that it is given."""

    def __init__(
        self,
        task: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        observe: Callable[[], Any] | None,
        reset: Callable[[], Any] | None,
        ignore: Iterable[str],
    ) -> None:
        backend = task_backends[task.backend]
        if not isinstance(backend, DatabaseBackend):
            raise no_backend()
        self._name = task.func.__name__
        if isinstance(task, DatabaseTask):
            # What is not run again after a loss may be run again by hand.
            task = task.using(on_lost="retry")
        self._task, self._args, self._kwargs = task, args, kwargs
        self._observe, self._reset = observe, reset
        self._alias = backend.database
        self._reader = Reader(ignore)
        self._tables: list[Table] = []
        self._once: _State | None = None

    def run(self) -> None:
        """Compare each past with one run."""
        with Clock(frozen=True).running():
            once, statements = self._past()
            if once.error is not None:
                once.error.add_note(f"So ended one run of {self._name}().")
                raise once.error
            self._once = once
            for number, statement in enumerate(statements, 1):
                again, _ = self._past(crash_after=number)
                self._compare(again, f"after statement {number}, {_short(statement)},")
            again, _ = self._past(dies_in_the_end=True)
            self._compare(again, "after all of it, before that was written down,")

    def _past(
        self, *, crash_after: int | None = None, dies_in_the_end: bool = False
    ) -> tuple[_State, list[str]]:
        """
        Run the task from the start to its end; return what it left, and its statements.

        It dies after a statement, or when all is done, and is run again.
        """
        while True:
            if self._reset is not None:
                self._reset()
            witness = Witness(crash_after)
            with undone(), unseen():
                state = self._lived(witness, dies_in_the_end=dies_in_the_end)
            written = {t for t in witness.tables if not self._reader.is_ignored(t)}
            new = written - set(self._tables)
            if not new:
                return state, witness.statements
            # Once more: what stood there at the start has to be known.
            self._reader.start(new)
            self._tables += sorted(new)
            if self._once is not None:
                self._once.tables.update((table, self._reader.read(table)) for table in new)

    def _lived(self, witness: Witness, *, dies_in_the_end: bool) -> _State:
        slot = Slot(self._alias)
        before = set(self._rows())
        execution = slot.begin(self._task, self._args, self._kwargs)
        task_id = execution.row.id
        callbacks = Callbacks()
        slot.call(execution, witness.watching())
        if witness.crashed:
            callbacks.drop()
        else:
            callbacks.run()
        if witness.crashed or (dies_in_the_end and not execution.written):
            slot.lose(execution, "the test says so.")
        else:
            slot.finish(execution)
        with witness.watching_on():
            error = self._to_the_end(slot, execution)
        enqueued = [call for pk, call in self._rows().items() if pk not in {*before, task_id}]
        return _State(
            {table: self._reader.read(table) for table in self._tables},
            enqueued,
            None if self._observe is None else self._observe(),
            error,
        )

    def _to_the_end(self, slot: Slot, execution: TestedExecution) -> Exception | None:
        """Run all attempts of a task that was run; return what it failed with."""
        task_id = execution.row.id
        for _ in range(MOST_ATTEMPTS):
            ended = FinishedTask.objects.using(self._alias).filter(pk=task_id).first()
            if ended is not None:
                if ended.status == FinalStatus.SUCCESSFUL:
                    return None
                error = execution.exception
                return error if isinstance(error, Exception) else TaskFailed(ended.reason)
            slot.make_due(task_id)
            following = slot.claim_one(task_id)
            if following is None:
                break
            execution = following
            slot.run(execution)
        return TaskFailed(f"It has not ended after {MOST_ATTEMPTS} attempts.")

    def _rows(self) -> dict[str, tuple[str, Any, str]]:
        """Return the tasks that there are, by id, as _State has them."""
        results = [
            result_of(row)
            for model in (QueuedTask, FinishedTask)
            for row in model._default_manager.using(self._alias).all()
        ]
        return {
            result.id: (
                result.task.module_path,
                [*result.args, *([result.kwargs] if result.kwargs else [])],
                result.task.queue_name,
            )
            for result in results
        }

    def _compare(self, again: _State, when: str) -> None:
        """Raise AssertionError unless a past has left what one run left."""
        once = self._once
        assert once is not None
        lines = once.differences(again, by_keys=True)
        if lines:
            # The key of a new row may stand anywhere, as in the arguments of a task; and a
            # number that has nothing to do with it may happen to be the same.
            lines = min(lines, once.differences(again, by_keys=False), key=len)
        if again.observed != once.observed:
            lines.append(f"observe() returns {again.observed!r}, after one run {once.observed!r}")
        if again.error is not None:
            lines.append(f"it fails with {again.error!r}")
        if lines:
            listed = "\n  ".join(lines)
            raise AssertionError(
                f"{self._name}() is not idempotent. Its process died {when} and it ran again. "
                f"Then:\n  {listed}"
            )


def _short(statement: str) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _json(value: Any, keys: set[str]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_json(item, keys)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_json(item, keys) for item in value)
    return NEW if repr(value) in keys else repr(value)


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
