"""The pages of the console, a line each; a test says which line is missing."""

from dataclasses import dataclass, field

from django.apps import apps
from django.urls import reverse

from tests.admin.addresses import addresses


@dataclass(frozen=True)
class Page:
    """
    A page to look at. address is the end of its url name; row picks the row it
    is of, by its columns; own: made of admin/bgtasks/page.html.
    """

    address: str
    row: dict = field(default_factory=dict)
    query: str = ""
    own: bool = False

    @property
    def model(self):
        return apps.get_model("bgtasks", self.address.partition("_")[0])

    @property
    def url(self):
        keys = [self.find().pk] if self.row else []
        return reverse(f"admin:bgtasks_{self.address}", args=keys) + self.query

    def find(self):
        return self.model._base_manager.filter(**self.row).order_by("-pk")[0]

    def __str__(self):
        words = [self.address, *map(str, self.row.values()), self.query]
        return " ".join(word for word in words if word)


RUNNING = {"status": "RUNNING", "worker_id": "web-1"}
PAGES = [
    Page("dashboard_changelist", own=True),
    Page("dashboard_changelist", query="?h=168", own=True),
    Page("queuedtask_changelist"),
    Page("queuedtask_changelist", query="?status=READY"),
    Page("queuedtask_change", {"status": "READY"}, own=True),
    Page("queuedtask_change", RUNNING, own=True),
    Page("queuedtask_change", {"status": "SCHEDULED", "failures__gt": 0}, own=True),
    Page("queuedtask_change", {"status": "WAITING"}, own=True),
    Page("queuedtask_cancel", RUNNING, own=True),
    Page("queuedtask_force", RUNNING, own=True),
    Page("queuedtask_copy", {"status": "READY"}, own=True),
    Page("queuedtask_history", {"status": "READY"}),
    Page("finishedtask_changelist"),
    Page("finishedtask_changelist", query="?q=nothing+such"),
    Page(
        "finishedtask_change",
        {"status": "SUCCESSFUL", "task_path__endswith": "import_feed"},
        own=True,
    ),
    Page(
        "finishedtask_change", {"status": "FAILED", "task_path__endswith": "import_feed"}, own=True
    ),
    Page("finishedtask_change", {"status": "CANCELLED"}, own=True),
    Page("finishedtask_copy", {"status": "FAILED"}, own=True),
    Page("finishedtask_delete", {"status": "FAILED"}),
    Page("finishedtask_history", {"status": "FAILED"}),
    Page("failuregroup_changelist"),
    Page("failuregroup_change", {"task_path__endswith": "import_feed"}, own=True),
    Page("failuregroup_history", {"task_path__endswith": "import_feed"}),
    Page("finishedtask_bulk", query="?status=FAILED", own=True),
    Page("queuedtask_bulk", query="?queue=default", own=True),
    Page("bulkoperation_changelist"),
    Page("bulkoperation_change", {"state": "RUNNING"}, own=True),
    Page("bulkoperation_change", {"state": "DONE"}, own=True),
    Page("bulkoperation_history", {"state": "DONE"}),
    Page("queue_changelist"),
    Page("queue_change", {"name": "default"}, own=True),
    Page("queue_change", {"name": "emails"}, own=True),
    Page("queue_pause", {"name": "default"}, own=True),
    Page("queue_history", {"name": "emails"}),
    Page("worker_changelist"),
    Page("worker_change", {"name": "web-1"}, own=True),
    Page("worker_change", {"name": "batch-1"}, own=True),
    Page("worker_stop", {"name": "web-1"}, own=True),
    Page("worker_history", {"name": "web-1"}),
    Page("schedule_changelist"),
    Page("schedule_add"),
    Page("schedule_change", {"name": "nightly-stock"}),
    Page("schedule_run", {"name": "nightly-stock"}),
    Page("schedule_delete", {"name": "nightly-stock"}),
    Page("schedule_history", {"name": "nightly-stock"}),
    Page("workflow_changelist"),
    Page("workflow_change", {"status": "FAILED"}),
    Page("workflow_change", {"status": "RUNNING"}),
    Page("workflow_history", {"status": "FAILED"}),
]
#: Addresses that answer something else than a page.
OTHERS = {"schedule_preview", "queuedtask_text", "finishedtask_text"}


def missing(client):
    """Return the addresses that show a page, as client sees them, and have no line above."""
    listed = {page.address for page in PAGES} | OTHERS
    found = []
    for address in addresses():
        if str(address) in listed:
            continue
        row = address.model._base_manager.first() if address.model._meta.managed else None
        response = client.get(address.url(row.pk if row and address.needs_row else "1"))
        if response.status_code == 200:
            found.append(str(address))
    return found
