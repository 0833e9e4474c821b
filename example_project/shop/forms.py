from django import forms
from django.contrib.auth.forms import BaseUserCreationForm

from .models import Customer, Picture, Upload


class SignUpForm(BaseUserCreationForm):
    class Meta:
        model = Customer
        fields = ["username", "email"]


class UploadForm(forms.ModelForm):
    class Meta:
        model = Upload
        fields = ["file"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["file"].required = True
        self.fields["file"].widget = forms.FileInput(attrs={"accept": ".csv,text/csv"})


class PictureForm(forms.ModelForm):
    class Meta:
        model = Picture
        fields = ["original"]
        widgets = {"original": forms.FileInput(attrs={"accept": "image/*"})}
