from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        # enqueue_on() in there connects to signals; that must not wait until a view needs a task.
        from . import tasks  # noqa: F401
