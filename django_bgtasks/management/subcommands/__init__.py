"""
The sub-commands of manage.py bgtasks.

A module has HELP, add_arguments(parser) and run(command, **options).
"""

from types import ModuleType

from . import (
    bench,
    check,
    explain,
    explain_task,
    failures,
    importing,
    pause,
    prune,
    queues,
    quiet,
    resume,
    schedules,
    stop,
)

SUBCOMMANDS: dict[str, ModuleType] = {
    "bench": bench,
    "check": check,
    "explain": explain,
    "explain-task": explain_task,
    "failures": failures,
    "import": importing,
    "pause": pause,
    "prune": prune,
    "queues": queues,
    "quiet": quiet,
    "resume": resume,
    "schedules": schedules,
    "stop": stop,
}
