"""One HTTP connection to a server, which another thread may cut at any moment.

In: a `Server`, requests. Out: replies of bounded size, and EngineErrors for all that can go wrong on the way.
This file does not know what is asked or answered.
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

NOT_REACHED = {  # nobody, or the wrong one, is at this address: another one of the same server may do
    "remote.no_name",
    "remote.refused",
    "remote.unreachable",
    "remote.no_reply",
    "remote.certificate_other",
    "remote.certificate_unknown",
    "remote.no_tls",
}


class Reply:
    """What came back. To be read inside the block of `Connection.send`."""

    def __init__(self, response: httpx.Response, url: str) -> None:
        self._response = response
        self._url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    def body(self) -> bytes:
        """All of it. Raises EngineError "remote.not_openai" where it is larger than `settings.REMOTE_REPLY_BYTES`."""
        self._limit()
        return self._response.read()

    def json(self) -> Any:
        """Raises EngineError "remote.not_openai" for what is no JSON, and as `body`."""
        return read_json(self.body(), self._url)

    def events(self) -> Iterator[str]:
        """The data of each server-sent event, as it comes. Raises as `body`, for each event on its own."""
        from httpx_sse import EventSource

        begin = self._limit()
        for event in EventSource(self._response).iter_sse():
            begin()
            if event.data:
                yield event.data

    def _limit(self) -> Callable[[], None]:
        """Refuse the body behind `settings.REMOTE_REPLY_BYTES`, counted anew whenever the returned function is called:
        httpx and httpx-sse would gather a line without end."""
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
    """`blocks` without a byte order mark at their beginning, which would hide the first event."""
    begin: bytes | None = b""  # what may be one; None: it was passed
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
    """Raises EngineError "remote.not_openai" for what is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise EngineError("remote.not_openai", url=url, detail="no JSON") from exc


class Connection:
    """Takes one request at a time, of one thread, and stays open for the next. `abort` may come from any thread."""

    def __init__(self, server: Server, connect_s: float, silence_s: float) -> None:
        self.keyed = bool(server.key)
        self._server = server
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._opened = False  # for the latest request
        self.aborted = False

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        headers = {"accept-encoding": "identity", "user-agent": "ImpChat"}  # a size that is seen is the size there is
        if self._server.key:
            headers["authorization"] = f"Bearer {self._server.key}"
        secure = any(url.startswith("https:") for url in self._server.urls)
        trust = _trust(self._server.certificate) if secure else servers.trust_nobody()
        return httpx.Client(
            verify=trust,
            headers=headers,
            limits=httpx.Limits(max_connections=1),
            follow_redirects=False,  # a key and pictures go where they were meant to go
            trust_env=not any(servers.is_near(url) for url in self._server.urls),  # no proxy is nearer than these
        )

    @contextmanager
    def send(
        self, method: str, url: str, path: str, body: Mapping[str, Any] | None = None, silence_s: float | None = None
    ) -> Iterator[Reply]:
        """Send a request to `path` under `url`; the block reads the reply. `silence_s`: if not the connection's own.

        Raises EngineError, whose code is in `NOT_REACHED` where nothing was sent; "remote.hung_up" where the
        connection ended too early, "remote.silent", "remote.not_openai"."""
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
        """The reply, as soon as its head is there. Asked once more where a connection that was kept open proves to
        have been closed by the server meanwhile."""
        import httpx

        self._opened = False
        try:
            return self._client.send(request, stream=True)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if self._opened or self.aborted:
                raise
            return self._client.send(request, stream=True)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpx tells here of what it does; remember the socket that it works on."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._opened = True
                self._socket = info["return_value"].get_extra_info("socket")
            if self.aborted:
                self.abort()

    def abort(self) -> None:
        """Cut it: what is being read or written fails at once, and the server sees us go."""
        with self._lock:
            self.aborted = True
            if self._socket is not None:
                with suppress(OSError):  # gone already; and TLS must not wait for a farewell
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """For the thread that uses it, or when none does any more."""
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
    """`error` and what led to it, the latest first."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__
