"""Workflows of encrypted tasks, in another database, with the caller's data elsewhere."""

import pytest
from cryptography.fernet import Fernet
from django.db import connections, transaction
from django.test import override_settings

from django_bgtasks import chain, get_workflow, group, previous
from django_bgtasks.models import FinishedTask, QueuedTask, Workflow

from . import tasks
from .driver import Driver


def configured(**options):
    return override_settings(
        TASKS={"default": {"BACKEND": "django_bgtasks.DatabaseBackend", "OPTIONS": options}}
    )


@pytest.mark.django_db
def test_results_are_encrypted_where_they_are_stored_and_clear_where_they_go(driver):
    with configured(ENCRYPTION_KEYS=[Fernet.generate_key().decode()]):
        workflow = chain(
            group(tasks.give.with_args(f"secret {n}") for n in range(3)),
            tasks.give.with_args({"all": previous, "first": previous[0]}),
        ).enqueue()
        Driver(queues=["default"]).drain()
        assert workflow.get(timeout=1) == {
            "all": ["secret 0", "secret 1", "secret 2"],
            "first": "secret 0",
        }
    for row in FinishedTask.objects.all():
        assert "secret" not in f"{row.args} {row.kwargs} {row.return_value} {row.options}"


@pytest.mark.django_db(databases=["default", "other"])
def test_workflow_lives_in_the_database_of_its_tasks(driver):
    with configured(DATABASE="other"):
        workflow = chain(tasks.give.with_args(1), tasks.add.with_args(previous)).enqueue()
        assert not Workflow.objects.exists()
        assert QueuedTask.objects.using("other").count() == 2
        Driver(queues=["default"]).drain()
        assert get_workflow(workflow.id).get(timeout=1) == 2


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
def test_workflow_of_another_database_is_written_when_the_callers_data_are():
    with configured(DATABASE="other"):
        with transaction.atomic():
            workflow = chain(tasks.give.with_args(1), tasks.add.with_args(previous)).enqueue()
            assert not Workflow.objects.using("other").exists()
        assert Workflow.objects.using("other").get().name == workflow.name
        assert not connections["other"].in_atomic_block
        with transaction.atomic():
            chain(tasks.give, tasks.give).enqueue()
            transaction.set_rollback(True)
        assert Workflow.objects.using("other").count() == 1
