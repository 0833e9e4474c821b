"""Receivers of Django's signals that leave a trace; a worker imports them as a task module."""

import sys

from django.dispatch import receiver

from django_bgtasks.compat import task_finished, task_started
from django_bgtasks.signals import task_retried
from tests.models import Effect


@receiver(task_started)
def on_started(sender, task_result, **kwargs):
    Effect.objects.create(
        name=f"started {task_result.task.name} {task_result.status} {sender.__name__}",
        number=task_result.attempts,
    )


@receiver(task_finished)
def on_finished(sender, task_result, **kwargs):
    # What a receiver sees is stored already.
    stored = task_result.task.get_backend().get_result(task_result.id)
    error = sys.exc_info()[0]
    name = error.__name__ if error else None
    Effect.objects.create(
        name=f"finished {task_result.task.name} {stored.status} {sender.__name__} {name}",
        number=task_result.attempts,
    )


@receiver(task_finished)
def on_finished_and_raise(sender, task_result, **kwargs):
    raise RuntimeError("A receiver that raises.")


@receiver(task_retried)
def on_retried(sender, task_result, exception, delay, **kwargs):
    Effect.objects.create(name=f"retried {type(exception).__name__}", number=task_result.attempts)
