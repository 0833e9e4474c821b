"""
What the shop keeps. Where a visitor waits for a task, the row holds the id of
its result: SomeTask.get_result(id) says how far it is.
"""

from django.contrib.auth.models import AbstractUser
from django.core.files.storage import storages
from django.core.validators import FileExtensionValidator
from django.db import models


def private_storage():
    return storages["private"]


class Customer(AbstractUser):
    email = models.EmailField("e-mail address", unique=True)
    welcomed_at = models.DateTimeField(null=True, blank=True, editable=False)
    welcome_result = models.CharField(max_length=64, editable=False)


class Upload(models.Model):
    """A CSV file of orders, and what came of it."""

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="uploads")
    file = models.FileField(
        "CSV file",
        upload_to="uploads/%Y/%m",
        storage=private_storage,
        validators=[FileExtensionValidator(["csv"])],
        blank=True,  # Until it is downloaded, and again after the nightly clean-up.
    )
    name = models.CharField(max_length=255)
    uploaded_at = models.DateTimeField(auto_now_add=True)
    source = models.URLField("address of a CSV file", blank=True)
    workflow = models.CharField(max_length=64, default="", editable=False)
    rows_read = models.PositiveIntegerField(default=0)
    imported_at = models.DateTimeField(null=True, blank=True)
    report = models.TextField(blank=True)
    mailed_at = models.DateTimeField(null=True, blank=True, editable=False)

    def __str__(self):
        return self.name


class Order(models.Model):
    """One valid row of an upload."""

    upload = models.ForeignKey(Upload, models.CASCADE, related_name="orders")
    row = models.PositiveIntegerField()
    number = models.CharField(max_length=20)
    email = models.EmailField()
    product = models.CharField(max_length=60)
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2)
    ordered_on = models.DateField()

    class Meta:
        constraints = [
            # What makes it harmless to import a file twice.
            models.UniqueConstraint(fields=["upload", "row"], name="shop_order_row"),
        ]

    def __str__(self):
        return self.number


class RowError(models.Model):
    """One thing that is wrong with one row of an upload."""

    upload = models.ForeignKey(Upload, models.CASCADE, related_name="row_errors")
    row = models.PositiveIntegerField()
    column = models.CharField(max_length=20)
    value = models.CharField(max_length=80)
    message = models.CharField(max_length=200)

    class Meta:
        ordering = ["row", "column"]
        constraints = [
            models.UniqueConstraint(fields=["upload", "row", "column"], name="shop_rowerror_cell"),
        ]

    def __str__(self):
        return f"Row {self.row}, {self.column}: {self.message}"


class Picture(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="pictures")
    original = models.ImageField("picture", upload_to="pictures/%Y/%m")
    thumbnail = models.ImageField(upload_to="thumbnails", blank=True, editable=False)
    problem = models.CharField(max_length=200, blank=True, editable=False)
    uploaded_at = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.original.name
