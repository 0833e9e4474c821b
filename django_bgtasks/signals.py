"""
Signals of django_bgtasks, beside Django's task_enqueued, task_started and
task_finished. The sender is the class of the backend.

task_committed(task_result): the transaction that enqueued the task has committed.
task_retried(task_result, exception, delay): an attempt raised, another one follows
    after delay seconds.
task_released(task_ids, reason): tasks were given back unharmed.
task_rescued(task_ids, reason): tasks were taken from a process that died.
claim_lost(task_ids): outcomes were dropped, since others have the tasks by now.
worker_started(worker), worker_stopped(worker): a runworker began, ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.dispatch import Signal

task_committed = Signal()
task_retried = Signal()
task_released = Signal()
task_rescued = Signal()
claim_lost = Signal()
worker_started = Signal()
worker_stopped = Signal()


def _pk_of(instance: Any) -> Any:
    return instance.pk


def enqueue_on(
    signal: Signal,
    *,
    sender: Any = None,
    task: Any = None,
    args: Callable[[Any], Any] = _pk_of,
    created: bool | None = None,
    update_fields: Iterable[str] | None = None,
) -> Any:
    """
    Enqueue a task when a signal about a model instance is sent.

    The row is written in the transaction of the signal, so the task starts
    after the commit, and never after a rollback. A second signal about the
    same object in the same transaction enqueues nothing more. sender may be a
    model or a list of them.

    args takes the instance and returns what to pass: one value, a tuple of
    positional arguments, or a dictionary of keyword arguments; by default the
    primary key. created limits post_save to new or to old objects.
    update_fields limits it to saves that may have changed one of these fields:
    a save() without update_fields may have changed all.

    Without task, return a decorator that goes above @task. Return the task.
    """
    if task is None:
        return lambda decorated: enqueue_on(
            signal,
            sender=sender,
            task=decorated,
            args=args,
            created=created,
            update_fields=update_fields,
        )
    if not hasattr(task, "enqueue"):
        raise TypeError(
            f"enqueue_on() needs a task, not {task!r}. Put enqueue_on above @task, not below."
        )
    wanted = None if update_fields is None else frozenset(update_fields)

    def receive(sender: Any, **facts: Any) -> None:
        instance = facts.get("instance")
        if created is not None and facts.get("created") is not created:
            return
        changed = facts.get("update_fields")
        if wanted is not None and changed is not None and wanted.isdisjoint(changed):
            return
        alias = facts.get("using") or DEFAULT_DB_ALIAS
        key = (task.module_path, id(signal), type(instance), instance.pk)  # type: ignore[union-attr]
        if not _first_in_transaction(alias, key):
            return
        try:
            value = args(instance)
            if isinstance(value, dict):
                task.enqueue(**value)
            elif isinstance(value, tuple):
                task.enqueue(*value)
            else:
                task.enqueue(value)
        except BaseException:
            # Nothing was written, so this was not the first.
            connections[alias].__dict__.get("_bgtasks_seen", {}).pop(key, None)
            raise

    uid = ("django_bgtasks.enqueue_on", task.module_path, id(signal), created, wanted)
    senders = sender if isinstance(sender, list | tuple) else [sender]
    for one in senders:
        # A model may be named as a string; Django's ModelSignals resolve it.
        signal.connect(receive, sender=one, weak=False, dispatch_uid=(*uid, one))
    return task


def _first_in_transaction(alias: str, key: tuple[Any, ...]) -> bool:
    """
    Say whether key is new in the open transaction of alias, and remember it.

    The memory is a callback among those to be run on commit: Django drops it
    when a savepoint rolls back, together with the row that was written.
    """
    connection = connections[alias]
    if not connection.in_atomic_block:
        return True
    seen: dict[tuple[Any, ...], Callable[[], None]] = connection.__dict__.setdefault(
        "_bgtasks_seen", {}
    )
    if not connection.run_on_commit:
        seen.clear()
    marker = seen.get(key)
    if marker is not None and any(
        callback is marker for _, callback, *_ in reversed(connection.run_on_commit)
    ):
        return False

    def forget() -> None:
        seen.pop(key, None)

    seen[key] = forget
    transaction.on_commit(forget, using=alias, robust=True)
    return True
