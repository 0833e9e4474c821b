"""Fine buckets become wider ones: nothing is lost, nothing counts twice."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Max, Sum

from django_bgtasks.models import Bucket
from django_bgtasks.statistics import merging
from django_bgtasks.statistics.ledger import bucket, write_buckets
from django_bgtasks.statistics.reading import WINDOWS, Ended, read_ended, read_series, read_tasks
from django_bgtasks.statistics.tally import FIGURES, RUN_LONGEST, Tally

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
WORKERS = ("w1", "w2", "w3")
TASKS = ("shop.tasks.one", "shop.tasks.two")


def fill(minutes, *, until=NOW, workers=WORKERS, tasks=TASKS):
    """Write a bucket for each minute, worker and task: one success of 1 s each."""
    last = int(until.timestamp()) // 60
    rows = []
    for minute in range(last - minutes + 1, last + 1):
        for worker in workers:
            for task in tasks:
                tally = Tally()
                tally.add((minute, "default", task), "successful", waited=0.2, ran=1.0)
                (figures,) = tally.figures.values()
                assert len(figures) == FIGURES
                figures[RUN_LONGEST] = 1.0
                start = datetime.fromtimestamp(60 * minute, UTC)
                rows.append(bucket(start, 60, "default", task, worker, figures))
    write_buckets("default", rows)
    return len(rows)


def total():
    return Bucket.objects.aggregate(n=Sum("successful"), s=Sum("run_seconds"))


def test_buckets_become_wider_with_age_and_their_sums_stay():
    written = fill(60 * 10, workers=WORKERS[:2])
    while merging.merge("default", now=NOW):
        pass
    assert total() == {"n": written, "s": float(written)}
    widths = dict(
        Bucket.objects.values_list("width").annotate(n=Max("start")).values_list("width", "n")
    )
    assert set(widths) == {60, 300, 900}
    assert Bucket.objects.count() < written / 3
    # The last minutes are still those of each worker.
    assert Bucket.objects.filter(start__gt=NOW - timedelta(minutes=11)).exclude(worker="").exists()
    assert not Bucket.objects.filter(start__lt=NOW - timedelta(minutes=15)).exclude(worker="")


def test_to_merge_again_changes_nothing():
    fill(180)
    while merging.merge("default", now=NOW):
        pass
    before = list(Bucket.objects.order_by("id").values())
    assert merging.merge("default", now=NOW) == 0
    assert list(Bucket.objects.order_by("id").values()) == before


def test_a_late_row_is_added_to_what_was_merged():
    fill(30, workers=("w1",), tasks=TASKS[:1])
    while merging.merge("default", now=NOW):
        pass
    fill(30, workers=("w2",), tasks=TASKS[:1])
    while merging.merge("default", now=NOW):
        pass
    assert total()["n"] == 60
    assert Bucket.objects.filter(start__lt=NOW - timedelta(minutes=15), successful=2).exists()


def test_what_others_merge_meanwhile_is_left_to_them(monkeypatch):
    fill(30, workers=("w1",), tasks=TASKS[:1])
    real = merging.bucket

    def steal(*args):
        Bucket.objects.filter(start=args[0], worker="w1").delete()
        return real(*args)

    monkeypatch.setattr(merging, "bucket", steal)
    before = total()["n"]
    assert merging.merge("default", now=NOW) == 0
    assert total()["n"] == before


def test_buckets_of_last_season_are_forgotten():
    fill(5, until=NOW - timedelta(days=91))
    merging.merge("default", now=NOW)
    assert not Bucket.objects.exists()


def test_a_window_shows_the_same_before_and_after_merging():
    fill(9 * 60, workers=("w1",), tasks=TASKS[:1])

    def seen():
        found = {}
        for hours, window in WINDOWS.items():
            series = read_series("default", window, now=NOW)
            assert len(series.intervals) == window.intervals
            successful = [i.successful for i in series.intervals]
            # The interval that goes on is the last one.
            assert successful[-1] > 0
            assert sum(successful) == sum(series.queues["default"])
            found[hours] = (successful, series.wait(0.95), series.queues)
        return found

    before = seen()
    while merging.merge("default", now=NOW):
        pass
    assert seen() == before


def test_tasks_are_listed_by_the_time_they_took(django_assert_num_queries):
    fill(5, tasks=TASKS[:1])
    fill(10, tasks=TASKS[1:])
    with django_assert_num_queries(1):
        found = read_tasks("default", WINDOWS[1], now=NOW)
    assert [t.task_path for t in found] == ["shop.tasks.two", "shop.tasks.one"]
    assert found[0].runs == 30
    assert found[0].run_seconds == 30.0
    assert found[0].longest == 1.0
    assert 0.75 < found[0].p50 < found[0].p95 <= 1.1


def test_ended_and_failed_of_the_last_minutes():
    fill(30)
    assert read_ended("default", [15 * 60, 3_600], now=NOW) == [Ended(15 * 6, 0), Ended(30 * 6, 0)]
