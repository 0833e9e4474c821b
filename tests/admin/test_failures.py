"""The list and the pages of failures by cause."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks.models import FailureGroup
from tests.bulk.rows import FINGERPRINT, finished, group

from .conftest import VIEW
from .pages import assert_bounded, changelist, page, plain, said, text

pytestmark = pytest.mark.django_db

SEE = (*VIEW, "view_failuregroup", "view_payload")
POISON = "<script>alert(1)</script>\u202e\x1b[31m"
CALM = "No failures in the last 24 hours."


@pytest.fixture
def viewer(client_with):
    return client_with(*SEE)


@pytest.fixture
def keeper(client_with):
    return client_with(*SEE, "change_failuregroup")


def see(client, fingerprint=FINGERPRINT):
    return text(client.get(page("failuregroup", quote(fingerprint))))


def act(client, name, **data):
    return client.post(page("failuregroup", FINGERPRINT, name), data)


# The list


def test_the_list_says_what_failed_where_and_how_often(viewer):
    group(counts={0: 3, 30: 4})
    content = text(viewer.get(changelist("failuregroup")))
    assert "ValueError order <n> not found add 3 7 just now Open just now" in plain(content)
    assert 'title="tests.tasks.add"' in content
    assert f"?cause={FINGERPRINT}&amp;since=24h" in content
    assert CALM not in content


def test_counts_are_no_links_for_who_may_not_see_results(client_with):
    group()
    client = client_with("view_failuregroup")
    for content in (text(client.get(changelist("failuregroup"))), see(client)):
        assert "finishedtask" not in content
        assert "queuedtask" not in content


def test_a_calm_day_is_said_with_a_green_dot(viewer):
    empty = text(viewer.get(changelist("failuregroup")))
    assert f'bgt-ok">{CALM}' in empty
    group(last_seen=timezone.now() - timedelta(days=2), counts={48: 1})
    assert CALM in text(viewer.get(changelist("failuregroup")))


def test_causes_are_filtered_by_state_and_task(viewer):
    group("a" * 32, message="one")
    group("b" * 32, message="two", acknowledged_at=timezone.now())
    group("c" * 32, message="three", muted_until=timezone.now() + timedelta(hours=1))
    group("d" * 32, message="four", task_path="shop.tasks.other")

    def shown(query):
        content = plain(text(viewer.get(changelist("failuregroup"), query)))
        return {word for word in ("one", "two", "three", "four") if f"ValueError {word}" in content}

    assert shown({"state": "open"}) == {"one", "four"}
    assert shown({"state": "acknowledged"}) == {"two"}
    assert shown({"state": "muted"}) == {"three"}
    assert shown({"task": "shop.tasks.other"}) == {"four"}


def test_a_list_of_many_causes_costs_as_much_as_one_of_few(viewer):
    for number in range(60):
        group(f"{number:032}")
    with CaptureQueriesContext(connection) as queries:
        text(viewer.get(changelist("failuregroup")))
    assert_bounded(queries, 12)


# The page of one


def test_the_page_says_all_that_is_known_of_a_cause(viewer):
    group(counts={0: 2, 1: 1, 100: 4})
    rows = finished(12, fingerprint=FINGERPRINT, worker_id="web-1", attempt=2, reason="it broke")
    finished(1, fingerprint=FINGERPRINT, queue_name="emails", worker_id="web-2")
    with CaptureQueriesContext(connection) as queries:
        content = see(viewer)
    assert_bounded(queries, 15)
    words = plain(content)
    for said_there in (
        "ValueError in add",
        "order <n> not found",
        "ValueError: order 9 not found",
        "7 failures, by 6 hours",
        "default 12 emails 1",
        "web-1 12 web-2 1",
        "it broke",
    ):
        assert said_there in words
    assert 'role="img" aria-label="7 failures in 7 days, in bars of 6 hours; at most' in content
    assert content.count("<tr><td>2") >= 28  # The table of the chart, with its zeros.
    assert page("finishedtask", rows[-1].pk) in content
    assert page("finishedtask", rows[0].pk) not in content


def test_a_cause_of_which_no_task_is_left_has_a_page(viewer):
    group()
    assert "None is left: they were retried, deleted or pruned." in see(viewer)


def test_tracebacks_need_their_permission(client_with):
    group()
    content = see(client_with("view_failuregroup"))
    assert "You may not see tracebacks." in content
    assert "order 9" not in content


def test_who_may_act_is_led_to_the_bulk_page_with_the_filter(client_with):
    group()
    client = client_with(*SEE, "bulk_task", "retry_finishedtask", "cancel_queuedtask")
    content = see(client)
    retry = f"{page_of_bulk('finishedtask')}?cause={FINGERPRINT}&amp;verb=retry"
    assert retry in content
    assert text(client.get(retry.replace("&amp;", "&")))
    cancel = (
        f"{page_of_bulk('queuedtask')}?status=RETRYING&amp;task=tests.tasks.add"
        "&amp;error=builtins.ValueError&amp;verb=cancel"
    )
    assert cancel in content
    assert text(client.get(cancel.replace("&amp;", "&")))


def page_of_bulk(model):
    return f"{changelist(model)}bulk/"


def test_buttons_are_shown_to_who_may_press_them(viewer, keeper):
    group()
    assert "csrfmiddlewaretoken" not in see(viewer).partition('<section class="bgt"')[2]
    content = see(keeper)
    for label in ("Acknowledge", "Mute for a day", "Mute for a week"):
        assert label in content
    for label in ("Reopen", "Unmute", "Retry all", "Cancel remaining"):
        assert label not in content


def test_untrusted_text_is_text(keeper):
    group(
        exception_class=f"x.{POISON}",
        message=POISON,
        task_path=POISON,
        traceback=POISON,
        acknowledged_at=timezone.now(),
        acknowledged_by=POISON,
        note=POISON,
    )
    finished(1, fingerprint=FINGERPRINT, queue_name=POISON, worker_id=POISON, reason=POISON)
    for content in (see(keeper), text(keeper.get(changelist("failuregroup")))):
        assert "<script>alert" not in content
        assert "\u202e" not in content
        assert "\x1b" not in content


def test_live_regions_alone_are_sent_and_only_when_they_changed(viewer):
    group()
    address = page("failuregroup", FINGERPRINT)
    headers = {"X-Requested-With": "bgt-live"}
    first = viewer.get(address, headers=headers)
    assert first.content.count(b"data-bgt-live") == 5
    assert b"<html" not in first.content
    again = {**headers, "If-None-Match": first["ETag"]}
    with CaptureQueriesContext(connection) as queries:
        assert viewer.get(address, headers=again).status_code in (200, 304)
    FailureGroup.objects.update(total=99)
    assert b"99" in viewer.get(address, headers=again).content
    assert len(queries) < 15


# What people say


def test_a_cause_is_acknowledged_with_a_note(keeper):
    group()
    answer = act(keeper, "acknowledge", note=" BUG-7 <b>\u202e ")
    assert answer.status_code == 302
    assert said(answer) == ["The failure is acknowledged."]
    row = FailureGroup.objects.get()
    assert (row.acknowledged_by, row.note) == (keeper.user.username, "BUG-7 <b>\u202e")
    assert LogEntry.objects.get().change_message == "Acknowledged: BUG-7 <b>\\u202e"
    assert "BUG-7 &lt;b&gt;" in see(keeper)
    assert said(act(keeper, "reopen")) == ["The failure is open again."]
    assert said(act(keeper, "reopen")) == ["Nothing was changed."]
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize(("length", "days"), [("day", 1), ("week", 7)])
def test_a_cause_is_muted_for_a_time(keeper, length, days):
    group()
    assert said(act(keeper, "mute", **{"for": length})) == ["The failure is muted."]
    until = FailureGroup.objects.get().muted_until
    assert abs(until - timezone.now() - timedelta(days=days)) < timedelta(minutes=5)
    assert LogEntry.objects.get().change_message == f"Muted for a {length}."
    assert "the dashboard leaves it out" in see(keeper)
    assert said(act(keeper, "unmute")) == ["The failure is no longer muted."]


def test_a_mute_for_ever_is_refused(keeper):
    group()
    assert said(act(keeper, "mute", **{"for": "ever"})) == ["Nothing was changed."]
    assert FailureGroup.objects.get().muted_until is None


@pytest.mark.parametrize("name", ["acknowledge", "reopen", "mute", "unmute"])
def test_who_may_not_changes_nothing_and_no_get_does(viewer, keeper, client_with, name):
    group(acknowledged_at=timezone.now(), muted_until=timezone.now() + timedelta(hours=1))
    before = FailureGroup.objects.values().get()
    data = {"for": "day", "note": "x"}
    assert act(viewer, name, **data).status_code == 403
    assert act(client_with("change_failuregroup", csrf=True), name, **data).status_code == 403
    assert keeper.get(page("failuregroup", FINGERPRINT, name)).status_code == 405
    assert keeper.post(page("failuregroup", FINGERPRINT), data).status_code == 403
    assert FailureGroup.objects.values().get() == before
    assert not LogEntry.objects.exists()


def test_a_cause_that_is_gone_is_an_answer(keeper):
    assert act(keeper, "mute", **{"for": "day"}).status_code == 302
    assert keeper.get(page("failuregroup", FINGERPRINT)).status_code == 302
