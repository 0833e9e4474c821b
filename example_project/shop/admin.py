from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from .models import Customer, Order, Picture, Upload


@admin.register(Customer)
class CustomerAdmin(UserAdmin):
    list_display = ["username", "email", "date_joined", "welcomed_at", "is_staff"]
    add_fieldsets = [
        (None, {"fields": ["username", "email", "usable_password", "password1", "password2"]})
    ]


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):
    list_display = ["name", "customer", "uploaded_at", "rows_read", "imported_at"]
    list_select_related = ["customer"]
    exclude = ["report"]
    readonly_fields = ["source", "workflow", "rows_read", "imported_at", "mailed_at"]

    def has_add_permission(self, request):
        return False  # The page of the shop enqueues the import, too.


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["number", "product", "quantity", "price", "ordered_on", "email"]
    list_filter = ["product"]
    search_fields = ["number", "email"]
    raw_id_fields = ["upload"]


@admin.register(Picture)
class PictureAdmin(admin.ModelAdmin):
    list_display = ["original", "customer", "uploaded_at", "thumbnail", "problem"]
    list_select_related = ["customer"]
