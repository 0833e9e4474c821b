"""@task, and the Task with options beside Django's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, overload

from django.utils import timezone

from .arguments import Signature
from .compat import (
    DEFAULT_TASK_BACKEND_ALIAS,
    DEFAULT_TASK_PRIORITY,
    DEFAULT_TASK_QUEUE_NAME,
    InvalidTask,
    Task,
    task_backends,
)
from .conf import suggestion
from .retries import RetryPolicy, checked_backoff, names_of

#: Options of ours that .using() may change; they are stored with the row.
POLICY_OPTIONS = ("max_attempts", "backoff", "retry_on", "give_up_on", "on_lost")

Call = Mapping[str, Any] | tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class DatabaseTask(Task):
    """
    A Task of DatabaseBackend.

    max_attempts: how often it is run at most if it raises; 1 never retries.
    backoff: the pause before another attempt: "exponential", seconds, a list
        of seconds, or a function of the number of failures and the exception.
    retry_on, give_up_on: exception classes that are, and are not, worth
        another attempt.
    on_lost: "retry" or "fail", when the process that runs it dies.
    """

    max_attempts: int = 1
    backoff: Any = "exponential"
    retry_on: tuple[Any, ...] = (Exception,)
    give_up_on: tuple[Any, ...] = ()
    on_lost: str = "retry"
    # What .using() changed of POLICY_OPTIONS.
    overrides: tuple[tuple[str, Any], ...] = ()

    # No zero-argument super(): the bases have slots, and dataclass makes them anew.
    def __post_init__(self) -> None:
        self._check_options()
        Task.__post_init__(self)

    def _check_options(self) -> None:
        if (
            not isinstance(self.max_attempts, int)
            or isinstance(self.max_attempts, bool)
            or self.max_attempts < 1
        ):
            raise InvalidTask(
                f"max_attempts must be a whole number of at least 1, not {self.max_attempts!r}."
            )
        try:
            backoff = checked_backoff(self.backoff)
        except ValueError as error:
            raise InvalidTask(str(error)) from None
        if self.on_lost not in ("retry", "fail"):
            raise InvalidTask(f"on_lost must be 'retry' or 'fail', not {self.on_lost!r}.")
        classes = {}
        for name in ("retry_on", "give_up_on"):
            classes[name] = _checked_classes(name, getattr(self, name))
        for name, value in (("backoff", backoff), *classes.items()):
            object.__setattr__(self, name, value)

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
            signature = self.__dict__["_signature"] = Signature(
                self.func, takes_context=self.takes_context
            )
        return signature

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | timedelta | None = None,
        backend: str | None = None,
        delay: timedelta | float | None = None,
        **options: Any,
    ) -> DatabaseTask:
        """
        Return a Task with other options; None leaves an option as it is.

        run_after is an aware datetime, or a timedelta from now; delay is
        another name for the latter, in seconds or as a timedelta.
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
        overrides = dict(self.overrides)
        for name, value in options.items():
            if name not in POLICY_OPTIONS:
                known = (*POLICY_OPTIONS, "priority", "queue_name", "run_after", "backend", "delay")
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
            changes[name] = overrides[name] = tuple(value) if isinstance(value, list) else value
        changes["overrides"] = tuple(sorted(overrides.items()))
        return replace(self, **changes)

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
        value = f.default
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
    on_lost: str = ...,
) -> Callable[[Callable[..., Any]], DatabaseTask]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    priority: int = DEFAULT_TASK_PRIORITY,
    queue_name: str = DEFAULT_TASK_QUEUE_NAME,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    max_attempts: int = 1,
    backoff: str | float | list[float] | tuple[float, ...] | Callable[..., float] = "exponential",
    retry_on: type[BaseException] | Iterable[type[BaseException]] = (Exception,),
    give_up_on: type[BaseException] | Iterable[type[BaseException]] = (),
    on_lost: str = "retry",
) -> DatabaseTask | Callable[[Callable[..., Any]], DatabaseTask]:
    """
    Make a task of a function, as django.tasks.task does, with DatabaseTask's options.

    The same on Django 5.2, 6.0 and 6.1. With a backend that is not ours, the
    task is valid there, too, and the options of ours say nothing.
    """

    def decorate(func: Callable[..., Any]) -> DatabaseTask:
        task_class = task_backends[backend].task_class
        if not issubclass(task_class, DatabaseTask):
            task_class = DatabaseTask
        return task_class(
            func=func,
            priority=priority,
            queue_name=queue_name,
            backend=backend,
            takes_context=takes_context,
            run_after=None,
            max_attempts=max_attempts,
            backoff=backoff,
            retry_on=retry_on,  # type: ignore[arg-type]
            give_up_on=give_up_on,  # type: ignore[arg-type]
            on_lost=on_lost,
        )

    return decorate if function is None else decorate(function)
