"""A browser for tests: Debian's Chromium, or whatever PATH has of its kind, without a download."""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Set by .ci/run: there, tests without a browser fail.
REQUIRED = "BGTASKS_BROWSER_REQUIRED"


def missing():
    """Return why there is no browser to test with, "" if there is one."""
    try:
        import axe_playwright_python.sync_playwright
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed: pip install -e '.[dev]'"
    if executable() is None:
        return f"PATH has none of {', '.join(NAMES)}: apt-get install chromium"
    return ""


def executable():
    return next(filter(None, map(shutil.which, NAMES)), None)


def skip_or_fail():
    """Skip what needs a browser where there is none; in CI, fail."""
    reason = missing()
    if reason:
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)


def launch(playwright):
    # Root, as whom containers run, has no sandbox; nothing but our own pages is opened.
    arguments = ["--no-sandbox", "--disable-gpu", "--force-prefers-reduced-motion"]
    return playwright.chromium.launch(executable_path=executable(), args=arguments)
