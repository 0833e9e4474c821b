"""A worker's own health over HTTP, for probes, and nothing but a status."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve_health(
    port: int, healthy: Callable[[], bool], *, host: str = "0.0.0.0"
) -> ThreadingHTTPServer:
    """
    Answer GET with 200 or 503 in a thread, as healthy() says; return the server.

    Raise OSError if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ok = healthy()
            body = b"ok\n" if ok else b"no contact with the database\n"
            self.send_response(200 if ok else 503)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing: a probe asks every few seconds."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="bgtasks-health", daemon=True).start()
    return server
