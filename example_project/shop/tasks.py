"""
What the shop does in the background.

A worker may die in the middle, and the task then runs again: each of these may
run twice. How it manages that, its docstring says.
"""

from contextlib import contextmanager
from importlib import import_module
from io import BytesIO, TextIOWrapper
from smtplib import SMTPException
from tempfile import TemporaryFile
from urllib.request import Request, urlopen

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.mail import send_mail
from django.db.models import Count, F, Sum
from django.db.models.functions import TruncMonth
from django.db.models.signals import post_save
from django.template.loader import render_to_string
from django.utils import timezone
from PIL import Image, ImageOps

from django_bgtasks import chain, enqueue_on, group, previous, schedule, task

from .models import Customer, Order, Picture, RowError, Upload
from .orders_csv import count_rows, read_rows

ROWS_PER_PART = 1000
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


def orders_flow(upload):
    """
    Return the workflow of an upload: fetch, split, import in parallel, report, mail.

    Each step runs when the one before was successful. If one fails, those behind
    it are cancelled; a retry in the admin goes on from there.
    """
    steps = [
        split_orders.with_args(upload.pk),
        write_report.with_args(upload.pk, previous),
        send_report_mail.with_args(upload.pk),
    ]
    if upload.source:
        steps.insert(0, download_orders.with_args(upload.pk))
    return chain(*steps, name=f"orders of {upload.name}"[:100])


@task(max_attempts=3, backoff=[2, 10], timeout=120)
def download_orders(upload_id):
    """Fetch the file from the address that the visitor gave. A second run fetches it again."""
    upload = Upload.objects.get(pk=upload_id)
    if upload.file:
        return
    request = Request(upload.source, headers={"User-Agent": "the shop"})
    with TemporaryFile() as file:
        with urlopen(request, timeout=20) as answer:
            while part := answer.read(65_536):
                file.write(part)
                if file.tell() > settings.MAX_DOWNLOAD:
                    raise ValueError(f"{upload.source} is larger than {settings.MAX_DOWNLOAD:,}.")
        file.seek(0)
        upload.file.save(upload.name, File(file), save=False)
    Upload.objects.filter(pk=upload_id).update(file=upload.file.name)


@task(takes_context=True)
def split_orders(context, upload_id):
    """
    Count the rows, and have parts of them imported at the same time.

    How many parts there are is only known now. Their results take the place of
    this task's: the report is given them. They are written with the success of
    this task, and so not twice.
    """
    with opened(Upload.objects.get(pk=upload_id)) as file:
        count = count_rows(file)
    context.workflow.continue_with(
        group(
            import_rows.with_args(upload_id, start, ROWS_PER_PART).named(
                f"rows {start + 1:,} to {min(start + ROWS_PER_PART, count):,}"
            )
            for start in range(0, count, ROWS_PER_PART)
        )
    )


@task(takes_context=True)
def import_rows(context, upload_id, start, count):
    """
    Store the valid rows of a part as orders, and what is wrong with the others.

    The rows are checked before the transaction, which SQLite's other writers
    wait for, and stored in a step of it: it happens once, whatever becomes of
    this process.
    """
    upload = Upload.objects.get(pk=upload_id)
    with opened(upload) as file:
        rows = list(context.track(read_rows(file, start, start + count), total=count))
    return context.step("store", store, upload, rows)


def store(upload, rows):
    """Write the rows of one part; return how many there were, and how many are orders."""
    good = [row for row in rows if not row.problems]
    Order.objects.bulk_create(
        [Order(upload=upload, row=row.number, **row.values) for row in good], batch_size=500
    )
    RowError.objects.bulk_create(
        [
            RowError(upload=upload, row=row.number, column=column, value=value, message=message)
            for row in rows
            for column, value, message in row.problems
        ]
    )
    Upload.objects.filter(pk=upload.pk).update(rows_read=F("rows_read") + len(rows))
    return {"rows": len(rows), "orders": len(good)}


@contextmanager
def opened(upload):
    """Open the file of an upload as text."""
    with upload.file.open("rb") as file:
        yield TextIOWrapper(file, encoding="utf-8-sig", newline="")


@task
def write_report(upload_id, parts):
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
    Upload.objects.filter(pk=upload_id).update(report=report, imported_at=timezone.now())
    rows, orders = (sum(part[name] for part in parts) for name in ("rows", "orders"))
    return {"rows": rows, "orders": orders, "bad_rows": rows - orders}


@task(queue_name="mail", max_attempts=5, retry_on=(SMTPException, ConnectionError))
def send_report_mail(upload_id):
    """Tell the customer that the report is there; as send_welcome_mail() does."""
    upload = Upload.objects.select_related("customer").get(pk=upload_id)
    if upload.mailed_at:
        return
    send_mail(
        f"Your report on {upload.name}",
        render_to_string("shop/report_mail.txt", {"upload": upload}),
        settings.DEFAULT_FROM_EMAIL,
        [upload.customer.email],
    )
    Upload.objects.filter(pk=upload_id).update(mailed_at=timezone.now())


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
