"""Settings of the example shop. Each environment variable is explained in .env.example."""

from datetime import timedelta
from pathlib import Path

import django
import environ

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
env.read_env(BASE_DIR / ".env")

DATA_DIR = BASE_DIR / env("DATA_DIR", default="data")
DATA_DIR.mkdir(parents=True, exist_ok=True)

# Background tasks: the app, the backend and its queues. The rest is as in any project.

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_bgtasks",
    "shop",
]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")  # The backport of django.tasks for Django 5.2.

TASKS = {
    "default": {
        "BACKEND": env("TASKS_BACKEND", default="django_bgtasks.DatabaseBackend"),
        # Workers serve them in this order: a mail doesn't wait behind a long import.
        "QUEUES": ["mail", "default"],
        "OPTIONS": {
            "PROCESSES": env.int("TASKS_PROCESSES", default=None),
            "LEASE": env.float("TASKS_LEASE", default=None),
            "RETAIN_SUCCESSFUL": timedelta(days=env.int("TASKS_RETAIN_DAYS", default=7)),
            # Who may follow an import on its page, and what they read there.
            "PROGRESS_PERMISSION": "shop.progress.may_see",
            "PROGRESS_DETAILS": "shop.progress.details",
        },
    }
}

if env("DATABASE_URL", default=""):
    DATABASES = {"default": env.db_url("DATABASE_URL")}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "db.sqlite3",
        }
    }
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Readers and the one writer don't wait for each other, and writers wait in line
    # instead of failing with "database is locked".
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

# Mail: files until EMAIL_HOST is set.

DEFAULT_FROM_EMAIL = env("DEFAULT_FROM_EMAIL", default="shop@example.com")
if env("EMAIL_HOST", default=""):
    _mailer = {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": env("EMAIL_HOST"),
            "port": env.int("EMAIL_PORT", default=587),
            "username": env("EMAIL_USER", default=""),
            "password": env("EMAIL_PASSWORD", default=""),
            "use_tls": env.bool("EMAIL_USE_TLS", default=True),
            "timeout": 30,
        },
    }
else:
    _mailer = {
        "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
        "OPTIONS": {"file_path": DATA_DIR / "mail"},
    }
if django.VERSION >= (6, 1):
    MAILERS = {"default": _mailer}
else:
    EMAIL_BACKEND = _mailer["BACKEND"]
    EMAIL_FILE_PATH = _mailer["OPTIONS"].get("file_path")
    EMAIL_HOST = _mailer["OPTIONS"].get("host", "")
    EMAIL_PORT = _mailer["OPTIONS"].get("port", 25)
    EMAIL_HOST_USER = _mailer["OPTIONS"].get("username", "")
    EMAIL_HOST_PASSWORD = _mailer["OPTIONS"].get("password", "")
    EMAIL_USE_TLS = _mailer["OPTIONS"].get("use_tls", False)
    EMAIL_TIMEOUT = _mailer["OPTIONS"].get("timeout")

# Files: pictures may be seen by all, uploaded orders only by the tasks.

MEDIA_ROOT = DATA_DIR / "media"
MEDIA_URL = "/media/"
STATIC_URL = "/static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "private": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": DATA_DIR / "private"},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# Hosts that uploads may be fetched from: not all that a visitor may think of. In bytes.
DOWNLOAD_HOSTS = env.list("DOWNLOAD_HOSTS", default=["localhost", "127.0.0.1"])
MAX_DOWNLOAD = 50_000_000
KEEP_UPLOADS = timedelta(days=env.int("KEEP_UPLOADS_DAYS", default=30))

# The web site.

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env("SECRET_KEY", default="for-trying-out-only") if DEBUG else env("SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1"])

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # The page of a task in the admin says which user's request enqueued it.
    "django_bgtasks.middleware.OriginMiddleware",
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

AUTH_USER_MODEL = "shop.Customer"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
