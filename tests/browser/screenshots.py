"""
Pictures of every page, to be looked at: python -m tests.browser.screenshots OUT_DIR

In each theme that is installed, light and dark, for a desk and a telephone.
More arguments pick themes, and pages by a part of their names:

    python -m tests.browser.screenshots /tmp/pictures stock unfold dashboard queue
"""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

from . import chromium
from .themes import THEMES, is_installed, site_with

DESK, TELEPHONE = 1400, 390


def take(theme, directory, parts):
    """Write the pictures of one theme; return what is wrong with the pages."""
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    from playwright.sync_api import sync_playwright

    wrong = []
    with site_with(theme) as ann, sync_playwright() as playwright:
        from .pages import PAGES
        from .site import Tab, listening

        browser = chromium.launch(playwright)
        with listening() as site:
            for color in ("light", "dark"):
                context = browser.new_context(color_scheme=color, reduced_motion="reduce")
                context.add_cookies([site.cookie(ann)])
                tab = Tab(context, site)
                for page in PAGES:
                    if parts and not any(part in str(page) for part in parts):
                        continue
                    for width in (DESK, TELEPHONE):
                        tab.page.set_viewport_size({"width": width, "height": 900})
                        tab.open(page.url)
                        name = re.sub(r"\W+", "-", str(page)).strip("-")
                        path = directory / f"{name}--{theme}-{color}-{width}.png"
                        tab.page.screenshot(path=path, full_page=True)
                        wide = tab.overflow()
                        if wide:
                            wrong.append(f"{path.name} is {wide[0]} px too wide: {wide[1:]}")
                        wrong += [f"{path.name}: {error}" for error in tab.errors]
                context.close()
        browser.close()
    return wrong


def main(arguments):
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    reason = chromium.missing()
    if reason:
        sys.exit(reason)
    themes = [name for name in arguments[1:] if name in THEMES]
    parts = [name for name in arguments[1:] if name not in THEMES]
    if len(themes) == 1:
        warnings.simplefilter("ignore")
        sys.stdout.write("".join(f"{line}\n" for line in take(themes[0], directory, parts)))
        return
    for theme in themes or THEMES:
        if is_installed(theme):
            # Django is set up once in a process.
            command = [sys.executable, "-m", __spec__.name, str(directory), theme, *parts]
            subprocess.run(command, check=True)
        else:
            sys.stdout.write(f"{theme} is not installed\n")
    sys.stdout.write(f"{len(list(directory.glob('*.png')))} pictures in {directory}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
