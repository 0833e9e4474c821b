"""Live regions: swapped when they differ, left alone while one reads them, quiet otherwise."""

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse

from django_bgtasks import queues
from django_bgtasks.models import Queue

from .pages import PAGES
from .site import Tab

pytestmark = pytest.mark.django_db
DASHBOARD = "admin:bgtasks_dashboard_changelist"
#: Set by hand, so that tests needn't wait for seconds.
POLL = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture
def tab(browser, site):
    context = browser.new_context()
    context.set_default_timeout(15_000)
    context.add_cookies([site.cookie(site.ann)])
    opened = Tab(context, site)
    yield opened
    context.close()


@pytest.fixture
def dashboard(tab):
    return tab.open(reverse(DASHBOARD))


def poll(tab):
    """Have the page ask now; return the answer."""
    with tab.page.expect_response(
        lambda r: r.request.headers.get("x-requested-with") == "bgt-live"
    ) as caught:
        tab.page.evaluate(POLL)
    return caught.value


def region_names(tab):
    return tab.page.locator("[data-bgt-live]").evaluate_all(
        "all => all.map(e => e.dataset.bgtLive)"
    )


def change_something():
    name = "reports"
    if Queue.objects.filter(pk=name, paused_at=None).exists():
        queues.pause(name, reason="seen live", by="ann", database="default")
    else:
        queues.resume(name, database="default")


def test_a_change_is_shown_without_a_reload(dashboard):
    dashboard.page.evaluate("window.same = true")
    assert region_names(dashboard)
    before = dashboard.page.locator("section.bgt").inner_html()
    change_something()
    assert poll(dashboard).status == 200
    dashboard.page.wait_for_function(
        "before => document.querySelector('section.bgt').innerHTML !== before", arg=before
    )
    assert dashboard.page.evaluate("window.same"), "the page was not loaded anew"
    assert dashboard.errors == []
    assert dashboard.refused == []


def test_it_asks_by_itself(dashboard):
    dashboard.page.locator("[data-bgt-refresh]").select_option("2")
    with dashboard.page.expect_response(
        lambda r: r.request.headers.get("x-requested-with") == "bgt-live"
    ):
        pass


def test_the_choice_is_remembered(dashboard):
    dashboard.page.locator("[data-bgt-refresh]").select_option("30")
    dashboard.page.reload()
    assert dashboard.page.locator("[data-bgt-refresh]").input_value() == "30"


def test_a_region_that_holds_the_focus_stays(dashboard):
    region = dashboard.page.locator("[data-bgt-live]:has(a)").first
    region.locator("a").first.focus()
    before = region.inner_html()
    change_something()
    poll(dashboard)
    dashboard.page.wait_for_timeout(100)
    assert region.inner_html() == before


def test_a_selection_stays(dashboard):
    dashboard.page.evaluate(
        """() => { const region = document.querySelector("[data-bgt-live]");
             getSelection().selectAllChildren(region); }"""
    )
    before = dashboard.page.evaluate("getSelection().toString()")
    change_something()
    poll(dashboard)
    dashboard.page.wait_for_timeout(100)
    assert dashboard.page.evaluate("getSelection().toString()") == before != ""


def test_who_is_signed_out_is_told_so(dashboard):
    Session.objects.all().delete()
    poll(dashboard)
    dashboard.page.wait_for_function(
        "() => document.querySelector('[data-bgt-note]').textContent.includes('Signed out')"
    )


def test_what_fails_is_tried_again_and_said(dashboard):
    dashboard.page.route("**/dashboard/**", lambda route: route.fulfill(status=500))
    dashboard.page.evaluate(POLL)
    dashboard.page.wait_for_function(
        "() => document.querySelector('[data-bgt-note]').textContent.includes('trying again')"
    )


def test_without_scripts_a_link_does_the_same(browser, site):
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies([site.cookie(site.ann)])
    tab = Tab(context, site).open(reverse(DASHBOARD))
    assert not tab.page.locator("[data-bgt-refresh]").is_visible()
    with tab.page.expect_navigation():
        tab.page.get_by_role("link", name="Refresh").click()
    context.close()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_region_of_every_page_is_in_the_answer_to_a_poll(page, tab):
    tab.open(page.url)
    shown = region_names(tab)
    if not shown:
        return
    assert len(set(shown)) == len(shown), "names of regions are unique"
    text = tab.page.evaluate(
        "fetch(location.href, {headers: {'X-Requested-With': 'bgt-live'}}).then(r => r.text())"
    )
    for name in shown:
        assert f'data-bgt-live="{name}"' in text
    assert "<html" not in text
    assert poll(tab).status in (200, 304)
    assert tab.errors == []
    assert tab.refused == []
