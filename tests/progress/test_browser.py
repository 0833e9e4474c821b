"""The bar in a browser: what its script does with each answer, on a clock that tests turn."""

import json
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from django.contrib.auth.models import AnonymousUser
from django.template import RequestContext, Template

import django_bgtasks
from django_bgtasks.progress import progress_of

from .test_answers import result

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium.")

STATIC = Path(django_bgtasks.__file__).parent / "static"
SITE = "http://shop.example"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
#: Kept by the page: when it asked, and what its bar said to it.
NOTES = """
    window.asked = [];
    window.told = [];
    window.arrived = null;
    const real = window.fetch;
    window.fetch = (...how) => {
        asked.push(Date.now());
        const answer = real(...how);
        arrived = answer.then((one) => one.clone().text()).catch(() => null);
        return answer;
    };
    for (const name of ["progress", "finished", "lost"])
        document.addEventListener(`bgtasks:${name}`, (event) => told.push([name, event.detail]));
"""


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Shop:
    """A page with a bar, and a server that answers as it is told."""

    def __init__(self, browser, rf, *, arguments="", scripts=True):
        self.rf = rf
        self.arguments = arguments
        self.answer = result("READY")
        self.status = None
        self.loads = 0
        self.complaints = []
        context = browser.new_context(java_script_enabled=scripts)
        context.add_init_script(NOTES)
        context.route("**/*", self.serve)
        self.page = page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.clock.install()
        page.goto(f"{SITE}/import/")

    def serve(self, route):
        path = route.request.url.removeprefix(SITE)
        if path.startswith("/static/"):
            route.fulfill(path=STATIC / path.removeprefix("/static/"))
        elif not path.startswith("/bgtasks/"):
            self.loads += 1
            headers = {"Content-Security-Policy": POLICY, "Content-Type": "text/html"}
            route.fulfill(body=self.html(), headers=headers)
        elif self.status == "broken":
            route.abort()
        elif self.status is not None:
            route.fulfill(status=self.status, body=json.dumps({"text": "Too late."}))
        else:
            body = json.dumps(progress_of(self.answer))
            route.fulfill(body=body, headers={"ETag": f'"{hash(body)}"'})

    def html(self):
        request = self.rf.get("/import/")
        request.user = AnonymousUser()
        source = "{% load bgtasks %}{% task_progress result " + self.arguments + " %}"
        bar = Template(source).render(RequestContext(request, {"result": self.answer}))
        head = '<meta charset="utf-8"><title>Import</title>'
        return f'<!doctype html><html lang="en"><head>{head}</head><body>{bar}</body></html>'

    def turn(self, seconds):
        """Turn the page's clock, in steps between which answers arrive."""
        for _ in range(seconds):
            self.page.clock.run_for(1000)
            self.page.evaluate("arrived")

    def until(self, expression):
        """Turn the clock until an expression of the page is true."""
        for _ in range(200):
            with suppress(playwright.Error):  # Another page is being loaded.
                if self.page.evaluate(expression):
                    return
                self.page.clock.run_for(500)
        raise AssertionError(f"Never: {expression}")

    def asked(self):
        return self.page.evaluate("asked")

    def told(self):
        return [name for name, _ in self.page.evaluate("told")]

    def bar(self):
        return self.page.locator('[role="progressbar"]')

    def close(self):
        self.page.context.close()
        assert [c for c in self.complaints if "Failed to load resource" not in c] == []


@pytest.fixture
def shop(chromium, rf):
    opened = []

    def make(**options):
        opened.append(Shop(chromium, rf, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def half_done():
    return result(said={"current": 47, "total": 120, "message": "Rows"}, after=60)


def test_it_moves_as_the_task_does_until_that_has_ended(shop):
    open_ = shop()
    assert open_.page.locator("[data-part=refresh]").is_hidden()
    open_.answer = half_done()
    open_.until("told.length")
    assert open_.bar().get_attribute("aria-valuenow") == "39"
    assert open_.page.locator("[data-part=bar]").get_attribute("width") == "39"
    assert open_.page.inner_text("[data-part=text]") == "In progress"
    words = "47 of 120 · Rows · about 2 min left"
    assert open_.page.inner_text("[data-part=detail]") == words
    assert open_.bar().get_attribute("aria-valuetext") == f"In progress: {words}"
    open_.answer = result("SUCCESSFUL")
    open_.until('told.at(-1)[0] === "finished"')
    assert open_.bar().get_attribute("aria-valuenow") == "100"
    asked = len(open_.asked())
    open_.turn(60)
    assert len(open_.asked()) == asked
    assert open_.loads == 1


def test_it_asks_less_and_less_often(shop):
    open_ = shop()
    open_.status = 304
    open_.turn(300)
    asked = open_.asked()
    pauses = [(b - a) / 1000 for a, b in pairwise(asked)]
    assert min(pauses) >= 0.9
    assert 13 <= pauses[-1] <= 18.5
    assert len(asked) < 30


def test_while_it_moves_it_asks_every_few_seconds(shop):
    open_ = shop()
    open_.answer = half_done()
    open_.turn(120)
    asked = open_.asked()
    pauses = [(b - a) / 1000 for a, b in pairwise(asked)]
    assert 4 <= pauses[-1] <= 7.5


def test_after_a_success_it_goes_on_to_the_next_page(shop):
    open_ = shop(arguments='next="/done/"')
    open_.answer = result("SUCCESSFUL")
    open_.until('location.pathname === "/done/"')


def test_it_leaves_the_page_for_no_other_site(shop):
    open_ = shop(arguments='next="https://evil.example/" reload=True')
    open_.answer = result("SUCCESSFUL")
    open_.until("!told.length && !document.querySelector('[data-url]')")
    assert open_.page.url == f"{SITE}/import/"
    assert open_.loads == 2


def test_after_a_failure_it_stays_or_is_loaded_again(shop):
    stays, again = shop(arguments='next="/done/"'), shop(arguments='next="/done/" reload=True')
    for open_ in (stays, again):
        open_.answer = result("FAILED")
    stays.until('told.some(([name]) => name === "finished")')
    again.until("!document.querySelector('[data-url]')")
    assert (stays.loads, again.loads) == (1, 2)
    for open_ in (stays, again):
        assert "Something went wrong" in open_.page.inner_text("bgtasks-progress")
        assert open_.page.url == f"{SITE}/import/"


def test_a_page_may_stay_by_its_own_decision(shop):
    open_ = shop(arguments='next="/done/" reload=True')
    open_.page.evaluate("addEventListener('bgtasks:finished', (event) => event.preventDefault())")
    open_.answer = result("SUCCESSFUL")
    open_.until('told.some(([name]) => name === "finished")')
    open_.turn(5)
    assert (open_.loads, open_.page.url) == (1, f"{SITE}/import/")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_where_there_is_nothing_to_follow_it_says_so_and_offers_a_link(shop, status):
    open_ = shop()
    open_.status = status
    open_.until("told.length")
    assert open_.told() == ["lost"]
    assert open_.page.inner_text("[data-part=text]") == "Too late."
    assert open_.page.locator("[data-part=refresh]").is_visible()
    asked = len(open_.asked())
    open_.turn(60)
    assert len(open_.asked()) == asked


@pytest.mark.parametrize("status", [500, 503, "broken"])
def test_while_the_site_is_down_it_waits_longer_and_then_goes_on(shop, status):
    open_ = shop()
    open_.status = status
    open_.turn(120)
    assert 4 <= len(open_.asked()) <= 8
    assert open_.told() == []
    assert open_.page.inner_text("[data-part=text]") == "Waiting to start"
    open_.status, open_.answer = None, result("SUCCESSFUL")
    open_.until('told.some(([name]) => name === "finished")')


def test_a_tab_that_nobody_looks_at_asks_nothing(shop):
    open_ = shop()
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    open_.page.evaluate(hide % "true")
    open_.turn(60)
    assert open_.asked() == []
    open_.page.evaluate(f"{hide % 'false'}; document.dispatchEvent(new Event('visibilitychange'))")
    assert len(open_.asked()) == 1


def test_a_bar_that_is_put_into_the_page_later_works_and_one_taken_out_stops(shop):
    open_ = shop()
    open_.page.evaluate(
        "const old = document.querySelector('bgtasks-progress');"
        "const fresh = old.cloneNode(true); old.replaceWith(fresh)"
    )
    open_.answer = half_done()
    open_.until("told.length")
    assert open_.bar().get_attribute("aria-valuenow") == "39"
    open_.page.evaluate("document.querySelector('bgtasks-progress').remove()")
    asked = len(open_.asked())
    open_.turn(60)
    assert len(open_.asked()) == asked


def test_without_javascript_there_is_a_bar_that_stands_and_a_link(shop, chromium, rf):
    open_ = shop(scripts=False)
    open_.answer = half_done()
    open_.page.click("text=Refresh")
    assert open_.loads == 2
    assert open_.bar().get_attribute("aria-valuenow") == "39"
    assert open_.bar().bounding_box()["width"] > 300
