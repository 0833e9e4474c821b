from importlib.util import find_spec

from django.conf import settings
from django.urls import include, path

from tests.urls import urlpatterns

if settings.THEME == "grappelli" and find_spec("grappelli"):
    urlpatterns = [path("grappelli/", include("grappelli.urls")), *urlpatterns]
