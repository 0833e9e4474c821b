"""What ran when: counts and histograms of short spans of time, so that no page counts tasks."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

#: Upper borders of the histograms in seconds, ratio 1.5; the last bin has none. Those of
#: Sidekiq's histograms, so that figures can be compared.
BORDERS = (
    0.020, 0.030, 0.045, 0.065, 0.100, 0.150, 0.225, 0.335, 0.500, 0.750, 1.1, 1.7, 2.5,
    3.8, 5.75, 8.5, 13.0, 20.0, 30.0, 45.0, 65.0, 100.0, 150.0, 225.0, 335.0,
)  # fmt: skip
BINS = len(BORDERS) + 1
WAIT_BINS = tuple(f"wait_{number:02}" for number in range(BINS))
RUN_BINS = tuple(f"run_{number:02}" for number in range(BINS))


class Bucket(models.Model):
    """
    What came of the attempts of one task in one queue that ended within a span of time.

    While a span is fresh each worker has rows of its own, which it overwrites
    with what it has counted so far: nobody waits for a lock, and to write the
    same twice does no harm. Later they are merged into wider ones.
    """

    # Digest of what comes next, down to the worker: an upsert's target on any database,
    # whatever its collation takes for equal.
    id = models.CharField(max_length=32, primary_key=True)
    start = models.DateTimeField()
    # Seconds.
    width = models.PositiveIntegerField()
    queue_name = models.CharField(max_length=100)
    task_path = models.CharField(max_length=255)
    # The id of a Worker; empty once those of all workers are merged.
    worker = models.CharField(max_length=36, default="")

    successful = models.PositiveIntegerField(_("successful"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)
    cancelled = models.PositiveIntegerField(_("cancelled"), default=0)
    retried = models.PositiveIntegerField(_("retried"), default=0)
    # Of all attempts together, and of the longest.
    run_seconds = models.FloatField(default=0.0)
    run_longest = models.FloatField(default=0.0)
    # How long first attempts waited, and how long attempts ran: one column a bin, so that
    # the database adds them up.
    for _name in (*WAIT_BINS, *RUN_BINS):
        vars()[_name] = models.PositiveIntegerField(default=0)
    del _name

    #: What is added up when buckets are merged.
    SUMS = ("successful", "failed", "cancelled", "retried", "run_seconds", *WAIT_BINS, *RUN_BINS)

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=("start", "width"), name="bgtasks_bucket_start"),)

    def __str__(self) -> str:
        return f"{self.task_path} in {self.queue_name} from {self.start}"
