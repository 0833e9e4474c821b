from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("sign-up/", views.sign_up, name="sign-up"),
    path("log-in/", LoginView.as_view(template_name="shop/log_in.html"), name="login"),
    path("log-out/", LogoutView.as_view(), name="logout"),
    path("orders/", views.upload_orders, name="upload-orders"),
    path("orders/sample.csv", views.sample_orders, name="sample-orders"),
    path("imports/", views.imports, name="imports"),
    path("orders/<int:pk>/", views.upload, name="upload"),
    path("orders/<int:pk>/report/", views.report, name="report"),
    path("pictures/", views.upload_picture, name="upload-picture"),
]
