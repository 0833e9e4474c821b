from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from django_bgtasks.compat import TaskResultDoesNotExist, TaskResultStatus

from .forms import PictureForm, SignUpForm, UploadForm
from .orders_csv import sample
from .tasks import import_orders, send_welcome_mail, write_report


def result_of(task, result_id):
    """
    Return the TaskResult of what a visitor started.

    None if it has been removed, after TASKS_RETAIN_DAYS, or if the backend
    keeps no results, as Django's immediate one.
    """
    try:
        return task.get_result(result_id) if result_id else None
    except (TaskResultDoesNotExist, NotImplementedError):
        return None


def follow(upload):
    """
    Return upload with the results of its tasks.

    What a task leaves in the row is read after its result: otherwise a page
    might say "done" and not show it yet.
    """
    upload.importing = result_of(import_orders, upload.import_result)
    upload.refresh_from_db()
    upload.reporting = result_of(write_report, upload.report_result)
    upload.refresh_from_db()
    return upload


def home(request):
    if not request.user.is_authenticated:
        return redirect("sign-up")
    return render(
        request,
        "shop/home.html",
        {
            "welcome": result_of(send_welcome_mail, request.user.welcome_result),
            "uploads": [follow(upload) for upload in request.user.uploads.order_by("-pk")[:10]],
            "pictures": request.user.pictures.order_by("-pk")[:40],
            "upload_form": UploadForm(),
            "picture_form": PictureForm(),
        },
    )


def sign_up(request):
    form = SignUpForm(request.POST or None)
    if form.is_valid():
        # The task is a row in the same database: no customer without a mail,
        # no mail without a customer.
        with transaction.atomic():
            customer = form.save()
            customer.welcome_result = send_welcome_mail.enqueue(customer.pk).id
            customer.save(update_fields=["welcome_result"])
        login(request, customer)
        return redirect("home")
    return render(request, "shop/sign_up.html", {"form": form})


@require_POST
@login_required
def upload_orders(request):
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        messages.error(request, " ".join(form.errors.get("file", ["Choose a file."])))
        return redirect("home")
    with transaction.atomic():
        upload = form.save(commit=False)
        upload.customer = request.user
        upload.name = request.FILES["file"].name
        upload.save()
        upload.import_result = import_orders.enqueue(upload.pk).id
        upload.save(update_fields=["import_result"])
    return redirect("upload", upload.pk)


@require_POST
@login_required
def upload_picture(request):
    form = PictureForm(request.POST, request.FILES)
    if form.is_valid():
        form.instance.customer = request.user
        form.save()  # enqueue_on() in tasks.py does the rest.
    else:
        messages.error(request, " ".join(form.errors.get("original", ["Choose a picture."])))
    return redirect("home")


@login_required
def upload(request, pk):
    upload = follow(get_object_or_404(request.user.uploads, pk=pk))
    result = upload.importing
    finished = result and result.status == TaskResultStatus.SUCCESSFUL
    return render(
        request,
        "shop/upload.html",
        {
            "upload": upload,
            "result": result,
            "took": (result.finished_at - result.enqueued_at).total_seconds() if finished else None,
            "outcome": result.return_value if finished else None,
            "page": Paginator(upload.row_errors.all(), 50).get_page(request.GET.get("page")),
        },
    )


@login_required
def report(request, pk):
    upload = get_object_or_404(request.user.uploads.exclude(report=""), pk=pk)
    return HttpResponse(upload.report)


def sample_orders(request):
    """A file to try the upload with."""
    return StreamingHttpResponse(
        sample(50_000, bad=100),
        content_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="orders.csv"'},
    )
