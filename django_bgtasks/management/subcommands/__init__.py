"""
The sub-commands of manage.py bgtasks.

A module has HELP, add_arguments(parser) and run(command, **options).
"""

from types import ModuleType

from . import bench, check, pause, prune, queues, resume

SUBCOMMANDS: dict[str, ModuleType] = {
    "bench": bench,
    "check": check,
    "pause": pause,
    "prune": prune,
    "queues": queues,
    "resume": resume,
}
