import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.test import Client


@pytest.fixture
def signed_in(db):
    """Return what makes a client of a user of this name."""

    def make(name):
        client = Client()
        client.user = User.objects.create_user(name)
        client.force_login(client.user)
        return client

    return make


@pytest.fixture
def options(settings):
    """Return what sets OPTIONS of the default backend."""

    def change(**given):
        default = configured.TASKS["default"]
        settings.TASKS = {"default": {**default, "OPTIONS": given}}

    return change


@pytest.fixture
def driver(db, monkeypatch):
    """Return what runs tasks in this thread, and leaves the test's transaction alone."""
    from tests.workflows.driver import Driver

    monkeypatch.setattr("django_bgtasks.worker.execution.clean_connections", lambda *args: None)
    return Driver()
