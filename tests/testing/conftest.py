import pytest

from django_bgtasks.schedules import declarations
from django_bgtasks.testing import plugin

from . import tasks


def pytest_configure(config):
    """The plugin, where the package is installed without its entry points."""
    if not config.pluginmanager.is_registered(plugin):
        config.pluginmanager.register(plugin, "bgtasks")


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """What tasks note beside the database, and the schedules that a test declares."""
    declared = declarations.forget()
    tasks.outside.clear()
    tasks.times.clear()
    yield
    declarations.forget()
    declarations._declared.update(declared)
