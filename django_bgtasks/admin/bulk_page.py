"""The page between a list and a bulk operation: which tasks, how many, what to do to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..bulk.asking import FASTEST, SLOWEST, begin
from ..bulk.estimating import Estimate, estimate
from ..bulk.selection import PLACES, Selection
from ..bulk.verbs import VERBS, Verb, in_words
from ..filtering import BadFilter, typed
from ..models.bulk import BulkOperation
from ..models.finished import FinishedTask
from .display import visible
from .pages import PageAdmin

#: From so many tasks on, the number is to be typed.
TYPED_FROM = 1_000
#: How much an estimate may have grown since it was shown.
GROWTH = 1.1
_NAME = BulkOperation._meta.get_field("name").max_length


class BulkForm(forms.Form):
    """What to do, how fast, under which name; number and shown confirm a large one."""

    verb = forms.ChoiceField(label=gettext_lazy("What to do"))
    rate = forms.FloatField(
        label=gettext_lazy("Tasks per second"),
        required=False,
        min_value=SLOWEST,
        max_value=FASTEST,
    )
    name = forms.CharField(label=gettext_lazy("Name"), required=False, max_length=_NAME)
    number = forms.CharField(required=False, max_length=30)
    shown = forms.IntegerField(required=False)

    def __init__(self, data: Any, verbs: list[Verb], found: Estimate) -> None:
        super().__init__(data)
        self.found = found
        field: Any = self.fields["verb"]
        field.choices = [(verb.name.value, verb.name.label) for verb in verbs]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        count, shown = self.found.count, given.get("shown") or 0
        if not count:
            raise forms.ValidationError(_("No task matches any more."))
        if count > TYPED_FROM:
            if count > shown * GROWTH:
                self.add_error("number", _("The number has changed. Type the one that is shown."))
            elif "".join(filter(str.isdigit, given.get("number", ""))) != str(shown):
                self.add_error("number", _("Type the number that is shown."))
        return given


def may_act(page: PageAdmin, request: HttpRequest, verb: str) -> bool:
    """Say whether the user may do a verb to all tasks that match a filter."""
    act = VERBS[verb]
    table = "finishedtask" if act.finished else "queuedtask"
    needed = ("bulk_task", act.permission, f"view_{table}")
    return all(page.may(request, codename) for codename in needed)


class BulkPage(PageAdmin):
    """The list of either table of tasks, with a page to act on all that it shows."""

    @property
    def is_of_finished(self) -> bool:
        """Whether the tasks of this list are results."""
        return self.model is FinishedTask

    def bulk_verbs(self, request: HttpRequest) -> list[Verb]:
        """Return what the user may do to all tasks of this list that match a filter."""
        return [
            verb
            for name, verb in VERBS.items()
            if verb.finished == self.is_of_finished and may_act(self, request, name)
        ]

    def bulk_address(self, request: HttpRequest) -> str:
        """Return where all that this list shows can be acted on, "" if the user may not."""
        if not self.bulk_verbs(request):
            return ""
        kept = [(name, text) for name, text in request.GET.items() if name not in PLACES and text]
        return f"{self.address('bulk')}?{urlencode(kept)}" if kept else self.address("bulk")

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view(self.bulk_view)
        return [path("bulk/", view, name=f"{prefix}_bulk"), *super().get_urls()]

    def bulk_view(self, request: HttpRequest) -> HttpResponse:
        """Ask what to do to all tasks that match the address, and write that down."""
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        verbs = self.bulk_verbs(request)
        if not verbs or not self.has_view_permission(request):
            raise PermissionDenied
        query = {name: str(text) for name, text in request.GET.items() if name != "verb"}
        try:
            selection = Selection.of_address(query, finished=self.is_of_finished)
        except BadFilter as error:
            return self._refused(request, error)
        if selection.filter.needs_payload and not self.may(request, "view_payload"):
            raise PermissionDenied
        found = estimate(self.alias, selection)
        form = BulkForm(request.POST if request.method == "POST" else None, verbs, found)
        if form.is_valid():
            return self._begin(request, selection, form)
        return self.page(
            request,
            "admin/bgtasks/bulk_begin.html",
            title=_("Act on all that match"),
            context=lambda: {
                "form": form,
                "words": visible(selection.in_words(self.alias)),
                "estimate": _in_words(found),
                "shown": found.count,
                "number": number_format(found.count, force_grouping=True),
                "is_typed": found.count > TYPED_FROM,
                "choices": self._choices(request, verbs, found),
                "name_length": _NAME,
                "slowest": SLOWEST,
                "fastest": FASTEST,
                "list_name": self.opts.verbose_name_plural,
                "back": self._back(selection),
            },
        )

    def _back(self, selection: Selection) -> str:
        text = typed(selection.filter.as_dict())
        query = f"?{urlencode({SEARCH_VAR: text})}" if text else ""
        return f"{self.address('changelist')}{query}"

    def _refused(self, request: HttpRequest, error: BadFilter) -> HttpResponse:
        return self.page(
            request,
            "admin/bgtasks/bulk_begin.html",
            title=_("Act on all that match"),
            context=lambda: {
                "refusal": visible(error),
                "list_name": self.opts.verbose_name_plural,
                "back": self.address("changelist"),
            },
            status=400,
        )

    def _choices(
        self, request: HttpRequest, verbs: list[Verb], found: Estimate
    ) -> list[dict[str, Any]]:
        chosen = request.POST.get("verb") or request.GET.get("verb") or ""
        if chosen not in {verb.name.value for verb in verbs}:
            # What can be undone is what is chosen if nothing is.
            chosen = verbs[0].name.value
        return [
            {
                "value": verb.name.value,
                "label": verb.name.label,
                "is_chosen": verb.name.value == chosen,
                "consequence": verb.consequence,
                "left_alone": " ".join(
                    in_words(status, count) for status, count in found.left_alone(verb).items()
                ),
            }
            for verb in verbs
        ]

    def _begin(self, request: HttpRequest, selection: Selection, form: BulkForm) -> HttpResponse:
        given = form.cleaned_data
        operation = begin(
            self.alias,
            selection,
            given["verb"],
            by=request.user.get_username(),
            name=given["name"],
            rate=given["rate"],
            estimate=form.found.count,
        )
        label = operation.get_verb_display()
        self.log(request, [operation], f"{label}: {visible(operation.words)}")
        text = _("%(verb)s: workers begin with it within seconds.") % {"verb": label}
        self.message_user(request, text)
        if self.may(request, "view_bulkoperation"):
            address = self.address("change", operation.pk, model=BulkOperation)
            if address:
                return HttpResponseRedirect(address)
        return HttpResponseRedirect(self.address("changelist"))


def _in_words(found: Estimate) -> str:
    shown = number_format(found.count, force_grouping=True)
    if found.is_exact:
        return ngettext("%(number)s task", "%(number)s tasks", found.count) % {"number": shown}
    return _("about %(number)s tasks") % {"number": shown}
