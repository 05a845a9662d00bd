"""A server on loopback that does what a test tells it, byte by byte, right or wrong."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Any

MODELS = {"data": [{"id": "tiny", "object": "model", "owned_by": "somebody"}]}


def response(status: int = 200, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """An HTTP response."""
    told = {"content-type": kind, "content-length": str(len(body))} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def answer(value: Any, status: int = 200, **headers: str) -> bytes:
    """`value` as JSON."""
    return response(status, json.dumps(value).encode(), **headers)


def refusal(message: str, status: int = 400, **fields: Any) -> bytes:
    """OpenAI's error body."""
    return answer({"error": {"message": message, "type": "invalid_request_error"} | fields}, status)


def events(*chunks: Any, end: str = "data: [DONE]\n\n") -> bytes:
    """Server-sent events: text as it would be streamed, other values as they are."""
    return (
        "".join(f"data: {json.dumps(piece(c) if isinstance(c, str) else c)}\n\n" for c in chunks).encode()
        + end.encode()
    )


def piece(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


def stream(*chunks: Any, end: str = "data: [DONE]\n\n") -> bytes:
    """A whole answer, streamed."""
    return response(body=events(*chunks, end=end), kind="text/event-stream")


BEGIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"  # the connection's end is the answer's
FINE = stream("It is ", "red.", piece("", "stop"))

Act = bytes | Callable[[socket.socket], object]


class Hostile(socketserver.ThreadingTCPServer):
    """Answers `GET` by `gets`, and each `POST` by the next of `acts`, the last one for ever: bytes to be sent before
    the connection is closed, or a function of it. What came is in `asked`, as (path, headers, body)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *acts: Act, **gets: Act) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.acts = [*acts]
        self.gets = {"/v1/models": answer(MODELS)} | {f"/{name.replace('_', '/')}": act for name, act in gets.items()}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.gone = threading.Semaphore(0)  # a client has left while `until_gone` waited
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def posts(self) -> list[Any]:
        """The bodies that were posted."""
        return [body for _, _, body in self.asked if body is not None]

    def next(self) -> Act:
        with self._lock:
            return self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]

    def until_gone(self, connection: socket.socket) -> None:
        """Send nothing more, and wait for the client to leave."""
        while connection.recv(4096):
            pass
        self.gone.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is what many tests are about."""


class _Handler(socketserver.BaseRequestHandler):
    server: Hostile

    def handle(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (block := self.request.recv(65536)):
                return
            data += block
            if not data[:1].isalpha():  # https
                self.request.sendall(b"HTTP/1.1 400 X\r\n\r\n")
                return
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(rest) < int(headers.get("content-length", 0)):
            rest += self.request.recv(1 << 20)
        method, path, _ = line.split(" ")
        self.server.asked.append((path, headers, json.loads(rest) if rest else None))
        act = self.server.next() if method == "POST" else self.server.gets.get(path, response(404))
        if isinstance(act, bytes):
            self.request.sendall(act)
        else:
            act(self.request)
