"""The engine of a remote server: any that speaks OpenAI's API.

In: a `Server`; prompts, from any thread. Out: their events. Pictures are scaled down before they are sent, and carry no
metadata. This file decides what is sent, retried and remembered; `protocol` knows the JSON, `connection` the network,
`capabilities` what a server reports about itself.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from impchat import images, prompts, settings
from impchat.engines import EngineInfo, check_sampling
from impchat.engines.remote import protocol
from impchat.engines.remote.capabilities import ServerInfo, probe
from impchat.engines.remote.connection import NOT_REACHED, Connection, Reply, read_json
from impchat.engines.remote.handle import RemoteHandle
from impchat.engines.remote.protocol import Refusal
from impchat.errors import EngineError, ImpChatError
from impchat.messages import Encoding, Failed, Picture, Prompt, Sampling
from impchat.peers.servers import Server

_FAREWELLS = 3  # events read after the end of an answer, so that the connection can be reused
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # the same request may succeed a little later


class RemoteEngine:
    """The Engine of a server. Opening it sends nothing; the server is probed before the first question."""

    def __init__(
        self,
        server: Server,
        *,
        image_side: int = settings.REMOTE_IMAGE_SIDE,
        connect_s: float = settings.REMOTE_CONNECT_S,
        silence_s: float = settings.REMOTE_SILENCE_S,
        retry_s: float = settings.REMOTE_RETRY_S,
    ) -> None:
        """`image_side`: longest side of a picture that is sent, in pixels. `connect_s`: timeout for connecting to an
        address. `silence_s`: timeout without a byte from the server. `retry_s`: pause before the first retry, doubled
        before each later one."""
        self._server = server
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._retry_s = retry_s
        self._pictures = _Pictures(image_side)
        self._meeting = threading.Lock()  # held while the server is probed
        # Guarded by _lock
        self._lock = threading.Lock()
        self._closed = False
        self._facts: ServerInfo | None = None  # of the address in use; None: not probed
        self._refused: set[str] = set()  # fields that the server rejects
        self._sizes: tuple[float, int] | None = None  # tokens per character, and the context length in tokens
        self._open: set[RemoteHandle] = set()
        self._lent: set[Connection] = set()
        self._idle: list[Connection] = []

    @property
    def info(self) -> EngineInfo:
        facts = self._facts or ServerInfo("")
        model = self._model(facts) or self._server.name
        return EngineInfo(
            "remote", model, facts.context_tokens, facts.vision, facts.image_tokens, facts.sampling,
            self._server.name, facts.unverified,
        )  # fmt: skip

    def _model(self, facts: ServerInfo) -> str:
        return self._server.model or next(iter(facts.models), "")

    def connect(self) -> ServerInfo:
        """The facts about the server, probed at the first call. Blocks.

        Raises EngineError as `probe` if no address answers or the key is rejected; "remote.several_models" if it has
        several models and none was chosen, "remote.no_model_named" if it lists none."""
        with self._connection() as connection:
            return self._meet(connection)

    def prefill(self, prompt: Prompt) -> RemoteHandle:
        """On an ImpChat server: read `prompt` into its KV cache. Other servers cannot read ahead: only the pictures are
        prepared for sending, and the stats stay empty."""
        return self._submit(RemoteHandle(prompt, None))

    def start(self, prompt: Prompt, sampling: Sampling) -> RemoteHandle:
        """Answer `prompt`."""
        return self._submit(RemoteHandle(prompt, sampling))

    def close(self) -> None:
        """Stop all requests and close the connections."""
        with self._lock:
            self._closed = True
            running, lent, idle = [*self._open], [*self._lent], self._idle
            self._idle = []
        for handle in running:
            handle.stop()
        for connection in lent:  # their own threads close them
            connection.abort()
        for connection in idle:
            connection.close()

    # The thread of one handle

    def _submit(self, handle: RemoteHandle) -> RemoteHandle:
        with self._lock:
            closed = self._closed
            self._open.add(handle)
        if closed:
            handle.emit(_failed(EngineError("engine.closed")))
        threading.Thread(target=self._run, args=(handle,), name="impchat-remote", daemon=True).start()
        return handle

    def _run(self, handle: RemoteHandle) -> None:
        try:
            if not handle.over.is_set():
                self._answer(handle)
        except ImpChatError as exc:
            handle.emit(_failed(exc))
        finally:
            handle.emit(_failed(EngineError("engine.broken")))  # only after a bug: the reader must get a last event
            handle.prompt = Prompt("", ())  # the caller may keep the handle for a long time
            with self._lock:
                self._open.discard(handle)

    def _answer(self, handle: RemoteHandle) -> None:
        if handle.sampling:
            check_sampling(handle.sampling)
        prompts.check(handle.prompt)
        assert not handle.prompt.prefix, "a server takes no token ids"
        for turn in handle.prompt.turns:
            for picture in turn.pictures:
                if handle.over.is_set():  # stopped: decode no further picture
                    return
                self._pictures.ready(picture, partial(handle.emit, Encoding(picture.sha256)))
        with self._connection() as connection, handle.using(connection):
            self._persist(handle, connection)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection for the caller alone; reuses an idle one if there is any."""
        with self._lock:
            new = partial(Connection, self._server, self._connect_s, self._silence_s)
            connection = self._idle.pop() if self._idle else new()
            self._lent.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._lent.discard(connection)
                keep = not (self._closed or connection.aborted) and len(self._idle) < settings.REMOTE_IDLE
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _meet(self, connection: Connection) -> ServerInfo:
        """The facts about the first address that answers. Raises as `connect`."""
        with self._meeting:
            if self._facts:
                return self._facts
            failures = []
            for url in self._server.urls:
                try:
                    facts = probe(connection, url, self._server.model)
                except EngineError as exc:
                    if exc.code not in NOT_REACHED:
                        raise
                    failures.append(exc)
                    continue
                if not self._model(facts):
                    raise EngineError("remote.no_model_named", url=url)
                if not self._server.model and len(facts.models) > 1 and not facts.own:
                    raise EngineError("remote.several_models", url=url, known=", ".join(facts.models))
                self._facts = facts
                return facts
            raise failures[0]

    # Sending requests

    def _persist(self, handle: RemoteHandle, connection: Connection) -> None:
        """Send the request, and retry while that may help; never after a part of the answer has arrived."""
        for planned_s in (*(self._retry_s * 2**n for n in range(settings.REMOTE_RETRIES)), None):
            try:
                self._try(handle, connection)
                return
            except _Later as later:
                wait_s = planned_s if later.wait_s is None else later.wait_s
                if planned_s is None or wait_s is None or wait_s > settings.REMOTE_WAIT_S:
                    raise later.error from later
                if handle.over.wait(wait_s):
                    return

    def _try(self, handle: RemoteHandle, connection: Connection) -> None:
        """Send the request, and adapt it as long as the server rejects it for a reason that can be avoided. Raises
        _Later if a retry may succeed, EngineError if not."""
        try:
            while refused := self._ask(handle, connection):
                if not self._adapt(handle, refused):
                    raise self._failure(handle, refused)
        except EngineError as exc:
            if handle.responding:
                raise (EngineError("remote.broken_off", **exc.values) if exc.code == "remote.hung_up" else exc) from exc
            if exc.code == "remote.hung_up":
                raise _Later(exc) from exc
            if exc.code in NOT_REACHED and self._leave():
                raise _Later(exc, 0.0) from exc
            raise

    def _leave(self) -> bool:
        """Forget the address in use and its facts. Returns whether the server has other addresses."""
        with self._lock:
            known, self._facts = self._facts, None
        return known is not None and len(self._server.urls) > 1

    def _ask(self, handle: RemoteHandle, connection: Connection) -> Refusal | None:
        """Send the request once. Returns the server's error response, or None after an answer."""
        if handle.over.is_set():  # stopped before there was a connection to cut
            return None
        facts = self._meet(connection)
        prompt, sampling = handle.prompt, handle.sampling
        if not facts.vision and any(turn.pictures for turn in prompt.turns):
            raise EngineError("remote.no_vision", url=facts.url, model=self._model(facts))
        if sampling is None and not facts.own:
            handle.ready({})
            return None
        if self._sizes:
            prompt = self._fitted(handle, facts)
        handle.refused |= self._refused
        asked = protocol.request(prompt, sampling, self._model(facts), self._pictures.ready, handle.refused)
        handle.sent = frozenset(asked)
        path = "/chat/completions" if sampling else "/images/prefill"
        with connection.send("POST", facts.url, path, asked) as reply:
            if reply.status != 200:
                return protocol.refusal(reply.status, reply.headers, reply.body())
            handle.responding = True
            with self._lock:
                self._refused |= handle.refused  # accepted without these: leave them out from now on
            if sampling is None:
                handle.ready(protocol.stats_fields(reply.json()))
            else:
                _listen(handle, reply, facts.url)
        return None

    def _adapt(self, handle: RemoteHandle, refused: Refusal) -> bool:
        """Change the request so that the server may accept it. Returns False if there is nothing to change."""
        if not refused.too_long:
            unknown = refused.fields(handle.sent)
            handle.refused |= unknown
            return bool(unknown)
        tokens, limit = refused.lengths
        sampling, handle.tries = handle.sampling, handle.tries + 1
        own = self._facts is not None and self._facts.own  # an ImpChat server drops the oldest turns itself
        if sampling is None or not limit or own or handle.tries > 3:
            return False
        if tokens and tokens <= limit - settings.ANSWER_LEAST_TOKENS:  # only the answer does not fit
            handle.sampling = replace(sampling, max_tokens=min(sampling.max_tokens - 1, limit - tokens))
            return sampling.max_tokens > 1
        if len(handle.prompt.turns) == 1:
            return False
        chars, pictures = _chars(handle.prompt), sum(len(turn.pictures) for turn in handle.prompt.turns)
        for_text = max(tokens, limit) - pictures * self._picture_tokens(self._facts)
        with self._lock:
            self._sizes = (max(for_text / max(chars, 1), 0.1) * 1.02**handle.tries, limit)
        return True

    def _fitted(self, handle: RemoteHandle, facts: ServerInfo) -> Prompt:
        """The prompt, without its oldest turns if it is too long for the server by the token ratio measured in
        `_adapt`."""
        assert self._sizes
        per_char, limit = self._sizes

        def count(text: str, special: bool = False, /) -> range:
            return range(round(len(text) * per_char))

        prompt, dropped = prompts.fit(
            handle.prompt, "phi2", count, 0, picture_tokens=self._picture_tokens(facts), context_tokens=limit
        )
        if dropped:
            handle.emit(dropped)
        return prompt

    def _picture_tokens(self, facts: ServerInfo | None) -> int:
        return (facts.image_tokens if facts else 0) or settings.REMOTE_IMAGE_TOKENS

    def _failure(self, handle: RemoteHandle, refused: Refusal) -> EngineError | _Later:
        facts = self._facts or ServerInfo(self._server.urls[0])
        pictures = any(turn.pictures for turn in handle.prompt.turns)
        keyed = bool(self._server.key)
        error = protocol.failure(refused, facts.url, self._model(facts), facts.models, keyed=keyed, pictures=pictures)
        for_good = refused.status not in _AGAIN or refused.too_long or error.code == "remote.no_vision"
        return error if for_good else _Later(error, refused.wait_s)


class _Later(Exception):
    """`error`, which a retry after `wait_s` seconds may avoid; None: the engine's own pause."""

    def __init__(self, error: EngineError, wait_s: float | None = None) -> None:
        self.error = error
        self.wait_s = wait_s


class _Pictures:
    """A cache of pictures as they are sent, because each question of a conversation sends its pictures again."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, str] = OrderedDict()  # sha256 -> data URI

    def ready(self, picture: Picture, working: Callable[[], object] = lambda: None) -> str:
        """The data URI of `picture`. `working` is called first if it is not cached. Raises ImageError."""
        with self._lock:
            if known := self._kept.get(picture.sha256):
                self._kept.move_to_end(picture.sha256)
                return known
        working()
        prepared = images.prepare(picture.data, self._side)
        address = f"data:{prepared.image.mime};base64,{base64.b64encode(prepared.data).decode()}"
        with self._lock:
            self._kept[picture.sha256] = address
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > settings.REMOTE_IMAGES_BYTES:
                self._kept.popitem(last=False)
        return address


def _listen(handle: RemoteHandle, reply: Reply, url: str) -> None:
    """Read the answer to its end. Raises EngineError "remote.not_openai", "remote.failed" (the server reports an
    error), "remote.filtered", "remote.hung_up", and as `_finish`."""
    if reply.kind == "text/event-stream":
        pieces = reply.events()
    else:  # a server that does not stream; not all of them declare JSON
        body = reply.body().decode("utf-8-sig", "replace")
        if reply.kind != "application/json" and not body.lstrip().startswith("{"):
            raise EngineError("remote.not_openai", url=url, detail=reply.kind or "?")
        pieces = iter((body, "[DONE]"))
    reason, has_stats, extra = "", False, 0
    for data in pieces:
        if extra or data.strip() == "[DONE]":
            reason, extra = reason or "stop", extra + 1
            _finish(handle, reason, url)
            if extra > _FAREWELLS:
                return
            continue  # read to the end of the response, so that the connection can be reused
        try:
            chunk = protocol.chunk(read_json(data, url))
        except ValueError as exc:
            raise EngineError("remote.not_openai", url=url, detail=str(exc)) from exc
        handle.take(chunk)
        if handle.over.is_set():  # by stop(), a stop string, or a server that ignores max_tokens
            return
        if chunk.own:
            raise chunk.own
        if chunk.error is not None:
            raise EngineError("remote.failed", url=url, detail=chunk.error)
        if chunk.finish_reason == "content_filter":
            raise EngineError("remote.filtered", url=url)
        reason, has_stats = chunk.finish_reason or reason, has_stats or bool(chunk.stats)
        if reason and has_stats:  # complete; some servers still keep the connection open
            _finish(handle, reason, url)
            extra = 1
    if not reason:
        raise EngineError("remote.hung_up", url=url)
    _finish(handle, reason, url)


def _finish(handle: RemoteHandle, reason: str, url: str) -> None:
    """End the answer. Raises EngineError "remote.no_words", "remote.only_tools" or "remote.only_thoughts" for one
    without text, unless it continues an answer or has stop strings."""
    goes_on, stops = handle.prompt.turns[-1].role == "assistant", handle.sampling and handle.sampling.stop
    if not (handle.said or handle.over.is_set() or goes_on or stops):
        if handle.tools:
            raise EngineError("remote.only_tools", url=url)
        raise EngineError("remote.only_thoughts" if handle.thoughts else "remote.no_words", url=url)
    handle.finish("length" if reason == "length" else "stop")


def _chars(prompt: Prompt) -> int:
    return len(prompt.system) + sum(len(turn.text) for turn in prompt.turns)


def _failed(error: ImpChatError) -> Failed:
    return Failed(error.code, error.values)
