"""One upload by its address, from the form to the mail; prints what came of it as JSON."""

import json
import os
import re
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import django

ROWS, BAD = 3500, 35


class Orders(BaseHTTPRequestHandler):
    def do_GET(self):
        from shop.orders_csv import sample

        self.send_response(200)
        self.end_headers()
        self.wfile.write("".join(sample(ROWS, bad=BAD)).encode())

    def log_message(self, *args):
        pass


def retried_in_the_admin(client, flow, upload):
    """Retry what has failed by the admin's button; return what was there before."""
    from shop.models import Customer

    upload.refresh_from_db()
    before = {
        "failed": {r.task.name: (r.state, r.reason) for r in flow.results},
        "report_then": bool(upload.report),
        "page": "at write_report" in client.get(f"/orders/{upload.pk}/").content.decode(),
    }
    Path(os.environ["MARK"]).touch()
    client.force_login(Customer.objects.create_superuser("root", "root@example.com"))
    response = client.post(
        "/admin/bgtasks/finishedtask/",
        {"action": "retry", "_selected_action": flow.result("write_report").id},
        follow=True,
    )
    before["says"] = re.findall(
        r'<li class="\w*success"[^>]*>(.*?)</li>', response.content.decode(), re.DOTALL
    )
    deadline = time.monotonic() + 60
    while True:
        time.sleep(0.05)
        flow.refresh()
        if flow.is_finished or time.monotonic() > deadline:
            return before


def main():
    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.test import Client
    from shop.models import Customer, Order, RowError, Upload

    from django_bgtasks import get_workflow
    from django_bgtasks.models import FinishedTask

    call_command("migrate", verbosity=0)
    server = HTTPServer(("127.0.0.1", 0), Orders)
    Thread(target=server.serve_forever, daemon=True).start()
    client = Client(SERVER_NAME="localhost")
    client.force_login(Customer.objects.create_user("ada", "ada@example.com"))
    address = f"http://127.0.0.1:{server.server_port}/october.csv"
    client.post("/orders/", {"source": address})
    upload = Upload.objects.get()
    flow = get_workflow(upload.workflow)
    worker = subprocess.Popen(
        [sys.executable, "-m", "django", "runworker", "--no-reload", "--processes", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not flow.is_finished and time.monotonic() < deadline:
        time.sleep(0.05)
        flow.refresh()
    failed = {}
    if os.environ["MOMENT"] == "fail":
        failed = retried_in_the_admin(client, flow, upload)
    worker.terminate()
    worker.wait(30)
    upload.refresh_from_db()
    mails = "".join(p.read_text() for p in (settings.DATA_DIR / "mail").glob("*.log"))
    outcome = {
        "state": flow.state,
        "orders": Order.objects.count(),
        "bad_rows": RowError.objects.values("row").distinct().count(),
        "rows_read": upload.rows_read,
        "report": bool(re.search(r"3,465 orders", upload.report)),
        "mails": mails.count("Subject: Your report on october.csv"),
        "lost": list(
            FinishedTask.objects.filter(lost_count__gt=0).values_list("task_path", flat=True)
        ),
        **failed,
        "killed": Path(os.environ["MARK"]).exists(),
    }
    sys.stdout.write(json.dumps(outcome))


main()
