"""Every page in a browser: policies, accessibility, narrow and right-to-left, without scripts."""

import re

import django
import pytest
from django.test import Client, override_settings

from . import policies
from .pages import PAGES, missing
from .site import PHONE, WIDTH

#: Colours as the eyes of the user want them, both on the same page.
COLORS = ("light", "dark")

#: The admin's own fields for dates have no labels before Django 6.
OLD_DATES = re.compile("vDateField|vTimeField" if django.VERSION < (6, 0) else "(?!)")

pytestmark = pytest.mark.django_db
every_page = pytest.mark.parametrize("page", PAGES, ids=str)
#: From 6.1 on the stock pages have nonces, too, and pass them on to what is ours.
nonce_pages = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.own or django.VERSION >= (6, 1)], ids=str
)
our_pages = pytest.mark.parametrize("page", [page for page in PAGES if page.own], ids=str)


@pytest.fixture(scope="module")
def axe(browser):
    from axe_playwright_python.sync_playwright import Axe

    return Axe()


def assert_accessible(axe, tab, what):
    # Colours that are on their way to others have any contrast.
    tab.page.evaluate("Promise.allSettled(document.getAnimations().map(a => a.finished))")
    # The frame around it is the admin's own.
    part = ".bgt" if tab.page.locator("section.bgt").count() else "#content"
    results = axe.run(tab.page, context={"include": [[part]]})
    found = [
        f"{violation['id']}: {node['html'][:300]} — {node['failureSummary'][:400]}"
        for violation in results.response["violations"]
        for node in violation["nodes"]
        if not OLD_DATES.search(node["html"])
    ]
    assert found == [], f"{what}: {len(found)} findings of axe"


def test_every_page_has_a_line(site):
    client = Client()
    client.force_login(site.ann)
    assert missing(client) == [], "each of these needs a line in tests/browser/pages.py"


@every_page
def test_a_page_breaks_no_policy_and_is_accessible_in_light_and_dark(page, desk, axe):
    desk.page.emulate_media(color_scheme="light")
    desk.open(page.url)
    assert desk.errors == []
    assert desk.refused == []
    for color in COLORS:
        desk.page.emulate_media(color_scheme=color)
        assert_accessible(axe, desk, color)


@nonce_pages
def test_scripts_and_styles_of_ours_have_nonces_and_break_no_trusted_types(page, contexts):
    tab = contexts()
    with override_settings(**policies.setting(policies.NONCES)):
        tab.open(page.url)
    # Stock pages of some versions of Django have no nonces.
    ours = [said for said in tab.refused if not re.search("/static/admin/|/jsi18n/", said)]
    assert ours == []
    without = tab.page.evaluate(
        """() => [...document.querySelectorAll("script[src*='bgtasks'], link[href*='bgtasks']")]
          .filter((element) => !element.nonce).map((element) => element.outerHTML)"""
    )
    assert without == []


@every_page
def test_a_page_fits_a_telephone(page, phone, axe):
    phone.open(page.url)
    assert phone.overflow() is None


@every_page
def test_a_page_fits_from_right_to_left(page, contexts):
    tab = contexts(language="ar")
    for width in (WIDTH, PHONE):
        tab.page.set_viewport_size({"width": width, "height": 900})
        if width == WIDTH:
            tab.open(page.url)
            assert tab.page.evaluate("document.documentElement.dir") == "rtl"
        assert tab.overflow() is None, f"at {width} px"


@every_page
def test_a_page_is_complete_without_scripts(page, desk, contexts):
    tab = contexts(scripts=False)
    for one in (tab, desk):
        one.open(page.url)
    assert tab.errors == []
    # What only scripts can do, they show themselves.
    assert missing_words(desk, tab) == set()
    assert tab.page.locator("[data-bgt-script]:visible").count() == 0


@our_pages
def test_a_page_is_legible_in_the_dark_without_scripts(page, contexts, axe):
    """Without them nothing tells a stylesheet which colours the user has chosen."""
    tab = contexts(color="dark")
    tab.page.route("**/*.js", lambda route: route.abort())
    tab.page.goto(tab.site.root + page.url)
    assert_accessible(axe, tab, "dark, without scripts")


def missing_words(with_scripts, without):
    """Return the buttons, links and headings that only a page with scripts has."""
    found = []
    for tab in (with_scripts, without):
        parts = tab.page.locator(
            "#content :is(h1, h2, h3, button, a):visible, #content input[type=submit]:visible"
        )
        texts = parts.evaluate_all(
            "all => all.filter(e => !e.closest('[data-bgt-script], .calendarbox, .clockbox, "
            ".datetimeshortcuts, .actions .question')).map(e => e.innerText || e.value || '')"
        )
        found.append({re.sub(r"\s+", " ", text).strip() for text in texts})
    # Ages, which grow between the two.
    return {text for text in found[0] - found[1] if not re.search(r"\d", text)}
