"""Where a judge is that answers over HTTP, and how it is asked: options of ``evaluate``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from instructgpt.types import UserError, require

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Endpoint:
    """A model that judges behind an OpenAI-compatible endpoint, such as a server on this machine.

    It is asked about each pair in both orders. Prompts and answers are sent to it.

    Args:
        url: of its interface, such as http://localhost:8000/v1; without it nobody is asked.
        model: its name there.
        prompt: file with what it is asked, in which {prompt}, {first} and {second} stand for the
            texts; the last line of what it says must be A, B, or tie (or C). Default: one of ours.
        key_from: name of the environment variable that holds the key to it; default: it needs none.
        max_tokens: that it may write, its reasons included.
        timeout: seconds that one request may take as a whole; a failed one is made three times.
        at_once: requests at the same time.
    """

    url: str | None = None
    model: str | None = None
    prompt: str | None = None
    key_from: str | None = None
    max_tokens: int = 512
    timeout: float = 120.0
    at_once: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        require(self.max_tokens >= 1, "--judge_endpoint.max_tokens", ">= 1", self.max_tokens)
        require(0 < self.timeout < 86400, "--judge_endpoint.timeout", "> 0 seconds", self.timeout)
        require(1 <= self.at_once <= 256, "--judge_endpoint.at_once", "from 1 to 256", self.at_once)
        if self.key_from is not None and not NAME.fullmatch(self.key_from):
            # Not shown: it may be the key itself.
            rule = "must be the name of an environment variable, not the key itself"
            raise UserError(f"--judge_endpoint.key_from {rule}")
        if self.url is None:
            for name in ("model", "prompt", "key_from"):
                if getattr(self, name) is not None:
                    raise UserError(f"--judge_endpoint.{name} needs --judge_endpoint.url")
            return
        require(bool(self.model), "--judge_endpoint.model", "given with a url", self.model)
        _checked(self.url)

    @property
    def address(self) -> SplitResult:
        """The parts of the url."""
        return _checked(self.url or "")

    @property
    def place(self) -> str:
        """Host, port and path, for people."""
        return f"{self.address.netloc}{self.address.path}".rstrip("/")

    def key(self) -> str | None:
        """The key, from the environment.

        Raises:
            UserError: it is not there, or cannot be sent.
        """
        if self.key_from is None:
            return None
        found = os.environ.get(self.key_from, "").strip()
        if not found:  # not shown: it may be the key itself
            rule = "must be the name of an environment variable that holds a key"
            raise UserError(f"--judge_endpoint.key_from {rule}")
        if not found.isascii() or not found.isprintable():
            raise UserError(f"the key in {self.key_from} must be printable ASCII")
        return found


def _checked(url: str) -> SplitResult:
    """The parts of a url; it is in results and messages, so no secret may be part of it."""
    rule = "http(s)://HOST[:PORT][/PATH]"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        fine = fine and (parts.port is None or parts.port > 0)
    except ValueError:
        fine, parts = False, urlsplit("")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UserError(f"--judge_endpoint.url must be {rule}, without a user or a query")
    require(fine and url.isascii() and url.isprintable(), "--judge_endpoint.url", rule, url)
    return parts
