from django.core.management.base import BaseCommand

from shop.tasks import clean_up


class Command(BaseCommand):
    help = "Enqueue the nightly clean-up. For a line in crontab; see shop.tasks.clean_up."

    def handle(self, **options):
        self.stdout.write(f"Enqueued clean_up, id {clean_up.enqueue().id}")
