"""The settings of a site with a theme: BGTASKS_THEME names it, "stock" is Django's own look."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, INSTALLED_APPS

THEME = os.environ.get("BGTASKS_THEME", "stock")
#: The apps of a theme stand before the admin, whose templates they replace.
APPS = {
    "stock": [],
    "unfold": ["unfold"],
    "jazzmin": ["jazzmin"],
    "grappelli": ["grappelli"],
}
INSTALLED_APPS = [
    *APPS[THEME],
    *(name for name in INSTALLED_APPS if name != "tests"),
    "django.contrib.staticfiles",
    "tests.browser",
]
ROOT_URLCONF = "tests.browser.theme_urls"
# As the eyes of the user want it; the others do so by themselves.
JAZZMIN_UI_TWEAKS = {"default_theme_mode": "auto"}
JAZZMIN_SETTINGS = {"use_google_fonts_cdn": False}
DATABASES = {"default": DATABASES["default"]}
# A file that themes.rehearse() makes and removes.
DATABASES["default"]["NAME"] = os.environ.get("BGTASKS_THEME_DATABASE", ":memory:")
