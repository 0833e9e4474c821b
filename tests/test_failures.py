"""Failures by cause: how often they came lately, and what people said of them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from django_bgtasks import failures
from django_bgtasks.models import FailureGroup

from .bulk.rows import FINGERPRINT, group

pytestmark = pytest.mark.django_db


def state(fingerprint=FINGERPRINT):
    return FailureGroup.objects.get(pk=fingerprint).state(timezone.now())


def test_causes_come_by_their_frequency_with_a_number_for_each_hour(django_assert_num_queries):
    group("a" * 32, counts={0: 2, 5: 1, 40: 100})
    group("b" * 32, counts={0: 1, 23: 9})
    group("c" * 32, counts={24: 7})
    with django_assert_num_queries(4):  # One of them asks for the time.
        found = failures.top("default")
    assert [cause.group.pk[0] for cause in found.open] == ["b", "a"]
    b, a = found.open
    assert (a.count, b.count, found.more) == (3, 10, 0)
    assert a.hours == (*[0] * 18, 1, 0, 0, 0, 0, 2)
    assert b.hours == (9, *[0] * 22, 1)


def test_the_number_of_queries_does_not_grow_with_the_causes(django_assert_num_queries):
    for number in range(30):
        group(f"{number:032}", counts={0: number + 1})
    with django_assert_num_queries(3):
        found = failures.top("default", now=timezone.now(), limit=10)
    assert [cause.count for cause in found.open] == list(range(30, 20, -1))
    assert found.more == 20


def test_muted_causes_are_left_out_and_counted():
    group("a" * 32)
    group("b" * 32)
    failures.mute("default", "b" * 32, 3_600)
    found = failures.top("default")
    assert [cause.group.pk[0] for cause in found.open] == ["a"]
    assert (found.muted, found.more) == (1, 0)


def test_without_failures_there_are_no_causes():
    found = failures.top("default")
    assert (found.open, found.muted, found.more) == ([], 0, 0)


def test_hours_are_those_of_utc_and_the_last_goes_on():
    # Half an hour off: an hour there is none of UTC.
    now = datetime(2026, 3, 29, 6, 40, tzinfo=UTC).astimezone(ZoneInfo("Asia/Kolkata"))
    hours = failures.hours_until(now, 3)
    assert hours == [datetime(2026, 3, 29, hour, tzinfo=UTC) for hour in (4, 5, 6)]


def test_a_cause_is_acknowledged_with_a_note_and_reopened():
    group()
    assert failures.acknowledge("default", FINGERPRINT, by="ann", note=" BUG-7\x00 ") is True
    row = FailureGroup.objects.get()
    assert (row.acknowledged_by, row.note, state()) == ("ann", "BUG-7", "acknowledged")
    assert failures.reopen("default", FINGERPRINT) is True
    row = FailureGroup.objects.get()
    assert (row.acknowledged_at, row.acknowledged_by, row.note) == (None, "", "")
    assert failures.reopen("default", FINGERPRINT) is False


def test_a_cause_is_muted_for_a_time_and_unmuted():
    group()
    failures.acknowledge("default", FINGERPRINT)
    assert failures.mute("default", FINGERPRINT, 60) is True
    assert state() == "muted"
    assert failures.unmute("default", FINGERPRINT) is True
    assert state() == "acknowledged"
    assert failures.unmute("default", FINGERPRINT) is False


def test_a_mute_ends_by_itself():
    group(muted_until=timezone.now() - timedelta(seconds=1))
    assert state() == "open"
    assert failures.unmute("default", FINGERPRINT) is False


def test_what_is_said_of_a_cause_that_is_gone_changes_nothing():
    for change in (failures.acknowledge, failures.reopen, failures.unmute):
        assert change("default", FINGERPRINT) is False
    assert failures.mute("default", FINGERPRINT, 60) is False
