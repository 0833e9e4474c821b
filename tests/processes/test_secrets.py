"""The grep: secrets of tasks that a real worker runs are in nothing that it writes or shows."""

import html
import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_bgtasks.models import FinishedTask
from tests.admin.addresses import addresses, urls
from tests.tasks import refuse_card, sign_in

from .conftest import until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

HIDDEN = "4111-h1dden-1111"
NAMED = {"api_key": "n4med-s3cret", "deep": [{"client": {"password": "d33p-s3cret"}}]}
SECRETS = (HIDDEN, "n4med-s3cret", "d33p-s3cret", "r3turned-s3cret")


def grep(text, where):
    plain = html.unescape(text)
    for secret in SECRETS:
        assert secret not in plain, f"{secret} is in {where}"


@pytest.mark.parametrize("form", ["pretty", "text", "json"])
def test_a_worker_writes_and_the_pages_show_no_secret(form, start_worker):
    refuse_card.enqueue("ann", HIDDEN, options=NAMED)
    refuse_card.using(max_attempts=2, backoff=0.0).enqueue("ann", HIDDEN, options=NAMED)
    sign_in.enqueue("ann", NAMED)
    worker = start_worker("-v", 3, "--log-format", form)
    until_all_ended()
    worker.stop()
    assert "the bank refuses" in worker.output
    grep(worker.output, "the worker's log")
    for row in FinishedTask.objects.values("errors", "notes", "reason"):
        grep(json.dumps(row), "what is kept of a run")

    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    shown = 0
    for address in addresses():
        for url in urls(address):
            for headers in ({}, {"X-Requested-With": "bgt-live"}):
                response = client.get(url, headers=headers)
                text = b"".join(response) if response.streaming else response.content
                grep(text.decode(), url)
                shown += b"the bank refuses" in text
    assert shown
