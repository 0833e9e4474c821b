from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class BackgroundTasksConfig(AppConfig):
    name = "django_bgtasks"
    label = "bgtasks"
    verbose_name = _("Background tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks
        from .compat import load_framework_receivers
        from .schedules import checks as schedule_checks

        load_framework_receivers()
        checks.register()
        schedule_checks.register()
        post_migrate.connect(
            add_configured_queues, sender=self, dispatch_uid="django_bgtasks.queues"
        )


def add_configured_queues(using: str, plan: Any = (), **kwargs: Any) -> None:
    """Have the queues of the settings in the admin as soon as there are tables."""
    from . import queues

    if any(backward for _migration, backward in plan):
        return  # The tables may be gone.
    if using in queues.databases():
        queues.add_configured(using)
