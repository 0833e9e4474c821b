"""Pages in other languages: all of the catalogue is translated, plurals and places are right."""

import gettext
import re
from pathlib import Path

import pytest
from django.test import override_settings
from django.urls import reverse
from django.utils.translation import override

import django_bgtasks
from django_bgtasks.monitoring.health import examine

from ..monitoring.test_health import enqueue, worker

LOCALES = Path(django_bgtasks.__file__).parent / "locale"
CATALOGUES = sorted(LOCALES.glob("*/LC_MESSAGES/django.mo"))
PLACES = re.compile(r"%\(\w+\)[sdr]|\{\w*\}")
SEE = ("view_dashboard", "view_queuedtask", "view_finishedtask", "view_queue", "view_worker")
LISTS = ("dashboard", "queuedtask", "finishedtask", "queue", "worker")


def entries(path):
    """Return original and translation of each message, of plurals the first form alone."""
    with path.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog
    return [
        (key[0] if isinstance(key, tuple) else key, text)
        for key, text in catalogue.items()
        if key and (not isinstance(key, tuple) or key[1] == 0)
    ]


def test_there_are_catalogues():
    assert CATALOGUES


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_every_message_is_translated_and_keeps_its_places(path):
    found = entries(path)
    assert len(found) > 700
    for original, text in found:
        assert text.strip(), original
        missing = set(PLACES.findall(text)) - set(PLACES.findall(original))
        assert not missing, (original, text)
    source = path.with_suffix(".po").read_text()
    assert "#, fuzzy" not in source
    assert not re.search(r'msgstr(\[\d\])? ""\n\n', source)


@pytest.mark.django_db
def test_a_sentence_has_the_plural_of_its_number():
    with override("de"):
        enqueue(1)
        assert "1 Aufgabe wartet" in str(examine("default"))
        enqueue(4)
        assert "5 Aufgaben warten" in str(examine("default"))
        worker()
        assert str(examine("default")).startswith("Alles ist in Ordnung. 1 Worker")


@pytest.mark.django_db
@pytest.mark.parametrize("name", LISTS)
def test_pages_speak_german(client_with, name):
    with override_settings(LANGUAGE_CODE="de"):
        response = client_with(*SEE).get(reverse(f"admin:bgtasks_{name}_changelist"))
    content = response.content.decode()
    assert response.status_code == 200
    for word in ("Hintergrundaufgaben", "Warteschlangen", "Ergebnisse"):
        assert word in content
    for word in ("Background tasks", ">Queues<", ">Results<", "No worker"):
        assert word not in content


@pytest.mark.django_db
@pytest.mark.parametrize("name", LISTS)
def test_pages_can_be_read_from_right_to_left(client_with, name):
    with override_settings(LANGUAGE_CODE="he"):
        response = client_with(*SEE).get(reverse(f"admin:bgtasks_{name}_changelist"))
    assert response.status_code == 200
    assert 'dir="rtl"' in response.content.decode()
