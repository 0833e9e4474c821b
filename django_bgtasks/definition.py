"""@task, and the Task with options beside Django's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, overload

from django.utils import timezone

from . import policies
from .arguments import Signature
from .compat import (
    DEFAULT_TASK_BACKEND_ALIAS,
    DEFAULT_TASK_PRIORITY,
    DEFAULT_TASK_QUEUE_NAME,
    InvalidTask,
    Task,
    TaskContext,
    task_backends,
)
from .conf import suggestion
from .context import DatabaseTaskContext, current
from .retries import RetryPolicy, checked_backoff, names_of

if TYPE_CHECKING:
    from .workflows.elements import Call as WorkflowCall

#: Options of ours that .using() may change; they are stored with the row.
POLICY_OPTIONS = (
    "max_attempts",
    "backoff",
    "retry_on",
    "give_up_on",
    "on_lost",
    "timeout",
    "grace",
    "expires",
    "unique",
    "unique_while",
    "unique_for",
    "on_conflict",
    "concurrency",
    "rate",
    "fair",
    "atomic",
    "labels",
)
#: Options of ours that belong to the function, whatever the call.
FIXED_OPTIONS = ("hide_args", "aliases")
_UNIQUE_OPTIONS = ("unique", "unique_while", "unique_for", "on_conflict")

Call = Mapping[str, Any] | tuple[Any, ...]
Duration = float | timedelta | None


@dataclass(frozen=True, kw_only=True, repr=False)
class DatabaseTask(Task):
    """
    A Task of DatabaseBackend. Durations are seconds or timedeltas; None is none.

    max_attempts: how often it is run at most if it raises; 1 never retries.
    backoff: the pause before another attempt: "exponential", seconds, a list
        of seconds, or a function of the number of failures and the exception.
    retry_on, give_up_on: exception classes that are, and are not, worth
        another attempt.
    on_lost: "retry" or "fail", when the process that runs it dies.
    timeout: how long an attempt may take; then TaskTimeout is raised in it.
    grace: how long after that its process is killed; None: OPTIONS["GRACE"].
    expires: how long after it is due it is still worth starting.
    unique: a key such as "feed:{feed_id}"; a second task of the key is not made.
    unique_while: "running", until the first ends, or "waiting", until it starts.
    unique_for: for this long after the enqueue, whatever became of the first.
    on_conflict: "return" the first's result, "replace" its arguments and time
        while it waits, or "refuse" with DuplicateTask.
    concurrency: how many run at once on all workers: 3, or ("key:{a}", 3).
    rate: how many start in a time: "100/m", ("key:{a}", "100/m", burst).
    fair: a key such as "{tenant}" whose values take turns.
    atomic: its database work, its result and what it enqueues commit together.
    labels: texts to find it by.
    hide_args: arguments that are never shown.
    aliases: paths at which earlier versions of the code had it.
    """

    max_attempts: int = 1
    backoff: Any = "exponential"
    retry_on: tuple[Any, ...] = (Exception,)
    give_up_on: tuple[Any, ...] = ()
    on_lost: str = "retry"
    timeout: Duration = None
    grace: Duration = None
    expires: Duration = None
    unique: str | None = None
    unique_while: str | None = None
    unique_for: Duration = None
    on_conflict: str | None = None
    concurrency: Any = None
    rate: Any = None
    fair: str | None = None
    atomic: bool = False
    labels: Mapping[str, Any] = field(default_factory=dict, hash=False)
    hide_args: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    # What .using() changed of POLICY_OPTIONS.
    overrides: tuple[tuple[str, Any], ...] = field(default=(), hash=False)
    # What is carried to the run: .using(metadata=...).
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)

    # No zero-argument super(): the bases have slots, and dataclass makes them anew.
    def __post_init__(self) -> None:
        Task.__post_init__(self)
        try:
            checked = self._checked_options()
        except policies.BadOption as error:
            raise InvalidTask(f"{self.func.__name__}(): {error}") from None
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # Not all of the options: metadata may hold what no log should.
        return f"<{type(self).__name__} {self.module_path}>"

    def _checked_options(self) -> dict[str, Any]:
        """Return the options in their canonical form. Raise InvalidTask or BadOption."""
        if not (
            isinstance(self.max_attempts, int)
            and not isinstance(self.max_attempts, bool)
            and 1 <= self.max_attempts <= policies.MOST
        ):
            raise InvalidTask(
                "max_attempts must be a whole number of at least 1 and at most "
                f"{policies.MOST:,}, not {self.max_attempts!r}."
            )
        try:
            checked: dict[str, Any] = {"backoff": checked_backoff(self.backoff)}
        except ValueError as error:
            raise InvalidTask(str(error)) from None
        if self.on_lost not in ("retry", "fail"):
            raise InvalidTask(f"on_lost must be 'retry' or 'fail', not {self.on_lost!r}.")
        for name in ("retry_on", "give_up_on"):
            checked[name] = _checked_classes(name, getattr(self, name))
        for name in ("timeout", "expires", "unique_for"):
            value = getattr(self, name)
            checked[name] = None if value is None else policies.in_seconds(name, value)
        if self.grace is not None:
            if self.timeout is None:
                raise policies.BadOption("grace says nothing without timeout=....")
            checked["grace"] = policies.in_seconds("grace", self.grace, zero=True)
        if not isinstance(self.atomic, bool):
            raise policies.BadOption(f"atomic must be True or False, not {self.atomic!r}.")
        if self.atomic and iscoroutinefunction(self.func):
            raise policies.BadOption(
                "atomic=True needs a function without async: Django's transactions are "
                "synchronous. Call what is asynchronous by asgiref.sync.async_to_sync, or use "
                "context.astep()."
            )
        policies.check_unique({name: getattr(self, name) for name in _UNIQUE_OPTIONS})
        checked["labels"] = policies.checked_labels(self.labels)
        for name in ("concurrency", "rate"):
            if isinstance(getattr(self, name), list):
                checked[name] = tuple(getattr(self, name))
        signature = self.signature
        names = None if signature.takes_any else signature.names
        checked["hide_args"] = policies.checked_names(
            "hide_args", self.hide_args, self.func.__name__, names
        )
        checked["aliases"] = policies.checked_aliases(self.aliases, self.module_path)
        self.__dict__["_marks"] = self._made_marks()
        return checked

    def _made_marks(self) -> policies.Marks:
        name, path, names = self.func.__name__, self.module_path, self.signature.names
        unique = fair = concurrency = rate = None
        if self.unique is not None:
            unique = policies.KeyTemplate("unique", self.unique, name, names)
        if self.fair is not None:
            fair = policies.KeyTemplate("fair", self.fair, name, names)
            if not fair.names:
                raise policies.BadOption(
                    f"fair={self.fair!r} names no argument; all tasks would be of one key."
                )
        if self.concurrency is not None:
            concurrency = policies.concurrency_of(self.concurrency, path, name, names)
        if self.rate is not None:
            rate = policies.rate_of(self.rate, path, name, names)
        return policies.Marks(path, unique, concurrency, rate, fair, hidden=self.hide_args)

    @property
    def marks(self) -> policies.Marks:
        """The keys that an enqueue writes down; false where there is none."""
        marks = self.__dict__.get("_marks")
        if marks is None:
            marks = self.__dict__["_marks"] = self._made_marks()
        return marks

    @property
    def is_plain(self) -> bool:
        """Whether an enqueue writes down no option of ours."""
        plain = self.__dict__.get("_plain")
        if plain is None:
            options = (self.overrides, self.labels, self.marks, self.expires)
            plain = self.__dict__["_plain"] = not any(options)
        return plain

    @property
    def unique_during(self) -> str:
        """How long a unique key is taken: "waiting", "running" or "period"."""
        return policies.unique_during({name: getattr(self, name) for name in _UNIQUE_OPTIONS})

    @property
    def policy(self) -> RetryPolicy:
        """When another attempt follows one that raised."""
        policy = self.__dict__.get("_policy")
        if policy is None:
            policy = RetryPolicy(
                max_attempts=self.max_attempts,
                backoff=self.backoff,
                retry_on=names_of(self.retry_on),
                give_up_on=names_of(self.give_up_on),
            )
            self.__dict__["_policy"] = policy
        return policy

    @property
    def signature(self) -> Signature:
        """The parameters of the function without the context."""
        signature = self.__dict__.get("_signature")
        if signature is None:
            signature = self.__dict__["_signature"] = _signature_of(self.func, self.takes_context)
        return signature

    def named(self, name: str) -> WorkflowCall:
        """Return the task without arguments, under another name, as a part of a workflow."""
        from .workflows.elements import Call as WorkflowCall

        return WorkflowCall(self).named(name)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Only where there is no such attribute: what those who come from Celery type first.
            instead = _ELSEWHERE.get(name)
            hint = f" Write {self.func.__name__}.{instead}." if instead else ""
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}.{hint}")

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; a plain TaskContext is given the methods of ours."""
        if self.takes_context and args and type(args[0]) is TaskContext:
            context = current()
            if context is None or context.task_result is not args[0].task_result:
                context = DatabaseTaskContext(task_result=args[0].task_result)
            args = (context, *args[1:])
        return Task.call(self, *args, **kwargs)

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | timedelta | None = None,
        backend: str | None = None,
        delay: timedelta | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> DatabaseTask:
        """
        Return a Task with other options; None leaves an option as it is.

        run_after is an aware datetime, or a timedelta from now; delay is
        another name for the latter, in seconds or as a timedelta. metadata is
        carried to the run, as context.metadata.
        """
        changes: dict[str, Any] = {
            name: value
            for name, value in (
                ("priority", priority),
                ("queue_name", queue_name),
                ("backend", backend),
            )
            if value is not None
        }
        if delay is not None:
            if run_after is not None:
                raise TypeError("using() takes run_after or delay, not both.")
            run_after = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        if isinstance(run_after, timedelta):
            run_after = timezone.now() + run_after
        elif run_after is not None and not isinstance(run_after, datetime):
            raise TypeError(f"run_after must be a datetime or a timedelta, not {run_after!r}.")
        if run_after is not None:
            changes["run_after"] = run_after
        if metadata is not None:
            changes["metadata"] = {**(self.metadata or {}), **metadata}
        overrides = dict(self.overrides)
        for name, value in options.items():
            if name in FIXED_OPTIONS:
                raise TypeError(f"using() can't change {name!r}, which belongs to the function.")
            if name not in POLICY_OPTIONS:
                known = (
                    *POLICY_OPTIONS,
                    *("priority", "queue_name", "run_after", "backend", "delay", "metadata"),
                )
                raise TypeError(
                    f"using() got an unexpected option {name!r}.{suggestion(name, known)}"
                )
            if value is None:
                continue
            if name in ("retry_on", "give_up_on"):
                value = names_of(_checked_classes(name, value))
            elif callable(value):
                raise TypeError(
                    f"using({name}=...) is stored with the task and can't be a function. "
                    "Give the function to @task."
                )
            if isinstance(value, timedelta):
                value = value.total_seconds()
            changes[name] = overrides[name] = tuple(value) if isinstance(value, list) else value
        changes["overrides"] = tuple(sorted(overrides.items()))
        return replace(self, **changes)

    def with_args(self, *args: Any, **kwargs: Any) -> WorkflowCall:
        """
        Return the task with its arguments, as a part of a workflow: see chain() and group().

        Raise InvalidArguments if the function can't be called so. `previous`
        stands for the result of what runs before.
        """
        from .workflows.elements import Call as WorkflowCall

        self.signature.bind(args, kwargs)
        return WorkflowCall(self, args, kwargs)

    def enqueue_many(self, calls: Iterable[Call]) -> list[Any]:
        """
        Enqueue a task for each of calls, all or none; return the results.

        A call is a tuple of positional or a dictionary of keyword arguments.
        """
        backend = self.get_backend()
        if hasattr(backend, "enqueue_many"):
            return backend.enqueue_many(self, calls)
        return [backend.enqueue(self, *args_and_kwargs(call)) for call in calls]  # type: ignore[arg-type]

    async def aenqueue_many(self, calls: Iterable[Call]) -> list[Any]:
        """See enqueue_many()."""
        from asgiref.sync import sync_to_async

        return await sync_to_async(self.enqueue_many, thread_sensitive=True)(calls)

    # Django 6.1 has both; earlier versions can't pickle a Task, and 6.1 copies
    # a Task by importing it, which fails where its name is not the function's.
    def __reduce__(self) -> Any:
        kwargs = {f.name: getattr(self, f.name) for f in fields(self)}
        kwargs["func"] = self.module_path
        return _rebuild, (type(self), kwargs)

    def __copy__(self) -> DatabaseTask:
        return self

    def __deepcopy__(self, memo: Any) -> DatabaseTask:
        return self


@lru_cache(maxsize=4096)
def _signature_of(func: Callable[..., Any], takes_context: bool) -> Signature:
    # Each .using() makes a task anew.
    return Signature(func, takes_context=takes_context)


def _rebuild(cls: type[DatabaseTask], kwargs: dict[str, Any]) -> DatabaseTask:
    from django.utils.module_loading import import_string

    path = kwargs["func"]
    try:
        kwargs["func"] = import_string(path).func
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Expected {path!r} to point to a Task instance.") from error
    return cls(**kwargs)


def _checked_classes(name: str, value: Any) -> tuple[Any, ...]:
    """Return one or several exception classes, or their dotted paths, as a tuple."""
    if isinstance(value, type | str) or not isinstance(value, Iterable):
        value = (value,)
    classes = tuple(value)
    for item in classes:
        if not (isinstance(item, str) and "." in item) and not (
            isinstance(item, type) and issubclass(item, BaseException)
        ):
            raise InvalidTask(f"{name} must hold exception classes, not {item!r}.")
    return classes


def args_and_kwargs(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return one item of enqueue_many's calls as arguments."""
    if isinstance(call, Mapping):
        return (), dict(call)
    if isinstance(call, tuple):
        return call, {}
    raise TypeError(
        "enqueue_many() takes tuples of positional or dictionaries of keyword arguments, "
        f"not {call!r}. One argument alone is written ({call!r},)."
    )


def unvalidated(task: Any, **changes: Any) -> Any:
    """
    Return task with changes, without asking the backend.

    For tasks that are read from rows: the queues of a backend may have changed
    since, which must not make a result unreadable.
    """
    cls = type(task)
    copy = object.__new__(cls)
    for f in fields(task):
        object.__setattr__(copy, f.name, changes.get(f.name, getattr(task, f.name)))
    if (signature := getattr(task, "__dict__", {}).get("_signature")) is not None:
        copy.__dict__["_signature"] = signature
    return copy


def unchecked(func: Callable[..., Any]) -> DatabaseTask:
    """Return a task of func with all defaults, whatever the backends say of it."""
    made = object.__new__(DatabaseTask)
    for f in fields(DatabaseTask):
        value = {} if f.name == "labels" else f.default
        if f.name == "func":
            value = func
        elif f.name in _BASE_DEFAULTS:
            value = _BASE_DEFAULTS[f.name]
        object.__setattr__(made, f.name, value)
    return made


# Django 6.0's Task has no defaults for these.
_BASE_DEFAULTS: dict[str, Any] = {
    "priority": DEFAULT_TASK_PRIORITY,
    "queue_name": DEFAULT_TASK_QUEUE_NAME,
    "backend": DEFAULT_TASK_BACKEND_ALIAS,
    "run_after": None,
    "takes_context": False,
}


@overload
def task(function: Callable[..., Any], /) -> DatabaseTask: ...


@overload
def task(
    *,
    priority: int = ...,
    queue_name: str = ...,
    backend: str = ...,
    takes_context: bool = ...,
    max_attempts: int = ...,
    backoff: str | float | list[float] | tuple[float, ...] | Callable[..., float] = ...,
    retry_on: type[BaseException] | Iterable[type[BaseException]] = ...,
    give_up_on: type[BaseException] | Iterable[type[BaseException]] = ...,
    on_lost: Literal["retry", "fail"] = ...,
    timeout: Duration = ...,
    grace: Duration = ...,
    expires: Duration = ...,
    unique: str | None = ...,
    unique_while: Literal["running", "waiting"] | None = ...,
    unique_for: Duration = ...,
    on_conflict: Literal["return", "replace", "refuse"] | None = ...,
    concurrency: int | tuple[str, int] | None = ...,
    rate: str | tuple[str, str] | tuple[str, str, int] | None = ...,
    fair: str | None = ...,
    atomic: bool = ...,
    labels: Mapping[str, Any] = ...,
    hide_args: str | Iterable[str] = ...,
    aliases: str | Iterable[str] = ...,
) -> Callable[[Callable[..., Any]], DatabaseTask]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    **options: Any,
) -> DatabaseTask | Callable[[Callable[..., Any]], DatabaseTask]:
    """
    Make a task of a function, as django.tasks.task does, with DatabaseTask's options.

    The same on Django 5.2, 6.0 and 6.1. With a backend that is not ours, the
    task is valid there, too, and the options of ours say nothing. Raise
    TypeError for an option that is unknown, InvalidTask for one that is wrong.
    """
    for name in options:
        if name not in _TASK_OPTIONS:
            raise TypeError(
                f"@task got an unexpected option {name!r}.{suggestion(name, _TASK_OPTIONS)}"
            )

    def decorate(func: Callable[..., Any]) -> DatabaseTask:
        task_class = task_backends[backend].task_class
        if not issubclass(task_class, DatabaseTask):
            task_class = DatabaseTask
        made = task_class(**{**_BASE_DEFAULTS, **options, "func": func, "backend": backend})
        for path in made.aliases:
            former_paths[path] = made.module_path
        return made

    return decorate if function is None else decorate(function)


_TASK_OPTIONS = ("priority", "queue_name", "takes_context", *POLICY_OPTIONS, *FIXED_OPTIONS)
#: What tasks of Celery, Huey and others have, and what it is here.
_ELSEWHERE = {
    "delay": "enqueue(...)",
    "apply_async": "using(...).enqueue(...)",
    "schedule": "using(delay=...).enqueue(...)",
    "s": "with_args(...), with `previous` where the result of what runs before goes",
    "si": "with_args(...)",
    "signature": "with_args(...)",
    "map": "enqueue_many(...), or group(...) of with_args()",
    "starmap": "enqueue_many(...), or group(...) of with_args()",
}
#: Where tasks have moved to, by the path that @task(aliases=...) names.
former_paths: dict[str, str] = {}
