"""
Run by: python manage.py test

Two ways to test code with tasks: ImmediateBackend runs each inside the request;
the database's backend shows that a row was written, or was not.
"""

import re
import shutil
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO, StringIO
from pathlib import Path
from threading import Thread
from unittest.mock import patch

from django.core import mail
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import transaction
from django.test import TestCase, override_settings
from django.utils import timezone
from PIL import Image

from django_bgtasks import get_workflow
from django_bgtasks.models import QueuedTask, Schedule

from . import tasks
from .models import Customer, Order, Picture, Upload
from .orders_csv import check, count_rows, read_rows, sample

IMMEDIATE = {
    "default": {
        "BACKEND": "django_bgtasks.ImmediateBackend",
        "QUEUES": ["mail", "default"],
    }
}
FORM = {
    "username": "ada",
    "email": "ada@example.com",
    "password1": "lovelace-1815",
    "password2": "lovelace-1815",
}


class ShopTestCase(TestCase):
    def setUp(self):
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        storages = {
            "default": {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": folder / "media"},
            },
            "private": {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": folder / "private"},
            },
            "staticfiles": {
                "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage",
            },
        }
        settings = override_settings(MEDIA_ROOT=folder / "media", STORAGES=storages)
        settings.enable()
        self.addCleanup(settings.disable)

    def customer(self):
        return Customer.objects.create_user("ada", "ada@example.com", "lovelace-1815")

    def uploaded(self, lines, name="orders.csv"):
        upload = Upload(customer=self.customer(), name=name)
        upload.file.save(name, ContentFile("".join(lines).encode()))
        return upload


def picture(size=(800, 600)):
    file = BytesIO()
    Image.new("RGB", size, "teal").save(file, "JPEG")
    return SimpleUploadedFile("teal.jpg", file.getvalue(), "image/jpeg")


@contextmanager
def serving(content):
    """Serve content at any path of a local server; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class SignUpTests(ShopTestCase):
    def test_customer_and_welcome_mail_are_stored_together(self):
        self.assertRedirects(self.client.post("/sign-up/", FORM), "/")
        customer = Customer.objects.get()
        result = tasks.send_welcome_mail.get_result(customer.welcome_result)
        self.assertEqual(result.args, [customer.pk])
        self.assertContains(self.client.get("/"), 'data-state="waiting"')

    def test_no_mail_waits_for_a_customer_who_was_rolled_back(self):
        with (
            patch("shop.views.login", side_effect=RuntimeError),
            self.assertRaises(RuntimeError),
            transaction.atomic(),
        ):
            self.client.post("/sign-up/", FORM)
        self.assertFalse(Customer.objects.exists())
        self.assertFalse(QueuedTask.objects.exists())

    @override_settings(TASKS=IMMEDIATE)
    def test_mail_is_sent_once_however_often_the_task_runs(self):
        self.client.post("/sign-up/", FORM)
        tasks.send_welcome_mail.call(Customer.objects.get().pk)
        self.assertEqual([message.to for message in mail.outbox], [["ada@example.com"]])
        self.assertContains(self.client.get("/"), 'data-state="done"')

    def test_mistakes_are_shown(self):
        response = self.client.post("/sign-up/", FORM | {"email": "ada"})
        self.assertContains(response, "Enter a valid email address.")


class OrderTests(ShopTestCase):
    @override_settings(TASKS=IMMEDIATE)
    def test_upload_is_imported_and_reported_on(self):
        self.client.force_login(self.customer())
        file = SimpleUploadedFile("orders.csv", "".join(sample(200, bad=5)).encode(), "text/csv")
        response = self.client.post("/orders/", {"file": file}, follow=True)
        self.assertContains(response, "Enter a valid email address.")
        upload = Upload.objects.get()
        self.assertEqual(upload.orders.count(), 195)
        self.assertEqual(upload.row_errors.values("row").distinct().count(), 5)
        self.assertContains(self.client.get(f"/orders/{upload.pk}/report/"), "195 orders")

    @override_settings(TASKS=IMMEDIATE)
    def test_parts_are_imported_by_themselves_and_counted_together(self):
        upload = self.uploaded(sample(30, bad=3))
        with patch.object(tasks, "ROWS_PER_PART", 7):
            flow = tasks.orders_flow(upload).enqueue()
        self.assertEqual(flow.progress, {"total": 8, "done": 8})
        (report,) = (r for r in flow.results if r.task.name == "write_report")
        self.assertEqual(report.return_value, {"rows": 30, "orders": 27, "bad_rows": 3})
        self.assertEqual(Upload.objects.get().rows_read, 30)
        self.assertEqual(
            [message.subject for message in mail.outbox], ["Your report on orders.csv"]
        )

    def test_upload_and_its_workflow_are_stored_together(self):
        self.client.force_login(self.customer())
        file = SimpleUploadedFile("orders.csv", "".join(sample(20)).encode(), "text/csv")
        response = self.client.post("/orders/", {"file": file}, follow=True)
        self.assertContains(response, 'role="progressbar" aria-label="Import"')
        self.assertContains(response, "0 rows read")
        self.assertContains(self.client.get("/"), "running, 0 of 3 steps")
        flow = get_workflow(Upload.objects.get().workflow)
        self.assertEqual(
            [result.task.name for result in flow.results],
            ["split_orders", "write_report", "send_report_mail"],
        )

    def test_import_is_followed_by_its_customer_alone(self):
        upload = self.uploaded(sample(20))
        upload.workflow = tasks.orders_flow(upload).enqueue().id
        upload.save()
        self.client.force_login(upload.customer)
        for page in (f"/orders/{upload.pk}/", "/imports/"):
            (address,) = re.findall(r'data-url="([^"]+)"', self.client.get(page).content.decode())
            answer = self.client.get(address).json()
            self.assertEqual(answer["detail"], "0 rows read")
            self.assertEqual(answer["progress"]["total"], 3)
        self.client.force_login(Customer.objects.create_user("eve", "eve@example.com"))
        self.assertEqual(self.client.get(address).status_code, 404)
        self.assertNotContains(self.client.get("/imports/"), upload.name)

    @override_settings(TASKS=IMMEDIATE)
    def test_address_is_downloaded(self):
        self.client.force_login(self.customer())
        with serving("".join(sample(20, bad=1)).encode()) as address:
            self.client.post("/orders/", {"source": f"{address}/october.csv"})
        upload = Upload.objects.get()
        self.assertEqual((upload.name, upload.rows_read), ("october.csv", 20))

    def test_address_of_another_host_is_refused(self):
        self.client.force_login(self.customer())
        form = {"source": "https://example.com/orders.csv"}
        response = self.client.post("/orders/", form, follow=True)
        self.assertContains(response, "Files are fetched from localhost, 127.0.0.1 only.")
        self.assertFalse(Upload.objects.exists())

    def test_others_cannot_see_an_upload(self):
        upload = self.uploaded(sample(3))
        self.client.force_login(Customer.objects.create_user("eve", "eve@example.com"))
        self.assertEqual(self.client.get(f"/orders/{upload.pk}/").status_code, 404)

    def test_file_of_another_kind_is_refused(self):
        self.client.force_login(self.customer())
        file = SimpleUploadedFile("orders.exe", b"MZ")
        response = self.client.post("/orders/", {"file": file}, follow=True)
        self.assertContains(response, "not allowed")
        self.assertFalse(Upload.objects.exists())


class RowTests(TestCase):
    GOOD = {
        "number": "A1",
        "email": "ada@example.com",
        "product": "Tea",
        "quantity": "2",
        "price": "3.50",
        "ordered_on": "2026-01-31",
    }

    def problems_of(self, lines):
        return [(row.number, *problem) for row in read_rows(lines) for problem in row.problems]

    def test_each_mistake_names_its_column(self):
        for column, value in [
            ("number", ""),
            ("email", "nobody"),
            ("product", "x" * 61),
            ("quantity", "1.5"),
            ("price", "-1"),
            ("ordered_on", "31.1.2026"),
        ]:
            with self.subTest(column=column):
                _, problems = check(self.GOOD | {column: value})
                self.assertEqual([problem[0] for problem in problems], [column])

    def test_part_of_a_file_knows_the_numbers_before_it(self):
        lines = list(sample(4))
        whole = list(read_rows([*lines, lines[1]]))
        part = list(read_rows([*lines, lines[1]], 3, 5))
        self.assertEqual([row.number for row in part], [5, 6])
        self.assertEqual(part, whole[3:])
        self.assertEqual(count_rows([*lines, lines[1]]), len(whole))

    def test_same_number_twice_names_the_first_row(self):
        head, line = list(sample(1))
        self.assertEqual(
            self.problems_of([head, line, line]),
            [(3, "number", "A000000", "Row 2 has this number, too.")],
        )

    def test_missing_column_is_said_once(self):
        lines = [line.partition(",")[2] for line in sample(3)]
        self.assertEqual(self.problems_of(lines), [(1, "number", "", "This column is missing.")])

    def test_short_long_and_broken_lines(self):
        head = next(sample(1))
        found = self.problems_of([head, "A1\r\n", "A2,a@b.de,Tea,1,1,2026-01-01,more\r\n", '"x'])
        self.assertEqual({row for row, *_ in found}, {2, 3, 4})
        self.assertIn((3, "", "more", "There are more cells than columns."), found)
        self.assertIn("not CSV", found[-1][-1])


class UnreadableFileTests(ShopTestCase):
    @override_settings(TASKS=IMMEDIATE)
    def test_file_that_is_no_text_is_a_mistake_and_not_a_failure(self):
        upload = Upload(customer=self.customer(), name="x.csv")
        upload.file.save("x.csv", ContentFile(b"\xff\xfe\x00\x00"))
        tasks.orders_flow(upload).enqueue()
        self.assertIn("UTF-8", upload.row_errors.get().message)


class PictureTests(ShopTestCase):
    @override_settings(TASKS=IMMEDIATE)
    def test_thumbnail_follows_an_upload_and_is_made_anew_in_place(self):
        self.client.force_login(self.customer())
        response = self.client.post("/pictures/", {"original": picture()}, follow=True)
        made = Picture.objects.get()
        self.assertContains(response, made.thumbnail.url)
        self.assertEqual((made.thumbnail.width, made.thumbnail.height), (320, 240))
        tasks.make_thumbnail.call(made.pk)
        self.assertEqual(Picture.objects.get().thumbnail.name, made.thumbnail.name)

    def test_broken_picture_is_the_visitors_mistake(self):
        whole = picture().read()
        made = Picture(customer=self.customer())
        made.original.save("half.jpg", ContentFile(whole[: len(whole) // 2]))
        tasks.make_thumbnail.call(made.pk)
        self.assertIn("can't be read", Picture.objects.get().problem)


class CleanUpTests(ShopTestCase):
    @override_settings(TASKS=IMMEDIATE)
    def test_old_files_go_and_orders_stay(self):
        upload = self.uploaded(sample(3))
        tasks.orders_flow(upload).enqueue()
        long_ago = timezone.now() - timedelta(days=31)
        for imported_at, removed in [(timezone.now(), 0), (long_ago, 1)]:
            Upload.objects.update(imported_at=imported_at)
            self.assertEqual(tasks.clean_up.call(), {"files": removed})
        self.assertEqual(Order.objects.count(), 3)

    def test_it_is_due_each_night(self):
        call_command("bgtasks", "schedules", "sync", stdout=StringIO())
        schedule = Schedule.objects.get()
        self.assertEqual((schedule.name, schedule.task_path), ("clean-up", "shop.tasks.clean_up"))
        call_command("bgtasks", "schedules", "run", "clean-up", stdout=StringIO())
        self.assertEqual(QueuedTask.objects.get().task_path, "shop.tasks.clean_up")
