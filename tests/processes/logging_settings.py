"""Settings of a project that names the fields of a task in its own format."""

from tests.processes.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "task": {"format": "[%(task_id)s %(task_name)s %(attempt)s %(queue)s] %(message)s"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "task"}},
    "loggers": {"tests": {"handlers": ["console"], "level": "INFO"}},
}
