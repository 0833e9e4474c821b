"""The dashboard: what it says, what it links to, what it costs."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from django_bgtasks import queues
from django_bgtasks.models import FailureGroup, Schedule
from django_bgtasks.statistics.ledger import Ledger
from django_bgtasks.statistics.tally import minute_of

from .. import factories
from ..monitoring.test_health import worker
from ..sample_tasks import answer

pytestmark = pytest.mark.django_db
ADDRESS = "/admin/bgtasks/dashboard/"
ALL = (
    "view_dashboard",
    "view_queuedtask",
    "view_finishedtask",
    "view_queue",
    "view_worker",
    "view_schedule",
    "view_failuregroup",
)


@pytest.fixture
def client(client_with):
    return client_with(*ALL)


def page(client, query="", **headers):
    response = client.get(ADDRESS + query, headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def text(content):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", content)).split()).replace(" , ", ", ")


def fill(outcome="successful", count=1, *, queue="default", task="shop.tasks.one", minutes=0):
    ledger = Ledger("default", f"w{minutes}{outcome}")
    minute = minute_of(timezone.now().timestamp()) - minutes
    for number in range(count):
        ledger.pending.add((minute, queue, task), outcome, waited=0.4, ran=2.0)
        if outcome == "failed":
            ledger.pending.add_failure(
                "ab" * 16,
                task,
                f"00000000-0000-7000-8000-{number:012}",
                exception_class="shop.errors.StockError",
                message=f"item {number} <b>is</b> gone",
                traceback="Traceback",
            )
    ledger.write()


def test_on_an_empty_site_it_says_how_to_begin(client):
    content = text(page(client))
    for words in (
        "Nothing has run yet",
        "python manage.py runworker",
        "All is well. 0 workers, nothing waits.",
        "No tasks finished in 1 hour.",
        "No failures in the last 24 hours.",
        "No worker has reported.",
        "No schedule is due.",
    ):
        assert words in content


def test_it_shows_what_ran_what_failed_and_who_works(client):
    worker(queues=["default"])
    fill(count=90)
    fill("failed", 30)
    fill("cancelled", 3, minutes=2)
    answer.enqueue()
    content = text(page(client))
    for words in (
        "30 of 123 tasks failed in the last 15 minutes.",
        "Waiting 1 oldest",
        "Failed in 24 h 30 24.4% of 123",
        "Throughput 2.0/min p95 wait",
        "peak 120",
        "StockError item <n> <b>is</b> gone",
        "one 123 30 4 min 6 s",
        "web-1 Running h 1 · 1",
    ):
        assert words in content
    assert "Nothing has run yet" not in content


def test_each_number_leads_to_the_rows_it_counts(client):
    one = worker(queues=["default"])
    fill("failed", 2)
    answer.enqueue()
    content = page(client)
    for address in (
        "/admin/bgtasks/queuedtask/?status=READY",
        "/admin/bgtasks/queuedtask/?status=READY&amp;queue=default",
        "/admin/bgtasks/finishedtask/?status=FAILED",
        "/admin/bgtasks/finishedtask/?task=shop.tasks.one",
        f"/admin/bgtasks/failuregroup/{'ab' * 16}/change/",
        f"/admin/bgtasks/worker/{one.pk}/change/",
        "/admin/bgtasks/queue/default/change/",
    ):
        assert f'href="{address}"' in content


def test_who_may_not_see_tasks_sees_numbers_without_links(client_with):
    worker()
    fill("failed", 2)
    answer.enqueue()
    content = page(client_with("view_dashboard"))
    assert "/admin/bgtasks/queuedtask/" not in content
    assert "/admin/bgtasks/worker/" not in content
    assert "StockError" not in content
    assert "Waiting 1" in text(content)


def test_the_dashboard_needs_its_permission(client_with):
    assert client_with("view_queuedtask").get(ADDRESS).status_code == 403
    assert Client().get(ADDRESS).status_code == 302


@pytest.mark.parametrize(
    ("query", "bars"), [("", 60), ("?h=6", 72), ("?h=24", 96), ("?h=168", 84), ("?h=x", 60)]
)
def test_windows_have_a_fixed_number_of_intervals(client, query, bars):
    fill(count=5, minutes=3)
    content = page(client, query)
    assert f'viewBox="0 0 {bars * 10} 100"' in content
    assert "5 successful" in content


def test_muted_causes_are_counted_and_not_listed(client):
    fill("failed", 2)
    FailureGroup.objects.update(muted_until=timezone.now() + timedelta(days=1))
    content = text(page(client))
    assert "StockError" not in content
    assert "1 muted" in content


def test_names_are_text(client):
    worker("<script>alert(1)</script>", age=100)
    fill("failed", 2, task="a.<script>\u202e")
    queues.pause("emails", reason="<script>")
    content = page(client)
    assert "<script>alert" not in content
    assert "\u202e" not in content
    assert "a.<script>" not in content


def test_next_up_are_the_schedules_that_are_due_next(client):
    for number in range(7):
        row = Schedule.objects.create(
            name=f"s{number}", task_path="t", expression="@daily", time_zone="UTC"
        )
        due = timezone.now() + timedelta(hours=number + 1)
        Schedule.objects.filter(pk=row.pk).update(next_due_at=due)
    content = text(page(client))
    assert "s0" in content
    assert "s4" in content
    assert "s5" not in content


# Live regions


def test_a_refresh_brings_the_regions_alone(client):
    worker()
    response = client.get(ADDRESS, headers={"X-Requested-With": "bgt-live"})
    content = response.content.decode()
    assert content.lstrip().startswith("<div data-bgt-live=")
    assert "<html" not in content
    names = re.findall(r'data-bgt-live="(\w+)"', content)
    assert names == [
        "health",
        "tiles",
        "charts",
        "causes",
        "queues",
        "workers",
        "tasks",
        "upcoming",
    ]
    assert names == re.findall(r'data-bgt-live="(\w+)"', page(client))


def test_a_refresh_without_news_is_cheap(client, django_assert_max_num_queries):
    worker()
    headers = {"X-Requested-With": "bgt-live"}
    etag = client.get(ADDRESS, headers=headers).headers["ETag"]
    with django_assert_max_num_queries(10):
        response = client.get(ADDRESS, headers={**headers, "If-None-Match": etag})
    assert response.status_code == 304
    assert response.content == b""
    answer.enqueue()
    response = client.get(ADDRESS, headers={**headers, "If-None-Match": etag})
    assert response.status_code == 200


def test_it_costs_few_queries_whatever_there_is(client, django_assert_max_num_queries):
    for name in ("a", "b"):
        worker(name)
    fill(count=20)
    fill("failed", 3)
    for name in ("default", "emails", "reports"):
        answer.using(queue_name=name).enqueue()
    factories.succeed(answer.enqueue())
    page(client)
    # Two more are the permissions', which a superuser doesn't need.
    with django_assert_max_num_queries(15 + 2):
        page(client)
