"""What a process counts between two messages."""

import pickle

from django_bgtasks.models.bucket import BINS, BORDERS
from django_bgtasks.statistics.histograms import percentile
from django_bgtasks.statistics.tally import RUN, RUN_LONGEST, RUN_SECONDS, WAIT, Tally

KEY = (100, "default", "shop.tasks.one")


def failure(tally, fingerprint="f", task_id="1", traceback="Traceback"):
    tally.add_failure(
        fingerprint,
        "shop.tasks.one",
        task_id,
        exception_class="builtins.ValueError",
        message="m",
        traceback=traceback,
    )


def test_an_attempt_counts_in_one_bin_of_each_histogram():
    tally = Tally()
    tally.add(KEY, "successful", waited=0.02, ran=0.021)
    (figures,) = tally.figures.values()
    assert figures[0] == 1
    # A border belongs to the bin below it.
    assert figures[WAIT] == 1
    assert figures[RUN + 1] == 1
    assert sum(figures[WAIT : WAIT + BINS]) == sum(figures[RUN:]) == 1


def test_times_beyond_the_last_border_have_a_bin():
    tally = Tally()
    tally.add(KEY, "failed", waited=BORDERS[-1] * 10, ran=1e9)
    assert tally.figures[KEY][WAIT + BINS - 1] == tally.figures[KEY][RUN + BINS - 1] == 1


def test_unknown_times_count_in_no_histogram():
    tally = Tally()
    tally.add(KEY, "cancelled")
    assert sum(tally.figures[KEY][WAIT:]) == 0


def test_tallies_add_up_and_survive_the_pipe():
    one, other = Tally(), Tally()
    one.add(KEY, "successful", ran=1.0)
    other.add(KEY, "successful", ran=3.0)
    other.add((101, "default", "x"), "retried")
    failure(one, task_id="1")
    failure(other, task_id="2", traceback="")
    one.merge(pickle.loads(pickle.dumps(other)))
    assert one.figures[KEY][0] == 2
    assert one.figures[KEY][RUN_SECONDS] == 4.0
    assert one.figures[KEY][RUN_LONGEST] == 3.0
    assert one.figures[(101, "default", "x")][3] == 1
    group = one.failures["f"]
    # The latest one, with the last traceback that was sent.
    assert (group.count, group.task_id, group.traceback) == (2, "2", "Traceback")


def test_what_is_taken_is_not_there_any_more():
    tally = Tally()
    tally.add(KEY, "successful")
    assert tally.take().figures
    assert not tally


def test_percentiles_lie_within_their_bins():
    bins = [0] * BINS
    assert percentile(bins, 0.95) is None
    bins[3] = 100  # 45 to 65 ms
    assert 0.045 < percentile(bins, 0.5) < 0.065
    bins[-1] = 1000
    assert percentile(bins, 0.95) == BORDERS[-1]
