"""
A site with one theme of the admin, in a process of its own.

python -m tests.browser.themes THEME looks at every page; it prints what is wrong.
"""

import logging
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

THEMES = {
    "stock": "django",
    "unfold": "unfold",
    "jazzmin": "jazzmin",
    "grappelli": "grappelli",
}


def is_installed(theme):
    return find_spec(THEMES[theme]) is not None


@contextmanager
def site_with(theme):
    """Set Django up with a theme and a day's data in a database of its own; yield the superuser."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.browser.theme_settings"
        os.environ["BGTASKS_THEME"] = theme
        os.environ["BGTASKS_THEME_DATABASE"] = str(Path(directory) / "shop.sqlite3")
        os.environ["DATABASE_URL"] = ""
        import django
        from django.core.management import call_command

        django.setup()
        # What the shop's tasks log is for their pages.
        logging.getLogger().addHandler(logging.NullHandler())
        call_command("migrate", verbosity=0)
        from .shop import open_shop

        yield open_shop(results=300)


def look(theme):
    """Return what is wrong with the pages of a theme as the server makes them."""
    wrong = []
    with site_with(theme) as ann:
        from django.contrib.auth.models import Permission, User
        from django.test import Client, override_settings

        from .pages import PAGES

        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
        with override_settings(ALLOWED_HOSTS=["testserver"]):
            for user in (ann, viewer):
                client = Client(raise_request_exception=False)
                client.force_login(user)
                for page in PAGES:
                    response = client.get(page.url)
                    if user is viewer and response.status_code == 403:
                        continue
                    problem = problem_of(response, page)
                    if problem:
                        wrong.append(f"{page}, as {user}: {problem}")
            index = Client()
            index.force_login(ann)
            listed = index.get("/admin/").content.decode()
            wrong += [
                f"{page.address} is not in the menu"
                for page in PAGES
                if page.address.endswith("changelist") and not page.query
                if page.url not in listed
            ]
    return wrong


def problem_of(response, page):
    if response.status_code != 200:
        return f"answers {response.status_code}"
    content = response.content.decode()
    if page.own:
        if content.count('<section class="bgt" aria-label=') != 1:
            return "has not our section, once"
        if "bgtasks/bgtasks.css" not in content:
            return "has not our stylesheet"
    return ""


def rehearse(theme):
    """Return what a process of its own finds wrong with the pages of a theme."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser.themes", theme],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    # A process that breaks says why.
    return done.returncode, done.stdout or done.stderr * bool(done.returncode)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    problems = look(sys.argv[1])
    sys.stdout.write("\n".join(problems))
    sys.exit(bool(problems))
