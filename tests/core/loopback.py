"""A small server of OpenAI's API on loopback over any engine, with the extensions of llama.cpp's server and of
ImpChat's.

It follows the protocol exactly, so that the remote engine can be run through the conformance suite.
"""

from __future__ import annotations

import base64
import hashlib
import json
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any

from impchat.engines import Engine, Handle
from impchat.errors import ImpChatError
from impchat.messages import Dropped, Event, Failed, Finished, Picture, Prompt, Reading, Ready, Sampling, Text, Turn

Json = dict[str, Any]


class Loopback(ThreadingHTTPServer):
    """Serves `engine`. `asked` holds the body of every request, `gone` counts the clients that left during an
    answer."""

    daemon_threads = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.engine = engine
        self.asked: list[Json] = []
        self.gone = threading.Semaphore(0)
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: a client that has disconnected is none."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Run `server` during the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def prompt_of(body: Json, *, open_turn: bool = False) -> Prompt:
    system, turns = "", []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(p["text"] for p in parts if p["type"] == "text")
        if message["role"] == "system":
            system = text
            continue
        shown = [base64.b64decode(p["image_url"]["url"].split(",")[1]) for p in parts if p["type"] == "image_url"]
        pictures = tuple(Picture(hashlib.sha256(data).hexdigest(), data) for data in shown)
        turns.append(Turn(message["role"], text, pictures))
    return Prompt(system, tuple(turns), body.get("prompt_cache_key", ""), open_turn)


def sampling_of(body: Json) -> Sampling:
    known = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed")
    return Sampling(**{name: body[name] for name in known if name in body}, stop=tuple(body.get("stop", ())))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Loopback

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        info = self.server.engine.info
        entry = {"id": info.model, "object": "model", "owned_by": "impchat", "context_length": info.context_tokens}
        self._json(
            {
                "object": "list",
                "data": [entry | {"image_tokens": info.image_tokens, "input_modalities": ["text", "image"]}],
            }
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        if self.path == "/v1/images/prefill":
            handle = self.server.engine.prefill(prompt_of(body, open_turn=True))
            with self._watched(handle):
                *_, end = handle.events()
            if isinstance(end, Failed):
                self._refuse(end)
            elif isinstance(end, Ready):
                self._json({"impchat": {"stats": asdict(end.stats)}})
            return
        handle = self.server.engine.start(prompt_of(body), sampling_of(body))
        with self._watched(handle):
            self._stream(handle.events())

    @contextmanager
    def _watched(self, handle: Handle) -> Iterator[None]:
        """Stop the answer when the client disconnects."""
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                with suppress(OSError, ValueError):
                    if select.select([self.connection], [], [], 0.02)[0]:
                        self.server.gone.release()
                        handle.stop()
                        return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _stream(self, events: Iterator[Event]) -> None:
        first = next(events)
        if isinstance(first, Failed):
            self._refuse(first)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        dropped: Dropped | None = None
        for event in chain([first], events):
            dropped = self._event(event, dropped)
        self._data("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: Event, dropped: Dropped | None) -> Dropped | None:
        match event:
            case Text(text):
                self._chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])
            case Reading(done, total):
                self._chunk(choices=[], prompt_progress={"total": total, "cache": 0, "processed": done, "time_ms": 1})
            case Dropped():
                return event
            case Finished(reason, stats):
                extra = {"stats": asdict(stats), "dropped": asdict(dropped) if dropped else None}
                self._chunk(choices=[{"index": 0, "delta": {}, "finish_reason": reason}], impchat=extra)
                details = {"cached_tokens": stats.cached_tokens}
                counts = {"prompt_tokens": stats.prompt_tokens, "completion_tokens": stats.generated_tokens}
                self._chunk(choices=[], usage=counts | {"prompt_tokens_details": details})
            case Failed(code, values):
                self._chunk(error={"message": ImpChatError(code, **values).sentence(), "code": code})
        return dropped

    def _chunk(self, **values: Any) -> None:
        self._data(json.dumps({"object": "chat.completion.chunk"} | values))

    def _data(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _refuse(self, error: Failed) -> None:
        fields: Json = {"message": ImpChatError(error.code, **error.values).sentence(), "code": error.code}
        if error.code == "prompt.too_long":
            fields |= {"type": "exceed_context_size_error", "n_prompt_tokens": error.values["tokens"]}
            fields |= {"code": 400, "n_ctx": error.values["limit"]}
        self._json({"error": fields}, 400)

    def _json(self, values: Json, status: int = 200) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
