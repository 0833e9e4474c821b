"""
What the shop does in the background.

A worker may die in the middle, and the task then runs again: each of these may
run twice. How it manages that, its docstring says.
"""

from importlib import import_module
from io import BytesIO, TextIOWrapper
from itertools import islice
from smtplib import SMTPException

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Count, F, Sum
from django.db.models.functions import TruncMonth
from django.db.models.signals import post_save
from django.template.loader import render_to_string
from django.utils import timezone
from PIL import Image, ImageOps

from django_bgtasks import enqueue_on, schedule, task

from .models import Customer, Order, Picture, RowError, Upload
from .orders_csv import read_rows

ROWS_PER_BATCH = 1000
THUMBNAIL_SIZE = (320, 240)


@task(queue_name="mail", max_attempts=5, retry_on=(SMTPException, ConnectionError))
def send_welcome_mail(customer_id):
    """
    Welcome a customer; try again while the mail server can't be reached.

    A second run sees welcomed_at and sends nothing. A mail can't be part of a
    transaction: if the worker dies just after sending, a second one goes out.
    """
    customer = Customer.objects.get(pk=customer_id)
    if customer.welcomed_at:
        return
    send_mail(
        "Welcome to the shop",
        render_to_string("shop/welcome_mail.txt", {"customer": customer}),
        settings.DEFAULT_FROM_EMAIL,
        [customer.email],
    )
    Customer.objects.filter(pk=customer_id).update(welcomed_at=timezone.now())


@task
def import_orders(upload_id):
    """
    Store the valid rows of an uploaded file as orders, and what is wrong with the others.

    Each batch is a transaction of its own: one for the whole file would keep
    all other writers waiting on SQLite, and show no progress. A second run
    reads the file from the start and skips the rows that are there already;
    the unique constraints see to that.
    """
    upload = Upload.objects.get(pk=upload_id)
    count = 0
    with upload.file.open("rb") as file:
        rows = read_rows(TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            count += len(batch)
            with transaction.atomic():
                _store(upload, batch)
                Upload.objects.filter(pk=upload_id).update(rows_read=count)
    with transaction.atomic():
        # The report is enqueued if, and only if, this transaction commits.
        upload = Upload.objects.select_for_update().get(pk=upload_id)
        if not upload.imported_at:
            upload.imported_at = timezone.now()
            upload.report_result = write_report.enqueue(upload_id).id
            upload.save(update_fields=["imported_at", "report_result"])
    orders = upload.orders.count()
    return {"rows": count, "orders": orders, "bad_rows": count - orders}


def _store(upload, rows):
    Order.objects.bulk_create(
        [Order(upload=upload, row=r.number, **r.values) for r in rows if not r.problems],
        ignore_conflicts=True,
    )
    RowError.objects.bulk_create(
        [
            RowError(upload=upload, row=r.number, column=column, value=value, message=message)
            for r in rows
            for column, value, message in r.problems
        ],
        ignore_conflicts=True,
    )


@task
def write_report(upload_id):
    """Make a page of numbers from the orders of an upload. A second run writes the same."""
    upload = Upload.objects.get(pk=upload_id)
    numbers = {
        "orders": Count("pk"),
        "pieces": Sum("quantity"),
        "revenue": Sum(F("quantity") * F("price")),
    }
    report = render_to_string(
        "shop/report.html",
        {
            "upload": upload,
            "total": upload.orders.aggregate(**numbers),
            "products": upload.orders.values("product").annotate(**numbers).order_by("-revenue"),
            "months": upload.orders.values(month=TruncMonth("ordered_on"))
            .annotate(**numbers)
            .order_by("month"),
            "mistakes": upload.row_errors.values("column", "message")
            .annotate(rows=Count("pk"))
            .order_by("-rows", "column"),
        },
    )
    Upload.objects.filter(pk=upload_id).update(report=report)


# Wherever a picture is added, on the page, in the admin or in a shell: its thumbnail follows.
@enqueue_on(post_save, sender=Picture, created=True)
@task
def make_thumbnail(picture_id):
    """
    Make a small copy of a picture. A second run writes the same file again.

    A file that Pillow can't read is the visitor's mistake and not a failure of
    the task: the page says so.
    """
    picture = Picture.objects.get(pk=picture_id)
    small = BytesIO()
    with picture.original.open("rb") as file:
        try:
            image = Image.open(file)
            image.thumbnail(THUMBNAIL_SIZE)
            ImageOps.exif_transpose(image).convert("RGB").save(small, "JPEG", quality=85)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            picture.problem = f"This picture can't be read: {error}"[:200]
            picture.save(update_fields=["problem"])
            return
    storage = picture.thumbnail.storage
    name = f"thumbnails/{picture_id}.jpg"
    storage.delete(name)
    picture.thumbnail = storage.save(name, ContentFile(small.getvalue()))
    picture.save(update_fields=["thumbnail"])


@schedule("15 3 * * *", tz="Europe/Warsaw", name="clean-up")
@task
def clean_up():
    """
    Remove sessions that ended and uploaded files that nobody needs any more.

    Nightly work: each worker looks whether it is due, and one of them enqueues it.
    A second run finds nothing left to remove.
    """
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    old = Upload.objects.exclude(file="").filter(
        imported_at__lt=timezone.now() - settings.KEEP_UPLOADS
    )
    removed = 0
    for upload in old.iterator():
        upload.file.delete(save=False)
        removed += Upload.objects.filter(pk=upload.pk).update(file="")
    return {"files": removed}
