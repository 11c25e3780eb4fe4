"""An HTTP server on loopback for tests, and the record of a running TorchServe."""

import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from client import settings
from client.state import Running

Respond = Callable[[str], tuple[int, bytes]]  # of a request line: status and body


@contextmanager
def local_server(respond: Respond) -> Iterator[str]:
    """The URL of a server that answers each GET and POST by its request line."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, body = respond(self.requestline)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def recorded(folder: Path, **changes: object) -> Running:
    """The record of a server whose process is this one; `changes` are by field."""
    content = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "temporary": str(folder / "temporary"),
        "inference": "http://127.0.0.1:1",
        "management": "http://127.0.0.1:2",
        "ports": {},
        "model_store": str(folder),
        "workers": 1,
        "settings": settings.fingerprint({}),
        "archives": {},
    }
    return Running(**{**content, **changes})  # type: ignore[arg-type]
