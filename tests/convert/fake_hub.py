"""A model hub and its content server on loopback, which serve the hub's file protocol to the real huggingface_hub.

They implement what the client uses: the description of a repository at a revision; `resolve` of a file at a commit,
which redirects to a relative address of the hub for a small file, and to a signed address of a content server, which
must not receive the token, for a large one; hashes and sizes in X-Linked-Etag and X-Linked-Size; ranges; and errors
with X-Error-Code. The fields of `Hub` make them fail as a test needs it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

LARGE = (".safetensors", "tokenizer.json")  # stored with git-lfs on the hub
SIGNATURE = "X-Signature=0123abcd"


@dataclass(frozen=True)
class Seen:
    """A received request."""

    server: str  # "hub" or "content"
    method: str
    path: str
    authorization: str | None
    start: int  # of the requested range


@dataclass
class Hub:
    """A repository with its commits, and the behaviour of the servers."""

    repository: str
    commits: list[dict[str, bytes]] = field(default_factory=list)  # file name -> content; the last is the newest
    token: str | None = None  # required for all requests
    gated: bool = False  # the terms have not been accepted with the token
    broken: int = 0  # a status for all responses
    portal: bool = False  # every address returns the login page of a network
    ranges: bool = True
    cut: dict[str, int] = field(default_factory=dict)  # file -> bytes after which its next response breaks off
    spoiled: set[str] = field(default_factory=set)  # files that are sent with one byte changed
    sizes: dict[str, int] = field(default_factory=dict)  # file -> wrong size in the headers
    hold: dict[str, int] = field(default_factory=dict)  # file -> bytes after which its response waits for `go`
    names: list[str] = field(default_factory=list)  # listed in addition to the real ones
    seen: list[Seen] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    content_url: str = ""

    def commit(self, folder: Path) -> str:
        """Add the files of `folder` as the newest commit; return its hash."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.commits.append({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
        return self.hash(len(self.commits) - 1)

    def hash(self, number: int) -> str:
        return hashlib.sha1(f"{self.repository} {number}".encode()).hexdigest()

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        hashes = [self.hash(number) for number in range(len(self.commits))]
        number = len(hashes) - 1 if revision == "main" else hashes.index(revision) if revision in hashes else -1
        return (hashes[number], self.commits[number]) if number >= 0 else None

    def fetched(self, ending: str = ".safetensors") -> list[Seen]:
        """The requests for the content of files with this ending."""
        return [s for s in self.seen if s.method == "GET" and s.server == "content" and s.path.endswith(ending)]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Run both servers during the block."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, kind)) for kind in (_HubHandler, _ContentHandler)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    hub.url, hub.content_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        hub.go.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(hub: Hub, kind: type[_Handler]) -> type[_Handler]:
    return type(kind.__name__, (kind,), {"hub": hub})


def etag(name: str, data: bytes) -> str:
    """sha256 of files in git-lfs, git's own hash of others."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and content are sent separately
    server_name = ""
    hub: Hub

    def do_HEAD(self) -> None:
        self._take()

    def do_GET(self) -> None:
        self._take()

    def _take(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.start = int(found[1]) if found else 0
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        self.hub.seen.append(Seen(self.server_name, self.command, path, authorization, self.start))
        if self.hub.portal:
            self._answer(200, {"Content-Type": "text/html"}, b"<html>Welcome to the hotel</html>")
        elif self.hub.broken:
            self._answer(self.hub.broken, {}, b"")
        else:
            self.route(path)

    def route(self, path: str) -> None:
        raise NotImplementedError

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self._answer(status, headers, json.dumps({"error": message}).encode())

    def _send(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        """Send the content from the start of the range, with the faults that the test set."""
        hub = self.hub
        if name in hub.spoiled:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = self.start if hub.ranges else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers["Content-Length"] = str(len(data) - start)
        if hub.ranges:
            headers["Accept-Ranges"] = "bytes"
        self._answer(206 if start else 200, headers, b"")
        if self.command == "HEAD":
            return
        stop = hub.cut.pop(name, None)
        wait = hub.hold.pop(name, None)
        if stop is not None:
            self.wfile.write(data[start : start + stop])
            self.close_connection = True
        elif wait is not None:
            self.wfile.write(data[start : start + wait])
            self.wfile.flush()
            hub.held.set()
            hub.go.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(data[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the requests are in `Hub.seen`."""


class _HubHandler(_Handler):
    server_name = "hub"

    def route(self, path: str) -> None:
        hub = self.hub
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if hub.token and token != hub.token:
            if token:
                self._refuse(401, "", "Invalid credentials in Authorization header")
            else:
                self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return
        repository = re.escape(hub.repository)
        if found := re.fullmatch(rf"/api/models/{repository}(?:/revision/([^/]+))?", path):
            self._describe(found[1] or "main")
        elif found := re.fullmatch(rf"/{repository}/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2])
        elif found := re.fullmatch(rf"/api/resolve-cache/models/{repository}/([^/]+)/(.+)", path):
            self._cached(found[1], found[2])
        elif hub.token:
            self._refuse(404, "RepoNotFound", "Repository not found")
        else:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")  # the hub's answer without a valid token

    def _describe(self, revision: str) -> None:
        found = self.hub.find(revision)
        if found is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        commit, files = found
        values = {
            "_id": "0",
            "id": self.hub.repository,
            "modelId": self.hub.repository,
            "sha": commit,
            "private": False,
            "gated": "manual" if self.hub.gated else False,
            "tags": [],
            "siblings": [{"rfilename": name} for name in [*sorted(files), *self.hub.names]],
        }
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(values).encode())

    def _resolve(self, revision: str, name: str) -> None:
        found = self.hub.find(revision)
        if self.hub.gated:
            self._refuse(403, "GatedRepo", f"Access to model {self.hub.repository} is restricted.")
        elif found is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif name not in found[1]:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            commit, files = found
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(self.hub.sizes.get(name, len(files[name]))),
                "X-Linked-Etag": f'"{etag(name, files[name])}"',
            }
            if name.endswith(LARGE):
                headers["X-Xet-Hash"] = hashlib.sha256(files[name]).hexdigest()  # another protocol, not used here
                headers["Link"] = f'<{self.hub.url}/api/models/{self.hub.repository}/xet-read-token/x>; rel="xet-auth"'
                address = f"{self.hub.content_url}/{commit}/{quote(name)}?{SIGNATURE}"
                self._answer(302, headers | {"Location": address}, b"")
            else:
                address = f"/api/resolve-cache/models/{self.hub.repository}/{commit}/{quote(name)}?etag=x"
                self._answer(307, headers | {"Location": address}, b"")

    def _cached(self, commit: str, name: str) -> None:
        found = self.hub.find(commit)
        assert found and name in found[1]
        data = found[1][name]
        self._send(name, data, {"ETag": f'"{etag(name, data)}"', "X-Repo-Commit": commit})


class _ContentHandler(_Handler):
    server_name = "content"

    def route(self, path: str) -> None:
        commit, _, name = path.lstrip("/").partition("/")
        found = self.hub.find(commit)
        if found is None or name not in found[1] or SIGNATURE not in self.path:
            self._answer(403, {}, b"<Error>AccessDenied</Error>")
        else:
            self._send(name, found[1][name], {"ETag": f'"{hashlib.md5(found[1][name]).hexdigest()}"'})
