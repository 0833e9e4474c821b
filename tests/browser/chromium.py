"""A browser for tests: Debian's Chromium, or whatever PATH has of its kind, without a download."""

import os
import shutil
from importlib.util import find_spec

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Set by .ci/run: there, tests without a browser fail.
REQUIRED = "BGTASKS_BROWSER_REQUIRED"


def missing():
    """Return why there is no browser to test with, "" if there is one."""
    for module in ("playwright", "axe_playwright_python"):
        if find_spec(module) is None:
            return f"{module} is not installed: pip install -e '.[dev]'"
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
