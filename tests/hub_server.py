"""A hub on this machine that answers the real client: repositories, large files, commits."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_right"


class LocalHub:
    """What it has, and what it was asked; ``cut`` ends the next upload of a large file half way."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}  # by repository and name
        self.objects: dict[str, bytes] = {}  # large files by SHA-256
        self.commits: list[list[str]] = []  # names of the files of each
        self.puts: list[int] = []  # bytes of each large file that arrived
        self.cut, self.url = False, ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a request by someone who may write."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            url = f"{self.url}/{name}"
            if name in self.private:
                return 409, {"error": "You already created this model repo", "url": url}
            self.private[name], self.files[name] = asked["visibility"] == "private", {}
            return 200, {"url": url}
        if path == "/api/validate-yaml":
            bad = "license: [" in json.loads(body)["content"]
            errors = [{"message": "license must be one of a list"}] * bad
            return (400 if bad else 200), {"warnings": [], "errors": errors}
        if path.startswith("/objects/"):
            return self._put(path.rpartition("/")[2], body)
        name = "/".join(path.removeprefix("/api/models").removesuffix(".git").split("/")[1:3])
        name = name.removesuffix(".git")
        if name not in self.private:
            return 404, {"error": "Repository not found", "code": "RepoNotFound"}
        if method == "GET":
            siblings = [{"rfilename": file} for file in self.files[name]]
            private = self.private[name]
            return 200, {"id": name, "private": private, "siblings": siblings, "sha": "0" * 40}
        if path.endswith("/batch"):
            return 200, {"transfer": "basic", "objects": self._batch(json.loads(body)["objects"])}
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            return 200, {"files": [self._mode(name, one) for one in asked]}
        return self._commit(name, body)

    def _mode(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        path, there = asked["path"], self.files[name].get(asked["path"])
        large = path.endswith(".safetensors")
        git = hashlib.sha1(b"blob %d\0" % len(there or b"") + (there or b"")).hexdigest()
        oid = hashlib.sha256(there or b"").hexdigest() if large else git
        mode = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        return mode | {"oid": None if there is None else oid}

    def _batch(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            one
            if one["oid"] in self.objects
            else one | {"actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}"}}}
            for one in asked
        ]

    def _put(self, oid: str, body: bytes) -> tuple[int, Any]:
        if self.cut:
            self.cut = False
            return 400, {"error": "Your socket connection was not read from within the timeout"}
        assert hashlib.sha256(body).hexdigest() == oid
        self.objects[oid] = body
        self.puts.append(len(body))
        return 200, {}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        done = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                done[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                done[value["path"]] = self.objects[value["oid"]]
        self.files[name] |= done
        self.commits.append(sorted(done))
        url = f"{self.url}/{name}/commit/{'1' * 40}"
        return 200, {"success": True, "commitUrl": url, "commitOid": "1" * 40}


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """Serve one until the block ends."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            path = self.path.partition("?")[0]
            if self.headers.get("Authorization") in (f"Bearer {TOKEN}", None):
                status, said = hub.answer(self.command, path, body)
            else:
                status, said = 401, {"error": "Invalid credentials in Authorization header"}
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for name, key in (("X-Error-Code", "code"), ("X-Error-Message", "error")):
                if key in said:
                    self.send_header(name, said[key])
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = reply  # noqa: N815  # as the base class calls them

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
