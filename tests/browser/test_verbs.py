"""Every verb by click, with scripts and without, under the strict policy."""

import re
import time

import pytest
from django.test import Client

from tests.admin.addresses import addresses, admins

from .pages import OTHERS
from .verbs import ACTIONS, VERBS

pytestmark = pytest.mark.django_db
with_and_without_scripts = pytest.mark.parametrize("scripts", [True, False], ids=["js", "no js"])


def until(condition, *arguments, timeout=10):
    deadline = time.monotonic() + timeout
    while not condition(*arguments):
        assert time.monotonic() < deadline, f"{condition.__name__} did not come true"
        time.sleep(0.05)


def press(tab, name):
    """Press the button, or follow the link, of a name that may end in dots."""
    content = tab.page.locator("#content")
    exact = re.compile(rf"^\s*{re.escape(name)}\s*…?\s*$")
    button = content.get_by_role("button", name=exact)
    target = button if button.count() else content.get_by_role("link", name=exact)
    with tab.page.expect_navigation():
        target.first.click()


def fill(tab, fields):
    for label, value in fields.items():
        box = tab.page.locator("#content").get_by_label(re.compile(label)).first
        if box.evaluate("element => element.tagName") == "SELECT":
            box.select_option(value)
        elif box.get_attribute("type") == "radio":
            box.check()
        else:
            box.fill(value)


def assert_done(tab, verb, row):
    until(verb.came, row)
    assert tab.errors == []
    # Scripts that are off can't watch.
    assert not tab.refused


def test_every_verb_has_a_line(site):
    listed = {verb.address for verb in VERBS} | OTHERS
    client = Client()
    client.force_login(site.ann)
    missing = []
    for address in addresses():
        if not address.is_verb or str(address) in listed:
            continue
        row = address.model._base_manager.first() if address.model._meta.managed else None
        # What shows a page is no verb; pages.py has it.
        response = client.get(address.url(row.pk if row and address.needs_row else "1"))
        if response.status_code == 405 or b"<form" in response.content:
            missing.append(str(address))
    assert missing == [], "each of these needs a line in tests/browser/verbs.py"


def test_every_action_has_a_line(site):
    listed = {(action.model, action.name) for action in ACTIONS}
    there = {
        (model._meta.model_name, name)
        for model, page in admins().items()
        for name in page.actions or ()
    }
    assert there - listed == set(), "each of these needs a line in tests/browser/verbs.py"


@with_and_without_scripts
@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_a_verb_is_done_by_click(verb, scripts, contexts):
    tab = contexts(scripts=scripts)
    row = verb.make()
    tab.open(verb.url(row))
    *first, last = verb.press
    for name in first:
        press(tab, name)
    fill(tab, verb.fill)
    press(tab, last)
    assert_done(tab, verb, row)


@with_and_without_scripts
@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_an_action_is_done_by_click(action, scripts, contexts):
    tab = contexts(scripts=scripts)
    row = action.make()
    tab.open(action.url(row))
    tab.page.locator(f'input.action-select[value="{row.pk}"]').check()
    tab.page.locator('select[name="action"]').first.select_option(action.name)
    with tab.page.expect_navigation():
        tab.page.locator("#changelist-form [name=index]").first.click()
    fill(tab, action.fill)
    for name in action.press:
        press(tab, name)
    assert_done(tab, action, row)


def test_a_verb_is_done_with_the_keyboard_alone(contexts):
    """From the login to a task that is cancelled, by Tab, Enter and what one types."""
    verb = VERBS[0]
    row = verb.make()
    tab = contexts()
    page = tab.page
    tab.open(verb.url(row))
    for _ in range(100):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => { const e = document.activeElement;
                 return [e.innerText || e.value || "", getComputedStyle(e).outlineStyle,
                         getComputedStyle(e).boxShadow]; }"""
        )
        if focused[0].strip().rstrip("…") == verb.press[0]:
            break
    else:
        pytest.fail("Tab does not lead to the button.")
    assert focused[1:] != ["none", "none"], "one sees where the focus is"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert_done(tab, verb, row)


@with_and_without_scripts
def test_the_login_leads_back_to_where_one_was(browser, site, scripts):
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"{site.root}/admin/bgtasks/queue/")
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill("ann")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/bgtasks/queue/")
    context.close()
