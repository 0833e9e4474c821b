"""Imports point one way, and only db/ knows which database it is."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import django_bgtasks

PACKAGE = Path(django_bgtasks.__file__).parent

#: From low to high: a module imports what stands above it in this list, and its own package.
LAYERS = [
    {"_version", "exceptions", "ids", "policies", "conf", "compat", "cron", "untrusted"},
    {"retries", "timetables", "fingerprints"},
    {"arguments", "states", "context", "signals", "encryption"},
    {"definition", "origins"},
    {"middleware", "models"},
    {"db"},
    {"wakeups", "registry", "uniqueness", "steps", "dependencies"},
    {"transitions"},
    {"results", "limits", "statistics"},
    {"batch"},
    {"checks"},
    {"backend", "standins"},
    {"queues", "searching", "explaining", "filtering", "failures"},
    {"bulk", "workers"},
    {"schedules"},
    {"workflows"},
    {"monitoring", "progress"},
    {"worker"},
    {"observability", "testing"},
    {"templatetags"},
    {"admin", "management", "urls"},
    {"apps", "__init__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

#: Imports within functions that point the other way, and why they may.
UPWARD = {
    ("models", "results"): "TaskRecord.get_result() is a convenience of the row",
    ("models", "db"): "a schedule is planned by the database's clock",
    ("checks", "backend"): "the check asks which backends are ours; the backend calls the check",
    ("worker", "observability"): "a child process configures its logging",
    ("definition", "workflows"): "task.with_args() begins a workflow",
    ("standins", "workflows"): "the stand-ins run a workflow that is enqueued with them",
}

#: Who may import what stands at the top: apps.py connects it, a command starts it.
TOPS = {
    "admin": {"apps"},
    "management": set(),
    "observability": {"apps", "management", "worker"},
}

#: Modules that work without Django.
PURE = [
    "_version",
    "arguments",
    "cron",
    "exceptions",
    "fingerprints",
    "ids",
    "policies",
    "retries",
    "timetables",
    "untrusted",
]

VENDORS = ("postgresql", "mysql", "sqlite")


@dataclass(frozen=True)
class Import:
    """One import statement: of which part of the package, and whether at its top level."""

    source: str
    target: str
    line: int
    lazy: bool


def modules():
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "migrations"
    ]


def part(path):
    """Return the module or sub-package of django_bgtasks that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in {
        name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)
    }


def imports_in(path):
    """Yield the imports of our own modules in a file, but those for type checkers."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    here = ("django_bgtasks", *(inside[:-1] if inside[-1] == "__init__" else inside))
    folder = here if inside[-1] == "__init__" else here[:-1]

    def visit(node, lazy):
        if is_type_checking(node):
            for child in node.orelse:
                yield from visit(child, lazy)
            return
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(folder[: len(folder) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        for name in names:
            if name[0] == "django_bgtasks":
                target = name[1] if len(name) > 1 else "__init__"
                # What is no module is a name of the package itself; the version has a home.
                target = "_version" if target == "__version__" else target
                target = target if target in RANK else "__init__"
                yield Import(part(path), target, node.lineno, lazy)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy)

    yield from visit(ast.parse(path.read_text()), False)


def all_imports():
    return [(path, found) for path in modules() for found in imports_in(path)]


def label(path):
    return str(path.relative_to(PACKAGE))


def test_the_reader_of_imports_sees_what_there_is():
    """The tests below can't pass by reading nothing."""
    seen = {(found.source, found.target, found.lazy) for _, found in all_imports()}
    assert ("backend", "definition", False) in seen
    assert ("backend", "conf", False) in seen
    assert ("backend", "results", True) in seen
    assert ("db", "models", False) in seen
    assert ("models", "states", False) in seen
    assert ("__init__", "backend", False) not in seen
    assert len(seen) > 40


def test_each_module_has_its_layer():
    assert {part(path) for path in modules()} - set(RANK) == set()


@pytest.mark.parametrize("path", modules(), ids=label)
def test_imports_point_one_way(path):
    wrong = [
        f"line {found.line}: {found.source} imports {found.target}"
        for found in imports_in(path)
        if found.source != found.target
        and RANK[found.target] >= RANK[found.source]
        and not (found.lazy and (found.source, found.target) in UPWARD)
    ]
    assert wrong == []


def test_each_exception_is_needed():
    seen = {(found.source, found.target) for _, found in all_imports() if found.lazy}
    assert set(UPWARD) - seen == set()


def test_few_import_what_stands_at_the_top():
    wrong = [
        f"{label(path)}, line {found.line}: imports {found.target}"
        for path, found in all_imports()
        if found.target in TOPS and found.source not in {found.target, *TOPS[found.target]}
    ]
    assert wrong == []


def test_the_worker_is_imported_by_what_starts_or_shows_it_alone():
    importers = {found.source for _, found in all_imports() if found.target == "worker"}
    assert importers <= {"worker", "management", "admin", "observability", "testing"}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_django(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert not imported & {"django", "django_tasks", "asgiref"}


def test_compat_alone_asks_for_the_version_of_django():
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            named = []
            if isinstance(node, ast.ImportFrom) and not node.level:
                named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and node.attr == "VERSION":
                named = ["django.VERSION"]
            for name in named:
                if name.startswith(("django.tasks", "django_tasks", "django.VERSION")):
                    wrong.append((label(path), name))
    assert {path for path, _ in wrong} == {"compat.py"}


def docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            yield body[0].value


def vendor_strings(source):
    """Return the lines of a source with a constant that names a database, but docstrings."""
    tree = ast.parse(source)
    skipped = {id(node) for node in docstrings(tree)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
        and any(vendor in node.value for vendor in VENDORS)
    ]


def test_the_reader_of_strings_sees_vendors():
    assert vendor_strings('"""On sqlite."""\nx = "sqlite"\n') == [2]
    assert vendor_strings((PACKAGE / "db" / "__init__.py").read_text())
    assert vendor_strings((PACKAGE / "checks.py").read_text())


@pytest.mark.parametrize(
    "path",
    # Commands speak with people, who know which database they have.
    [path for path in modules() if part(path) not in ("db", "checks", "management")],
    ids=label,
)
def test_core_code_names_no_vendor(path):
    assert vendor_strings(path.read_text()) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "db").glob("*.py")), ids=lambda p: p.name)
def test_in_db_each_file_knows_its_own_database_alone(path):
    if path.stem == "__init__":
        return
    tree = ast.parse(path.read_text())
    imported = {
        alias
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in [node.module]
    }
    assert not imported & (set(VENDORS) - {path.stem})
    compared = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(n, ast.Constant) and n.value in VENDORS for n in ast.walk(node))
    ]
    assert compared == []
