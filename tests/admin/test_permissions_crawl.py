"""
Nobody does what he may not do: every link that there is, and every verb by hand.

Addresses come from the URL resolver and actions from the ModelAdmins, so that
new ones are covered without a word here.
"""

import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from django_bgtasks.models import FinishedTask, Queue, QueuedTask
from tests.browser.shop import open_shop

from .addresses import addresses, admins, contents, differences, keys, urls

ROOT = "/admin/bgtasks/"
#: What only view_payload shows, of the shop's tasks.
PAYLOAD = re.compile(r"m4rk3r")
#: Filled in by whoever makes requests by hand.
GUESSES = {
    "post": "yes",
    "confirm": "yes",
    "yes": "1",
    "verb": "cancel",
    "reason": "none",
    "note": "none",
    "days": "1",
    "count": "1",
    "_save": "1",
    "name": "made by hand",
}

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(db):
    ann = open_shop(results=40)
    for model in (QueuedTask, FinishedTask):
        model.objects.update(kwargs={"word": "m4rk3r"}, notes={"log": "m4rk3r"})
    FinishedTask.objects.update(return_value="m4rk3r")
    ann.client = client_of(ann)
    return ann


def client_of(user):
    client = Client()
    client.force_login(user)
    return client


def member(*codenames):
    """Return a client of somebody of the staff with these permissions of ours."""
    user = User.objects.create_user(f"member{User.objects.count()}", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="bgtasks", codename__in=codenames)
    )
    return client_of(user)


def codenames(*, starting=""):
    found = Permission.objects.filter(
        content_type__app_label="bgtasks", codename__startswith=starting
    )
    return set(found.values_list("codename", flat=True))


def viewer():
    return member(*codenames(starting="view_"))


def nobody():
    return member()


def stranger():
    return Client()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            self.found.append(given["href"])
        if tag == "form" and given.get("method", "get").lower() == "get":
            self.found.append(given.get("action") or "")


def crawl(client, *starts, most=600):
    """GET every page of ours that links lead to; yield url and response."""
    waiting, seen, kinds = [*starts], set(starts), Counter()
    for _ in range(most):
        if not waiting:
            return
        url = waiting.pop(0)
        response = client.get(url)
        yield url, response
        if response.status_code in (301, 302):
            found = [response.url]
        elif response.get("Content-Type", "").startswith("text/html"):
            links = Links()
            links.feed(response.content.decode())
            found = links.found
        else:
            continue
        for link in found:
            target = urljoin(url, link).partition("#")[0]
            kind = kind_of(target)
            if target.startswith(ROOT) and target not in seen and kinds[kind] < 3:
                kinds[kind] += 1
                seen.add(target)
                waiting.append(target)


def kind_of(url):
    """Return what an address asks, without the values: filters of a list are many together."""
    parts = urlsplit(url)
    return parts.path, tuple(sorted(parse_qs(parts.query, keep_blank_values=True)))


def every_url():
    return [url for address in addresses() for url in urls(address)]


def is_login(response):
    return response.status_code == 302 and urlsplit(response.url).path == reverse("admin:login")


def starts():
    return [reverse("admin:index"), reverse("admin:app_list", args=["bgtasks"]), *every_url()]


def test_the_crawl_sees_all_there_is(shop):
    """The tests below can't pass by looking at nothing."""
    assert len(addresses()) >= 40
    assert {str(a) for a in addresses() if a.is_verb} >= {"queue_pause", "queuedtask_cancel"}
    seen = {url for url, response in crawl(shop.client, reverse("admin:index"))}
    for model in admins():
        assert reverse(f"admin:bgtasks_{model._meta.model_name}_changelist") in seen
    assert sum("/change/" in url for url in seen) > 50


def test_no_get_of_a_superuser_changes_anything(shop):
    # Nor does the first look at a queue that no worker has served yet.
    Queue.objects.filter(name="reports").delete()
    before = contents()
    for url, response in crawl(shop.client, *starts()):
        assert response.status_code in (200, 301, 302, 403, 404, 405), url
    assert differences(before, contents()) == []


def test_who_may_look_sees_pages_and_changes_nothing(shop):
    client, before = viewer(), contents()
    shown = 0
    for url, response in crawl(client, *starts()):
        assert response.status_code in (200, 301, 302, 403, 404, 405), url
        shown += response.status_code == 200
    assert shown > 50
    assert differences(before, contents()) == []


@pytest.mark.parametrize("who", [nobody, stranger])
def test_who_may_not_look_sees_no_page(shop, who):
    client, before = who(), contents()
    for url in every_url():
        response = client.get(url)
        assert response.status_code in (403, 405) or is_login(response), url
    assert differences(before, contents()) == []


@pytest.mark.parametrize("who", [viewer, nobody, stranger])
@pytest.mark.parametrize("data", [{}, GUESSES], ids=["empty", "filled in"])
def test_a_post_by_hand_is_refused_to_who_may_only_look(shop, who, data):
    client, before = who(), contents()
    for address in addresses():
        for url in urls(address):
            response = client.post(url, data)
            refused = response.status_code in (403, 405) or is_login(response)
            # Some pages that only show answer as to a GET.
            shows = who is viewer and response.status_code == client.get(url).status_code
            assert refused or (shows and response.status_code in (200, 404)), (url, response)
    assert differences(before, contents()) == []


@pytest.mark.parametrize("who", [viewer, nobody, stranger])
def test_an_action_by_hand_is_refused_to_who_may_only_look(shop, who):
    client, before = who(), contents()
    for model, page in admins().items():
        url = reverse(f"admin:bgtasks_{model._meta.model_name}_changelist")
        # A tuple until Django 6.1, where unpacking it is deprecated.
        actions = page._get_base_actions()
        names = [getattr(action, "name", None) or action[1] for action in actions]
        for name in (*names, "delete_selected"):
            ticked = [str(key) for key in keys(model)]
            data = {"action": name, ACTION_CHECKBOX_NAME: ticked, "index": 0, **GUESSES}
            response = client.post(url, data)
            assert response.status_code in (200, 302, 403, 405), (url, name)
    assert differences(before, contents()) == []


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "head"])
def test_other_methods_change_nothing(shop, method):
    before = contents()
    for address in addresses():
        for url in urls(address, most=1):
            getattr(shop.client, method)(url)
    assert differences(before, contents()) == []


def test_a_post_without_its_token_is_refused_to_everybody(shop):
    client = Client(enforce_csrf_checks=True)
    client.force_login(shop)
    before = contents()
    for address in addresses():
        for url in urls(address, most=1):
            assert client.post(url, GUESSES).status_code in (403, 405), url
    assert differences(before, contents()) == []


def test_payload_is_on_no_page_of_who_may_not_see_it(shop):
    client = member(*codenames() - {"view_payload"})
    pages = 0
    for url, response in crawl(client, *starts()):
        body = b"".join(response) if response.streaming else response.content
        assert not PAYLOAD.search(body.decode()), url
        pages += response.status_code == 200
    assert pages > 50
    # The marker is where a page may show it.
    shown = [url for url, r in crawl(shop.client, *starts()) if b"m4rk3r" in r.content]
    assert len(shown) >= 5


def test_payload_is_in_no_answer_to_a_verb_of_who_may_not_see_it(shop):
    client = member(*codenames() - {"view_payload"})
    for address in addresses():
        if not address.is_verb:
            continue
        for url in urls(address):
            response = client.post(url, GUESSES, follow=True)
            assert not PAYLOAD.search(response.content.decode()), url
