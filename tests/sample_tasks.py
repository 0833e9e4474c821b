"""Tasks and receivers of the tests of enqueue, named by what they do."""

from django_bgtasks import compat, task

received = []


@task
def take(*args, **kwargs):
    """Accept whatever is passed."""
    return None


@task
async def take_async(*args, **kwargs):
    return None


@task
def answer():
    return 42


@task
def note(value):
    received.append(value)


@task
def send_receipt(order_id, *, day=None, order=None):
    return order_id


@task
def compare(first, second, /, third=0):
    return first + second + third


@task
def stop_with_value_error():
    raise ValueError("it went wrong")


@task
def stop_with_nested_error():
    raise ValueError(ValueError("inside"))


@task
def stop_with_system_exit():
    raise SystemExit("it left")


@task
def stop_with_keyboard_interrupt():
    raise KeyboardInterrupt("somebody pressed ^C")


@task
def give_a_function():
    return lambda: True


@task(takes_context=True)
def own_id(context):
    return context.task_result.id


@task(takes_context=True)
def attempt_with(context, *args, **kwargs):
    return [isinstance(context, compat.TaskContext), context.attempt, list(args), kwargs]


@task(
    queue_name="emails",
    priority=10,
    max_attempts=5,
    backoff=[10, 60],
    retry_on=(ConnectionError,),
    give_up_on=(BrokenPipeError,),
    on_lost="fail",
)
def deliver(address):
    return address


@task
def plain_name():
    return None


def not_a_task():
    return None


class Holder:
    """A class whose methods are no module-level functions."""

    @staticmethod
    def static():
        return None

    def method(self):
        return None
