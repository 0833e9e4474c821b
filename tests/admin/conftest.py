import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

VIEW = ("view_queuedtask", "view_finishedtask", "view_queue", "view_worker")


@pytest.fixture
def client_with(db):
    """Return a client of a member of the staff with permissions of this app alone."""

    def make(*codenames, csrf=False):
        user = User.objects.create_user(f"ann{User.objects.count()}", is_staff=True)
        found = Permission.objects.filter(content_type__app_label="bgtasks", codename__in=codenames)
        assert len(found) == len(codenames)
        user.user_permissions.set(found)
        client = Client(enforce_csrf_checks=csrf)
        client.force_login(user)
        client.user = user
        return client

    return make


@pytest.fixture
def viewer(client_with):
    return client_with(*VIEW)


@pytest.fixture
def operator(client_with):
    return client_with(
        *VIEW,
        "view_payload",
        "cancel_queuedtask",
        "retry_finishedtask",
        "delete_finishedtask",
        "pause_queue",
    )
