"""{% task_progress %}: what stands in the page before a script has run."""

import re

import pytest
from django.contrib.auth.models import AnonymousUser
from django.template import Context, RequestContext, Template

from tests import factories
from tests.sample_tasks import note

pytestmark = pytest.mark.django_db


@pytest.fixture
def task():
    return note.enqueue("secret-argument")


@pytest.fixture
def request_of(rf):
    def make(user=None):
        request = rf.get("/page/")
        request.user = user or AnonymousUser()
        return request

    return make


def rendered(source, request=None, **context):
    template = Template("{% load bgtasks %}" + source)
    made = Context(context) if request is None else RequestContext(request, context)
    return template.render(made)


def address_in(page):
    return re.search(r'data-url="([^"]+)"', page)[1]


def test_it_shows_a_bar_the_state_and_a_link(task, request_of):
    page = rendered('{% task_progress task label="Import" %}', request_of(), task=task)
    assert 'role="progressbar" aria-label="Import" aria-valuemin="0" aria-valuemax="100"' in page
    assert "aria-valuenow" not in page
    assert '<span data-part="text" role="status">Waiting to start</span>' in page
    assert '<a data-part="refresh" href="">Refresh</a>' in page


def test_its_address_is_made_for_the_user_of_the_page(task, request_of, signed_in, client):
    ann = signed_in("ann")
    address = address_in(rendered("{% task_progress t %}", request_of(ann.user), t=task))
    assert ann.get(address).status_code == 200
    assert client.get(address).status_code == 404


def test_a_visitor_without_account_and_a_page_without_request_have_addresses(
    task, request_of, client
):
    for request in (request_of(), None):
        address = address_in(rendered("{% task_progress t %}", request, t=task))
        assert client.get(address).status_code == 200


def test_script_and_style_come_with_the_first_bar_of_a_page(task, request_of):
    page = rendered("{% task_progress t %}{% task_progress t %}", request_of(), t=task)
    assert page.count("<bgtasks-progress ") == 2
    assert page.count('<script src="/static/bgtasks/progress.js" defer></script>') == 1
    assert page.count('<link rel="stylesheet" href="/static/bgtasks/progress.css">') == 1


def test_script_and_style_have_the_nonce_of_the_page(task, request_of):
    request = request_of()
    request.csp_nonce = "r4nd0m"
    page = rendered("{% task_progress t %}", request, t=task)
    assert page.count(' nonce="r4nd0m"') == 2


def test_no_style_and_no_script_stands_in_the_page(task, request_of):
    page = rendered("{% task_progress t next='/x/' reload=True %}", request_of(), t=task)
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! src)", page)


def test_a_task_that_has_ended_is_followed_no_more(task, request_of):
    factories.succeed(task)
    task.refresh()
    page = rendered("{% task_progress t next='/x/' reload=True %}", request_of(), t=task)
    assert 'aria-valuenow="100"' in page
    assert "Done" in page
    for absent in ("data-url", "data-next", "data-reload", "Refresh"):
        assert absent not in page


def test_a_task_that_is_not_kept_any_more_is_said_to_be_so(request_of):
    page = rendered("{% task_progress t %}", request_of(), t=None)
    assert "Not available any more" in page
    assert "data-url" not in page


def test_what_follows_the_end_is_written_down_for_the_script(task, request_of):
    page = rendered("{% task_progress t next=next reload=True %}", request_of(), t=task, next='/"x')
    assert 'data-next="/&quot;x" data-reload' in page


def test_what_a_task_says_is_text(task, request_of):
    object.__setattr__(
        task, "notes", {"progress": {"current": 1, "total": 2, "message": "<script>alert(1)"}}
    )
    page = rendered("{% task_progress t label=l %}", request_of(), t=task, l="<b>")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert 'aria-label="&lt;b&gt;"' in page


def test_the_projects_words_stand_in_the_page(task, request_of, options):
    options(PROGRESS_DETAILS="tests.progress.hooks.value")
    factories.fail(task)
    task.refresh()
    assert "The file is empty." in rendered("{% task_progress t %}", request_of(), t=task)
