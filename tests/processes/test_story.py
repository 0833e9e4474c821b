"""A new operator and 300 failures of one bug among 10,000 tasks: how far is it to the end?"""

import time

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from django_bgtasks.models import BulkOperation, FailureGroup, FinishedTask
from tests import tasks
from tests.browser.conftest import browser  # noqa: F401
from tests.browser.site import Tab, serving

from .conftest import until, until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]
ALL, BROKEN = 10_000, 300


class Clicks:
    """A person at the console: what is clicked, and which pages that shows."""

    def __init__(self, tab):
        self.page = tab.page
        self.count = 0
        self.pages = []

    def click(self, role, name):
        self.count += 1
        with self.page.expect_navigation():
            self.page.get_by_role(role, name=name).first.click()
        self.pages.append(self.page.title())


def test_from_the_dashboard_to_all_are_retried_in_a_few_clicks(
    start_worker,
    tmp_path,
    browser,  # noqa: F811
):
    fixed = tmp_path / "fixed"
    tasks.nothing.enqueue_many([{} for _ in range(ALL - BROKEN)])
    tasks.charge_order.enqueue_many([(n, str(fixed)) for n in range(BROKEN)])
    start_worker("--processes", 2)
    until_all_ended()
    until(lambda: FailureGroup.objects.filter(total=BROKEN).exists())
    assert FinishedTask.objects.filter(status="FAILED").count() == BROKEN

    ann = User.objects.create_superuser("ann")
    with serving() as site:
        context = browser.new_context()
        context.set_default_timeout(20_000)
        context.add_cookies([site.cookie(ann)])
        tab = Tab(context, site).open(reverse("admin:bgtasks_dashboard_changelist"))
        began = time.monotonic()
        person = Clicks(tab)
        assert "KeyError" in tab.page.content()
        assert ">300<" in tab.page.content()
        person.click("link", "KeyError")
        assert "charge_order" in tab.page.content()
        fixed.touch()  # The bug is found, and what fixes it is deployed.
        person.click("link", "Retry all that failed this way…")
        assert "300 tasks" in tab.page.content()
        person.click("button", "Begin")
        until(lambda: BulkOperation.objects.get().state == "DONE")
        until(lambda: FinishedTask.objects.filter(status="SUCCESSFUL").count() == ALL)
        person.click("link", "Dashboard")
        seconds = time.monotonic() - began
        assert tab.refused == []
        context.close()
    print(f"{len(person.pages)} pages, {person.count} clicks, {seconds:.1f} s: {person.pages}")  # noqa: T201
    assert (len(person.pages), person.count) == (4, 4)
    operation = BulkOperation.objects.get()
    assert (operation.done, operation.skipped) == (BROKEN, {})
