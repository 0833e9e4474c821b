"""
README.md and docs/ are true: tables are compared with the code, links followed, examples run.

The first line of a Python block says where its code belongs. A path, such as
"# shop/tasks.py", is that module of a made-up shop, "# settings.py" a part of
its settings, "# shop/tests.py" tests that are run; a block without a path is
executed as it stands, after those above it on the page. A block of HTML is a
template, rendered with the names that stand above it.
"""

import ast
import asyncio
import inspect
import json
import logging
import logging.config
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import tomllib
import types
import unittest
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import django
import pytest
from asgiref.sync import async_to_sync
from django.core.management import get_commands, load_command_class
from django.db import ConnectionHandler, connections
from django.db.models.signals import post_save
from django.template import Context, Template
from django.test import SimpleTestCase, TestCase
from django.utils.module_loading import import_string

from django_bgtasks import DatabaseBackend, checks, compat, conf, registry, signals, transitions
from django_bgtasks.models import FinishedTask, QueuedTask
from django_bgtasks.schedules import checks as schedule_checks
from django_bgtasks.schedules import declarations
from django_bgtasks.states import DJANGO_STATUS, FinalStatus, LiveStatus
from django_bgtasks.templatetags.bgtasks import task_progress
from django_bgtasks.testing import plugin
from django_bgtasks.testing.recording import recording
from django_bgtasks.worker.execution import Execution

from .browser import chromium
from .factories import claim
from .models import Effect

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
STATIC = ROOT / "django_bgtasks/static/bgtasks"
LANGUAGES = {"python", "html", "console", "text", "ini", "yaml", "dockerfile", "mermaid"}
QUEUES = {"default", "emails", "reports"}
#: Options of other programs that the pages name.
FOREIGN_OPTIONS = {"--bind", "--preload", "--no-cache-dir"}


# Reading Markdown


@dataclass(frozen=True)
class Fence:
    """A block between two lines of three backticks; line is that of its first line."""

    page: "Page"
    line: int
    language: str
    text: str

    @property
    def place(self):
        """The path that the first line names, or None."""
        match = re.match(r"# ([\w./]+\.\w+)\n", self.text)
        return match[1] if match else None

    def __str__(self):
        return f"{self.page}:{self.line}"


class Page:
    """One Markdown file."""

    def __init__(self, path):
        self.path = path
        self.text = path.read_text()

    def __str__(self):
        return str(self.path.relative_to(ROOT))

    @cached_property
    def fences(self):
        found, opened = [], None
        for number, line in enumerate(self.text.splitlines(), 1):
            if not line.lstrip().startswith("```"):
                continue
            if opened is None:
                assert line.startswith("```"), f"{self}:{number}: an indented block"
                opened = number, line[3:].strip()
            else:
                start, language = opened
                body = "\n".join(self.text.splitlines()[start : number - 1]) + "\n"
                found.append(Fence(self, start + 1, language, body))
                opened = None
        assert opened is None, f"{self}: a block is not closed"
        return found

    @cached_property
    def prose(self):
        """The text without its blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.M | re.S)

    @cached_property
    def headings(self):
        return re.findall(r"^#+ (.+)$", self.prose, re.M)

    @cached_property
    def anchors(self):
        """The anchors of the headings, as GitHub makes them."""
        found = []
        for heading in self.headings:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
            slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
            same = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
            found.append(f"{slug}-{same}" if same else slug)
        return set(found)

    @cached_property
    def links(self):
        text = re.sub(r"`[^`\n]*`", "", self.prose)
        return re.findall(r"\]\(([^)\s]+)\)", text)

    @cached_property
    def inline_code(self):
        return re.findall(r"`([^`\n]+)`", self.prose)

    def section(self, heading):
        """Return what stands below a heading, up to the next one of any level."""
        match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", self.prose, re.M | re.S)
        assert match, f"{self} has no heading {heading!r}"
        return match[1]

    def table(self, header):
        """Return the rows of the table that has these columns."""
        lines = self.text.splitlines()
        head = f"| {' | '.join(header)} |"
        assert lines.count(head) == 1, f"{self} has no table {head}"
        rows = []
        for line in lines[lines.index(head) + 2 :]:
            if not line.startswith("|"):
                break
            cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
            assert len(cells) == len(header), f"{self}: {line}"
            rows.append(dict(zip(header, cells, strict=True)))
        return rows


PAGES = [Page(path) for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))]
BY_PATH = {page.path: page for page in PAGES}
FENCES = [fence for page in PAGES for fence in page.fences]


def page(name):
    return BY_PATH[DOCS / name]


def code(cell):
    """Return what stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# Form


def test_each_page_of_the_reference_is_there():
    assert {str(p.path.relative_to(DOCS)) for p in PAGES[1:]} == {
        "index.md",
        "quickstart.md",
        "tasks.md",
        "policies.md",
        "schedules.md",
        "importing-schedules.md",
        "workflows.md",
        "progress.md",
        "coming-from-celery.md",
        "testing.md",
        "guarantees.md",
        "lifecycle.md",
        "databases.md",
        "deployment.md",
        "troubleshooting.md",
        "admin.md",
        "architecture.md",
        "contributing.md",
        "changelog.md",
        "roadmap.md",
        "reference/settings.md",
        "reference/commands.md",
        "reference/checks.md",
        "reference/signals.md",
    }


@pytest.mark.parametrize("fence", FENCES, ids=str)
def test_each_block_says_its_language(fence):
    assert fence.language in LANGUAGES


@pytest.mark.parametrize("one", PAGES, ids=str)
def test_each_link_leads_somewhere(one):
    for link in one.links:
        target, _, anchor = link.partition("#")
        assert "://" not in target, f"{link}: nobody looks whether it is still there"
        path = (one.path.parent / target).resolve() if target else one.path
        assert path.exists(), f"{one}: {link}"
        if anchor:
            assert anchor in BY_PATH[path].anchors, f"{one}: {link}"


@pytest.mark.parametrize("one", PAGES[1:], ids=str)
def test_each_page_is_linked_from_the_index(one):
    index = page("index.md")
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in index.links}
    assert one is index or one.path in linked


def test_the_changelog_begins_with_this_version():
    from django_bgtasks import __version__

    first = next(h for h in page("changelog.md").headings if h != "Changelog")
    assert __version__ in first


def test_the_supported_versions_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        kind: re.findall(rf"{kind} :: (\d\.\d+)", "\n".join(project["classifiers"]))
        for kind in ("Python", "Django")
    }
    cells = dict(re.findall(r"^\| (\w+) \| (.+) \|$", PAGES[0].section("Supported versions"), re.M))
    assert cells["Python"] == f"{named['Python'][0]} to {named['Python'][-1]}"
    assert re.findall(r"\d\.\d", cells["Django"]) == named["Django"]


# The reference


def test_the_table_of_settings_is_that_of_the_code():
    rows = page("reference/settings.md").table(("Option", "Default", "Unit", "Meaning"))
    assert [code(row["Option"]) for row in rows] == [[name] for name in conf.OPTIONS]
    for row, option in zip(rows, conf.OPTIONS.values(), strict=True):
        (default,) = code(row["Default"])
        value = ast.literal_eval(default)
        assert value == option.default, option.name
        assert isinstance(value, bool) == isinstance(option.default, bool), option.name
        assert row["Unit"] == option.unit, option.name
        assert row["Meaning"] == option.meaning, option.name


def test_each_check_has_a_heading_with_cause_and_cure():
    source = inspect.getsource(checks) + inspect.getsource(schedule_checks)
    ids = set(re.findall(r'id="(bgtasks\.[EW]\d{3})"', source))
    reference = page("reference/checks.md")
    documented = [h for h in reference.headings if h.startswith("bgtasks.")]
    assert documented == sorted(ids)
    for id in ids:
        section = reference.section(id)
        assert "**Cause.**" in section
        assert "**Cure.**" in section


def test_no_page_names_a_check_that_does_not_exist():
    ids = {h.removeprefix("bgtasks.") for h in page("reference/checks.md").headings}
    for one in PAGES:
        for id in re.findall(r"\b[EW]\d{3}\b", one.text):
            assert id in ids, f"{one}: {id}"


def _parser(*names):
    """Return the parser of a command of manage.py, and of a sub-command."""
    name, *rest = names
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    for sub in rest:
        (choices,) = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
        parser = choices[sub]
    return parser


def _subcommands(*names):
    """Yield the names of the sub-commands of a command, and of theirs."""
    for action in _parser(*names)._actions:
        if isinstance(action.choices, dict):
            for name in action.choices:
                yield (*names, name)
                yield from _subcommands(*names, name)


def _own_actions(parser):
    """Return the actions of a parser that Django does not add to each command."""
    base = {
        option
        for action in _parser("check")._actions
        for option in action.option_strings
        if option not in ("--database", "--deploy", "--list-tags", "--fail-level", "--tag", "-t")
    }
    return [a for a in parser._actions if a.option_strings and not set(a.option_strings) <= base]


def test_each_option_of_runworker_is_documented_with_its_variable():
    rows = page("reference/commands.md").table(("Option", "Variable", "`OPTIONS`", "Meaning"))
    documented = {}
    for row in rows:
        options = tuple(cell.split()[0] for cell in code(row["Option"]))
        documented[options] = code(row["Variable"]), code(row["`OPTIONS`"])
    actions = _own_actions(_parser("runworker"))
    assert {tuple(a.option_strings) for a in actions} == set(documented)
    for action in actions:
        variables = re.findall(r"BGTASKS_\w+", action.help)
        options = re.findall(r"OPTIONS\['(\w+)'\]", action.help)
        assert documented[tuple(action.option_strings)] == (variables, options), action.dest


def test_each_sub_command_is_documented_with_its_options():
    reference = page("reference/commands.md")
    subcommands = list(_subcommands("bgtasks"))
    headings = {h for h in reference.headings if h.startswith("bgtasks ")}
    assert headings == {" ".join(names) for names in subcommands}
    for names in subcommands:
        if names != ("bgtasks", "worker"):
            section = reference.section(" ".join(names))
            rows = re.findall(r"^\| (`-.+?) \|", section, re.M)
            documented = {option for row in rows for option in code(row)}
            actions = _own_actions(_parser(*names))
            assert documented == {o for a in actions for o in a.option_strings}, names


def test_the_exit_codes_are_those_of_the_code():
    from django_bgtasks.management.commands import runworker
    from django_bgtasks.worker import supervisor

    rows = page("reference/commands.md").table(("Code", "Means"))
    assert [int(row["Code"]) for row in rows] == [
        supervisor.FINISHED,
        supervisor.CRASHED,
        runworker.CONFIGURATION,
        runworker.NO_DATABASE,
        supervisor.FORCED,
    ]


def test_each_signal_has_a_heading_and_its_arguments():
    own = {n for n, v in vars(signals).items() if isinstance(v, signals.Signal)}
    of_django = {"task_enqueued", "task_started", "task_finished"}
    reference = page("reference/signals.md")
    assert set(reference.headings) - {"Signals"} == own | of_django
    told = dict(re.findall(r"(\w+)\(([\w, ]+)\)", signals.__doc__))
    assert set(told) == own
    for name in own | of_django:
        (line,) = re.findall(r"^Arguments: (.+)\.$", reference.section(name), re.M)
        assert code(line) == told.get(name, "task_result").split(", "), name


def test_the_tables_about_progress_are_those_of_the_code():
    one = page("progress.md")
    script = (STATIC / "progress.js").read_text()
    events = one.table(("Event", "When", "`detail`"))
    assert {name for row in events for name in code(row["Event"])} == {
        f"bgtasks:{name}" for name in re.findall(r'#tell\("(\w+)"', script)
    }
    arguments = inspect.signature(task_progress).parameters.values()
    assert [code(row["Argument"]) for row in one.table(("Argument", "Meaning"))] == [
        [a.name] for a in arguments if a.kind is a.KEYWORD_ONLY
    ]


# The lifecycle


#: Functions that change no task: they make a value, or are about requests to end one.
NO_ARROWS = {
    "lost_error",
    "cancelled_by",
    "requests_to_end",
    "requests_are_done",
    "is_member",
}


def _transitions():
    """Return the names of the arrows: the public functions that say from where to where."""
    return {
        name
        for name, value in vars(transitions).items()
        if inspect.isfunction(value)
        and value.__module__.startswith(transitions.__name__)
        and not name.startswith("_")
        and name not in NO_ARROWS
    }


def test_the_diagram_has_all_states_and_all_transitions():
    (diagram,) = [f.text for f in page("lifecycle.md").fences if f.language == "mermaid"]
    arrows = re.findall(r"^ +(\S+) --> (\S+): (\w+)$", diagram, re.M)
    assert len(arrows) == diagram.count("-->")
    states = {*LiveStatus.values, *FinalStatus.values}
    assert {end for arrow in arrows for end in arrow[:2]} == states | {"[*]"}
    assert {name for *_, name in arrows} == _transitions() | {"prune"}
    # The moves that the docstrings name are drawn.
    for name in _transitions():
        drawn = {(a, b) for a, b, arrow in arrows if arrow == name}
        text = " ".join(getattr(transitions, name).__doc__.split())
        starts = ["[*]"]
        states = r"[A-Z]{4,}(?:(?:, | or )[A-Z]{4,})*"
        for before, after in re.findall(rf"(?:({states}) )?-> ({states})?", text):
            starts = re.findall(r"[A-Z]{4,}", before) or starts
            for end in re.findall(r"[A-Z]{4,}", after):
                assert any((start, end) in drawn for start in starts), (name, end)


def test_the_table_of_states_is_that_of_the_code():
    rows = page("lifecycle.md").table(("State", "Who enters", "Who leaves", "Django shows"))
    assert {row["State"]: row["Django shows"] for row in rows} == {
        str(state): status.name for state, status in DJANGO_STATUS.items()
    }
    for row in rows:
        for name in code(row["Who enters"] + row["Who leaves"]):
            assert name in _transitions() | {"run_after"}, name


def test_the_table_of_arrows_has_each_transition():
    rows = page("lifecycle.md").table(("Function", "From", "To", "When", "Attempt counted"))
    assert {name for row in rows for name in code(row["Function"])} == _transitions()


# Commands


def _command_lines(text):
    """Yield the arguments of each manage.py in a block that is no Python."""
    for line in text.splitlines():
        for array in re.findall(r'\["python", "manage\.py".*?\]', line):
            yield json.loads(array)[2:]
        match = re.search(r"(?<!\")\bmanage\.py ([^\"#]+)", line)
        if match:
            yield shlex.split(match[1])


def _check_arguments(arguments, where):
    """Parse a command line as manage.py would; check names of queues, too."""
    name, *rest = arguments
    if rest == ["--database", "tasks"]:
        rest = ["--database", "other"]  # The second alias of the tests' settings.
    assert name in get_commands(), f"{where}: no command {name}"
    options = vars(_parser(name).parse_args(rest))
    queues = [*options.get("queues", []), *options.get("exclude", [])]
    assert set(queues) <= QUEUES, f"{where}: {queues}"


def test_each_command_line_is_understood():
    count = 0
    for fence in FENCES:
        if fence.language != "python":
            for arguments in _command_lines(fence.text):
                _check_arguments(arguments, fence)
                count += 1
    for one in PAGES:
        for text in one.inline_code:
            match = re.match(r"(?:python )?manage\.py (.+)|((?:runworker|bgtasks) .+)", text)
            if match and "ALIAS" not in text:
                _check_arguments(shlex.split(match[1] or match[2]), f"{one}: {text}")
                count += 1
    assert count > 30


@pytest.mark.parametrize("fence", [f for f in FENCES if f.language == "console"], ids=str)
def test_a_line_of_a_shell_is_one_that_is_known(fence):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for line in fence.text.splitlines():
        words = shlex.split(line)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words[:2] == ["python", "manage.py"]:
            continue  # Parsed by the test above.
        match words:
            case ["make", target]:
                assert target in targets
            case ["pip", "install", package]:
                name, _, extra = package.partition("[")
                assert name == "django-bgtasks"
                assert not extra or extra.rstrip("]") in extras
            case ["python", "-c", source]:
                compile(source, str(fence), "exec")
            case ["make", "test", arguments]:
                assert (ROOT / re.fullmatch(r"ARGS=(\S+)", arguments)[1]).exists()
            case ["python", "-m", "pytest", *_, path]:
                assert (ROOT / path).exists()
            case ["python", "-m", module, *_]:
                assert find_spec(module)
            case ["sudo", "apt", "install", "chromium"]:
                assert "chromium" in chromium.NAMES
            case ["kill", number, "PID"]:
                assert hasattr(signal, f"SIG{number[1:]}")
            case _:
                pytest.fail(f"{fence}: nobody knows whether this is right: {line}")


def test_no_page_names_an_option_or_a_variable_that_does_not_exist():
    # What begins like an option may be a variable of the stylesheet, too.
    known = FOREIGN_OPTIONS | set(re.findall(r"--[a-z-]+", (STATIC / "progress.css").read_text()))
    for names in (("runworker",), *_subcommands("bgtasks"), ("migrate",), ("check",)):
        for action in _parser(*names)._actions:
            known.update(action.option_strings)
    variables = set(re.findall(r"BGTASKS_\w+", _parser("runworker").format_help()))
    # Of our own tests, for contributors.
    variables.update(re.findall(r"BGTASKS_\w+", (ROOT / "tests/admin/test_cost.py").read_text()))
    for one in PAGES:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", one.text):
            assert option in known, f"{one}: {option}"
        for variable in re.findall(r"\bBGTASKS_[A-Z_]+", one.text):
            assert variable in variables, f"{one}: {variable}"


def test_the_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for one in PAGES:
        for extra in re.findall(r"django-bgtasks\[(\w+)\]", one.text):
            assert extra in extras, f"{one}: {extra}"


def test_what_is_imported_from_the_package_is_public():
    """Each name in the tables of exceptions exists, and none is missing."""
    from django_bgtasks import exceptions

    rows = page("tasks.md").table(("Exception", "Raised by", "Means"))
    assert {name for row in rows for name in code(row["Exception"])} == {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }


def test_the_table_of_task_options_is_that_of_the_decorator():
    from django_bgtasks import definition

    rows = page("tasks.md").table(("Option", "Default", "Meaning"))
    documented = {}
    for row in rows:
        (name,) = code(row["Option"])
        text = (code(row["Default"]) or [row["Default"]])[0]
        documented[name] = eval(text, {})
    defaults = {f.name: f.default for f in fields(definition.DatabaseTask)}
    defaults |= {**definition._BASE_DEFAULTS, "labels": {}}  # A factory makes these.
    assert documented == {n: defaults[n] for n in ("backend", *definition._TASK_OPTIONS)}


def test_the_table_of_permissions_is_that_of_the_models():
    from django.apps import apps

    permissions = set()
    for model in apps.get_app_config("bgtasks").get_models():
        meta = model._meta
        permissions.update(f"{verb}_{meta.model_name}" for verb in meta.default_permissions)
        permissions.update(name for name, _ in meta.permissions)
    rows = page("admin.md").table(("Permission", "Allows"))
    assert {name for row in rows for name in code(row["Permission"])} == permissions


# Examples

SHOP = """
from django_bgtasks import task
from .models import Order

@task
def send_receipt(order_id):
    return Order.objects.get(pk=order_id).number
"""


class Desk(threading.Thread):
    """A worker of one thread, for examples that wait for a result."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.broken = None

    def run(self):
        backend = compat.task_backends["default"]
        try:
            while not self.stopping.wait(0.01):
                for row in claim(tuple(QUEUES), limit=1):
                    self.do(Execution(row, backend, 0))
        except BaseException as error:
            self.broken = error
        finally:
            connections.close_all()

    def do(self, execution):
        execution.resolve()
        if execution.is_async:
            asyncio.run(execution.arun())
        else:
            execution.run()
        assert execution.ending is not None, execution.exception
        transitions.exchange("default", [execution.ending], None)
        execution.announce()

    def finish(self):
        """Run what is ready, and stop."""
        deadline = time.monotonic() + 30
        while QueuedTask.objects.filter(status__in=("READY", "RUNNING")).exists():
            assert self.is_alive(), self.broken
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.stopping.set()
        self.join()
        assert self.broken is None, self.broken


class Shop:
    """The project that the pages are about."""

    def __init__(self, monkeypatch, directory):
        self.monkeypatch = monkeypatch
        self.directory = directory
        self.modules = {}
        for package in ("shop", "config"):
            self.module(package).__path__ = []
        self.module("shop.models").Order = Effect
        self.execute(SHOP, "shop.tasks", "the harness", 1)
        self.names = {
            "__name__": "__main__",
            "Order": Effect,
            "order": Effect.objects.create(number=118),
            "send_receipt": self.module("shop.tasks").send_receipt,
        }

    def module(self, name):
        if name not in self.modules:
            made = self.modules[name] = types.ModuleType(name)
            made.__package__ = name.rpartition(".")[0] or name
            self.monkeypatch.setitem(sys.modules, name, made)
        return self.modules[name]

    def execute(self, source, name, where, line):
        """Execute source as what comes next in a module."""
        namespace = self.module(name).__dict__
        exec(compile("\n" * (line - 1) + source, str(where), "exec"), namespace)
        return namespace

    def run(self, fence):
        """Do what a reader would do with a block."""
        source = fence.text
        if fence.language == "html":
            assert Template(source).render(Context(self.names)).strip()
            return
        if not compat.HAS_DJANGO_TASKS and "from django.tasks import" in source:
            assert "django_tasks" in fence.page.prose, f"{fence}: what on Django 5.2?"
            source = source.replace("from django.tasks import", "from django_tasks import")
        where, line = fence.page, fence.line
        if fence.place is None:
            self.run_statements(source, where, line)
        elif fence.place in ("settings.py", "settings_test.py"):
            namespace = {"BASE_DIR": self.directory}
            exec(compile("\n" * (line - 1) + source, str(where), "exec"), namespace)
            self.check_settings({k: v for k, v in namespace.items() if k.isupper()})
        elif fence.place.endswith("tests.py"):
            name = f"shop.tests_{line}"
            self.run_tests(self.execute(source, name, where, line))
        else:
            name = fence.place.removesuffix(".py").replace("/", ".")
            assert name.partition(".")[0] in ("shop", "config"), fence
            namespace = self.execute(source, name, where, line)
            self.names.update({k: v for k, v in namespace.items() if not k.startswith("__")})

    def run_statements(self, source, where, line):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile("\n" * (line - 1) + source, str(where), "exec", flags)
        if not compiled.co_flags & inspect.CO_COROUTINE:
            exec(compiled, self.names)
            return

        async def awaited():
            await eval(compiled, self.names)

        async_to_sync(awaited)()

    def run_tests(self, namespace):
        cases = [
            value
            for value in namespace.values()
            if isinstance(value, type)
            and issubclass(value, SimpleTestCase)
            and value.__module__ == namespace["__name__"]
        ]
        functions = {k: v for k, v in namespace.items() if k.startswith("test_") and callable(v)}
        if functions:
            methods = {name: self.as_method(function) for name, function in functions.items()}
            cases.append(type("Functions", (TestCase,), methods))
        assert cases
        loader = unittest.defaultTestLoader
        suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, cases))
        report = StringIO()
        result = unittest.TextTestRunner(stream=report).run(suite)
        assert result.testsRun
        assert result.wasSuccessful(), report.getvalue()

    @staticmethod
    def as_method(function):
        """Return a test of pytest as one of a TestCase: with our fixture and our marker."""
        marks = {mark.name for mark in getattr(function, "pytestmark", ())}
        assert "django_db" in marks

        def method(case):
            mode = plugin.inline() if "bgtasks" in marks else nullcontext()
            with mode, recording() as recorder:
                fixtures = {"bgtasks": plugin.TasksOfTest(recorder)}
                wanted = inspect.signature(function).parameters
                function(**{name: fixtures[name] for name in wanted})

        return method

    # Settings

    def check_settings(self, given):
        known = {"BASE_DIR"}
        for name, check in (
            ("INSTALLED_APPS", self.check_apps),
            ("DATABASES", lambda value: None),  # Checked with TASKS.
            ("TASKS", lambda value: None),
            ("DATABASE_ROUTERS", self.check_routers),
            ("LOGGING", self.check_logging),
            ("MIDDLEWARE", lambda value: [import_string(path) for path in value]),
            ("USE_TZ", lambda value: self.assert_equal(value, True)),
        ):
            known.add(name)
            if name in given:
                check(given[name])
        assert set(given) <= known, "nobody checks these settings"
        self.check_tasks(given)

    @staticmethod
    def assert_equal(value, expected):
        assert value == expected

    @staticmethod
    def check_apps(value):
        assert value[0] is ...
        assert value[1:] == ["django_bgtasks"]

    @staticmethod
    def check_routers(value):
        for path in value:
            router = import_string(path)()
            assert router.db_for_write(QueuedTask) == "tasks"
            assert router.db_for_read(FinishedTask) == "tasks"
            assert router.db_for_write(Effect) is None
            assert router.allow_migrate("tasks", "bgtasks")
            assert not router.allow_migrate("default", "bgtasks")
            assert router.allow_migrate("tasks", "shop") is False
            assert router.allow_migrate("default", "shop") is None

    @staticmethod
    def check_logging(value):
        for name in value["loggers"]:
            logger = logging.getLogger(name)
            kept = logger.handlers[:], logger.level, logger.propagate
            try:
                logging.config.dictConfig(value)
                assert logger.handlers
            finally:
                logger.handlers[:], logger.level, logger.propagate = kept

    def check_tasks(self, given):
        """What manage.py check says of TASKS and DATABASES: nothing."""
        configured = given.get("TASKS", {"default": {}})
        own = given.get("DATABASES", {})
        with self.monkeypatch.context() as patch:
            handler = connections
            if own:
                handler = ConnectionHandler({"default": own.get("default", {}), **own})
                patch.setattr("django.db.connections", handler)
                patch.setattr(checks, "connections", handler)
            for alias, params in configured.items():
                path = params.get("BACKEND", "django_bgtasks.DatabaseBackend")
                backend = import_string(path)(alias, params)
                assert conf.problems(alias, params.get("OPTIONS", {})) == []
                if isinstance(backend, DatabaseBackend):
                    for number, item in enumerate(backend.conf.schedules):
                        declarations.from_settings(alias, number, item)
                    assert checks.check_backend(backend) == []
            if own and own["default"]["ENGINE"].endswith("sqlite3"):
                with closing(handler["default"]):
                    assert list(checks.ask_database("default")) == []


@pytest.fixture
def shop(monkeypatch, tmp_path, transactional_db):
    """The made-up shop; receivers and tasks that its pages make are forgotten afterwards."""
    listened = [post_save, compat.task_enqueued, compat.task_started, compat.task_finished]
    listened += [v for v in vars(signals).values() if isinstance(v, signals.Signal)]
    kept = [(one, one.receivers[:]) for one in listened]

    def forget():
        for path in [p for p in registry._found if p.startswith("shop.")]:
            del registry._found[path]
        for one, receivers in kept:
            one.receivers[:] = receivers
            one.sender_receivers_cache.clear()

    forget()
    declared = declarations.forget()
    yield Shop(monkeypatch, tmp_path)
    forget()
    declarations.forget()
    declarations._declared.update(declared)


WITH_PYTHON = [one for one in PAGES if any(f.language == "python" for f in one.fences)]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("one", WITH_PYTHON, ids=str)
def test_the_examples_of_a_page_run(one, shop):
    desk = Desk()
    desk.start()
    try:
        for fence in one.fences:
            if fence.language in ("python", "html"):
                shop.run(fence)
    finally:
        desk.finish()
    failed = FinishedTask.objects.filter(status="FAILED")
    assert [(row.task_path, row.errors) for row in failed] == []


def test_the_views_of_the_quickstart_answer(shop, rf):
    for fence in page("quickstart.md").fences:
        if fence.language == "python" and fence.place not in (None, "settings.py"):
            shop.run(fence)
    answer = json.loads(shop.names["place_order"](rf.post("/")).content)
    status = shop.names["receipt_status"](rf.get("/"), answer["receipt"])
    assert json.loads(status.content) == {"state": "READY", "finished": False}


# From nothing


def _alike(line):
    """Return a line of a worker without what differs from run to run."""
    line = re.sub(r"worker \S+ ·", "worker NAME ·", line)
    line = line.replace("reload on · ", "")
    line = re.sub(r"\b[0-9a-f]{8}\b", "ID", line)
    line = re.sub(r"\d+(\.\d+)? (ms|s)\b", "TIME", line)
    line = re.sub(r"\bprocess(es)?\b", "processes", line)
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip()


@pytest.mark.processes
@pytest.mark.parametrize("one", [PAGES[0], page("quickstart.md")], ids=str)
def test_a_new_project_shows_what_the_page_shows(one, tmp_path):
    """Follow a page with a project of Django's own template, on SQLite, to the worker's output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "DATABASE_"))}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "BGTASKS_LOG_FORMAT": "pretty"}

    def run(*command):
        process = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            timeout=120,
            encoding="utf-8",
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    run("-m", "django", "startproject", "config", ".")
    run("manage.py", "startapp", "shop")
    (tmp_path / "shop/models.py").write_text(
        "from django.db import models\n\n\n"
        "class Order(models.Model):\n    number = models.IntegerField()\n"
    )
    settings = tmp_path / "config/settings.py"
    blocks = {"settings.py": [], "shop/tasks.py": [], "shop/views.py": []}
    for fence in one.fences:
        if fence.place in blocks:
            blocks[fence.place].append(fence.text)
    backport = [] if compat.HAS_DJANGO_TASKS else ["django_tasks"]
    settings.write_text(
        "\n".join(
            [
                settings.read_text(),
                *(text.replace("[...,", "[*INSTALLED_APPS,") for text in blocks["settings.py"]),
                f"INSTALLED_APPS += {['shop', *backport]}",
            ]
        )
    )
    tasks = "\n".join(blocks["shop/tasks.py"])
    if django.VERSION < (6, 0):
        tasks = tasks.replace("from django.tasks", "from django_tasks")
    (tmp_path / "shop/tasks.py").write_text(tasks)
    (tmp_path / "shop/views.py").write_text("\n\n".join(blocks["shop/views.py"]))
    run("manage.py", "makemigrations", "shop")
    run("manage.py", "migrate")
    run("manage.py", "runworker", "--check")
    if blocks["shop/views.py"]:
        enqueue = "from shop.views import place_order; place_order(None)"
    else:
        enqueue = (
            "from shop.tasks import send_receipt; from shop.models import Order; "
            "order = Order.objects.create(number=118); "
        ) + next(f.text for f in one.fences if f.language == "python" and f.place is None)
    run("manage.py", "shell", "-c", enqueue)
    output = run("manage.py", "runworker", "--max-tasks", "1", "--no-reload")
    (shown,) = [f.text for f in one.fences if f.language == "text"]
    real = [_alike(line) for line in output.splitlines()]
    for line in shown.splitlines():
        assert _alike(line) in real, output
