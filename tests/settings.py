"""Settings of the tests: DATABASE_URL picks the database, SQLite in a file by default."""

import getpass
import os
import tempfile
from pathlib import Path

import environ

env = environ.Env()
_FILES = Path(tempfile.gettempdir()) / f"bgtasks-tests-{getpass.getuser()}"
_FILES.mkdir(exist_ok=True)


def _database(suffix=""):
    config = env.db_url_config(
        os.environ.get("DATABASE_URL") or f"sqlite:///{_FILES / 'db.sqlite3'}"
    )
    if config["ENGINE"].endswith("sqlite3"):
        tag = os.environ.get("PYTEST_XDIST_WORKER", "main") + os.environ.get("BGTASKS_TEST_TAG", "")
        name = str(_FILES / f"test-{tag}{suffix}.sqlite3")
        config["NAME"] = name
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
        # A file: threads and processes can't share a database in memory.
        config["TEST"] = {"NAME": name}
    else:
        config["TEST"] = {"NAME": f"test_bgtasks{os.environ.get('BGTASKS_TEST_TAG', '')}{suffix}"}
        if config["ENGINE"].endswith("mysql"):
            config["TEST"]["CHARSET"] = "utf8mb4"
            config.setdefault("OPTIONS", {})["charset"] = "utf8mb4"
    return config


DATABASES = {"default": _database(), "other": _database("_other")}

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_bgtasks",
    "tests",
]
import django  # noqa: E402

if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
TASKS = {
    "default": {
        "BACKEND": "django_bgtasks.DatabaseBackend",
        "QUEUES": ["default", "emails", "reports"],
        "OPTIONS": {},
    }
}
