from django.apps import AppConfig
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
