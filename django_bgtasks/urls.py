"""What a project includes: path("bgtasks/", include("django_bgtasks.urls"))."""

from django.urls import path

from .progress.views import progress

app_name = "bgtasks"
urlpatterns = [
    path("progress/<str:token>/", progress, name="progress"),
]
