"""Whether a task was enqueued: the question, its answer, and what there was instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..arguments import normalise
from .recording import Recorder, call_in_words, recording, signature_of, table

#: What can be asked of an enqueued task beside its arguments.
OPTIONS = ("queue_name", "priority", "run_after")

if TYPE_CHECKING:
    from unittest import TestCase as _Base
else:
    _Base = object


class Question:
    """A task, arguments that it was given, and options, to be compared with what was enqueued."""

    def __init__(self, task: Any, args: Sequence[Any], given: Mapping[str, Any]) -> None:
        """Raise InvalidArguments for what the function can't be called with."""
        self._task = task
        signature = signature_of(task)
        # An argument that is called as one of the options is the argument.
        options = set(OPTIONS) - set(signature.names)
        self._options = {name: value for name, value in given.items() if name in options}
        kwargs = {k: v for k, v in given.items() if k not in self._options}
        signature.bind_some(args, kwargs)
        self._arguments = {key: normalise(value) for key, value in signature.named(args, kwargs)}

    def answers(self, results: Sequence[Any]) -> list[Any]:
        """Return those of results that are asked for."""
        return [result for result in results if self._fits(result)]

    def _fits(self, result: Any) -> bool:
        task = result.task
        if task.module_path != self._task.module_path:
            return False
        if any(getattr(task, name) != value for name, value in self._options.items()):
            return False
        signature = signature_of(self._task)
        named = dict(signature.named(result.args, result.kwargs))
        defaults = signature.defaults
        return all(
            (key in named or key in defaults) and named.get(key, defaults.get(key)) == value
            for key, value in self._arguments.items()
        )

    def __str__(self) -> str:
        return call_in_words(self._task, self._arguments.items())

    @property
    def options(self) -> str:
        """The options in words, with a space before them; "" without any."""
        text = ""
        if "queue_name" in self._options:
            text += f" on {self._options['queue_name']!r}"
        for name in OPTIONS[1:]:
            if name in self._options:
                text += f" with {name}={self._options[name]!r}"
        return text


def assert_enqueued(results: list[Any], task: Any, args: Sequence[Any], given: Any) -> Any:
    """Return the first of results that is asked for. Raise AssertionError if none is."""
    question = Question(task, args, given)
    found = question.answers(results)
    if not found:
        raise AssertionError(f"{question} was not enqueued{question.options}.\n{table(results)}")
    return found[0]


def assert_not_enqueued(results: list[Any], task: Any, args: Sequence[Any], given: Any) -> None:
    """Raise AssertionError if one of results is asked for."""
    question = Question(task, args, given)
    if question.answers(results):
        raise AssertionError(f"{question} was enqueued{question.options}.\n{table(results)}")


class TaskTestMixin(_Base):
    """
    For test cases: what their test has enqueued so far.

    Before Django's class: class OrderTests(TaskTestMixin, TestCase).
    """

    _recorder: Recorder

    def run(self, result: Any = None) -> Any:
        """Run the test, and listen to what it enqueues, its setUp() included."""
        with recording() as self._recorder:
            return super().run(result)

    def debug(self) -> None:
        """As run(), without collecting what went wrong."""
        with recording() as self._recorder:
            super().debug()

    @property
    def enqueued(self) -> list[Any]:
        """The results of the tasks that this test has enqueued, in their order."""
        return self._recorder.enqueued

    def assertEnqueued(self, task: Any, *args: Any, **given: Any) -> Any:
        """
        Fail unless task was enqueued with these arguments; return its result.

        Arguments that aren't given may be any. queue_name, priority and
        run_after are compared, too, unless the function has a parameter of
        that name.
        """
        return self._compared(assert_enqueued, task, args, given)

    def assertNotEnqueued(self, task: Any, *args: Any, **given: Any) -> None:
        """Fail if task was enqueued with these arguments; see assertEnqueued()."""
        self._compared(assert_not_enqueued, task, args, given)

    def _compared(self, compare: Any, task: Any, args: Any, given: Any) -> Any:
        try:
            return compare(self.enqueued, task, args, given)
        except AssertionError as error:
            raise self.failureException(str(error)) from None
