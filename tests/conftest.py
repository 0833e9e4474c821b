import pytest
from django.db.models.signals import post_migrate

from django_bgtasks.testing import plugin


@pytest.fixture(scope="session", autouse=True)
def no_rows_of_configured_queues():
    """Tests begin with empty tables; add_configured() has tests of its own."""
    from django.apps import apps

    config = apps.get_app_config("bgtasks")
    assert post_migrate.disconnect(sender=config, dispatch_uid="django_bgtasks.queues")


def pytest_configure(config):
    """Load our plugin, where the package is installed without its entry points."""
    if not config.pluginmanager.is_registered(plugin):
        config.pluginmanager.register(plugin, "bgtasks")
