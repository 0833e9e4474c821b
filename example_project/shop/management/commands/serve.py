import signal
import socket
import time

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from shop.management.processes import Process
from shop.models import Customer


class Command(BaseCommand):
    help = "Run the site, its admin and a worker, until Ctrl-C."

    def add_arguments(self, parser):
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, port, **options):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise CommandError(f"Port {port} is in use. Say: make serve PORT={port + 1}")
        call_command("migrate", verbosity=0)
        if not Customer.objects.filter(username="demo").exists():
            Customer.objects.create_superuser("demo", "demo@example.com", "demo")

        def stop(number, frame):
            raise KeyboardInterrupt

        for name in ("SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), stop)
        processes = [
            Process("runserver", f"127.0.0.1:{port}", "--noreload"),
            Process("runworker"),
        ]
        self.stdout.write(
            f"\nShop    http://127.0.0.1:{port}/\n"
            f"Admin   http://127.0.0.1:{port}/admin/\n"
            "Login   demo, password demo\n"
            "Ctrl-C ends the site and the worker.\n\n"
        )
        self.stdout.flush()
        try:
            while all(process.running for process in processes):
                time.sleep(0.3)
            raise CommandError("The site or the worker has ended; see above.")
        except KeyboardInterrupt:
            self.stdout.write("\nStopping …")
        finally:
            for process in reversed(processes):
                process.stop()
        self.stdout.write("Stopped.")
