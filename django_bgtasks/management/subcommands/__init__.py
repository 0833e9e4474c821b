"""
The sub-commands of manage.py bgtasks.

A module has HELP, add_arguments(parser) and run(command, **options).
"""

from types import ModuleType

from . import bench, prune

SUBCOMMANDS: dict[str, ModuleType] = {"bench": bench, "prune": prune}
