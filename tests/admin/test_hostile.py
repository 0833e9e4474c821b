"""
Whatever stands in our tables, our pages show it as text, soon, and keep secrets.

Columns and pages are found, not listed: a new one is tried by itself.
"""

import html
import json
import logging
import re
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, models, transaction

from django_bgtasks import task
from django_bgtasks.models import (
    FinishedTask,
    Queue,
    QueuedTask,
    Schedule,
    Step,
    Worker,
)
from django_bgtasks.statistics.ledger import write_failures
from django_bgtasks.statistics.tally import Failures
from django_bgtasks.worker import capture
from tests.browser.shop import open_shop
from tests.workflows.driver import Driver

from .addresses import addresses, admins, keys, urls
from .pages import Inline, changelist, page

POISON = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7|add:1 }}{% now %}"
    "\u202egnp.exe\u2066\u200f\u061c\x1b[31m\x07\x9b\ufeff"
)
#: What no page has: controls, what turns the direction, halves of characters.
UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff]"
)
#: A form gives back what it was given: there, and only there, text stands as it is.
EDITED = re.compile(r"<textarea[^>]*>.*?</textarea>|\bvalue=\"[^\"]*\"", re.S)
FIVE_MB = 5_000_000
#: Bytes of a page, however much there is to show.
LARGEST = 1_000_000
#: Columns that our own code computes: names of backends and zones, digests, words of a plan.
COMPUTED = {
    *("id", "digest", "fingerprint", "fair_key", "limit_key", "worker", "backend", "skipped"),
}

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(db, client):
    client.force_login(open_shop(results=40))
    return client


def ours():
    return [m for m in QueuedTask._meta.app_config.get_models() if m._meta.managed]


def columns(model, *kinds):
    return [
        field
        for field in model._meta.fields
        if isinstance(field, kinds)
        and not field.choices
        and not field.primary_key
        and field.name not in COMPUTED
    ]


def poisoned(value, poison):
    """Return a JSON value with each text in it replaced; its keys are read by code."""
    if isinstance(value, dict):
        return {key: poisoned(item, poison) for key, item in value.items()} | {poison: poison}
    if isinstance(value, list):
        return [poisoned(item, poison) for item in value] or [poison]
    return poison if isinstance(value, str) else value


def is_taken(rows, **values):
    """Write values if the database takes them; say whether it did."""
    try:
        with transaction.atomic():
            rows.update(**values)
    except (DatabaseError, UnicodeError, ValueError):
        return False
    return True


def poison_everything(*, paths=True):
    """Write POISON into every text of every table, and what worse the database takes."""
    skipped = set() if paths else {"task_path", "expression", "time_zone"}
    taken = 0
    for model in ours():
        for number, row in enumerate(model._base_manager.order_by("pk")):
            rows = model._base_manager.filter(pk=row.pk)
            for field in columns(model, models.CharField, models.TextField):
                if field.name in skipped:
                    continue
                text = f"{number}{POISON}"
                taken += is_taken(rows, **{field.attname: text[: field.max_length or 500]})
            for field in columns(model, models.JSONField):
                value = getattr(row, field.attname)
                for worse in ("\x00\ud800", "\ud800", "\x00", ""):
                    changed = poisoned(value, POISON + worse)
                    if is_taken(rows, **{field.attname: changed}):
                        taken += 1
                        break
    Queue.objects.create(name=POISON[:100], paused_by=POISON, reason=POISON)
    return taken


def body(response):
    content = b"".join(response) if response.streaming else response.content
    return content.decode()


def get(client, url):
    """GET a page of hostile data; return its body after checks that hold for each page."""
    try:
        response = client.get(url)
    except Exception as error:
        raise AssertionError(f"{url} answers 500: {error!r}") from error
    if response.status_code in (403, 404, 405):
        return ""
    assert response.status_code in (200, 302), (url, response)
    content = body(response)
    assert len(content) < LARGEST, (url, len(content))
    if response.get("Content-Type", "").startswith("text/html"):
        Inline().feed(content)
        shown = EDITED.sub("", content)
        found = UNSEEN.search(shown)
        assert not found, (url, shown[max(0, found.start() - 200) : found.end() + 40])
    elif not response.get("Content-Type", "").startswith("application/json"):
        assert response["Content-Type"].startswith("text/plain"), url
        assert response["X-Content-Type-Options"] == "nosniff" or not content, url
    return content


def everywhere(client, most=4):
    """Yield url and body of every page there is."""
    for address in addresses():
        for url in urls(address, most=most):
            yield url, get(client, url)


@pytest.mark.parametrize("paths", [True, False], ids=["unknown tasks", "known tasks"])
def test_every_page_shows_hostile_text_as_text(shop, paths):
    assert poison_everything(paths=paths) > 300
    shown = [url for url, content in everywhere(shop) if "&lt;script&gt;alert(1)" in content]
    for model in admins():
        name = model._meta.model_name
        if model._meta.managed and keys(model):
            assert any(f"/{name}/" in url for url in shown), f"no page of {name} shows it"


def test_lists_take_hostile_questions(shop):
    """What stands in an address is untrusted, too."""
    for model in admins():
        for name in ("q", "status", "queue", "task", "before", "h", "p", "o", "cause", "label"):
            for value in (POISON, "\x00", "'; DROP TABLE x --", "-1", "9" * 400, "%"):
                url = f"{changelist(model._meta.model_name)}?{name}={quote(value)}"
                response = shop.get(url, follow=True)
                assert response.status_code in (200, 400, 404), url
                Inline().feed(body(response))
                assert not UNSEEN.search(EDITED.sub("", body(response))), url


def test_pages_of_very_long_texts_are_short(shop):
    text = "<b>&" * (FIVE_MB // 4)
    for model in ours():
        rows = model._base_manager.filter(pk__in=keys(model, 1))
        for field in columns(model, models.TextField, models.JSONField):
            first = rows.first()
            value = text
            if isinstance(field, models.JSONField) and first is not None:
                value = poisoned(getattr(first, field.attname), text)
                if value is None and field.name != "return_value":
                    continue
            is_taken(rows, **{field.attname: value})
    count = sum(1 for url, content in everywhere(shop, most=2) if content)
    assert count > 30


def test_a_page_of_very_many_things_is_short(shop):
    """Not one long text, but a hundred thousand short ones."""
    many = ["<i>"] * 100_000
    error = {"exception_class_path": "<b>", "traceback": "<b>", "worker_id": "w", "attempt": 1}
    FinishedTask.objects.filter(pk__in=keys(FinishedTask, 1)).update(
        args=many, return_value=many, errors=[error] * 20_000
    )
    Worker.objects.update(queues=many)
    Schedule.objects.update(args=many)
    for _url, _content in everywhere(shop, most=2):
        pass


# Secrets

SECRETS = {
    "nested": "n35ted-s3cret",
    "header": "h34der-s3cret",
    "positional": "p0s1tional-s3cret",
    "hidden": "h1dden-s3cret",
    "card": "4111-1111-1111-1111",
    "result": "r3sult-s3cret",
    "note": "n0te-s3cret",
    "label": "l4bel-s3cret",
    "schedule": "sch3dule-s3cret",
}
logger = logging.getLogger(__name__)


@task(hide_args=("body", "card"), max_attempts=1)
def pay(user, password, body, card, *, options=None):
    logger.warning("%s pays with %s: %s", user, card, body)
    raise ValueError(f"the bank refuses {card} of {user}: {body}")


@task
def sign_in(user, options):
    return {"user": user, "session": {"access_token": SECRETS["result"]}}


def leave_secrets():
    """Have tasks run that are given SECRETS and tell them; return the id of one that failed."""
    nested = {"auth": [{"api_key": SECRETS["nested"], "headers": {"Authorization": "x"}}]}
    nested["deep"] = [[[{"client": {"clientSecret": SECRETS["header"]}}]]]
    arguments = ("ann", SECRETS["positional"], SECRETS["hidden"], SECRETS["card"])
    handler = capture.CaptureHandler()
    logging.getLogger().addHandler(handler)
    try:
        failed = pay.enqueue(*arguments, options=nested)
        done = sign_in.using(metadata={"user_token": SECRETS["note"]}).enqueue("ann", nested)
        driver = Driver()
        driver.drain()
    finally:
        logging.getLogger().removeHandler(handler)
    pay.enqueue(*arguments, options=nested)
    FinishedTask.objects.filter(pk=done.id).update(
        notes={"labels": {"api_key": SECRETS["label"]}, "log": "nothing"}
    )
    Schedule.objects.create(
        name="sign in",
        task_path=sign_in.module_path,
        kwargs={"user": "ann", "options": {"password": SECRETS["schedule"]}},
        expression="@daily",
        time_zone="UTC",
    )
    row = FinishedTask.objects.get(pk=failed.id)
    last = row.errors[-1]
    cause = Failures(
        row.task_path,
        count=1,
        task_id=str(row.pk),
        exception_class=last["exception_class_path"],
        message=row.reason.partition(": ")[2],
        traceback=last["traceback"],
        last=row.finished_at.timestamp(),
    )
    write_failures("default", row.fingerprint, cause)
    Step.objects.create(
        task_id=done.id,
        name="ask",
        value={"refresh_token": SECRETS["nested"]},
        attempt=1,
        made_at=row.finished_at,
    )
    return failed.id


def grep(content, where):
    plain = html.unescape(content)
    for name, secret in SECRETS.items():
        assert secret not in plain, f"the secret {name!r} is in {where}"


@pytest.fixture
def no_clean_up(monkeypatch):
    monkeypatch.setattr("django_bgtasks.worker.execution.clean_connections", lambda *args: None)


@pytest.fixture
def superuser(client, db):
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_no_page_has_a_secret(superuser, no_clean_up):
    failed = leave_secrets()
    content = get(superuser, page("finishedtask", failed))
    assert "the bank refuses" in content, "the page shows what surrounds the secrets"
    for url, content in everywhere(superuser, most=10):
        grep(content, url)
        headers = {"X-Requested-With": "bgt-live"}
        grep(body(superuser.get(url, headers=headers)), f"{url}, live")


def test_nothing_that_is_kept_of_a_run_has_a_hidden_argument(no_clean_up, db):
    """The arguments themselves are kept, and sealed with ENCRYPTION_KEYS; no copy of them is."""
    leave_secrets()
    for model in ours():
        names = [f.attname for f in model._meta.fields if f.name not in ("args", "kwargs")]
        text = json.dumps(list(model._base_manager.values(*names)), default=str)
        for name in ("hidden", "card"):
            assert SECRETS[name] not in text, (model.__name__, name)
