"""
What a schedule says, checked in one place for code, settings, form and command.

Without models, since tasks modules are imported before those may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings

from .. import policies, registry
from ..arguments import Signature
from ..compat import DEFAULT_TASK_BACKEND_ALIAS, InvalidTask, InvalidTaskBackend, task_backends
from ..conf import Options, suggestion
from ..definition import DatabaseTask
from ..exceptions import InvalidArguments, InvalidSchedule, UnknownTask
from ..timetables import (
    OUT_OF_REACH,
    Once,
    Timetable,
    TimetableError,
    is_within_reach,
    read,
    zone_of,
)

MISSED = ("skip", "once", "all")
OVERLAP = ("allow", "skip", "queue", "cancel")
MAX_NAME = 150


@dataclass(frozen=True)
class Specification:
    """
    One schedule, as somebody wrote it down. Durations are in seconds.

    when is a text that timetables.read() understands; task is the path of a
    module-level Task; queue_name, priority: None is the task's own.
    """

    name: str
    task: str
    when: str
    tz: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    backend: str = DEFAULT_TASK_BACKEND_ALIAS
    queue_name: str | None = None
    priority: int | None = None
    missed: str = "once"
    overlap: str = "skip"
    start: datetime | None = None
    end: datetime | None = None
    max_runs: int | None = None
    jitter: float = 0.0
    expires: float | None = None
    success_within: float | None = None
    enabled: bool = True

    @classmethod
    def of(cls, *, name: Any, task: Any, when: Any, **options: Any) -> Specification:
        """
        Return what is given in its canonical form.

        when may be a timedelta or a datetime, durations timedeltas; tz is
        settings.TIME_ZONE if it isn't given. Raise InvalidSchedule for what
        can be seen without looking at the task.
        """
        shown = name if isinstance(name, str) else repr(name)
        known = [f.name for f in fields(cls)]
        for option in options:
            if option not in known:
                raise InvalidSchedule(
                    shown, {option: f"Unknown option {option!r}.{suggestion(option, known)}"}
                )
        given = {key: value for key, value in options.items() if value is not None}
        given.setdefault("tz", settings.TIME_ZONE)
        problems: dict[str, str] = {}
        for option in ("jitter", "expires", "success_within"):
            if option in given:
                try:
                    given[option] = policies.in_seconds(
                        option, given[option], zero=option == "jitter"
                    )
                except ValueError as error:
                    problems[option] = str(error)
                except TypeError as error:
                    problems[option] = str(error)
        try:
            given["when"] = read(when).text
        except TimetableError as error:
            problems["when"] = str(error)
        if problems:
            try:
                zone_of(given["tz"])
            except TimetableError as error:
                problems["tz"] = str(error)
            raise InvalidSchedule(shown, problems)
        return cls(name=name, task=task, **given)

    # What follows from it

    @cached_property
    def timetable(self) -> Timetable:
        """When it is due, without regard to start and end. Raise TimetableError."""
        return read(self.when, anchor=self.start)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone whose clock counts. Raise TimetableError."""
        return zone_of(self.tz)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first due time after an aware moment, in UTC, between start and end."""
        if self.start is not None and moment < self.start:
            moment = self.start - timedelta(microseconds=1)
        due = self.timetable.after(moment, self.zone)
        return None if due is None or (self.end is not None and due > self.end) else due

    def task_object(self) -> Any:
        """Return the Task with the queue and priority of this schedule. Raise UnknownTask."""
        backend: Any = task_backends[self.backend]
        task = registry.resolve(
            self.task, aliases=backend.conf.aliases, modules=backend.conf.task_modules
        )
        if (task.backend, self.queue_name, self.priority) == (self.backend, None, None):
            return task
        return task.using(backend=self.backend, queue_name=self.queue_name, priority=self.priority)

    # Checking

    def problems(self, task: Any = None, *, now: datetime | None = None) -> dict[str, str]:
        """
        Return a sentence for each field that is wrong.

        task is the Task if it is at hand, else it is looked for. Without now it
        doesn't matter whether the last time has passed.
        """
        found: dict[str, str] = {}
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            found["name"] = f"name must be a text of printable characters, not {self.name!r}."
        elif self.name != self.name.strip():
            found["name"] = f"name has no space before or behind it, as {self.name!r} has."
        elif len(self.name) > MAX_NAME:
            found["name"] = f"name has at most {MAX_NAME} characters."
        found |= self._times(now)
        for option, choices in (("missed", MISSED), ("overlap", OVERLAP)):
            value = getattr(self, option)
            if value not in choices:
                found[option] = (
                    f"{option} must be one of {', '.join(map(repr, choices))}, not {value!r}."
                    f"{suggestion(str(value), choices)}"
                )
        if self.expires is not None and self.jitter >= self.expires:
            found["jitter"] = (
                f"jitter, {self.jitter:g} s, must be less than expires, {self.expires:g} s: some "
                "runs would expire before they may start."
            )
        runs = self.max_runs
        if runs is not None and (not isinstance(runs, int) or isinstance(runs, bool) or runs < 1):
            found["max_runs"] = f"max_runs must be a whole number of at least 1, not {runs!r}."
        return found | self._work(task)

    def _times(self, now: datetime | None) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, moment in (("start", self.start), ("end", self.end)):
            if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
                found[name] = f"{name} must be an aware datetime, not {moment!r}."
            elif moment is not None and not is_within_reach(moment):
                found[name] = f"{OUT_OF_REACH}, not {_shown(moment)}."
        try:
            zone_of(self.tz)
        except TimetableError as error:
            found["tz"] = str(error)
        except TypeError:
            found["tz"] = f"tz must be the name of a time zone, not {self.tz!r}."
        if found:
            return found
        try:
            timetable = self.timetable
        except TimetableError as error:
            found["when"] = str(error)
        except (TypeError, ValueError):
            pass  # start is wrong, which is said already.
        if found:
            return found
        if self.start is not None and self.end is not None and self.end <= self.start:
            found["end"] = (
                f"The end, {_shown(self.end)}, is not after the start, {_shown(self.start)}."
            )
        elif self.end is not None:
            begin = self.start or datetime(1970, 1, 1, tzinfo=UTC)
            last = timetable.before(self.end, self.zone)
            if last is None or last < begin:
                found["end"] = f"{self.when!r} is never due before the end, {_shown(self.end)}."
        if not found and now is not None and self.next_after(now) is None:
            what = "That time" if isinstance(timetable, Once) else "The last due time"
            found["when"] = f"{what} has passed."
        return found

    def _work(self, task: Any) -> dict[str, str]:
        """Check what is to be run."""
        if not isinstance(self.backend, str):
            return {"backend": f"backend must be a key of TASKS, not {self.backend!r}."}
        try:
            backend: Any = task_backends[self.backend]
        except InvalidTaskBackend as error:
            return {"backend": str(error)}
        # A task that is at hand may belong to a stand-in, as in tests; then no worker reads this.
        conf = getattr(backend, "conf", None) or (Options({}) if task is not None else None)
        if conf is None:
            return {"backend": f"TASKS[{self.backend!r}] is not django_bgtasks.DatabaseBackend."}
        try:
            task = task or self.task_object()
        except UnknownTask as error:
            return {"task": f"{error}{self._nearest()}"}
        except (InvalidTask, TypeError) as error:
            return {"priority" if "riority" in str(error) else "queue_name": str(error)}
        except Exception as error:
            return {"task": f"{self.task!r} can't be imported: {error!r}."}
        found: dict[str, str] = {}
        if self.queue_name is not None or self.priority is not None:
            try:
                task.using(queue_name=self.queue_name, priority=self.priority)
            except Exception as error:
                found["priority" if "riority" in str(error) else "queue_name"] = str(error)
        if not isinstance(self.args, list | tuple):
            return found | {"args": f"args must be a list, not {self.args!r}."}
        if not isinstance(self.kwargs, Mapping):
            return found | {"kwargs": f"kwargs must be a dictionary, not {self.kwargs!r}."}
        signature = (
            task.signature
            if isinstance(task, DatabaseTask)
            else Signature(task.func, takes_context=task.takes_context)
        )
        try:
            signature.bind(self.args, self.kwargs)
            signature.encode(self.args, self.kwargs, conf.max_argument_size)
        except InvalidArguments as error:
            found["args"] = str(error)
        return found

    def _nearest(self) -> str:
        return suggestion(self.task, registry.known_paths())

    def checked(self, task: Any = None, *, now: datetime | None = None) -> Specification:
        """Return this one if nothing is wrong with it. Raise InvalidSchedule."""
        if problems := self.problems(task, now=now):
            raise InvalidSchedule(str(self.name), problems)
        return self


def _shown(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes")
