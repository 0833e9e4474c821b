"""Tasks under test, named by what they do."""

import asyncio
import logging
import os
import signal
import sys
import time

from django.db import connection, transaction
from django.utils import timezone, translation

from django_bgtasks import current, task
from tests.models import Effect


@task
def add(a, b):
    return a + b


@task
def nothing():
    return None


@task
def count(name, number=0, seconds=0.0):
    """Have an effect that can be counted, after some work."""
    if seconds:
        time.sleep(seconds)
    Effect.objects.create(name=name, number=number)
    return number


@task
async def count_async(name, number=0, seconds=0.0):
    await asyncio.sleep(seconds)
    await Effect.objects.acreate(name=name, number=number)
    return number


@task
async def sleep_async(seconds):
    await asyncio.sleep(seconds)


@task
def wait_for_file(path, then="done"):
    """Run until a file appears."""
    Effect.objects.create(name=f"began {then}")
    while not os.path.exists(path):
        time.sleep(0.01)
    return then


@task
def raise_error(text="oh"):
    raise ValueError(text)


@task(max_attempts=3, backoff=[0.05, 0.1])
def raise_until_third(name):
    Effect.objects.create(name=name)
    if Effect.objects.filter(name=name).count() < 3:
        raise ConnectionError("not yet")
    return "third"


@task(takes_context=True)
def tell_context(context):
    same = current()
    return [context.attempt, context.max_attempts, same.task_result.id == context.task_result.id]


@task
def process_id():
    return os.getpid()


@task
def kill_own_process():
    os.kill(os.getpid(), signal.SIGKILL)


@task(on_lost="fail")
def kill_own_process_once():
    os.kill(os.getpid(), signal.SIGKILL)


# What a database can't store


@task
def return_nul():
    return "a\x00b"


@task
def return_surrogate():
    return "\udcff"


@task
def return_nan():
    return float("nan")


@task
def return_set():
    return {1}


@task
def return_17_mb():
    return "x" * 17_000_000


@task
def return_deep():
    value = []
    for _ in range(100):
        value = [value]
    return value


@task
def return_very_deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@task
def raise_nul():
    raise ValueError("a\x00b")


@task
def raise_surrogate():
    raise ValueError("\udcff")


@task
def raise_17_mb():
    raise ValueError("x" * 17_000_000)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@task
def raise_unprintable():
    raise Unprintable


@task
def recurse():
    return recurse.func()


@task
def call_sys_exit():
    sys.exit(3)


@task
def raise_keyboard_interrupt():
    raise KeyboardInterrupt


@task
def raise_memory_error():
    raise MemoryError


@task
async def raise_cancelled():
    raise asyncio.CancelledError


@task
def call_os_exit():
    os._exit(3)


# What a task leaves behind


@task
def leave_transaction_open():
    transaction.atomic().__enter__()
    Effect.objects.create(name="in an open transaction")


@task
def leave_autocommit_off():
    transaction.set_autocommit(False)
    Effect.objects.create(name="without autocommit")


@task
def close_connection():
    connection.close()
    return "closed"


@task
def break_connection():
    raw = connection.connection or (connection.ensure_connection() or connection.connection)
    raw.close()
    return "broken"


@task
def change_directory():
    os.chdir("/")


@task
def change_language():
    translation.activate("de")


@task
def change_time_zone():
    timezone.activate("Asia/Kathmandu")


@task
def swallow_database_error():
    try:
        Effect.objects.raw("SELECT nonsense FROM nowhere")[0]
    except Exception:
        logging.getLogger(__name__).info("swallowed")


@task
def tell_surroundings():
    Effect.objects.count()
    return [os.getcwd() != "/", translation.get_language(), str(timezone.get_current_timezone())]


@task
def fill_memory(mebibytes):
    global _filled
    _filled = bytearray(os.urandom(1024) * 1024 * mebibytes)
    return len(_filled)


_filled = None


@task(max_attempts=50, backoff=0.5)
def count_through_outages(name, number=0, seconds=0.0):
    """Have an effect, and try again if the database is away just then."""
    if seconds:
        time.sleep(seconds)
    Effect.objects.create(name=name, number=number)
    return number


@task(takes_context=True)
def wait_for_own_file(context, path):
    """Run until the file of this worker appears; return the worker's name."""
    worker = context.task_result.worker_ids[-1]
    Effect.objects.create(name=f"began on {worker}")
    while not os.path.exists(f"{path}.{worker}"):
        time.sleep(0.01)
    return worker


@task(takes_context=True)
def count_attempt(context, name, number=0, seconds=0.0):
    """Have an effect; return the number of the attempt that had it."""
    time.sleep(seconds)
    Effect.objects.create(name=name, number=number)
    return context.attempt


@task(takes_context=True)
def tell_firing(context):
    firing = context.firing
    return [firing.schedule, firing.due_at.isoformat(), firing.missed]


@task(takes_context=True)
def count_firing(context):
    Effect.objects.create(name=context.firing.due_at.isoformat(), number=0)


@task
def end_at(moment):
    """Run until this time.time()."""
    while (left := moment - time.time()) > 0:
        time.sleep(max(left - 0.001, 0))


@task
def note_after(name, parents):
    """Note that this ran, and if that was before its parents had."""
    done = set(Effect.objects.filter(name__in=parents).values_list("name", flat=True))
    if done != set(parents):
        Effect.objects.create(name="too early")
    time.sleep(0.005)
    Effect.objects.create(name=name)


@task(hide_args="card")
def refuse_card(user, card, options=None):
    raise ValueError(f"the bank refuses {card} of {user}")


@task
def sign_in(user, options):
    return {"user": user, "access_token": "r3turned-s3cret"}


@task
def charge_order(order, fixed):
    """Fail for a bug that is fixed once the file is there."""
    if not os.path.exists(fixed):
        raise KeyError(f"order {order} has no currency")
    return order
