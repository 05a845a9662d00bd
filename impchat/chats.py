"""The conversations of one history: chats by uuid, their answers, and thumbnails of their pictures.

In: a history, and what its conversations need of an App. Out: `Chat`s, running and finished `Answer`s.
This file does not know how the engine of this machine is loaded, or who shows a conversation.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from impchat import settings
from impchat.answer import Answer, rebuilt
from impchat.chat import Chat, Core
from impchat.engines import Engine
from impchat.errors import ChatError, EngineError
from impchat.history.thumbnails import Thumbnails
from impchat.peers.servers import Server

if TYPE_CHECKING:
    from impchat.engines.remote.engine import RemoteEngine


class Chats:
    """Gives access to the conversations of the history of `core`, which the engine of `core` answers."""

    def __init__(self, core: Core) -> None:
        self.history = core.history
        self.thumbnails = Thumbnails(core.history)
        core.history.on_purge(lambda _: self.thumbnails.clear())  # nothing of a purged conversation stays in memory
        self._core = core
        self._answers = core.answers
        self._remote: dict[Server, Core] = {}  # server -> the Core of the conversations that use it
        self._lock = threading.Lock()  # never held while an engine loads or closes
        self._closed = False

    def chat(self, conversation: str | None = None, owner: str = settings.OWNER, server: Server | None = None) -> Chat:
        """The conversation with this uuid, or a new one, whose row is created at the first send, attach or draft. If
        `server` is given, that server answers instead of this App's engine.

        Raises HistoryError "history.no_conversation" if it does not exist or belongs to another owner."""
        return Chat(self._remote_core(server) if server else self._core, conversation, owner)

    def remote(self, server: Server) -> RemoteEngine:
        """The engine that uses `server`, created at the first call. Creating it sends no request."""
        engine = self._remote_core(server).opened().result()
        from impchat.engines.remote.engine import RemoteEngine

        assert isinstance(engine, RemoteEngine)
        return engine

    def _remote_core(self, server: Server) -> Core:
        with self._lock:
            if self._closed:
                raise EngineError("engine.closed")
            if server not in self._remote:
                from impchat.engines.remote.engine import RemoteEngine

                engine, core = RemoteEngine(server), self._core
                opened = done(engine)
                self._remote[server] = Core(
                    core.history,
                    core.answers,
                    lambda: opened,
                    engine.info.model,
                    settings.SYSTEM,
                    core.reads_typed,
                    core.drafts,
                    core.prefills,
                )
            return self._remote[server]

    def answer(self, message: str, owner: str = settings.OWNER) -> Answer:
        """The answer with this message uuid: running here, running in another process, or rebuilt from the history.

        Raises HistoryError "history.no_message" if it does not exist or belongs to another owner, ChatError
        "chat.not_an_answer" if it is a question."""
        row = self.history.message(message, owner)
        if row.role != "assistant":
            raise ChatError("chat.not_an_answer")
        if known := self._answers.find(message):
            return known
        return self._answers.follow(row, owner) if row.state == "streaming" else rebuilt(row)

    def running(self, conversation: str, owner: str = settings.OWNER) -> Answer | None:
        """The answer that is running in this conversation in this process, if any.

        Raises HistoryError "history.no_conversation"."""
        self.history.conversation(conversation, owner)
        return self._answers.running(conversation)

    @property
    def _is_idle(self) -> bool:
        """Whether no answer is running and no picture is being read."""
        return not (self._answers.busy or self._core.prefills)

    def _stop(self) -> None:
        """Stop running answers, save them as stopped, and accept no more."""
        with self._core.drafts:
            prefills = list(self._core.prefills.values())
        for prefill in prefills:
            prefill.cancel()
        self._answers.close()
        for prefill in prefills:
            prefill.settled.wait()
        with self._lock:
            self._closed = True
            remote, self._remote = list(self._remote.values()), {}
        for core in remote:
            core.opened().result().close()


def done(engine: Engine) -> Future[Engine]:
    """The future of an engine that is loaded already."""
    opened: Future[Engine] = Future()
    opened.set_result(engine)
    return opened
