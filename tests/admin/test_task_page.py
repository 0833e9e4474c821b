"""What the page of a task says of its state, its attempts and its origin, and how it goes on."""

import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import chain, group, previous, transitions
from django_bgtasks.admin import tracebacks
from django_bgtasks.admin.timeline import timeline
from django_bgtasks.models import Cancellation, FinishedTask, Queue, QueuedTask, Schedule, Worker
from django_bgtasks.models.failure import FailureCount, FailureGroup
from django_bgtasks.schedules.by_hand import run_now
from tests import factories
from tests.tasks import add, nothing
from tests.workflows import tasks

from .conftest import VIEW
from .pages import assert_bounded, changelist, page, plain, said, text
from .tasks import fetch, import_feed, log_in
from .test_lists import worker

pytestmark = pytest.mark.django_db

LIVE = {"X-Requested-With": "bgt-live"}
TRACEBACK = """Traceback (most recent call last):
  File "/srv/app/shop/tasks.py", line 41, in import_feed
    rows = client.fetch(url, timeout=30)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/venv/lib/python3.12/site-packages/requests/api.py", line 73, in get
    return request("get", url, params=params, **kwargs)
  File "/usr/lib/python3.12/socket.py", line 837, in create_connection
    sock.connect(sa)
  File "/srv/app/shop/client.py", line 17, in fetch
    raise ConnectionError("the stock service timed out")
ConnectionError: the stock service timed out
"""


def url_of(result):
    live = QueuedTask.objects.filter(pk=result.id).exists()
    return page("queuedtask" if live else "finishedtask", result.id)


def see(client, result):
    return plain(text(client.get(url_of(result)))).replace("\xa0", " ")


def error(number, begin, end, **changes):
    """An entry of errors; begin and end in seconds before now."""
    now = timezone.now()
    return {
        "attempt": number,
        "worker_id": "w1",
        "started_at": (now - timedelta(seconds=begin)).isoformat(),
        "ended_at": (now - timedelta(seconds=end)).isoformat(),
        "exception_class_path": "builtins.ConnectionError",
        "traceback": TRACEBACK,
        **changes,
    }


def failed(*errors):
    result = factories.fail(fetch.enqueue("x"))
    FinishedTask.objects.filter(pk=result.id).update(
        errors=list(errors),
        attempt=len(errors),
        enqueued_at=timezone.now() - timedelta(seconds=400),
    )
    return result


# The heading


def test_a_running_task_says_which_attempt_it_is_and_where(viewer):
    result = fetch.enqueue("x")
    factories.claim(worker_id="web-1")
    began = timezone.now() - timedelta(seconds=42)
    QueuedTask.objects.update(attempt=3, failures=2, last_attempted_at=began)
    assert re.search(r"Running attempt 3 of 5 on web-1, started 4\d s ago", see(viewer, result))


def test_attempts_of_lost_workers_are_counted_apart(viewer):
    result = fetch.enqueue("x")
    factories.claim()
    QueuedTask.objects.update(attempt=4, failures=1, lost_count=2)
    assert "attempt 4 of 7 on w1" in see(viewer, result)


def test_a_task_of_one_attempt_does_not_say_of_how_many(viewer):
    result = add.enqueue(1, 2)
    factories.claim()
    assert "attempt 1 on w1, started just now" in see(viewer, result)


def test_a_scheduled_task_says_when_it_starts(viewer):
    result = add.using(run_after=timedelta(hours=2, minutes=10, seconds=30)).enqueue(1, 2)
    content = see(viewer, result)
    assert "Scheduled starts in 2 h 10 min" in content
    assert "Why isn't this running? It is due in" in content
    QueuedTask.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert "attempt 1 is due" in see(viewer, result)


def test_a_task_that_is_tried_again_says_which_attempt_starts_when(viewer):
    result = fetch.using(run_after=timedelta(seconds=200)).enqueue("x")
    QueuedTask.objects.update(attempt=2, failures=2)
    assert re.search(r"Waiting to retry attempt 3 of 5 starts in 3 min \d+ s", see(viewer, result))


def test_a_task_that_waits_for_others_says_for_how_many(viewer):
    chain(
        group(tasks.give.with_args(n) for n in range(2)), tasks.total.with_args(previous)
    ).enqueue()
    row = QueuedTask.objects.get(task_path=tasks.total.module_path)
    content = plain(text(viewer.get(page("queuedtask", row.pk))))
    assert "Blocked waits for 2 parents" in content
    first = QueuedTask.objects.filter(task_path=tasks.give.module_path).first()
    factories.succeed(first.get_result())
    assert "waits for 1 parent" in plain(text(viewer.get(page("queuedtask", row.pk))))


def test_what_has_ended_says_how_long_ago_and_after_how_many_attempts(viewer):
    result = failed(error(1, 300, 290), error(2, 200, 190))
    FinishedTask.objects.update(finished_at=timezone.now() - timedelta(minutes=12))
    assert "Failed failed 12 min ago after 2 attempts" in see(viewer, result)
    done = factories.succeed(nothing.enqueue())
    assert re.search(r"Successful just now on w1, took .* ms", see(viewer, done))
    cancelled = add.enqueue(1, 2)
    cancelled.cancel(by="bob", why="too late")
    content = see(viewer, cancelled)
    assert "Cancelled just now" in content
    assert "Cancelled by bob: too late" in content


def test_a_task_that_was_asked_to_end_is_cancelling(viewer):
    result = add.enqueue(1, 2)
    factories.claim()
    transitions.ask_to_end("default", [result.id], by="bob")
    content = see(viewer, result)
    assert "Cancelling attempt 1" in content
    assert "Asked to end: Cancelled by bob. · just now" in content


def test_a_lost_task_says_what_becomes_of_it(viewer):
    result = add.enqueue(1, 2)
    factories.claim()
    QueuedTask.objects.update(lease_until=timezone.now() - timedelta(seconds=5))
    assert "nothing was heard for its whole lease" in see(viewer, result)


def test_a_running_task_tells_of_its_worker(viewer):
    result = add.enqueue(1, 2)
    factories.claim(worker_id="web-1")
    worker(name="web-1", hostname="<b>host", version="1.2.3")
    content = text(viewer.get(url_of(result)))
    assert "&lt;b&gt;host, version 1.2.3, heard of" in content
    assert "<b>host" not in content
    assert Worker.objects.count() == 1


# The toolbar


def test_what_is_scheduled_can_run_now(client_with):
    client = client_with("view_queuedtask", "run_queuedtask")
    result = add.using(run_after=timedelta(days=1)).enqueue(1, 2)
    url = page("queuedtask", result.id, "run")
    assert f'action="{url}"' in text(client.get(url_of(result)))
    assert client.get(url).status_code == 405
    response = client.post(url)
    assert said(response) == ["1 task is ready now."]
    result.refresh()
    assert (result.state, result.reason) == ("READY", f"Run now by {client.user.username}.")
    assert LogEntry.objects.get().change_message == "Run now."
    assert url not in text(client.get(url_of(result)))
    assert said(client.post(url)) == ["1 was skipped: it is ready already."]


def test_to_run_now_needs_its_own_permission(viewer, client_with):
    result = add.using(run_after=timedelta(days=1)).enqueue(1, 2)
    url = page("queuedtask", result.id, "run")
    for client in (viewer, client_with("run_queuedtask"), client_with(*VIEW, "cancel_queuedtask")):
        assert client.post(url).status_code == 403
    strict = client_with("view_queuedtask", "run_queuedtask", csrf=True)
    assert strict.post(url).status_code == 403
    assert "login" in Client().post(url).url
    result.refresh()
    assert result.state == "SCHEDULED"


def test_a_page_that_asks_changes_nothing(operator):
    running = add.enqueue(1, 2)
    factories.claim()
    for verb in ("cancel", "force"):
        operator.get(page("queuedtask", running.id, verb))
        operator.head(page("queuedtask", running.id, verb))
    done = factories.succeed(nothing.enqueue())
    text(operator.get(page("finishedtask", done.id, "delete")))
    assert not Cancellation.objects.exists()
    assert FinishedTask.objects.count() == 1
    assert not LogEntry.objects.exists()


def test_a_viewer_is_offered_nothing(viewer):
    for result in (add.enqueue(1, 2), factories.fail(nothing.enqueue())):
        content = text(viewer.get(url_of(result)))
        section = content[content.index('class="bgt-push bgt-tools"') :].partition("</span>")[0]
        assert "<a" not in section
        assert "<form" not in section


def test_a_page_is_not_changed_by_form(operator):
    result = add.enqueue(1, 2)
    assert operator.post(url_of(result), {"queue_name": "x"}).status_code == 403


# The timeline


def test_each_attempt_has_a_bar_in_the_colour_of_its_outcome(viewer):
    now = timezone.now()
    result = fetch.enqueue("x")
    factories.claim()
    QueuedTask.objects.update(
        attempt=3,
        enqueued_at=now - timedelta(seconds=400),
        errors=[
            error(1, 300, 280),
            error(2, 200, 160, exception_class_path="django_bgtasks.exceptions.WorkerLost"),
        ],
        last_attempted_at=now - timedelta(seconds=100),
    )
    row = QueuedTask.objects.get()
    drawn = timeline(row, now)
    assert [line.label for line in drawn.rows] == ["queued", "attempt 1", "attempt 2", "attempt 3"]
    assert [[bar.color for bar in line.bars] for line in drawn.rows] == [
        ["idle"],
        ["bad", "idle"],
        ["warn", "idle"],
        ["run"],
    ]
    begins = [float(line.bars[0].x) for line in drawn.rows]
    assert begins == pytest.approx([0, 250, 500, 750], abs=1)
    widths = [float(bar.width) for line in drawn.rows for bar in line.bars]
    assert widths == pytest.approx([250, 50, 200, 100, 150, 250], abs=1)
    assert drawn.ticks[1:] == ["+1\xa0min\xa040\xa0s", "+3\xa0min\xa020\xa0s",
                               "+5\xa0min\xa00\xa0s", "+6\xa0min\xa040\xa0s"]  # fmt: skip
    content = text(viewer.get(url_of(result)))
    assert content.count('class="bgt-fill-run"') == 1
    assert "attempt 3" in plain(content)


def test_a_short_attempt_is_drawn_all_the_same():
    now = timezone.now()
    add.enqueue(1, 2)
    QueuedTask.objects.update(
        enqueued_at=now - timedelta(days=3), errors=[error(1, 0.001, 0)], attempt=1
    )
    for line in timeline(QueuedTask.objects.get(), now).rows:
        for bar in line.bars:
            assert float(bar.width) >= 1
            assert 0 <= float(bar.x) <= float(bar.x) + float(bar.width) <= 1000


def test_of_many_attempts_the_newest_are_drawn(viewer):
    result = failed(*(error(n, 300 - n, 299.5 - n) for n in range(1, 101)))
    content = text(viewer.get(url_of(result)))
    assert "80 earlier attempts are left out." in content
    assert '<th scope="row">attempt 100</th>' in content
    assert '<th scope="row">attempt 80</th>' not in content


@pytest.mark.parametrize("when", [None, "x", 5, "2026-01-01", "0001-01-01T00:00:00+00:00"])
def test_times_that_are_none_are_left_out(viewer, when):
    result = failed(error(1, 3, 2, started_at=when), error(2, 2, 1, ended_at=when))
    see(viewer, result)


def test_a_name_that_turns_the_text_is_made_visible_wherever_it_stands(client_with):
    result = add.enqueue(1, 2)
    factories.claim()
    QueuedTask.objects.update(task_path="app.\u202e<b>", queue_name="\u202e", worker_id="\u202e")
    client = client_with(*VIEW, "cancel_queuedtask")
    for url in (url_of(result), page("queuedtask", result.id, "cancel")):
        content = text(client.get(url))
        assert "\u202e" not in content
        assert r"\u202e&lt;b&gt;" in content


# Attempts and tracebacks


def test_the_frames_of_the_project_are_shown_first(operator):
    content = text(operator.get(url_of(failed(error(1, 3, 2)))))
    first = re.search(r'<pre id="own-1">(.*?)</pre>', content, re.DOTALL)[1]
    assert first.splitlines() == [
        "  File &quot;/srv/app/shop/tasks.py&quot;, line 41, in import_feed",
        "    rows = client.fetch(url, timeout=30)",
        "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "  File &quot;/srv/app/shop/client.py&quot;, line 17, in fetch",
        "    raise ConnectionError(&quot;the stock service timed out&quot;)",
        "ConnectionError: the stock service timed out",
    ]
    assert "Show all 4 frames" in content
    assert (
        "site-packages/requests"
        in re.search(r'<pre id="text-1">(.*?)</pre>', content, re.DOTALL)[1]
    )


def test_the_last_failure_is_open_and_no_other(operator):
    content = text(operator.get(url_of(failed(error(1, 5, 4), error(2, 3, 2)))))
    assert 'id="attempt-2" open>' in content
    assert 'id="attempt-1">' in content
    assert content.index('id="attempt-2"') < content.index('id="attempt-1"')


def test_who_may_not_see_payload_reads_the_class_of_an_exception_alone(viewer):
    content = text(viewer.get(url_of(failed(error(1, 3, 2)))))
    assert "<code>builtins.ConnectionError</code>" in content
    assert "timed out" not in content
    assert "import_feed" not in content
    assert "You may not see tracebacks." in content


CHAINED = f"""Traceback (most recent call last):
  File "/srv/app/shop/tasks.py", line 5, in load
    return json.loads(text)
  File "/usr/lib/python3.12/json/decoder.py", line 3, in raw_decode
    raise JSONDecodeError("Expecting value", s, err.value) from None
json.decoder.JSONDecodeError: Expecting value

The above exception was the direct cause of the following exception:

{TRACEBACK}"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/venv/lib/python3.12/site-packages/anyio/x.py", line 5, in run
  |     raise group
  | ExceptionGroup: two (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/app/shop/tasks.py", line 6, in one
    |     raise ValueError("no")
    | ValueError: no
    +------------------------------------
"""


def test_each_exception_of_a_chain_keeps_its_own_frames():
    read = tracebacks.read(CHAINED)
    assert read.frames == 6
    assert "decoder.py" not in read.own
    assert "JSONDecodeError: Expecting value" in read.own
    assert "The above exception was the direct cause" in read.own
    assert read.message == "ConnectionError: the stock service timed out"


def test_groups_of_exceptions_keep_their_own_frames():
    read = tracebacks.read(GROUP)
    assert "anyio" not in read.own
    assert "raise group" not in read.own
    assert 'raise ValueError("no")' in read.own
    assert read.message == "ValueError: no"


@pytest.mark.parametrize(
    "path",
    [
        "/srv/venv/lib/python3.12/site-packages/x.py",
        "/usr/lib/python3/dist-packages/x.py",
        "/usr/lib/python3.12/json/x.py",
        "/usr/local/lib/python3.13t/json/x.py",
        r"C:\Program Files\Python312\Lib\json\x.py",
        r"C:\app\.venv\Lib\site-packages\x.py",
        "<frozen importlib._bootstrap>",
        tracebacks.__file__,
    ],
)
def test_frames_of_others_are_left_out(path):
    own = '  File "/srv/lib/shop.py", line 1, in a\n    a()\n'
    text = f'{own}  File "{path}", line 2, in b\n    b()\nE: x\n'
    assert tracebacks.read(text).own == f"{own}E: x"


def test_where_no_frame_is_the_projects_the_last_one_is_shown():
    text = "".join(
        f'  File "/usr/lib/python3.12/{name}.py", line 1, in f\n    {name}()\n' for name in "abc"
    )
    assert tracebacks.read(f"{text}E: x").own.splitlines() == [
        '  File "/usr/lib/python3.12/c.py", line 1, in f',
        "    c()",
        "E: x",
    ]


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "\n\n",
        "no traceback",
        "Traceback (most recent call last):\n",
        '  File "x", line 1\n',
        '  File "/usr/lib/python3.12/a.py", line 1, in f',
        "a" * 100_000,
        ('  File "/srv/a.py", line 1, in f\n' * 5_000) + "… 9 characters left out …\nE",
        "| + | + - " * 1_000,
    ],
)
def test_whatever_is_no_traceback_is_shown_as_it_is(odd):
    read = tracebacks.read(odd)
    assert read.own.strip("\n") == odd.strip("\n")


def test_repeated_frames_go_with_their_frame():
    text = (
        '  File "/usr/lib/python3.12/a.py", line 1, in f\n    f()\n'
        "  [Previous line repeated 990 more times]\n"
        '  File "/srv/a.py", line 1, in g\n    g()\nRecursionError: deep'
    )
    assert "Previous line" not in tracebacks.read(text).own


# Failures of the same cause


def test_a_failure_leads_to_others_of_its_cause_where_there_is_such_a_page(viewer, client_with):
    result = failed(error(1, 3, 2))
    FinishedTask.objects.update(fingerprint="abc")
    now = timezone.now()
    FailureCount.objects.create(fingerprint="abc", hour=now - timedelta(hours=2), count=200)
    FailureCount.objects.create(fingerprint="abc", hour=now - timedelta(hours=1), count=61)
    FailureCount.objects.create(fingerprint="abc", hour=now - timedelta(hours=30), count=9)
    content = text(client_with(*VIEW, "view_failuregroup").get(url_of(result)))
    is_there = admin.site.is_registered(FailureGroup)
    assert ("261 tasks failed like this in 24 hours" in content) is is_there
    assert ("failuregroup/abc" in content) is is_there
    assert "failuregroup/abc" not in text(viewer.get(url_of(result)))


# Plain text


def test_what_is_folded_is_there_as_plain_text(operator, viewer):
    result = log_in.enqueue("ann", "p4ss", hint="<b>\u202e" + "x" * 5_000)
    address = url_of(result).replace("change/", "text/arguments/")
    assert address in text(operator.get(url_of(result)))
    response = operator.get(address)
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["X-Content-Type-Options"] == "nosniff"
    content = response.content.decode()
    assert "p4ss" not in content
    assert r'"hint": "<b>\u202exxx' in content
    assert viewer.get(address).status_code == 403
    assert operator.get(address.replace("arguments", "result")).status_code == 404
    factories.succeed(result, {"sum": 3, "token": "t0k"})
    gone = operator.get(address)
    assert gone.status_code == 302
    response = operator.get(url_of(result).replace("change/", "text/result/"))
    assert b'"sum": 3' in response.content
    assert b"t0k" not in response.content


def test_of_a_long_log_the_end_is_shown_and_all_of_it_as_plain_text(operator):
    log = "\n".join(f"line {n}." for n in range(250))
    result = failed(error(1, 5, 4, log=log), error(2, 3, 2))
    content = text(operator.get(url_of(result)))
    assert "50 lines stand before these." in content
    assert "line 50." in content
    assert "line 49." not in content
    address = url_of(result).replace("change/", "text/log-1/")
    assert address in content
    assert operator.get(address).content.decode() == log
    for part in ("log-2", "log-3", "log", "x", "log-999999"):
        assert operator.get(url_of(result).replace("change/", f"text/{part}/")).status_code == 404


def test_values_of_five_megabytes_are_cut_on_the_page(operator):
    add.enqueue(1, 2)
    QueuedTask.objects.update(args=["x" * 5_000_000, "<script>"])
    row = QueuedTask.objects.get()
    response = operator.get(page("queuedtask", row.pk))
    content = text(response)
    assert len(content) < 200_000
    assert "5000" in content
    assert "The first 100000 are shown." in content


# Who enqueued it


def test_the_task_that_enqueued_it_is_linked(viewer):
    parent, child = add.enqueue(1, 2), add.enqueue(3, 4)
    QueuedTask.objects.filter(pk=child.id).update(options={"origin": {"task": parent.id}})
    content = text(viewer.get(url_of(child)))
    assert f'by the task <a href="{url_of(parent)}"' in content


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({"path": "/a/", "user": "ann", "user_id": "7"}, "by ann at /a/"),
        ({"path": "/a/"}, "by a request of /a/"),
        ({"command": "import_orders"}, "by the command import_orders"),
        ({"command": "<script>x\u202e"}, r"by the command <script>x\u202e"),
        ({}, "Enqueued"),
        ("x", "Enqueued"),
        ([1], "Enqueued"),
    ],
)
def test_the_origin_in_words(viewer, origin, words):
    result = add.enqueue(1, 2)
    QueuedTask.objects.update(options={"origin": origin})
    content = text(viewer.get(url_of(result)))
    assert words in re.sub(r" +", " ", plain(content))
    assert "<script>x" not in content


def test_the_schedule_that_enqueued_it_is_linked(viewer, client_with):
    row = Schedule.objects.create(
        name="nightly <b>", task_path="tests.tasks.nothing", expression="@daily"
    )
    result = run_now(row, by="ann", alias="default")
    assert "origin" not in QueuedTask.objects.get(pk=result.id).options
    assert "by the schedule nightly &lt;b&gt;" in text(viewer.get(url_of(result)))
    seer = client_with(*VIEW, "view_schedule")
    address = page("schedule", row.pk)
    assert f'by the schedule <a href="{address}">' in text(seer.get(url_of(result)))


# Live


def regions(response):
    assert response.status_code == 200
    return dict(re.findall(r'<div data-bgt-live="(\w+)">(.*?)(?=<div data-bgt-live|\Z)',
                           response.content.decode(), re.DOTALL))  # fmt: skip


def test_the_regions_come_alone_and_only_when_something_has_changed(operator, monkeypatch):
    result = add.enqueue(1, 2)
    factories.claim()
    now = timezone.now()
    monkeypatch.setattr("django_bgtasks.admin.task_page.clock_of", lambda row: now)
    url = url_of(result)
    first = operator.get(url, headers=LIVE)
    assert set(regions(first)) == {
        "state",
        "result",
        "details",
        "attempts",
        "workflow",
        "history",
    }
    assert "<html" not in first.content.decode()
    again = {**LIVE, "If-None-Match": first["ETag"]}
    with CaptureQueriesContext(connection) as queries:
        assert operator.get(url, headers=again).status_code == 304
    assert_bounded(queries.captured_queries, 6)
    QueuedTask.objects.update(notes={"progress": {"current": 1, "total": 2}})
    assert "50 %" in regions(operator.get(url, headers=again))["state"]


def test_an_open_page_goes_on_when_the_task_ends(operator):
    result = add.enqueue(1, 2)
    url = url_of(result)
    regions(operator.get(url, headers=LIVE))
    factories.succeed(result, {"sum": 3})
    found = regions(operator.get(url, headers=LIVE))
    assert "Successful" in found["state"]
    assert "&quot;sum&quot;: 3" in found["result"]
    FinishedTask.objects.all().delete()
    assert operator.get(url, headers=LIVE).status_code == 404


def test_each_thing_that_opens_has_a_name_so_that_it_stays_open(operator):
    content = text(operator.get(url_of(failed(error(1, 5, 4, log="x"), error(2, 3, 2)))))
    section = content[content.index('data-bgt-live="attempts"') :]
    assert "<details" in section
    for tag in re.findall(r"<details[^>]*>", section):
        assert " id=" in tag
    ids = re.findall(r' id="([^"]+)"', section)
    assert len(ids) == len(set(ids))


# History


def test_the_latest_entries_of_the_history_are_on_the_page(operator):
    result = add.enqueue(1, 2)
    operator.post(page("queuedtask", result.id, "cancel"))
    content = see(operator, result)
    assert f"{operator.user.username} · Cancelled." in content
    assert "Nobody has done anything" in see(operator, add.enqueue(1, 2))
    assert page("finishedtask", result.id, "history") in text(operator.get(url_of(result)))


# Workflows


def test_the_graph_is_on_the_page_of_each_member(client_with):
    workflow = chain(
        tasks.give.with_args(1).named("one <b>"), tasks.show.with_args(previous)
    ).enqueue()
    first = QueuedTask.objects.get(task_path=tasks.give.module_path)
    url = page("queuedtask", first.pk)
    content = text(client_with(*VIEW, "view_workflow").get(url))
    assert "bgtasks-graph" in content
    assert "one &lt;b&gt;" in content
    assert page("workflow", workflow.id) in content
    content = text(client_with(*VIEW).get(url))
    assert "bgtasks-graph" not in content
    assert page("workflow", workflow.id) not in content


def test_a_large_workflow_is_not_drawn_with_each_task(client_with):
    workflow = chain(
        group(tasks.give.with_args(n) for n in range(70)), tasks.total.with_args(previous)
    ).enqueue()
    row = QueuedTask.objects.get(task_path=tasks.total.module_path)
    client = client_with(*VIEW, "view_workflow")
    url = page("queuedtask", row.pk)
    text(client.get(url))
    with CaptureQueriesContext(connection) as queries:
        content = text(client.get(url))
    assert len(queries.captured_queries) <= 16
    assert "71 tasks, on the page of the workflow." in content
    assert page("workflow", workflow.id) in content


# Costs


def busy_queue():
    Queue.objects.create(name="default")
    worker(name="w1")
    return add.enqueue_many([(n, n) for n in range(30)])[-1]


def at_a_limit():
    return import_feed.enqueue_many([("acme", number) for number in range(5)])[-1]


def running():
    result = import_feed.enqueue("acme", 1)
    factories.claim()
    worker(name="w1")
    transitions.ask_to_end("default", [result.id])
    return result


def many_failures():
    result = failed(*(error(n, 5, 4, log="x\n" * 300) for n in range(30)))
    FinishedTask.objects.update(fingerprint="abc", notes={"log": "y\n" * 300})
    return result


@pytest.mark.parametrize("make", [busy_queue, at_a_limit, running, many_failures])
def test_a_page_costs_at_most_twelve_queries(operator, make):
    result = make()
    url = url_of(result)
    text(operator.get(url))
    with CaptureQueriesContext(connection) as queries:
        text(operator.get(url))
    assert len(queries.captured_queries) <= 12, "\n".join(q["sql"] for q in queries)


def test_the_page_of_a_member_of_a_workflow_costs_a_few_more(client_with):
    chain(
        group(tasks.give.with_args(n) for n in range(20)), tasks.total.with_args(previous)
    ).enqueue()
    client = client_with(*VIEW, "view_workflow", "view_payload")
    row = QueuedTask.objects.get(task_path=tasks.total.module_path)
    url = page("queuedtask", row.pk)
    text(client.get(url))
    with CaptureQueriesContext(connection) as queries:
        text(client.get(url))
    assert len(queries.captured_queries) <= 14, "\n".join(q["sql"] for q in queries)


def test_the_list_is_one_step_away(viewer):
    assert f'href="{changelist("queuedtask")}">‹ Tasks' in text(
        viewer.get(url_of(add.enqueue(1, 2)))
    )
