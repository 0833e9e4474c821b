"""Every address of our pages, found through the URL resolver: what is new is there by itself."""

from dataclasses import dataclass

from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model
from django.urls import reverse

#: What Django's own ModelAdmin answers.
STOCK = frozenset({"changelist", "add", "history", "delete", "change"})
#: What stands in an address for what is no key of a row.
SAMPLES = {"int": 1, "slug": "log", "str": "x", "path": "x"}


@dataclass(frozen=True)
class Address:
    """One url name of a ModelAdmin of ours; parameters are its converters by their names."""

    model: type[Model]
    url_name: str
    parameters: tuple[tuple[str, str], ...]

    @property
    def name(self):
        """The last word of the url name: "changelist", "pause"."""
        return self.url_name.removeprefix(f"bgtasks_{self.model._meta.model_name}_")

    @property
    def is_verb(self):
        return self.name not in STOCK

    @property
    def needs_row(self):
        return any(name in ("object_id", "pk") for name, _ in self.parameters)

    def url(self, pk=None):
        given = {
            name: pk if name in ("object_id", "pk") else SAMPLES[kind]
            for name, kind in self.parameters
        }
        return reverse(f"admin:{self.url_name}", kwargs=given)

    def __str__(self):
        return self.url_name.removeprefix("bgtasks_")


def admins(site=admin.site):
    """Return our ModelAdmins by their models."""
    return {m: a for m, a in site._registry.items() if m._meta.app_label == "bgtasks"}


def addresses():
    """Return all addresses, by their names."""
    found = []
    for model, page in admins().items():
        for pattern in page.get_urls():
            if not getattr(pattern, "name", None):
                continue  # Django's redirect of what has no other address.
            kinds = tuple(
                (name, type(converter).__name__.removesuffix("Converter").lower())
                for name, converter in pattern.pattern.converters.items()
            )
            found.append(Address(model, pattern.name, kinds))
    return sorted(found, key=str)


def keys(model, most=3):
    """Return the keys of some rows of a model, one of each state where it has states."""
    if not model._meta.managed:
        return []
    rows = model._base_manager.order_by("pk")
    found = []
    for column in ("status", "state"):
        if column in {f.name for f in model._meta.fields}:
            states = rows.order_by(column).values_list(column, flat=True).distinct()
            found = [rows.filter(**{column: s}).values_list("pk", flat=True)[0] for s in states]
    return found or list(rows.values_list("pk", flat=True)[:most])


def urls(address, most=3):
    """Return the urls of an address, for some rows if it is of one row."""
    if not address.needs_row:
        return [address.url()]
    return [address.url(pk) for pk in keys(address.model, most) or ["1"]]


def contents(*aside):
    """Return all rows of our tables and of the users; aside names models that may change."""
    from django.apps import apps

    models = [*apps.get_app_config("bgtasks").get_models(), User, Group, Permission]
    return {
        model.__name__: list(model._base_manager.order_by("pk").values_list())
        for model in models
        if model._meta.managed and model.__name__ not in aside
    }


def differences(before, after):
    """Return what has changed between two contents(), for people."""
    found = []
    for name, rows in after.items():
        if rows != before[name]:
            new = [row for row in rows if row not in before[name]]
            gone = [row for row in before[name] if row not in rows]
            found.append(f"{name}: {gone[:2]} became {new[:2]}")
    return found
