"""Tasks under test, named by what they do."""

from django_bgtasks import task


@task
def add(a, b):
    return a + b


@task
def nothing():
    return None
