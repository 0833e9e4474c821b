"""What real workers count: by the time they stop, everything is there."""

import pytest
from django.db.models import Sum

from django_bgtasks.models import Bucket, FailureGroup, FinishedTask
from tests import tasks

from .conftest import until, until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


def test_all_that_ran_is_counted_and_failures_are_grouped(start_worker):
    worker = start_worker("--processes", 2)
    for number in range(40):
        tasks.add.enqueue(number, 1)
    for _ in range(7):
        tasks.raise_error.enqueue()
    # A cause that is new is shown soon, long before the worker stops.
    until(lambda: FailureGroup.objects.filter(total=7).exists())
    tasks.kill_own_process.using(on_lost="fail").enqueue()
    until_all_ended()
    worker.stop()
    sums = Bucket.objects.aggregate(ok=Sum("successful"), bad=Sum("failed"))
    assert sums == {"ok": 40, "bad": 8}
    groups = dict(FailureGroup.objects.values_list("exception_class", "total"))
    assert groups == {
        "builtins.ValueError": 7,
        "django_bgtasks.exceptions.WorkerLost": 1,
    }
    group = FailureGroup.objects.get(exception_class="builtins.ValueError")
    assert "raise_error" in group.traceback
    assert FinishedTask.objects.filter(fingerprint=group.pk).count() == 7
