"""Requests to an endpoint that end in time, are repeated a few times, and can be broken off."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple

from instructgpt.evaluation.endpoint import Endpoint
from instructgpt.terminal import printable
from instructgpt.types import UserError

TRIES = 3
PAUSE = 1.0
"""Seconds before the second try; twice that before the third."""

LONGEST_PAUSE = 30.0
"""What a server may ask for by ``Retry-After`` at most."""

CONNECT = 10.0
MOST_BYTES = 2**22

WRONG_PLACE = {301, 302, 303, 307, 308, 401, 403, 404, 405}
"""A request of the same kind fares no better: the url, the model or the key is wrong."""

REFUSED = {400, 413, 422}
"""This question is refused, such as for its length; another may be answered."""


class Reply(NamedTuple):
    """What came back: a text, or the reason why there is none."""

    text: str | None
    problem: str = ""
    lasting: bool = True  # asking the same again brings the same


class Client:
    """Asks one endpoint, from several threads at once.

    Args:
        endpoint: where it is.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._key = endpoint.key()
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def ask(self, text: str) -> Reply:
        """The answer to a message; a request that fails for a passing reason is made again.

        Args:
            text: of the message.

        Raises:
            UserError: the endpoint is not there, or refuses us.
        """
        asked = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.endpoint.max_tokens,
        }
        body, pause = json.dumps(asked).encode(), PAUSE
        problem = ""
        for number in range(TRIES):
            if number and self._stopped.wait(pause):
                break
            pause = PAUSE * 2 ** (number + 1)
            try:
                status, wait, answer = self._post(body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = self._plain(error) or type(error).__name__
                continue
            if status == 200:
                with suppress(ValueError, LookupError, TypeError):
                    return _said(json.loads(answer))
                problem = f"not an answer of a chat: {self._plain(answer)}"
                continue
            problem = f"{status}: {self._plain(_message(answer))}"
            if status in WRONG_PLACE:
                raise UserError(f"judge at {self.endpoint.place} refuses requests, {problem}")
            if status in REFUSED:
                return Reply(None, problem)
            pause = max(pause, min(wait, LONGEST_PAUSE))
        return Reply(None, f"no answer after {TRIES} tries, {problem}", lasting=False)

    def stop(self) -> None:
        """Break off what is under way, and start nothing more."""
        self._stopped.set()
        with self._lock:
            for sock in self._live:
                _cut(sock)

    def _post(self, body: bytes) -> tuple[int, float, bytes]:
        """One request: status, seconds to wait before the next, and what came back."""
        address, timeout = self.endpoint.address, self.endpoint.timeout
        connect = min(CONNECT, timeout)
        connection: http.client.HTTPConnection
        if address.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                address.hostname or "", address.port, timeout=connect, context=context
            )
        else:
            connection = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=connect
            )
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        began = time.monotonic()
        connection.connect()
        sock = connection.sock  # not the connection's any more once the answer begins
        # The limits of a socket are of each wait: one who sends a byte now and then would hold us.
        ended = threading.Timer(timeout, _cut, [sock])
        ended.daemon = True
        try:
            with self._lock:
                self._live.add(sock)
            if self._stopped.is_set():
                raise TimeoutError("broken off")
            ended.start()
            sock.settimeout(timeout)
            path = f"{address.path.rstrip('/')}/chat/completions"
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer = response.read(MOST_BYTES + 1)
            if len(answer) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes came back")
            if time.monotonic() - began >= timeout:
                raise OSError  # what was read is cut
            return response.status, _seconds(response.getheader("Retry-After")), answer
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() - began >= timeout:
                raise TimeoutError(f"nothing whole in {timeout:g} seconds") from error
            raise
        finally:
            ended.cancel()
            with self._lock:
                self._live.discard(sock)
            connection.close()

    def _plain(self, text: object) -> str:
        """What came back in a short line, without our key."""
        if isinstance(text, bytes):
            text = text[:1000].decode(errors="replace")
        line = " ".join(str(text).split())
        if self._key is not None:
            line = line.replace(self._key, "***")
        return printable(line)[:200]


def _said(answer: Any) -> Reply:
    """The text in the answer of a chat.

    Raises:
        LookupError, TypeError, ValueError: there is none.
    """
    (choice, *_) = answer["choices"]
    text = choice["message"]["content"]
    if choice.get("finish_reason") == "length":
        return Reply(None, "it was cut at --judge_endpoint.max_tokens")
    if text is None:
        return Reply(None, "it said nothing")
    if not isinstance(text, str):
        raise TypeError
    return Reply(text)


def _message(answer: bytes) -> object:
    """The message of an error, where it is one of OpenAI's kind."""
    with suppress(ValueError, LookupError, TypeError):
        return json.loads(answer)["error"]["message"]
    return answer


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _cut(sock: socket.socket) -> None:
    """Let whoever waits for a socket wait no longer."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
