"""DatabaseBackend: validate, insert, return a TaskResult."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router, transaction
from django.utils.functional import cached_property

from . import conf
from .compat import BaseTaskBackend, InvalidTask, task_enqueued
from .definition import Call, DatabaseTask, args_and_kwargs
from .exceptions import TablesMissing
from .signals import task_committed


class DatabaseBackend(BaseTaskBackend):
    """
    A backend of django.tasks whose tasks are rows of the project's database.

    Cheap to make, since @task makes one in each thread while modules are
    imported: models are imported when the first task is enqueued.
    """

    task_class = DatabaseTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)  # type: ignore[arg-type]
        self.queue_order = list(dict.fromkeys(params.get("QUEUES", ["default"])))
        self.conf = conf.Options(self.options)

    @cached_property
    def database(self) -> str:
        """The database alias of the tasks."""
        if self.conf.database:
            return self.conf.database
        from .models import QueuedTask

        return router.db_for_write(QueuedTask)

    def validate_task(self, task: Any) -> None:
        self.check_queue(task)
        super().validate_task(task)
        if "." in task.func.__qualname__:
            # A worker finds tasks in modules, not in classes.
            raise InvalidTask("Task function must be defined at a module level.")
        if len(task.module_path) > 255:
            raise InvalidTask(f"The path {task.module_path!r} is longer than 255 characters.")

    def check_queue(self, task: Any) -> None:
        """Raise InvalidTask unless the settings have the queue of a task."""
        name = task.queue_name
        if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
            raise InvalidTask(f"queue_name must have 1 to 100 printable characters, not {name!r}.")
        if self.queues and name not in self.queues:
            raise InvalidTask(
                f"Queue '{name}' is not valid for backend. Queue '{name}' is not in "
                f"TASKS[{self.alias!r}]['QUEUES'] ({', '.join(self.queue_order)})."
                f"{conf.suggestion(name, self.queues)}"
            )

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """
        Insert a row in the caller's transaction; return its result.

        Raise InvalidTask or InvalidArguments; nothing is written then.
        """
        return self._enqueue(task, [(args, kwargs)])[0]

    def enqueue_many(self, task: Any, calls: Iterable[Call]) -> list[Any]:
        """Insert a row for each of calls, all or none; return their results."""
        listed = [args_and_kwargs(call) for call in calls]
        return self._enqueue(task, listed) if listed else []

    async def aenqueue_many(self, task: Any, calls: Iterable[Call]) -> list[Any]:
        """See enqueue_many()."""
        return await sync_to_async(self.enqueue_many, thread_sensitive=True)(task, calls)

    def enqueue_as(
        self,
        task: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        origin: Mapping[str, Any],
    ) -> Any:
        """As enqueue(); origin is written to the row's options: see Batch."""
        return self._enqueue(task, [(args, kwargs)], origin)[0]

    def _enqueue(
        self,
        task: Any,
        calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]],
        origin: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        from . import wakeups
        from .batch import Batch

        if isinstance(task, DatabaseTask) and task.backend == self.alias:
            # All else was checked when the Task was made; the settings may have changed since.
            self.check_queue(task)
        else:
            self.validate_task(task)
        database = self.database
        batch = Batch(
            task, calls, alias=self.alias, database=database, conf=self.conf, origin=origin
        )

        def committed() -> None:
            batch.commitment.done = True
            if task_committed.receivers:
                for result in batch.created:
                    task_committed.send_robust(type(self), task_result=result)
            if not (batch.later or batch.told):
                wakeups.wake(database, task.queue_name)

        self.deliver(batch.write, committed, lambda: batch.created)
        return batch.results

    def deliver(
        self,
        write: Callable[[], None],
        committed: Callable[[], None],
        created: Callable[[], Sequence[Any]],
    ) -> None:
        """
        Call write in the caller's transaction, committed after its commit, send task_enqueued.

        created returns the results of what was written. Where the transaction
        is one of another database, write waits for its commit.
        """
        from . import wakeups

        database = self.database

        def write_rows() -> None:
            try:
                write()
            except DatabaseError as error:
                raise_if_tables_are_missing(error, database)
                raise

        def announce() -> None:
            wakeups.on_commit(database, committed)

        def write_after_commit() -> None:
            write_rows()
            announce()

        callers = self._callers_alias()
        if callers is None:
            write_rows()
        else:
            transaction.on_commit(write_after_commit, using=callers)
        try:
            if task_enqueued.has_listeners(type(self)):
                for result in created():
                    task_enqueued.send(type(self), task_result=result)
        finally:
            # Under autocommit too, task_committed follows task_enqueued.
            if callers is None:
                announce()

    def _callers_alias(self) -> str | None:
        """
        Return the alias of the open transaction to wait for, if it isn't that of the tasks.

        A task in another database than the data can't be part of their
        transaction: it is written when that has committed.
        """
        if len(connections.settings) == 1 or connections[self.database].in_atomic_block:
            return None
        opened = [
            connection.alias
            for connection in connections.all(initialized_only=True)
            if connection.in_atomic_block and connection.alias != self.database
        ]
        if not opened:
            return None
        return DEFAULT_DB_ALIAS if DEFAULT_DB_ALIAS in opened else opened[0]

    def get_result(self, result_id: str) -> Any:
        """Return the result of an id. Raise TaskResultDoesNotExist."""
        from .results import fetch_result

        try:
            return fetch_result(result_id, self.database)
        except DatabaseError as error:
            raise_if_tables_are_missing(error, self.database)
            raise

    def check(self, **kwargs: Any) -> list[Any]:
        from .checks import check_backend

        return check_backend(self)


def raise_if_tables_are_missing(error: DatabaseError, alias: str) -> None:
    """Raise TablesMissing, which says what to type, if that is what error means."""
    from .db import is_missing_table

    if is_missing_table(error):
        option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
        raise TablesMissing(
            f"The bgtasks tables do not exist in database {alias!r}. "
            f"Run: python manage.py migrate{option}"
        ) from error
