"""A Hub of one process: the few requests of `huggingface_hub` that creating, pushing and loading a model need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse


class FakeHub:
    """Repositories in memory: name -> path -> bytes; `requests` lists what was asked, `commits` the messages."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: list[tuple[str, str]] = []
        self.requests: list[str] = []
        self.endpoint = ""

    def revision(self, repository: str) -> str:
        """A commit hash that changes with the content."""
        files = sorted(self.repositories[repository].items())
        return hashlib.sha1(repr([(path, len(content)) for path, content in files]).encode()).hexdigest()

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append((repository, value["summary"]))
            elif line["key"] == "file":
                self.repositories[repository][value["path"]] = base64.b64decode(value["content"])
            else:
                raise ValueError(f"this hub knows no {line['key']!r}")


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """Run a hub on a free port of this machine."""
    hub = FakeHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        path, body = self._read()
        if path == "/api/repos/create":
            given = json.loads(body)
            name = "/".join(part for part in (given.get("organization"), given["name"]) if part)
            name = name if "/" in name else f"tester/{name}"
            self.hub.repositories.setdefault(name, {})
            self._json({"url": f"{self.hub.endpoint}/{name}", "id": name, "name": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            self.hub.commit(name, [json.loads(line) for line in body.splitlines() if line.strip()])
            oid = self.hub.revision(name)
            url = f"{self.hub.endpoint}/{name}/commit/{oid}"
            self._json({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
        else:
            self._missing()

    def do_GET(self) -> None:
        path, _ = self._read()
        if path == "/api/whoami-v2":
            self._json({"name": "tester", "type": "user", "orgs": [], "auth": {}})
        elif path.startswith("/api/models/"):
            self._model(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._file(path)
        else:
            self._missing()

    do_HEAD = do_GET

    def _model(self, rest: str) -> None:
        name = "/".join(rest.split("/")[:2])
        if name not in self.hub.repositories:
            self._missing("RepoNotFound")
        elif rest == name or rest.startswith(f"{name}/revision/"):
            files = [{"rfilename": path} for path in self.hub.repositories[name]]
            self._json({"id": name, "sha": self.hub.revision(name), "siblings": files, "tags": []})
        elif rest == f"{name}/tree/main" or rest.startswith(f"{name}/tree/{self.hub.revision(name)}"):
            inside = rest.partition("/tree/")[2].partition("/")[2]
            files = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in self.hub.repositories[name].items()
                if path.startswith(inside)
            ]
            self._json(files) if files else self._missing()
        else:
            self._missing()

    def _file(self, path: str) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        content = self.hub.repositories.get(name, {}).get(unquote(rest.partition("/")[2]))
        if content is None:
            self._missing("EntryNotFound" if name in self.hub.repositories else "RepoNotFound", name)
            return
        etag = hashlib.sha1(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.revision(name)})

    def _read(self) -> tuple[str, bytes]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path, body

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str = "EntryNotFound", name: str = "") -> None:
        headers = {"X-Error-Code": code}
        if name in self.hub.repositories:
            headers["X-Repo-Commit"] = self.hub.revision(name)
        self._answer(404, b"{}", headers)

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
