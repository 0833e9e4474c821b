"""A project without the addresses of django_bgtasks."""

urlpatterns: list[object] = []
