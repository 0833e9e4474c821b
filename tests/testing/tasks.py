"""Tasks that the helpers for tests are tried on, named by what they do."""

from datetime import timedelta

from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone

from django_bgtasks import current, task
from tests.models import Effect

#: What tasks did outside of the database.
outside = []
#: What timezone.now() told.
times = []


@task
def note(name, number=0):
    Effect.objects.create(name=name, number=number)
    return number


@task(queue_name="emails")
def send_receipt(order_id, copies=1):
    return [order_id, copies]


@task
def charge_card(order_id):
    return order_id


@task(hide_args=("password",))
def log_in(name, password):
    return name


@task
def prefers(queue_name, priority=3):
    return queue_name


@task
def fail(text="oh"):
    raise ValueError(text)


@task(max_attempts=3, backoff=[60, 120])
def fail_twice(name):
    times.append(timezone.now())
    Effect.objects.create(name=name)
    if Effect.objects.filter(name=name).count() < 3:
        raise ConnectionError("not yet")
    return "third"


@task(takes_context=True, max_attempts=2)
def ask_again(context):
    if context.attempt == 1:
        context.retry(in_=3600, reason="Not yet.")
    return context.attempt


@task(takes_context=True)
def snooze(context):
    if not Effect.objects.filter(name="awake").exists():
        context.snooze(timedelta(minutes=5), reason="Not awake.")
    return "awake"


@task
def enqueue_another(count=1):
    for number in range(count):
        note.enqueue("child", number)


@task
def enqueue_itself():
    enqueue_itself.enqueue()


@task
def enqueue_on_commit():
    transaction.on_commit(lambda: note.enqueue("committed"))


@task(atomic=True)
def note_atomic(name, then_fail=False):
    Effect.objects.create(name=name)
    if then_fail:
        raise ValueError(name)
    return name


@task
def note_and_fail(name):
    Effect.objects.create(name=name)
    raise ValueError(name)


@task
async def note_async(name):
    await Effect.objects.acreate(name=name)
    return current().attempt


@task
def break_the_statement():
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM no_such_table")


@task
def swallow_an_error():
    row = Effect.objects.create(name="first")
    try:
        with transaction.atomic():
            Effect.objects.create(pk=row.pk, name="second")
    except IntegrityError:
        return "swallowed"


@task
def fail_in_a_block_without_savepoint():
    with transaction.atomic(savepoint=False):
        Effect.objects.create(name="undone")
        raise ValueError("oh")


@task(concurrency=1)
def one_at_a_time(name):
    Effect.objects.create(name=name)


@task(rate="1/m")
def one_a_minute(name):
    times.append(timezone.now())
    Effect.objects.create(name=name)


@task(expires=30)
def perishable():
    return "fresh"


@task
def exit_the_process():
    raise SystemExit(3)


@task
def tell_type(value):
    return type(value).__name__


# To be run twice


@task
def credit(pk, amount):
    Effect.objects.filter(pk=pk).update(number=F("number") + amount)


@task
def set_number(pk, number):
    Effect.objects.filter(pk=pk).update(number=number)


@task(atomic=True)
def credit_atomic(pk, amount):
    Effect.objects.filter(pk=pk).update(number=F("number") + amount)
    Effect.objects.create(name="credited", number=amount)


@task
def credit_and_mark(pk, amount):
    """Idempotent but for a crash between its two statements."""
    if Effect.objects.filter(name=f"credit {pk}").exists():
        return
    Effect.objects.filter(pk=pk).update(number=F("number") + amount)
    Effect.objects.create(name=f"credit {pk}")


@task
def credit_and_mark_together(pk, amount):
    if Effect.objects.filter(name=f"credit {pk}").exists():
        return
    with transaction.atomic():
        Effect.objects.filter(pk=pk).update(number=F("number") + amount)
        Effect.objects.create(name=f"credit {pk}")


@task
def make_one(name):
    Effect.objects.get_or_create(name=name)


@task
def delete_and_make(name):
    with transaction.atomic(savepoint=False):
        Effect.objects.filter(name=name).delete()
        Effect.objects.create(name=name)


@task
def refuse_a_second_time(name):
    if Effect.objects.filter(name=name).exists():
        raise ValueError("It is there already.")
    Effect.objects.create(name=name)


@task(takes_context=True)
def credit_in_a_step(context, pk, amount):
    def book():
        Effect.objects.filter(pk=pk).update(number=F("number") + amount)

    context.step("book", book)


@task
def tell_outside(name):
    outside.append(name)
    Effect.objects.update_or_create(name=name)


@task
def make_and_fail(name):
    Effect.objects.create(name=name)
    raise ValueError(name)


@task
async def credit_async(pk, amount):
    await Effect.objects.filter(pk=pk).aupdate(number=F("number") + amount)


@task
def note_the_time(name):
    Effect.objects.update_or_create(name=name, defaults={"number": int(timezone.now().timestamp())})


@task
def make_a_member(name):
    group, _ = Group.objects.get_or_create(name="new")
    user, _ = User.objects.get_or_create(username=name)
    user.groups.add(group)


@task(atomic=True)
def make_and_enqueue(name):
    row = Effect.objects.create(name=name)
    note.enqueue("of", row.pk)
    note.enqueue("another", number=row.pk)


@task
def make_and_enqueue_twice(name):
    row, _ = Effect.objects.get_or_create(name=name)
    note.enqueue("of", row.pk)


@task
def credit_elsewhere(pk, amount):
    Effect.objects.using("other").filter(pk=pk).update(number=F("number") + amount)


@task
def set_elsewhere(pk, number):
    Effect.objects.using("other").filter(pk=pk).update(number=number)
