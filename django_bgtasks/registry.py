"""From the path that a row holds to the Task, and to nothing but a Task."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings

from .compat import DEFAULT_TASK_BACKEND_ALIAS, InvalidTaskBackend, Task, task_backends
from .definition import POLICY_OPTIONS, DatabaseTask, former_paths, unchecked, unvalidated
from .exceptions import UnknownTask

_found: dict[str, Any] = {}


def resolve(
    path: str, *, aliases: Mapping[str, str] | None = None, modules: Iterable[str] = ()
) -> Any:
    """
    Return the module-level Task at path.

    A module is imported only if it lies in an installed app or in the
    project's own package, or if modules (OPTIONS["TASK_MODULES"]) name it: a
    row must not be able to have anything imported. Raise UnknownTask.
    """
    new_path = (aliases or {}).get(path) or former_paths.get(path, path)
    found = _found.get(new_path)
    if found is not None:
        return found
    module_path, _, name = new_path.rpartition(".")
    module = sys.modules.get(module_path)
    if module is None and _may_import(module_path, modules):
        try:
            module = import_module(module_path)
        except ModuleNotFoundError as error:
            if error.name is None or not module_path.startswith(error.name):
                raise
    found = getattr(module, name, None)
    if not isinstance(found, Task):
        what = "" if found is None else f" What stands there is no Task but {type(found).__name__}."
        raise UnknownTask(f"No task {path!r}.{what} Was it renamed? Add it to OPTIONS['ALIASES'].")
    _found[new_path] = found
    return found


def _may_import(module_path: str, modules: Iterable[str]) -> bool:
    packages = {config.name for config in apps.get_app_configs()}
    packages.update(modules)
    for setting in (settings.SETTINGS_MODULE, getattr(settings, "ROOT_URLCONF", None)):
        if setting and "." in setting:
            packages.add(setting.partition(".")[0])
    return any(module_path == p or module_path.startswith(f"{p}.") for p in packages)


def load_task_modules(modules: Iterable[str] = ()) -> int:
    """
    Import the tasks module of each app, and modules; return the number of tasks known.

    A module that raises while it is imported raises here: a worker that knows
    half of the tasks is worse than one that doesn't start.
    """
    for config in apps.get_app_configs():
        name = f"{config.name}.tasks"
        if name not in sys.modules and find_spec(name) is not None:
            import_module(name)
    for name in modules:
        import_module(name)
    return len(known_paths(modules))


def known_paths(modules: Iterable[str] = ()) -> list[str]:
    """Return the paths of the tasks in modules called tasks, and in modules, that are imported."""
    named = set(modules)
    return sorted(
        {
            value.module_path
            for module in list(sys.modules.values())
            if (getattr(module, "__name__", "") or "").endswith("tasks")
            or getattr(module, "__name__", None) in named
            for value in vars(module).values()
            if isinstance(value, Task)
        }
    )


def restore(path: str, options: Mapping[str, Any] | None, **changes: Any) -> Any:
    """
    Return the Task at path as a row describes it, without asking a backend.

    A path without a Task gives one that raises UnknownTask when it is called:
    the result of a task that was deleted from the code can still be read.
    """
    try:
        found = resolve(path, **lookup(changes.get("backend", DEFAULT_TASK_BACKEND_ALIAS)))
    except Exception:  # Whatever a module raises while it is imported.
        found = _missing(path)
    if options and isinstance(found, DatabaseTask):
        overrides = {
            key: tuple(v) if isinstance(v, list) else v
            for key, v in options.items()
            if key in POLICY_OPTIONS
        }
        changes.update(overrides, overrides=tuple(sorted(overrides.items())))
    if all(getattr(found, name) == value for name, value in changes.items()):
        return found
    return unvalidated(found, **changes)


def lookup(backend: str) -> dict[str, Any]:
    """Return what the settings of a backend, if there is one, say of paths."""
    try:
        conf = task_backends[backend].conf  # type: ignore[attr-defined]
    except (InvalidTaskBackend, AttributeError):
        return {}
    return {"aliases": conf.aliases, "modules": conf.task_modules}


def _missing(path: str) -> DatabaseTask:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise UnknownTask(f"No task {path!r}. Was it renamed? Add it to OPTIONS['ALIASES'].")

    missing.__module__, _, missing.__qualname__ = path.rpartition(".")
    missing.__name__ = missing.__qualname__
    return unchecked(missing)
