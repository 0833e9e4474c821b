from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib.auth.forms import BaseUserCreationForm

from .models import Customer, Picture, Upload


class SignUpForm(BaseUserCreationForm):
    class Meta:
        model = Customer
        fields = ["username", "email"]


class UploadForm(forms.ModelForm):
    class Meta:
        model = Upload
        fields = ["file", "source"]
        widgets = {"file": forms.FileInput(attrs={"accept": ".csv,text/csv"})}

    source = forms.URLField(required=False, assume_scheme="https")

    def clean_source(self):
        source = self.cleaned_data["source"]
        if source and urlsplit(source).hostname not in settings.DOWNLOAD_HOSTS:
            raise forms.ValidationError(
                f"Files are fetched from {', '.join(settings.DOWNLOAD_HOSTS)} only."
            )
        return source

    def clean(self):
        cleaned = super().clean()
        if not self.errors and bool(cleaned.get("file")) == bool(cleaned.get("source")):
            raise forms.ValidationError("Choose a file, or give the address of one.")
        if cleaned.get("source"):
            path = urlsplit(cleaned["source"]).path
            self.instance.name = path.rpartition("/")[2][:100] or "orders.csv"
        elif cleaned.get("file"):
            self.instance.name = cleaned["file"].name
        return cleaned


class PictureForm(forms.ModelForm):
    class Meta:
        model = Picture
        fields = ["original"]
        widgets = {"original": forms.FileInput(attrs={"accept": "image/*"})}
