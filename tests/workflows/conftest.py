import pytest


@pytest.fixture(autouse=True)
def no_clean_up_in_the_tests_transaction(request, monkeypatch):
    """A worker rolls back what a task left open: in a test, that would be the test's own."""
    if "driver" in request.fixturenames:
        monkeypatch.setattr("django_bgtasks.worker.execution.clean_connections", lambda *args: None)


@pytest.fixture
def driver(db):
    """Return what runs tasks in this thread."""
    from .driver import Driver

    return Driver()
