"""Addresses of pages, what they say, and the statements that they cost."""

import html
import re
from html.parser import HTMLParser

from django.contrib.messages import get_messages
from django.urls import reverse


def changelist(model):
    return reverse(f"admin:bgtasks_{model}_changelist")


def page(model, pk, name="change"):
    return reverse(f"admin:bgtasks_{model}_{name}", args=[pk])


def text(response):
    """Return the content of a page, after checks that hold for each of them."""
    assert response.status_code == 200, response
    content = response.content.decode()
    Inline().feed(content)
    return content


class Inline(HTMLParser):
    """Refuses what a strict Content-Security-Policy would."""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert tag not in ("style", "iframe", "object"), tag
        assert tag != "img" or given["src"].startswith("/static/admin/")
        assert tag != "script" or "src" in given or given.get("type") == "application/json"
        for name, value in attrs:
            assert name != "style"
            assert not name.startswith("on"), name
            assert not (value or "").lower().startswith("javascript:")


def said(response):
    """Return the messages of the request that was answered, without those before."""
    return [str(message) for message in get_messages(response.wsgi_request)._queued_messages]


def act(client, model, action, pks, **data):
    """Run an action of a list on rows; return the messages."""
    data = {"action": action, "_selected_action": [str(pk) for pk in pks], **data}
    response = client.post(changelist(model), data)
    assert response.status_code == 302, said(response)
    return said(response)


def plain(content):
    """Return the words of a page without its tags."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", content)))


def assert_bounded(queries, most):
    """Few statements, none of which reads a whole table."""
    sql = [query["sql"] for query in queries]
    assert len(sql) <= most, "\n".join(sql)
    for statement in sql:
        upper = statement.upper()
        if "BGTASKS_" not in upper:
            continue
        assert "LIKE" not in upper, statement
        assert "DISTINCT" not in upper, statement
        if "COUNT(" in upper:
            assert "LIMIT" in upper, statement
