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
