from django.db import models


class Effect(models.Model):
    """What a task did, to be counted."""

    name = models.CharField(max_length=100, db_index=True)
    number = models.IntegerField(default=0)

    def __str__(self):
        return self.name
