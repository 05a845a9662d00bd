"""A server on loopback that sends the bytes a test gives it, valid or not."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Any

MODELS = {"data": [{"id": "tiny", "object": "model", "owned_by": "somebody"}]}


def response(status: int = 200, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """Build an HTTP response."""
    fields = {"content-type": kind, "content-length": str(len(body))} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def answer(value: Any, status: int = 200, **headers: str) -> bytes:
    """Build a response with `value` as JSON."""
    return response(status, json.dumps(value).encode(), **headers)


def refusal(message: str, status: int = 400, **fields: Any) -> bytes:
    """Build a response with OpenAI's error body."""
    return answer({"error": {"message": message, "type": "invalid_request_error"} | fields}, status)


def events(*chunks: Any, end: str = "data: [DONE]\n\n") -> bytes:
    """Build a response of server-sent events: text is sent as it is, other values as JSON."""
    return (
        "".join(f"data: {json.dumps(piece(c) if isinstance(c, str) else c)}\n\n" for c in chunks).encode()
        + end.encode()
    )


def piece(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


def stream(*chunks: Any, end: str = "data: [DONE]\n\n") -> bytes:
    """Build a whole streamed answer."""
    return response(body=events(*chunks, end=end), kind="text/event-stream")


BEGIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"  # the end of the connection ends the answer
FINE = stream("It is ", "red.", piece("", "stop"))

Act = bytes | Callable[[socket.socket], object]


class Hostile(socketserver.ThreadingTCPServer):
    """Answers `GET` with the entry of `gets`, and each `POST` with the next of `acts`, repeating the last one. An
    act is the bytes to send before the connection is closed, or a function of the connection. `asked` records the
    requests as (path, headers, body)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *acts: Act, **gets: Act) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.acts = [*acts]
        self.gets = {"/v1/models": answer(MODELS)} | {f"/{name.replace('_', '/')}": act for name, act in gets.items()}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.gone = threading.Semaphore(0)  # counts the clients that left during `until_gone`
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def posts(self) -> list[Any]:
        """The bodies of the POST requests."""
        return [body for _, _, body in self.asked if body is not None]

    def next(self) -> Act:
        with self._lock:
            return self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]

    def until_gone(self, connection: socket.socket) -> None:
        """Send nothing more, and wait until the client closes the connection."""
        while connection.recv(4096):
            pass
        self.gone.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: many tests are about clients that close the connection early."""


class _Handler(socketserver.BaseRequestHandler):
    server: Hostile

    def handle(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (block := self.request.recv(65536)):
                return
            data += block
            if not data[:1].isalpha():  # TLS
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
