import os

import pytest
from django.core.management import call_command
from django.db import connections

from . import chromium
from .shop import open_shop
from .site import PHONE, WIDTH, Tab, serving


@pytest.fixture(scope="module")
def browser():
    """Return Chromium, started for the tests of a module."""
    chromium.skip_or_fail()
    from playwright.sync_api import sync_playwright

    # Playwright's event loop runs in this thread, where Django would refuse its database.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        started = chromium.launch(playwright)
        yield started
        started.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="module")
def site(browser, django_db_setup, django_db_blocker):
    """Serve the shop, with a day's data that the tests of a module share."""
    with django_db_blocker.unblock():
        try:
            with serving() as site:
                site.ann = open_shop(results=60)
                yield site
        finally:
            call_command("flush", verbosity=0, interactive=False)
            # Those that this thread has beside Playwright's event loop.
            connections.close_all()


@pytest.fixture
def _django_db_helper():
    """
    Take the place of pytest-django's, which would end each test with a rollback or a flush.

    The tests of a module share what its site has been filled with.
    """


@pytest.fixture(scope="module")
def contexts(browser, site):
    """Return a function that opens a Tab of ann's for a look, one for each look."""
    tabs = {}

    def tab(*, width=WIDTH, scripts=True, language="en", color="light"):
        look = (width, scripts, language, color)
        if look not in tabs:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                java_script_enabled=scripts,
                locale=language,
                color_scheme=color,
                reduced_motion="reduce",
            )
            context.set_default_timeout(15_000)
            context.add_cookies([site.cookie(site.ann)])
            tabs[look] = Tab(context, site)
        return tabs[look]

    yield tab
    for opened in tabs.values():
        opened.context.close()


@pytest.fixture
def desk(contexts):
    """Return the Tab of somebody at a desk."""
    return contexts()


@pytest.fixture
def phone(contexts):
    """Return the Tab of somebody with a telephone."""
    return contexts(width=PHONE)
