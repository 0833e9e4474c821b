"""Tasks with policies, named by what they do."""

import asyncio
import hashlib
import logging
import re
import time

from django.db import connection, transaction
from django.db.models import F

from django_bgtasks import current, task
from django_bgtasks.exceptions import TaskTimeout
from tests.models import Effect

logger = logging.getLogger("tests.policies")


def add_one(name):
    """Add 1 to a counter row, which exists."""
    assert Effect.objects.filter(name=name).update(number=F("number") + 1) == 1


def note(name, number=0):
    Effect.objects.create(name=name, number=number)


# Retries


@task(max_attempts=3, backoff=0.05)
def fail_until(attempts):
    """Raise until so many attempts were made."""
    context = current()
    note("attempt", context.attempt)
    if context.attempt < attempts:
        raise ConnectionError(f"attempt {context.attempt}")
    return context.attempt


@task(takes_context=True, max_attempts=3)
def ask_for_a_retry(context, seconds):
    note("asked", context.attempt)
    if not context.is_last_attempt:
        context.retry(in_=seconds, reason="The partner asked for patience.")
    return context.attempt


@task(takes_context=True)
def snooze_twice(context):
    note("snoozed")
    if Effect.objects.filter(name="snoozed").count() < 3:
        context.snooze(0.05, reason="Not yet.")
    return context.attempt


# Time limits


@task(timeout=0.5, grace=0.7)
def sleep_too_long():
    time.sleep(60)


@task(timeout=0.5, grace=30)
def clean_up_on_timeout():
    try:
        time.sleep(60)
    except TaskTimeout:
        note("cleaned up")
        raise


@task(timeout=0.5, grace=30)
def finish_in_spite_of_a_timeout():
    try:
        time.sleep(60)
    except TaskTimeout:
        return "caught"


@task(timeout=0.5, grace=0.7)
def swallow_the_timeout():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            logger.info("swallowed")


@task(timeout=0.5, grace=0.7)
def hold_the_lock_of_the_interpreter():
    # One call in C that gives the lock up neither for signals nor for threads.
    sum(range(10**10))


@task(timeout=0.5, grace=0.7)
def match_a_pathological_pattern():
    re.match(r"(a+)+$", "a" * 40 + "b")


@task(timeout=0.5, grace=0.7)
def hash_for_a_minute():
    hashlib.pbkdf2_hmac("sha512", b"password", b"salt", 200_000_000)


@task(timeout=0.5, grace=0.7)
async def swallow_the_cancellation():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            logger.info("swallowed")


@task(timeout=0.5, grace=30)
async def sleep_too_long_async():
    await asyncio.sleep(60)


@task(timeout=0.5, grace=0.7)
async def block_the_loop():
    time.sleep(60)


@task(timeout=0.5, grace=0.7)
def wait_in_the_database():
    statement = {
        "postgresql": "SELECT pg_sleep(60)",
        "mysql": "SELECT SLEEP(60)",
        # Counts for minutes.
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT COUNT(*) FROM n",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(statement)


@task(timeout=0.5, grace=0.5, max_attempts=2, backoff=0.05)
def hang_once():
    note("hung")
    if Effect.objects.filter(name="hung").count() == 1:
        sum(range(10**10))
    return "second"


@task(takes_context=True, timeout=100)
def tell_the_deadline(context):
    return (context.deadline - context.task_result.last_attempted_at).total_seconds()


# Cancel


@task(takes_context=True)
def check_until_cancelled(context):
    note("began")
    while True:
        context.check()
        time.sleep(0.01)


@task(takes_context=True)
def track_until_cancelled(context):
    note("began")
    for _ in context.track(range(100_000), "Counting"):
        time.sleep(0.01)


@task
async def sleep_async_until_cancelled():
    await Effect.objects.acreate(name="began")
    await asyncio.sleep(600)


@task(grace=0.5, timeout=600)
def ignore_all_requests():
    note("began")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            note("swallowed")


@task
def sleep_until_forced():
    note("began")
    time.sleep(600)


# Limits


def spend(name, seconds, **more):
    began = time.time()
    time.sleep(seconds)
    Effect.objects.create(name=name, number=int(began * 1e6) % 2**31, **more)
    return [began, time.time()]


@task(concurrency=("three", 3))
def run_three_at_once(seconds):
    began = time.time()
    time.sleep(seconds)
    return [began, time.time()]


@task(rate=("fifty", "50/s", 5))
def start_fifty_a_second():
    return time.time()


@task(concurrency=("tenant:{tenant}", 1))
def one_of_a_tenant(tenant, seconds=0.0):
    time.sleep(seconds)
    return tenant


@task(concurrency=("both:{tenant}", 2), rate=("both", "200/s", 20))
def with_both_limits(tenant):
    return time.time()


@task(fair="{tenant}")
def in_turns(tenant, number=0):
    return time.time()


# Unique


@task(unique="feed:{feed_id}")
def import_feed(feed_id, force=False):
    return feed_id


@task(unique="index:{shop}", unique_while="waiting")
def index_shop(shop, seconds=0.0):
    note("indexing")
    time.sleep(seconds)


@task(unique="index:{shop}", on_conflict="replace")
def index_later(shop, reason=""):
    return reason


@task(unique="charge:{order}", on_conflict="refuse")
def charge(order):
    return order


@task(unique="digest:{user}", unique_for=60)
def send_digest(user):
    return user


# Exactly once


@task(atomic=True)
def count_atomically(counter, follow=True, seconds=0.0):
    add_one(counter)
    if seconds:
        time.sleep(seconds)
    if follow:
        count_atomically.enqueue("second", follow=False, seconds=seconds)


@task(atomic=True)
def fail_atomically(counter):
    add_one(counter)
    count_atomically.enqueue(counter, follow=False)
    raise ValueError("after the work")


@task(atomic=True)
def return_what_cannot_be_stored(counter):
    add_one(counter)
    return object()


@task(takes_context=True)
def five_steps(context, number, seconds=0.0):
    values = []
    for index in range(5):
        values.append(context.step(f"step {index}", take_a_step, number, index))
        if seconds:
            time.sleep(seconds)
    return values


def take_a_step(number, index):
    Effect.objects.create(name=f"task {number} step {index}")
    return [number, index]


@task(takes_context=True, max_attempts=3, backoff=0)
def fail_between_steps(context):
    first = context.step("first", take_a_step, 1, 1)
    if context.attempt < 3:
        raise ValueError("between")
    second = context.step("second", take_a_step, 1, 2)
    return [first, second]


@task(takes_context=True)
def take_a_step_twice(context):
    context.step("same", take_a_step, 1, 1)
    context.step("same", take_a_step, 1, 1)


@task(takes_context=True, max_attempts=2, backoff=0)
def fail_within_a_step(context):
    def work():
        take_a_step(1, 1)
        if context.attempt == 1:
            raise ValueError("within")
        return "done"

    return context.step("only", work)


@task(takes_context=True, max_attempts=2, backoff=0)
async def take_async_steps(context):
    async def ask():
        await Effect.objects.acreate(name="asked")
        return 7

    first = await context.astep("ask", ask)
    second = await context.astep("note", take_a_step, 1, 1)
    if context.attempt == 1:
        raise ValueError("between")
    return [first, second]


# Context


@task(takes_context=True, labels={"team": "billing"}, max_attempts=2, backoff=0)
def leave_notes(context):
    context.progress(47, 120, "Importing rows")
    context.labels["rows"] = 47
    logger.warning("imported %d rows", 47)
    if context.attempt == 1:
        raise ValueError("first")
    logger.warning("all is well")
    return {
        "metadata": dict(context.metadata),
        "key": context.idempotency_key,
        "same": current() is not None,
    }


@task
def enqueue_another():
    with transaction.atomic():
        return leave_notes.enqueue().id


@task(expires=0.2)
def worth_it_soon():
    return "in time"


# Renames


@task(aliases="tests.policy_tasks.where_it_was")
def moved(value):
    return value
