"""
The shop at work, with real processes and real crashes. make demo runs it.

Visitors sign up, upload orders and pictures, and watch their pages, while a
process of the worker and then the whole worker are killed.
"""

import os
import re
import signal
import time
from collections import Counter
from contextlib import ExitStack
from http.cookiejar import CookieJar
from io import BytesIO, StringIO
from urllib.error import URLError
from urllib.request import HTTPCookieProcessor, Request, build_opener

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Sum
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from PIL import Image

from django_bgtasks import get_workflow
from django_bgtasks.models import FinishedTask, QueuedTask
from shop.management.processes import Process, all_processes, free_port
from shop.models import Customer, Order, Picture, RowError, Upload
from shop.orders_csv import sample
from shop.tasks import ROWS_PER_PART

NAMES = ("ada", "alan", "barbara", "dennis", "edsger", "grace", "john", "margaret")
BAD_ROWS = 250
PASSWORD = "lovelace-1815"


class Visitor:
    """A browser with cookies, without a screen."""

    def __init__(self, site, name):
        self.site = site
        self.name = name
        self.cookies = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.cookies))

    @property
    def csrf_token(self):
        return next((c.value for c in self.cookies if c.name == "csrftoken"), None)

    def get(self, path):
        """Return the text of a page."""
        with self.opener.open(self.site + path, timeout=60) as response:
            return response.read().decode()

    def post(self, path, **fields):
        """Send a form; return the path and the text of the page that follows."""
        if not self.csrf_token:
            self.get("/")
        body = encode_multipart(BOUNDARY, {**fields, "csrfmiddlewaretoken": self.csrf_token})
        request = Request(self.site + path, body, {"Content-Type": MULTIPART_CONTENT})
        with self.opener.open(request, timeout=60) as response:
            return response.url.removeprefix(self.site), response.read().decode()


class UploadPage:
    """What the page of an upload says."""

    def __init__(self, visitor, path):
        self.visitor = visitor
        self.path = path

    def read(self):
        self.text = self.visitor.get(self.path)
        said = re.findall(r'data-part="(?:text|detail)"[^>]*>([^<]*)', self.text)
        self.says = ", ".join(said).lower()
        return self

    @property
    def has_report(self):
        return "Read the report" in self.text

    @property
    def pending(self):
        return "<bgtasks-progress" in self.text and "data-url" in self.text

    def __str__(self):
        return f"{self.visitor.name}'s page: {self.says}"


class Command(BaseCommand):
    help = "Have visitors use the shop, kill workers meanwhile, and count that nothing is lost."

    def add_arguments(self, parser):
        parser.add_argument("--rows", type=int, default=50_000, help="Rows of each of two files.")

    def handle(self, rows, **options):
        self.began = time.monotonic()
        self.rows = rows
        call_command("migrate", verbosity=0)
        if Customer.objects.exists():
            raise CommandError("The demo needs a database of its own: name an empty DATA_DIR.")
        self.say(f"Database ready ({settings.DATABASES['default']['ENGINE'].rpartition('.')[2]}).")
        with ExitStack() as self.processes:
            site = self.start_site()
            worker = self.start_worker(1)
            visitors = self.sign_up(site)
            self.upload_pictures(visitors)
            pages = self.upload_orders(visitors[:2])  # One for each child of the worker.
            self.kill_child(worker, visitors, pages)
            self.kill_worker(worker, visitors, pages)
            self.upload_pictures(visitors)
            call_command("bgtasks", "schedules", "run", "clean-up", stdout=StringIO())
            self.say("Nightly clean-up run now, by hand; the site needs no worker to take work")
            self.start_worker(2)
            self.watch(visitors, pages)
            self.compare(visitors, pages)

    def say(self, text):
        self.stdout.write(f"{time.monotonic() - self.began:6.1f} s  {text}")
        self.stdout.flush()

    def wait_for(self, condition, what, seconds=60):
        """Return what condition returns, as soon as that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.1)
        raise CommandError(f"Waited {seconds} s in vain for {what}. See {settings.DATA_DIR}/*.log")

    # The processes

    def start(self, name, *arguments):
        process = Process(*arguments, log=settings.DATA_DIR / f"{name}.log")
        self.processes.callback(process.stop)
        return process

    def start_site(self):
        address = f"127.0.0.1:{free_port()}"
        self.start("site", "runserver", address, "--noreload")
        visitor = Visitor(f"http://{address}", "nobody")

        def answers():
            try:
                return visitor.get("/")
            except URLError:
                return None

        self.wait_for(answers, "the site")
        self.say(f"Site on http://{address}/")
        return visitor.site

    def start_worker(self, number):
        worker = self.start(f"worker-{number}", "runworker", "--no-reload", "--processes", "2")
        self.wait_for(lambda: len(worker.children()) == 2, "the worker's processes")
        self.say(f"Worker {number}: process {worker.pid} with children {worker.children()}")
        return worker

    # The visitors

    def sign_up(self, site):
        visitors = [Visitor(site, name) for name in NAMES]
        for visitor in visitors:
            visitor.post(
                "/sign-up/",
                username=visitor.name,
                email=f"{visitor.name}@example.com",
                password1=PASSWORD,
                password2=PASSWORD,
            )
        self.say(f"{len(visitors)} visitors signed up: each gets a welcome mail")
        return visitors

    def upload_pictures(self, visitors):
        for hue, visitor in enumerate(visitors):
            visitor.post("/pictures/", original=picture(hue * 32))
        self.say(f"{len(visitors)} pictures uploaded: each gets a thumbnail")

    def upload_orders(self, visitors):
        lines = "".join(sample(self.rows, bad=BAD_ROWS)).encode()
        pages = []
        for visitor in visitors:
            file = SimpleUploadedFile("orders.csv", lines, "text/csv")
            path, _ = visitor.post("/orders/", file=file)
            pages.append(UploadPage(visitor, path))
            self.say(f"{visitor.name} uploaded {self.rows:,} orders, {BAD_ROWS} rows of them wrong")
        return pages

    # The crashes

    def an_import_runs(self, visitors, pages):
        """Wait until a part of a file is being imported; if all are, the next visitor uploads."""

        def runs():
            if not any(page.read().pending for page in pages):
                if len(pages) == len(visitors):
                    raise CommandError("This machine is too fast: give more --rows.")
                pages.extend(self.upload_orders([visitors[len(pages)]]))
            parts = QueuedTask.objects.filter(task_path__endswith=".import_rows")
            return parts.filter(status="RUNNING").exists()

        self.wait_for(runs, "an import that runs")

    def kill_child(self, worker, visitors, pages):
        again = None
        while not again:
            self.an_import_runs(visitors, pages)
            child = worker.children()[0]
            os.kill(child, signal.SIGKILL)
            self.say(f"KILLED child {child} of worker 1 (SIGKILL)")
            self.show(pages)
            self.wait_for(lambda gone=child: gone not in worker.children(), "another child")
            deadline = time.monotonic() + 2
            while not again and time.monotonic() < deadline:
                time.sleep(0.1)
                again = self.made_again()
            if not again:
                self.say("It was between two tasks")
        self.say(f"Worker 1 goes on with children {worker.children()}; {again} runs again")

    def made_again(self):
        """Return a task whose process died, and that a worker has begun again."""
        lost = QueuedTask.objects.filter(lost_count__gt=0, status="RUNNING").first()
        return lost or FinishedTask.objects.filter(lost_count__gt=0).first()

    def kill_worker(self, worker, visitors, pages):
        while True:
            self.an_import_runs(visitors, pages)
            children = worker.children()
            worker.kill()
            self.say(f"KILLED worker 1, process {worker.pid} (SIGKILL)")
            self.wait_for(
                lambda killed=children: not {pid for pid, _, _ in all_processes()} & set(killed),
                "the end of the children of the worker",
            )
            self.say("Its children ended with it")
            self.show(pages)
            if QueuedTask.objects.filter(status="RUNNING").exists():
                return
            self.say("It was between two tasks")
            worker = self.start_worker(1)

    def show(self, pages):
        for page in pages:
            self.say(f"  {page.read()}")

    # The end

    def watch(self, visitors, pages):
        shown = 0

        def all_is_done():
            nonlocal shown
            done = not any(page.read().pending for page in pages)
            if time.monotonic() - shown > 3:
                shown = time.monotonic()
                self.show(pages)
            return done and not any("data-pending" in visitor.get("/") for visitor in visitors)

        self.wait_for(all_is_done, "the end of all work", seconds=120)
        self.show(pages)
        self.say("No page shows anything that is pending")
        self.wait_for(lambda: not QueuedTask.objects.exists(), "the last result")

    def compare(self, visitors, pages):
        """Compare what was asked for with what is there."""
        pictures = len(visitors) * 2
        files, bad = len(pages), len(pages) * BAD_ROWS
        valid = files * self.rows - bad
        states = Counter(FinishedTask.objects.values_list("status", flat=True))
        lost = FinishedTask.objects.aggregate(total=Sum("lost_count"))["total"]
        flows = [get_workflow(upload.workflow) for upload in Upload.objects.all()]
        results = [flow.result("write_report") for flow in flows]
        mails = [
            (to, subject)
            for file in (settings.DATA_DIR / "mail").glob("*.log")
            for subject, to in re.findall(
                r"^Subject: ([^\n]*)$.*?^To: ([^\n]*)$", file.read_text(), re.MULTILINE | re.DOTALL
            )
        ]
        pages_of_errors = [
            int(found[1]) if (found := re.search(r"Page 1 of (\d+)", page.text)) else 0
            for page in pages
        ]
        reports = [
            page.visitor.get(f"{page.path}report/") if page.has_report else "" for page in pages
        ]
        # Sign-ups, thumbnails, the clean-up; and of each file the split, its parts, the report
        # and the mail.
        parts = -(-self.rows // ROWS_PER_PART)
        tasks = len(visitors) + pictures + 1 + files * (3 + parts)
        self.say("What is there, and what there should be:")
        lines = [
            ("tasks successful", states["SUCCESSFUL"], tasks),
            ("tasks that ended otherwise", states.total() - states["SUCCESSFUL"], 0),
            ("workflows successful", sum(f.state == "SUCCESSFUL" for f in flows), files),
            ("tasks left over", QueuedTask.objects.count(), 0),
            ("orders in the database", Order.objects.count(), valid),
            (
                "orders, as the tasks' results say",
                sum(r.return_value["orders"] for r in results),
                valid,
            ),
            (
                "rows with mistakes",
                RowError.objects.values("upload", "row").distinct().count(),
                bad,
            ),
            ("pages of 50 mistakes", pages_of_errors, [-(-BAD_ROWS // 50)] * files),
            (
                "reports that visitors read",
                sum(f"{self.rows - BAD_ROWS:,} orders" in r for r in reports),
                files,
            ),
            ("thumbnails", Picture.objects.exclude(thumbnail="").count(), pictures),
            ("mails of welcome and on reports", len(set(mails)), len(visitors) + files),
        ]
        for what, there, expected in lines:
            sign = "ok   " if there == expected else "WRONG"
            self.stdout.write(f"    {sign} {what}: {there} of {expected}")
        self.stdout.write(
            f"    Attempts that died with their process, and were made again: {lost}. "
            f"Mails sent twice: {len(mails) - len(set(mails))}."
        )
        for task in FinishedTask.objects.exclude(status="SUCCESSFUL"):
            self.stdout.write(f"    {task}: {task.status}. {task.reason}")
        if any(there != expected for _, there, expected in lines):
            raise CommandError("Something is lost, or there twice.")
        if lost < 2:
            raise CommandError("The crashes hit no running task: this run shows nothing.")
        self.say("Nothing is lost, nothing is there twice.")


def picture(hue):
    """Return a picture as a phone might take it, in a file."""
    shades = Image.radial_gradient("L").resize((1600, 1200))
    flat = Image.new("L", shades.size, 200)
    file = BytesIO()
    hues = Image.new("L", shades.size, hue % 256)
    Image.merge("HSV", (hues, flat, shades)).convert("RGB").save(file, "JPEG")
    return SimpleUploadedFile(f"picture-{hue}.jpg", file.getvalue(), "image/jpeg")
