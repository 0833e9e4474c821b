import pytest

from django_bgtasks.schedules import declarations

from . import tasks


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """What tasks note beside the database, and the schedules that a test declares."""
    declared = declarations.forget()
    tasks.outside.clear()
    tasks.times.clear()
    yield
    declarations.forget()
    declarations._declared.update(declared)
