"""What a visitor is told of a workflow, and who is: config/settings.py names these functions."""

from .models import Upload


def may_see(request, result):
    """Say whether a visitor may see how far a workflow is: that of an upload of theirs."""
    user = request.user
    return user.is_authenticated and user.uploads.filter(workflow=result.id).exists()


def details(request, result):
    """Tell rows instead of steps; a failure of the import is ours, and we say so."""
    upload = Upload.objects.filter(workflow=result.id).only("rows_read").first()
    if upload is None:
        return None
    said = {"detail": f"{upload.rows_read:,} rows read"}
    if result.state == "FAILED":
        said["text"] = "Failed. We look into it."
    return said
