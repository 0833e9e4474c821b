"""
What the shop does in the background.

A worker may die in the middle, and the task then runs again: each of these may
run twice. How each manages that, its docstring says.
"""

from importlib import import_module
from io import BytesIO, TextIOWrapper
from itertools import batched
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

from django_bgtasks import enqueue_on, task

from .models import Customer, Order, Picture, RowError, Upload
from .orders_csv import read_rows

ROWS_PER_BATCH = 1000
THUMBNAIL_SIZE = (320, 240)
