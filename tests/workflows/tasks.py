"""Tasks that workflows under test are made of."""

from django.db import OperationalError

from django_bgtasks import chain, group, previous, task
from tests.models import Effect

#: What play() does, by the name of the task: set by tests in this process.
script = {}


@task
def give(value=None):
    return value


@task
def add(a, b=1):
    return a + b


@task
def total(numbers):
    return sum(numbers)


@task
def fail(text="oh"):
    raise ValueError(text)


@task
def fail_once(name):
    """Fail unless an effect of this name is there."""
    if not Effect.objects.filter(name=name).exists():
        raise ValueError(name)
    return name


@task(max_attempts=2, backoff=0)
def play(name, given=None):
    """Do the next of what the script says for this name."""
    lines = script.get(name)
    if lines and lines.pop(0) == "fail":
        raise ValueError(name)
    return name


@task
def note(name, number=0):
    Effect.objects.create(name=name, number=number)
    return number


@task
def show(value, times=1):
    return [value] * times


@task
async def add_async(a, b=1):
    return a + b


@task
def count_chunk(items, word=""):
    Effect.objects.create(name=f"chunk{word}", number=len(items))
    return len(items)


@task(takes_context=True)
def page(context, number, last):
    """Lead from one page to the next."""
    Effect.objects.create(name="page", number=number)
    if number < last:
        context.workflow.add(page.with_args(number + 1, last))
    return number


@task(takes_context=True)
def factorial(context, n, product=1):
    """Lead on to a task whose result is this one's."""
    if n > 1:
        context.workflow.continue_with(factorial.with_args(n - 1, product * n))
    return product


@task(takes_context=True)
def fan_out(context, count):
    """Lead on to as many tasks as there turn out to be, and what comes of all."""
    context.workflow.continue_with(
        chain(group(give.with_args(n) for n in range(count)), total.with_args(previous))
    )


@task(takes_context=True, max_attempts=3, backoff=0)
def adds_and_fails_first(context):
    context.workflow.add(note.with_args("added"))
    if context.attempt < 3:
        raise ValueError("not yet")


@task(takes_context=True)
def adds_nonsense(context):
    context.workflow.add(add.with_args(previous["x"], object()))


@task(takes_context=True)
def grows(context, *names):
    """Lead on to the tasks of these names."""
    for name in names:
        context.workflow.add(globals()[name])


@task(takes_context=True)
def adds_and_continues(context):
    context.workflow.add(note.with_args(previous))
    context.workflow.continue_with(give.with_args("replacement"))
    return "own"


@task(takes_context=True)
def continues_twice(context):
    context.workflow.continue_with(give)
    context.workflow.continue_with(give)


@task(takes_context=True, atomic=True)
def adds_in_its_transaction(context):
    context.workflow.add(note.with_args("added"))
    script.setdefault("calls", []).append(1)
    if len(script["calls"]) == 1:
        raise OperationalError("database is locked")


@task(takes_context=True)
async def adds_async(context):
    context.workflow.add(note.with_args("added"))


@task(takes_context=True)
def alone(context):
    context.workflow.add(give)


@task(unique="one")
def only_one():
    return 1


@task(unique="of:{name}")
def only_one_of(name):
    return name


@task(concurrency=1)
def limited(items):
    return len(items)


@task(expires=5)
def perishable():
    return "fresh"


@task(hide_args=("secret",))
def whisper(secret):
    raise ValueError(f"heard {secret}")


@task(atomic=True)
def note_atomic(name, number=0):
    Effect.objects.create(name=name, number=number)
    return number


@task(queue_name="emails")
def quick(value=None):
    return value
