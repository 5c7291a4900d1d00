"""An OpenAI-compatible endpoint on this machine that behaves as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[int, Any] | Callable[[Any], None]


class Stub:
    """What was asked, and how often."""

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""
        self.lock = threading.Lock()

    @property
    def texts(self) -> list[str]:
        """The messages."""
        return [one["messages"][0]["content"] for one in self.asked]


def said(text: str | None, finish: str = "stop") -> tuple[int, Any]:
    """A whole answer of a chat."""
    message = {"role": "assistant", "content": text}
    return 200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


class Server(ThreadingHTTPServer):
    """Ends with its test, whatever still waits."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of who hung up: it would stand in the output of another test."""


@contextmanager
def serving(answer: Callable[[str, int], Answer]) -> Iterator[Stub]:
    """Serve ``answer(text, how often it was asked before)``: a text, a status with a body, or a
    function of the handler that does as it likes.
    """
    stub = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = asked["messages"][0]["content"]
            with stub.lock:
                before = stub.texts.count(text)
                stub.asked.append(asked)
                stub.headers.append(dict(self.headers))
                stub.paths.append(self.path)
            found = stub.answer(text, before)
            if callable(found):
                found(self)
                return
            status, body = said(found) if isinstance(found, str) else found
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = Server(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
