"""The rows and the results of one enqueue: made, then written, in that order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import connections, transaction
from django.utils import timezone

from . import limits, policies, transitions, uniqueness, wakeups
from .arguments import Signature
from .context import carried_metadata
from .db import operations_for
from .definition import DatabaseTask
from .encryption import sealer
from .exceptions import DuplicateTask, InvalidArguments
from .ids import new_id
from .models.limit import LimitWait
from .models.record import TaskRecord
from .origins import known_origin
from .results import Commitment, DatabaseTaskResult, build_result, fetch_row, result_of
from .states import LiveStatus

_READY, _SCHEDULED = LiveStatus.READY.value, LiveStatus.SCHEDULED.value

Calls = Sequence[tuple[Sequence[Any], Mapping[str, Any]]]


class Batch:
    """
    Calls of one task, checked.

    results are in the order of calls; write() puts another task's result in
    the place of a call that its unique key gives away.
    """

    __slots__ = (
        "_now",
        "_operations",
        "_sealed",
        "_state",
        "commitment",
        "created",
        "database",
        "keyed",
        "later",
        "results",
        "rows",
        "task",
        "told",
    )

    results: list[DatabaseTaskResult]
    created: list[DatabaseTaskResult]

    def __init__(
        self,
        task: Any,
        calls: Calls,
        *,
        alias: str,
        database: str,
        conf: Any,
        origin: Mapping[str, Any] | None = None,
        members: Sequence[tuple[str, Mapping[str, Any]]] | None = None,
        status: str | None = None,
    ) -> None:
        """
        origin is what the rows' options have besides: "schedule" or "origin",
        "expires_at".

        members are, for each of calls, an id and what else its row's options
        have; with status all rows have this one.
        """
        self.task = task
        #: Whether workers were told of it, or need not be, by the writing itself.
        self.told = False
        self.database = database
        #: One for all: they commit together.
        self.commitment = commitment = Commitment(done=False)
        self.rows: list[Sequence[Any]] = []
        #: In the order of calls; and those whose rows are to be written, which are
        #: all but what unique keys gave away.
        self.created = self.results = results = []
        self._now = now = timezone.now()
        self._operations = operations = operations_for(database)
        ours = isinstance(task, DatabaseTask) and task.backend == alias
        signature = (
            task.signature if ours else Signature(task.func, takes_context=task.takes_context)
        )
        self.later = task.run_after is not None and task.run_after > now and status is None
        self._state = state = status or (_SCHEDULED if self.later else _READY)
        seal = sealer(conf)
        self._sealed = seal is not None
        # A plain task, enqueued by the thousand, is asked for nothing else.
        special = ours and not task.is_plain
        self.keyed = special and (bool(task.marks) or task.expires is not None)
        metadata = carried_metadata(getattr(task, "metadata", None))
        common = self._options(metadata, special=special) if special or metadata else {}
        if origin:
            common.update(origin)
        elif (known := known_origin()) is not None:
            common["origin"] = dict(known)
        options = json.dumps(common) if common else None
        fixed = self._fixed(alias)
        id_to_db, limit = operations.id_to_db, conf.max_argument_size
        own = common
        for index, (args, kwargs) in enumerate(calls):
            signature.bind(args, kwargs)
            own_args, own_kwargs, args_json, kwargs_json = signature.encode(args, kwargs, limit)
            if seal is not None:
                args_json, kwargs_json = seal(args_json), seal(kwargs_json)
            if members is None:
                task_id = new_id()
            else:
                task_id, more = members[index]
                own = {**common, **more}
                options = json.dumps(own)
            row: Sequence[Any] = (id_to_db(task_id), *fixed, options, args_json, kwargs_json)
            if self.keyed:
                row = self._marked(row, own, signature.arguments(own_args, own_kwargs))
            self.rows.append(row)
            results.append(
                build_result(
                    task=task,
                    id=task_id,
                    state=state,
                    enqueued_at=now,
                    args=own_args,
                    kwargs=own_kwargs,
                    backend=alias,
                    database=database,
                    commitment=commitment,
                )
            )

    def _options(self, metadata: Mapping[str, Any] | None, *, special: bool) -> dict[str, Any]:
        """Return what all rows have in the column options."""
        task = self.task
        common = dict(task.overrides) if special else {}
        if metadata:
            common["metadata"] = _checked_metadata(task, metadata)
        if special and task.labels:
            # Whatever becomes of the code: what a row is found by stands in the row.
            common["labels"] = dict(task.labels)
        if special and task.expires is not None and self._state != LiveStatus.WAITING:
            due = task.run_after if self.later else self._now
            common["expires_at"] = (due + timedelta(seconds=task.expires)).isoformat()
        return common

    def _fixed(self, alias: str) -> tuple[Any, ...]:
        """Return the columns that all rows share, from task_path to due_at."""
        task, to_db = self.task, self._operations.time_to_db
        run_after = to_db(task.run_after)
        return (
            task.module_path,
            task.queue_name,
            task.priority,
            -task.priority,
            alias,
            self._state,
            to_db(self._now),
            run_after,
            run_after if self.later else None,
        )

    def _marked(
        self, row: Sequence[Any], common: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> Sequence[Any]:
        """Return a row of KEYED_COLUMNS: with the keys of one call."""
        try:
            marks = self.task.marks.of(arguments, hide_all=self._sealed)
        except policies.KeyNotMade as error:
            raise InvalidArguments(f"{self.task.func.__name__}(): {error}.") from None
        options = {**common, "marks": marks} if marks else common
        limit = marks.get("concurrency") or marks.get("rate")
        fair = marks.get("fair")
        return (
            *row[:10],
            json.dumps(options) if options else None,
            *row[11:],
            fair[0] if fair else "",
            limit[0] if limit else "",
        )

    # Writing

    def write(self) -> None:
        """Insert the rows, all or none, in the caller's transaction."""
        if self.keyed:
            self._write_keyed()
        elif len(self.rows) > 1:
            with transaction.atomic(using=self.database):
                transitions.enqueue(self.database, self.rows, keyed=self.keyed)
        else:
            tell = None
            if not self.later and not connections[self.database].in_atomic_block:
                self.told = True
                queue = self.task.queue_name
                tell = queue if wakeups.is_due(self.database, queue) else None
            transitions.enqueue(self.database, self.rows, tell=tell)

    def _write_keyed(self) -> None:
        def unit() -> list[DatabaseTaskResult]:
            with self._operations.step():
                if self.task.unique is not None:
                    return self._take_keys_and_write()
                self._insert(self.rows)
                return self.results

        if connections[self.database].in_atomic_block:
            self.results = unit()
        else:
            self.results = self._operations.retrying(unit)

    def _take_keys_and_write(self) -> list[DatabaseTaskResult]:
        task = self.task
        rows: dict[str, Sequence[Any]] = {}
        made: dict[str, DatabaseTaskResult] = {}
        results = []
        for row, result in zip(self.rows, self.created, strict=True):
            mark = json.loads(row[10])["marks"]["unique"]
            claim = uniqueness.Claim(mark[0], result.id, task.unique_during, task.unique_for)
            holder = uniqueness.take(self.database, claim, earlier=made)
            if holder is None:
                rows[result.id], made[result.id] = row, result
                results.append(result)
            else:
                results.append(self._conflict(holder, mark[1], row, rows, made))
        if rows:
            self._insert(list(rows.values()))
        self.created = list(made.values())
        return results

    def claims(self) -> list[tuple[uniqueness.Claim, str, str]]:
        """Return the unique keys of the rows, with their texts and the task's name."""
        task = self.task
        found = []
        for row, result in zip(self.rows, self.created, strict=True):
            digest, text = json.loads(row[10])["marks"]["unique"]
            claim = uniqueness.Claim(digest, result.id, task.unique_during, task.unique_for)
            found.append((claim, text, task.func.__name__))
        return found

    def _insert(self, rows: Sequence[Sequence[Any]]) -> None:
        """
        Insert rows of KEYED_COLUMNS; as WAITING where others wait at their limit already.

        Those would only be claimed to be parked. What one call enqueues beyond
        its own concurrency waits from the start, too.
        """
        digests = {row[14] for row in rows if row[14]}
        if not digests or self.later:
            transitions.enqueue(self.database, rows, keyed=True)
            return
        full = limits.with_waits(self.database, digests)
        most = self.task.marks.concurrency.most if self.task.marks.concurrency else None
        ready: dict[str, int] = {}
        waiting = []
        for row in rows:
            ready[row[14]] = ready.get(row[14], 0) + 1
            if row[14] in full or (most is not None and ready[row[14]] > most):
                waiting.append(row)
        if not waiting:
            transitions.enqueue(self.database, rows, keyed=True)
            return
        late = {row[0] for row in waiting}
        transitions.enqueue(self.database, [r for r in rows if r[0] not in late], keyed=True)
        transitions.enqueue_waiting(
            self.database,
            [(*row[:6], LiveStatus.WAITING.value, *row[7:]) for row in waiting],
            [
                LimitWait(
                    task_id=self._operations.id_from_db(row[0]),
                    digest=row[14],
                    queue_name=row[2],
                    rank=row[4],
                )
                for row in waiting
            ],
        )

    def _conflict(
        self,
        holder: str,
        key: str,
        row: Sequence[Any],
        rows: dict[str, Sequence[Any]],
        made: Mapping[str, DatabaseTaskResult],
    ) -> DatabaseTaskResult:
        """Do as on_conflict says; return the result of the task that has the key."""
        how = self.task.on_conflict or "return"
        if how == "refuse":
            found = made.get(holder) or self._existing(holder)
            raise DuplicateTask(
                f"{self.task.func.__name__}(): task {holder} has the unique key {key!r} and is "
                f"{found.state.lower()}.",
                found,
            )
        if how == "replace":
            if holder in rows:
                rows[holder] = (rows[holder][0], *row[1:])
                return made[holder]
            transitions.replace(self.database, holder, self._replacement(row))
        return made.get(holder) or self._existing(holder)

    def _replacement(self, row: Sequence[Any]) -> dict[str, Any]:
        task = self.task
        return {
            "priority": task.priority,
            "rank": -task.priority,
            "queue_name": task.queue_name,
            "status": self._state,
            "run_after": task.run_after,
            "due_at": task.run_after if self.later else None,
            "options": json.loads(row[10]),
            "args": json.loads(row[11]),
            "kwargs": json.loads(row[12]),
            "fair_key": row[13],
            "limit_key": row[14],
            "reason": "",
        }

    def _existing(self, holder: str) -> DatabaseTaskResult:
        row: TaskRecord = fetch_row(holder, self.database)
        result = result_of(row)
        object.__setattr__(result, "created", False)
        return result


def _checked_metadata(task: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON holds it. Raise InvalidArguments, which names the culprit."""
    from .arguments import NotJSON, normalise

    try:
        return normalise(dict(metadata))
    except (NotJSON, RecursionError) as error:
        what = error.what if isinstance(error, NotJSON) else "is nested too deeply"
        where = "".join(f"[{step!r}]" for step in getattr(error, "path", ()))
        raise InvalidArguments(
            f"{task.func.__name__}(): metadata{where} {what}. Metadata is carried as JSON."
        ) from None
