from itertools import chain

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from django_bgtasks import get_workflow
from django_bgtasks.compat import TaskResultDoesNotExist

from .forms import PictureForm, SignUpForm, UploadForm
from .orders_csv import sample
from .tasks import orders_flow, send_welcome_mail


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
    Return upload with its workflow.

    What a task leaves in the row is read after the state: otherwise a page
    might say "done" and not show it yet.
    """
    try:
        upload.flow = get_workflow(upload.workflow)
    except (LookupError, AttributeError):
        # It was removed, after TASKS_RETAIN_DAYS, or the backend keeps none.
        upload.flow = None
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
        messages.error(request, " ".join(chain.from_iterable(form.errors.values())))
        return redirect("home")
    with transaction.atomic():
        upload = form.save(commit=False)
        upload.customer = request.user
        upload.save()
        upload.workflow = orders_flow(upload).enqueue().id
        upload.save(update_fields=["workflow"])
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
    flow = upload.flow
    failed = flow is not None and flow.state == "FAILED"
    finished = flow is not None and flow.state == "SUCCESSFUL"
    bad_rows = upload.row_errors.values("row").distinct().count()
    return render(
        request,
        "shop/upload.html",
        {
            "upload": upload,
            "took": (flow.finished_at - flow.enqueued_at).total_seconds() if finished else None,
            "orders": upload.rows_read - bad_rows,
            "bad_rows": bad_rows,
            "failed_steps": [failure["name"] for failure in flow.failures] if failed else [],
            "page": Paginator(upload.row_errors.all(), 50).get_page(request.GET.get("page")),
        },
    )


@login_required
def imports(request):
    """All uploads of the visitor, each with a bar that follows its import."""
    page = Paginator(request.user.uploads.order_by("-pk"), 20).get_page(request.GET.get("page"))
    uploads = [follow(upload) for upload in page]
    return render(request, "shop/imports.html", {"page": page, "uploads": uploads})


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
