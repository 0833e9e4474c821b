"""A path gives a Task, or nothing: a row can have nothing else imported or called."""

import sys

import pytest

from django_bgtasks import DatabaseTask, registry
from django_bgtasks.exceptions import UnknownTask
from django_bgtasks.models import QueuedTask
from tests import factories, sample_tasks
from tests.sample_tasks import deliver, take

DATABASE = "django_bgtasks.DatabaseBackend"


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_found", {})


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported; forget it afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name, source):
        path = tmp_path.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parents:
            if parent == tmp_path:
                break
            (parent / "__init__.py").touch()
        path.with_suffix(".py").write_text(source)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {p.stem for p in tmp_path.iterdir()}:
            del sys.modules[name]


A_TASK = "from django_bgtasks import task\n@task\ndef run(): return 1\n"


def test_a_path_gives_its_task():
    assert registry.resolve("tests.sample_tasks.take") is take
    assert registry.resolve("tests.sample_tasks.take") is take


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("tests.sample_tasks.not_a_task", "function"),
        ("tests.sample_tasks.Holder", "type"),
        ("tests.sample_tasks.received", "list"),
        ("tests.sample_tasks.__doc__", "str"),
        ("os.system", "builtin_function_or_method"),
        ("builtins.eval", "builtin_function_or_method"),
    ],
)
def test_what_is_no_task_is_refused(path, what):
    with pytest.raises(UnknownTask) as caught:
        registry.resolve(path)
    assert str(caught.value) == (
        f"No task {path!r}. What stands there is no Task but {what}. "
        "Was it renamed? Add it to OPTIONS['ALIASES']."
    )


@pytest.mark.parametrize(
    "path",
    [
        "tests.sample_tasks.gone",
        "tests.no_such_module.run",
        "tests.sample_tasks.Holder.static",
        "no_such_package.run",
        "run",
        "",
        ".",
        "tests..run",
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(UnknownTask, match="Was it renamed"):
        registry.resolve(path)


def test_a_module_outside_of_the_project_is_not_imported(module):
    name = module("outside_of_project", A_TASK)
    with pytest.raises(UnknownTask):
        registry.resolve(f"{name}.run")
    assert name not in sys.modules


def test_a_module_that_only_begins_like_an_app_is_not_imported(module):
    name = module("tests_of_somebody", A_TASK)
    with pytest.raises(UnknownTask):
        registry.resolve(f"{name}.run")
    assert name not in sys.modules


def test_a_module_that_the_settings_name_is_imported(module):
    name = module("outside_package.jobs", A_TASK)
    assert registry.resolve(f"{name}.run", modules=[name]).call() == 1


def test_a_module_of_an_installed_app_is_imported(module, settings):
    name = module("fresh_app.deep.jobs", A_TASK)
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "fresh_app"]
    assert registry.resolve(f"{name}.run").call() == 1


def test_a_module_that_lacks_a_dependency_says_so(module):
    name = module("half_installed", "import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        registry.resolve(f"{name}.run", modules=[name])


def test_an_alias_leads_from_the_old_path_to_the_task():
    aliases = {"old.place.take": "tests.sample_tasks.take"}
    with pytest.raises(UnknownTask):
        registry.resolve("old.place.take")
    assert registry.resolve("old.place.take", aliases=aliases) is take


def test_an_alias_to_nowhere_names_the_path_of_the_row():
    with pytest.raises(UnknownTask, match=r"No task 'old\.place\.take'"):
        registry.resolve("old.place.take", aliases={"old.place.take": "tests.gone"})


# Results of tasks that the code knows no longer, or otherwise


def renamed(result, path):
    QueuedTask.objects.filter(pk=result.id).update(task_path=path)
    return take.get_backend().get_result(result.id)


@pytest.mark.django_db
def test_the_result_of_a_deleted_task_can_still_be_read():
    result = renamed(take.enqueue(1), "shop.tasks.old_name")
    assert isinstance(result.task, DatabaseTask)
    assert result.task.name == "old_name"
    assert result.task.module_path == "shop.tasks.old_name"
    assert result.args == [1]
    with pytest.raises(UnknownTask) as caught:
        result.task.call(1)
    assert str(caught.value) == (
        "No task 'shop.tasks.old_name'. Was it renamed? Add it to OPTIONS['ALIASES']."
    )
    result.refresh()
    assert result.cancel()


@pytest.mark.django_db
def test_the_result_of_a_task_whose_module_is_broken_can_still_be_read(module, settings):
    name = module("broken_app.tasks", "raise RuntimeError('on import')\n")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "broken_app"]
    assert renamed(take.enqueue(1), f"{name}.run").task.name == "run"


@pytest.mark.django_db
def test_the_result_of_a_renamed_task_belongs_to_the_task(settings):
    settings.TASKS = {
        "default": {
            "BACKEND": DATABASE,
            "OPTIONS": {"ALIASES": {"shop.tasks.old_name": "tests.sample_tasks.take"}},
        }
    }
    result = renamed(take.enqueue(1), "shop.tasks.old_name")
    assert result.task == take
    assert take.get_result(result.id) == result


@pytest.mark.django_db
def test_a_result_can_be_read_after_its_queue_was_taken_from_the_settings(settings):
    result = deliver.enqueue("ann@example.com")
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": ["default"]}}
    assert deliver.get_result(result.id) == result


@pytest.mark.django_db
def test_a_result_can_be_read_after_its_backend_was_taken_from_the_settings(settings):
    result = take.enqueue(1)
    QueuedTask.objects.update(backend="gone")
    found = take.get_backend().get_result(result.id)
    assert (found.backend, found.task.backend) == ("gone", "gone")
    assert found.task.func is take.func


@pytest.mark.django_db
def test_a_task_from_a_row_has_the_values_of_the_row():
    made = deliver.using(priority=3, queue_name="reports", delay=60, max_attempts=2)
    found = deliver.get_result(made.enqueue("ann@example.com").id).task
    assert found == made
    assert found.policy == made.policy
    assert found.signature is deliver.signature


@pytest.mark.django_db
def test_a_task_from_a_row_that_changed_nothing_is_the_task_itself():
    assert take.get_result(take.enqueue().id).task is take


# load_task_modules


def test_loading_imports_the_tasks_of_each_app(module, settings):
    name = module("loaded_app.tasks", A_TASK)
    before = registry.load_task_modules()
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "loaded_app"]
    assert name not in sys.modules
    assert registry.load_task_modules() == before + 1
    assert name in sys.modules


def test_loading_imports_the_modules_of_the_settings(module):
    name = module("loaded_jobs", A_TASK)
    before = registry.load_task_modules()
    assert registry.load_task_modules([name]) == before + 1


def test_loading_passes_on_what_a_module_raises(module, settings):
    module("raising_app.tasks", "raise RuntimeError('half of the tasks')\n")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "raising_app"]
    with pytest.raises(RuntimeError, match="half of the tasks"):
        registry.load_task_modules()


def test_a_name_that_stands_for_a_task_twice_counts_once(module):
    name = module("twice_tasks", A_TASK + "again = run\n")
    before = registry.load_task_modules()
    assert registry.load_task_modules([name]) == before + 1


def test_a_claimed_row_leads_to_its_task(db):
    take.enqueue(1)
    (claimed,) = factories.claim()
    assert registry.resolve(claimed.task_path) is sample_tasks.take
