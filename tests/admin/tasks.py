"""Tasks whose arguments and results a page must treat with care."""

from django_bgtasks import task


@task
def log_in(user, password, *tokens, **options):
    return None


@task(takes_context=True)
def call_service(context, url, api_key):
    return None


@task(max_attempts=5)
def fetch(url):
    return None


@task(
    max_attempts=4,
    backoff=[5, 60],
    give_up_on=KeyError,
    on_lost="fail",
    timeout=300,
    grace=5,
    expires=3600,
    unique="feed:{partner}:{number}",
    unique_for=7200,
    concurrency=("partner:{partner}", 2),
    rate=("partner:{partner}", "120/m", 20),
    fair="{partner}",
    atomic=True,
    labels={"kind": "import"},
    hide_args="card",
)
def import_feed(partner, number, card=None, **more):
    return None


@task(unique="card:{card}", fair="{token}", concurrency=3, rate="2/s", hide_args="card")
def charge(card, token):
    return None


@task(hide_args="words")
def say(*words, **how):
    return None
