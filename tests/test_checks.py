"""Each system check by the settings that call for it."""

import sqlite3
import sys
from contextlib import closing
from types import ModuleType

import pytest
from django.core import checks as framework
from django.core.management import call_command, get_commands
from django.core.management.base import SystemCheckError
from django.db import connection, connections
from django.db.utils import ConnectionHandler
from django.test import modify_settings, override_settings
from django.utils.functional import SimpleLazyObject

from django_bgtasks import checks, definition
from django_bgtasks.compat import task_backends
from django_bgtasks.models import QueuedTask

DATABASE = "django_bgtasks.DatabaseBackend"
GOOD_SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "never-opened.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
}


def backend(**params):
    return {"BACKEND": DATABASE, **params}


def found(alias="default"):
    return list(task_backends[alias].check())


def ids(messages):
    return [message.id for message in messages]


@pytest.fixture
def database(monkeypatch):
    """Have the checks read other DATABASES than those of the tests."""

    def configure(**config):
        handler = ConnectionHandler({"default": {**config}})
        monkeypatch.setattr(checks, "connections", handler)
        return handler

    configure(**GOOD_SQLITE)
    return configure


@pytest.mark.usefixtures("database")
def test_good_settings_are_found_good():
    assert found() == []


@modify_settings(INSTALLED_APPS={"remove": "django_bgtasks"})
def test_e001_the_app_is_not_installed():
    (message,) = found()
    assert message.id == "bgtasks.E001"
    assert message.level == framework.ERROR
    assert message.msg == "TASKS['default'] uses django_bgtasks, but the app is not installed."
    assert message.hint == 'Add "django_bgtasks" to INSTALLED_APPS.'


@pytest.mark.usefixtures("database")
def test_e002_an_unknown_option_with_a_suggestion(settings):
    settings.TASKS = {"default": backend(OPTIONS={"MAX_LOSTS": 3, "THREADS": 0})}
    messages = found()
    assert ids(messages) == ["bgtasks.E002"] * 2
    assert messages[0].msg == (
        "Unknown option 'MAX_LOSTS' in TASKS['default']['OPTIONS']. Did you mean 'MAX_LOST'?"
    )
    assert messages[1].msg == (
        "TASKS['default']['OPTIONS']['THREADS'] must be a whole number of at least 1, not 0."
    )
    assert {message.level for message in messages} == {framework.ERROR}


def test_e002_a_database_that_does_not_exist_is_found_before_it_is_asked(settings):
    settings.TASKS = {"default": backend(OPTIONS={"DATABASE": "nowhere"})}
    (message,) = found()
    assert message.id == "bgtasks.E002"
    assert "must be a key of DATABASES (default, other), not 'nowhere'." in message.msg


@pytest.mark.usefixtures("database")
@override_settings(USE_TZ=False)
def test_e003_times_need_time_zones():
    (message,) = found()
    assert (message.id, message.hint) == ("bgtasks.E003", "Set USE_TZ = True.")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("name", ["x" * 101, 5, None])
def test_e004_a_name_of_a_queue_that_is_none(settings, name):
    settings.TASKS = {"default": backend(QUEUES=["default", name])}
    (message,) = found()
    assert message.id == "bgtasks.E004"
    assert message.msg == (
        "TASKS['default']['QUEUES'] has names that aren't strings of at most 100 characters: "
        f"{name!r}."
    )


@pytest.mark.usefixtures("database")
def test_a_name_of_a_hundred_characters_is_good(settings):
    settings.TASKS = {"default": backend(QUEUES=["x" * 100])}
    assert found() == []


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("mine", "yours", "shared"),
    [
        (["a", "b", "c"], ["c", "b"], "b, c"),
        ([], ["c"], "any"),
        (["c"], [], "any"),
        ([], [], "any"),
    ],
)
def test_e005_two_backends_share_queues(settings, mine, yours, shared):
    settings.TASKS = {"default": backend(QUEUES=mine), "second": backend(QUEUES=yours)}
    (message,) = found()
    assert message.id == "bgtasks.E005"
    assert message.msg == (
        "TASKS['default'] and TASKS['second'] share database 'default' and queues "
        f"({shared}): a worker of one would run tasks of the other."
    )
    assert found("second") == []


@pytest.mark.usefixtures("database")
def test_backends_with_queues_of_their_own_are_good(settings):
    settings.TASKS = {"default": backend(QUEUES=["a"]), "second": backend(QUEUES=["b"])}
    assert found() == found("second") == []


@pytest.mark.usefixtures("database")
def test_backends_with_databases_of_their_own_may_share_names(settings):
    settings.TASKS = {
        "default": backend(QUEUES=["a"]),
        "second": backend(QUEUES=["a"], OPTIONS={"DATABASE": "other"}),
    }
    assert ids(found()) == []


def test_e006_a_database_without_skip_locked(monkeypatch):
    class Features:
        has_select_for_update_skip_locked = False

    class Connection:
        vendor = "mysql"
        display_name = "MariaDB"
        features = Features

    monkeypatch.setattr(checks, "connections", {"default": Connection})
    (message,) = checks.ask_database("default")
    assert message.id == "bgtasks.E006"
    assert message.msg == "Database 'default' (MariaDB) knows no SKIP LOCKED."
    Features.has_select_for_update_skip_locked = True
    assert list(checks.ask_database("default")) == []


GOOD_KEY = "A" * 43 + "="


@pytest.mark.usefixtures("database")
def test_e008_a_key_that_is_none_is_told_by_its_place(settings):
    settings.TASKS = {
        "default": backend(OPTIONS={"ENCRYPTION_KEYS": [GOOD_KEY, "guess me", "A" * 40]})
    }
    messages = found()
    assert ids(messages) == ["bgtasks.E008"] * 2
    assert messages[0].level == framework.ERROR
    assert messages[0].msg == (
        "TASKS['default']['OPTIONS']['ENCRYPTION_KEYS'][1] is no Fernet key, which is 32 bytes "
        "in URL-safe base64."
    )
    assert "ENCRYPTION_KEYS'][2]" in messages[1].msg
    assert "print(Fernet.generate_key().decode())" in messages[0].hint
    assert "django-bgtasks[encryption]" in messages[0].hint
    assert "guess me" not in str(messages)


@pytest.mark.usefixtures("database")
def test_e008_the_package_is_not_installed(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    assert found() == []
    settings.TASKS = {"default": backend(OPTIONS={"ENCRYPTION_KEYS": [GOOD_KEY]})}
    (message,) = found()
    assert message.id == "bgtasks.E008"
    assert message.hint == "Type: pip install 'django-bgtasks[encryption]'"


@pytest.mark.usefixtures("database")
def test_good_keys_are_found_good(settings):
    settings.TASKS = {"default": backend(OPTIONS={"ENCRYPTION_KEYS": [GOOD_KEY, GOOD_KEY]})}
    assert found() == []


@pytest.fixture
def task_module(monkeypatch):
    """Return what imports a module with tasks that is made of a source."""
    monkeypatch.setattr(definition, "former_paths", {})
    monkeypatch.setattr(checks, "former_paths", definition.former_paths)

    def make(name, source):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(f"from django_bgtasks import task\n{source}", module.__dict__)

    return make


CLAIMS = "@task(aliases='shop.old.{old}')\ndef {name}(): pass\n"


def test_e009_two_tasks_claim_the_same_path(task_module):
    task_module("shop_a", CLAIMS.format(old="run", name="one"))
    task_module("shop_b", CLAIMS.format(old="run", name="two"))
    (message,) = checks.check_aliases()
    assert message.id == "bgtasks.E009"
    assert message.level == framework.ERROR
    assert message.msg.startswith(
        "shop_a.one, shop_b.two each have 'shop.old.run' in aliases: tasks that were enqueued"
    )


def test_e009_an_alias_is_the_path_of_a_task_that_exists(task_module):
    task_module("shop.old", "@task\ndef run(): pass\n")
    task_module("shop_a", CLAIMS.format(old="run", name="one"))
    (message,) = checks.check_aliases()
    assert message.id == "bgtasks.E009"
    assert message.msg.startswith("shop_a.one has 'shop.old.run' in aliases, but that task exists")


def test_aliases_that_mean_one_task_are_good(task_module):
    assert checks.check_aliases() == []
    task_module("shop_a", CLAIMS.format(old="run", name="one") + "hurried = one.using(priority=5)")
    task_module("shop_b", CLAIMS.format(old="walk", name="two"))
    # The old place has it still, under the same name.
    task_module("shop.old", "from shop_a import one as run\nfrom shop_a import one")
    assert checks.check_aliases() == []


def test_looking_for_tasks_leaves_lazy_objects_alone(task_module):
    task_module("shop_a", CLAIMS.format(old="run", name="one"))
    sys.modules["shop_a"].lazy = SimpleLazyObject(lambda: pytest.fail("evaluated"))
    assert checks.check_aliases() == []


@pytest.mark.parametrize("mode", [None, "DEFERRED", "EXCLUSIVE"])
def test_w001_transactions_that_are_not_immediate(database, mode):
    database(**{**GOOD_SQLITE, "OPTIONS": {"transaction_mode": mode, "timeout": 20}})
    (message,) = found()
    assert message.id == "bgtasks.W001"
    assert message.level == framework.WARNING
    assert "Set DATABASES['default']['OPTIONS']['transaction_mode'] to 'IMMEDIATE'" in message.hint


def test_w001_does_not_mind_the_case(database):
    database(**{**GOOD_SQLITE, "OPTIONS": {"transaction_mode": "immediate", "timeout": 30}})
    assert found() == []


@pytest.mark.parametrize("options", [{}, {"timeout": 19.9}])
def test_w002_a_short_wait_for_the_lock(database, options):
    database(**{**GOOD_SQLITE, "OPTIONS": {"transaction_mode": "IMMEDIATE", **options}})
    (message,) = found()
    assert (message.id, message.hint) == (
        "bgtasks.W002",
        "Set DATABASES['default']['OPTIONS']['timeout'] to 20.",
    )


@pytest.mark.django_db
def test_w003_a_journal_that_is_no_wal(database, tmp_path):
    name = str(tmp_path / "rollback.sqlite3")
    handler = database(**{**GOOD_SQLITE, "NAME": name})
    (message,) = checks.ask_database("default")
    handler.close_all()
    assert message.id == "bgtasks.W003"
    assert "'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;'" in message.hint
    with closing(sqlite3.connect(name)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
    handler = database(**{**GOOD_SQLITE, "NAME": name})
    assert list(checks.ask_database("default")) == []
    handler.close_all()


def test_a_database_in_memory_needs_no_wal(database):
    database(**{**GOOD_SQLITE, "NAME": ":memory:"})
    assert list(checks.ask_database("default")) == []


def test_w004_requests_that_take_the_write_lock(database):
    database(**GOOD_SQLITE, ATOMIC_REQUESTS=True)
    (message,) = found()
    assert message.id == "bgtasks.W004"
    assert message.msg.startswith("ATOMIC_REQUESTS makes each request take the write lock")


@pytest.mark.parametrize(
    ("level", "warned"),
    [
        ("repeatable read", True),
        ("SERIALIZABLE", True),
        (None, True),
        ("read committed", False),
        ("READ COMMITTED", False),
    ],
)
def test_w005_an_isolation_level_under_which_claims_block(database, level, warned):
    config = {"ENGINE": "django.db.backends.mysql", "NAME": "x"}
    database(**config, OPTIONS={"isolation_level": level})
    assert ids(found()) == ["bgtasks.W005"] * warned
    database(**config)
    assert found() == []


def test_atomic_requests_are_good_elsewhere(database):
    database(ENGINE="django.db.backends.postgresql", NAME="x", ATOMIC_REQUESTS=True)
    assert found() == []


@pytest.mark.usefixtures("database")
@modify_settings(INSTALLED_APPS={"remove": "django_tasks"})
def test_w006_the_backport_is_no_installed_app(monkeypatch):
    monkeypatch.setattr(checks, "HAS_DJANGO_TASKS", False)
    (message,) = found()
    assert (message.id, message.hint) == ("bgtasks.W006", 'Add "django_tasks" to INSTALLED_APPS.')
    monkeypatch.setattr(checks, "HAS_DJANGO_TASKS", True)
    assert found() == []


@pytest.fixture
def rival_app(tmp_path, monkeypatch):
    """An installed app with a command runworker of its own."""
    commands = tmp_path / "rival_app" / "management" / "commands"
    commands.mkdir(parents=True)
    for folder in (commands, commands.parent, commands.parent.parent):
        (folder / "__init__.py").write_text("")
    (commands / "runworker.py").write_text("class Command: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    get_commands.cache_clear()
    with modify_settings(INSTALLED_APPS={"append": "rival_app"}):
        yield
    get_commands.cache_clear()


@pytest.mark.usefixtures("rival_app")
@pytest.mark.django_db(databases=["default", "other"])
def test_w007_another_app_has_a_runworker():
    (message,) = checks.check_commands()
    assert message.id == "bgtasks.W007"
    assert message.msg.startswith("django_bgtasks and rival_app both have a command runworker; ")
    assert "manage.py bgtasks worker" in message.hint
    assert "bgtasks.W007" in ids(framework.run_checks())


def test_without_another_runworker_nothing_is_said():
    assert checks.check_commands() == []


# How they are reached


@pytest.mark.django_db(databases=["default", "other"])
def test_manage_py_check_fails_for_an_error(settings):
    settings.TASKS = {"default": backend(OPTIONS={"QQQ": 1})}
    with pytest.raises(SystemCheckError, match=r"bgtasks\.E002"):
        call_command("check")


@pytest.mark.django_db(databases=["default", "other"])
def test_the_database_of_the_tests_is_found_good():
    assert checks.check_databases(databases=["default", "other"]) == []


def test_databases_are_asked_only_when_they_are_named(monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "ask_database", lambda alias: asked.append(alias) or [])
    monkeypatch.setattr(checks, "unapplied_tables", lambda alias: False)
    assert checks.check_databases(databases=None) == []
    assert checks.check_databases(databases=["other"]) == []
    assert asked == []
    checks.check_databases(databases=["default", "other"])
    assert asked == ["default"]


def test_a_backend_of_somebody_else_is_not_ours_to_check(settings, monkeypatch):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.DummyBackend"}}
    monkeypatch.setattr(checks, "ask_database", lambda alias: pytest.fail("asked"))
    assert checks.check_databases(databases=["default"]) == []


@pytest.fixture
def renamed_tables(transactional_db):
    """Take the table of live tasks away, as if migrate had not been run."""
    table = QueuedTask._meta.db_table
    for alias in ("default", "other"):
        with connections[alias].schema_editor() as editor:
            editor.alter_db_table(QueuedTask, table, "bgtasks_away")
    yield
    for alias in ("default", "other"):
        with connections[alias].schema_editor() as editor:
            editor.alter_db_table(QueuedTask, "bgtasks_away", table)


@pytest.mark.django_db
def test_tables_that_are_there_are_not_missing():
    assert checks.unapplied_tables("default") is False


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize(
    ("alias", "hint"),
    [
        ("default", "Run: python manage.py migrate"),
        ("other", "Run: python manage.py migrate --database other"),
    ],
)
def test_w008_the_tables_do_not_exist(renamed_tables, settings, monkeypatch, alias, hint):
    settings.TASKS = {"default": backend(OPTIONS={"DATABASE": alias})}
    assert checks.unapplied_tables(alias) is True
    (message,) = checks.check_databases(databases=[alias])
    assert message.id == "bgtasks.W008"
    assert message.level == framework.WARNING
    assert message.msg == f"The bgtasks tables do not exist in database {alias!r}."
    assert message.hint == hint
    # migrate is about to make them.
    monkeypatch.setattr("sys.argv", ["manage.py", "migrate"])
    assert checks.check_databases(databases=[alias]) == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="It is SQLite's version.")
@pytest.mark.django_db
def test_an_old_sqlite_is_an_error(monkeypatch):
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    messages = [m for m in checks.ask_database("default") if m.id == "bgtasks.E007"]
    assert [m.msg for m in messages] == [
        "SQLite 3.34.1 knows no UPDATE ... RETURNING, which claims are made with."
    ]
