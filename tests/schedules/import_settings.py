"""Settings of import_cases.py: the tests' own, and the apps that are imported from."""

import os
from importlib.util import find_spec

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, INSTALLED_APPS

for _suffix, _alias in (("", "default"), ("_other", "other")):
    _name = f"{os.environ['BGTASKS_IMPORT_DATABASE']}{_suffix}"
    DATABASES[_alias] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _name,
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        "TEST": {"NAME": _name},
    }
INSTALLED_APPS += [app for app in ("django_celery_beat", "django_q") if find_spec(app)]
TIME_ZONE = "Europe/Berlin"
Q_CLUSTER = {"name": "main", "orm": "default", "timeout": 60, "retry": 120}
