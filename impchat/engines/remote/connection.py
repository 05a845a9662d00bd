"""One HTTP connection to a server, which another thread may cut at any time.

In: a `Server`, requests. Out: responses of bounded size, and an EngineError for every network fault.
This file does not know the content of requests and responses.
"""

from __future__ import annotations

import json
import socket
import threading
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from impchat import settings
from impchat.errors import EngineError
from impchat.peers import servers
from impchat.peers.servers import Server

if TYPE_CHECKING:
    import ssl

    import httpx

NOT_REACHED = {  # no server, or the wrong one, is at this address; another address may work
    "remote.no_name",
    "remote.refused",
    "remote.unreachable",
    "remote.no_reply",
    "remote.certificate_other",
    "remote.certificate_unknown",
    "remote.no_tls",
}


class Reply:
    """A response. Read it inside the block of `Connection.send`."""

    def __init__(self, response: httpx.Response, url: str) -> None:
        self._response = response
        self._url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    def body(self) -> bytes:
        """The whole body. Raises EngineError "remote.not_openai" above `settings.REMOTE_REPLY_BYTES`."""
        self._limit()
        return self._response.read()

    def json(self) -> Any:
        """The body as JSON. Raises EngineError "remote.not_openai" if it is not JSON, and as `body`."""
        return read_json(self.body(), self._url)

    def events(self) -> Iterator[str]:
        """Yield the data of each server-sent event as it arrives. Raises as `body`; the limit applies to each event."""
        from httpx_sse import EventSource

        begin = self._limit()
        for event in EventSource(self._response).iter_sse():
            begin()
            if event.data:
                yield event.data

    def _limit(self) -> Callable[[], None]:
        """Limit the body to `settings.REMOTE_REPLY_BYTES`; calling the returned function resets the count. Needed
        because httpx and httpx-sse would buffer an endless line."""
        import httpx

        url, seen = self._url, 0
        stream: httpx.SyncByteStream = self._response.stream  # type: ignore[assignment]  # no client here is async

        class Limited(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                nonlocal seen
                for block in _without_bom(stream):
                    seen += len(block)
                    if seen > settings.REMOTE_REPLY_BYTES:
                        raise EngineError("remote.not_openai", url=url, detail=f"> {settings.REMOTE_REPLY_BYTES} bytes")
                    yield block

            def close(self) -> None:
                stream.close()

        def begin() -> None:
            nonlocal seen
            seen = 0

        self._response.stream = Limited()
        return begin


def _without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """`blocks` without a leading byte order mark, which would hide the first event."""
    begin: bytes | None = b""  # the first bytes, which may be a mark; None: already checked
    for block in blocks:
        if begin is not None:
            begin += block
            if len(begin) < len(BOM_UTF8) and BOM_UTF8.startswith(begin):
                continue
            block, begin = begin.removeprefix(BOM_UTF8), None
        if block:
            yield block
    if begin:
        yield begin


def read_json(data: str | bytes, url: str) -> Any:
    """Parse JSON. Raises EngineError "remote.not_openai" if `data` is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise EngineError("remote.not_openai", url=url, detail="no JSON") from exc


class Connection:
    """Sends one request at a time, from one thread, and stays open for the next. `abort` may be called from any
    thread."""

    def __init__(self, server: Server, connect_s: float, silence_s: float) -> None:
        self.keyed = bool(server.key)
        self._server = server
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._opened = False  # whether the latest request opened a new socket
        self.aborted = False

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        headers = {"accept-encoding": "identity", "user-agent": "ImpChat"}  # identity: no decompression bombs
        if self._server.key:
            headers["authorization"] = f"Bearer {self._server.key}"
        secure = any(url.startswith("https:") for url in self._server.urls)
        trust = _trust(self._server.certificate) if secure else servers.trust_nobody()
        return httpx.Client(
            verify=trust,
            headers=headers,
            limits=httpx.Limits(max_connections=1),
            follow_redirects=False,  # the key and the pictures must not go to another server
            trust_env=not any(servers.is_near(url) for url in self._server.urls),  # no proxy for private networks
        )

    @contextmanager
    def send(
        self, method: str, url: str, path: str, body: Mapping[str, Any] | None = None, silence_s: float | None = None
    ) -> Iterator[Reply]:
        """Send a request to `path` under `url`; the block reads the response. `silence_s`: overrides the connection's
        read timeout, in seconds.

        Raises EngineError: a code in `NOT_REACHED` if nothing was sent, "remote.hung_up" if the connection ended too
        early, "remote.silent", "remote.not_openai"."""
        import httpx

        timeout = httpx.Timeout(silence_s or self._silence_s, connect=self._connect_s)
        extensions = {"trace": self._trace}
        try:
            request = self._client.build_request(method, url + path, json=body, timeout=timeout, extensions=extensions)
            response = self._begin(request)
            try:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise EngineError("remote.not_openai", url=url, detail=response.headers["content-encoding"])
                yield Reply(response, url)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as exc:
            raise self._failure(exc, url) from exc

    def _begin(self, request: httpx.Request) -> httpx.Response:
        """The response, once its headers are received. The request is sent again, once, if the server had closed the
        idle connection meanwhile."""
        import httpx

        self._opened = False
        try:
            return self._client.send(request, stream=True)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if self._opened or self.aborted:
                raise
            return self._client.send(request, stream=True)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpx's trace callback. Remembers the current socket for `abort`."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._opened = True
                self._socket = info["return_value"].get_extra_info("socket")
            if self.aborted:
                self.abort()

    def abort(self) -> None:
        """Cut the connection: reads and writes that run fail at once, and the server notices."""
        with self._lock:
            self.aborted = True
            if self._socket is not None:
                with suppress(OSError):  # already closed. socket.socket's method: TLS would wait for a close_notify
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. Call it from the thread that uses it, or when no thread does."""
        self.abort()
        if "_client" in self.__dict__:
            self._client.close()

    def _failure(self, error: Exception, url: str) -> EngineError:
        import ssl

        import httpx

        place = {"url": url, "host": urlsplit(url).hostname or ""}
        causes = [*_causes(error)]
        detail = str(causes[-1])[:200]
        if isinstance(error, httpx.ConnectTimeout):
            return EngineError("remote.no_reply", seconds=self._connect_s, **place)
        if isinstance(error, httpx.TimeoutException):
            return EngineError("remote.silent", seconds=self._silence_s, **place)
        if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.InvalidURL | UnicodeError):
            for cause in causes:
                if isinstance(cause, ssl.SSLCertVerificationError):
                    code = "remote.certificate_other" if self._server.certificate else "remote.certificate_unknown"
                    return EngineError(code, detail=cause.verify_message, **place)
                if isinstance(cause, ssl.SSLError):
                    return EngineError("remote.no_tls", detail=cause.reason or detail, **place)
                if isinstance(cause, socket.gaierror | UnicodeError):
                    return EngineError("remote.no_name", **place)
                if isinstance(cause, ConnectionRefusedError):
                    return EngineError("remote.refused", **place)
            return EngineError("remote.unreachable", detail=detail, **place)
        closed = "disconnected" in str(error) or "closed connection" in str(error)
        if isinstance(error, httpx.RemoteProtocolError) and not closed:
            return EngineError("remote.not_openai", url=url, detail=detail)
        return EngineError("remote.hung_up", **place)


@lru_cache(maxsize=8)  # reading the system's certificates takes longer than a short answer
def _trust(certificate: str | None) -> ssl.SSLContext:
    return servers.trust(certificate)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and the chain of its causes, latest first."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__
