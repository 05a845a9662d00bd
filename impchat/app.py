"""The door to ImpChat: opens the data folder, the history and the engine once, and hands out conversations.

In: a data folder and the name or place of a model. Out: `Chat`s, running and finished `Answer`s, the history.
This file does not know what is said in a conversation, nor who shows it.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from impchat import paths, settings
from impchat.answer import Answer, Answers, rebuilt
from impchat.chat import Chat, Core
from impchat.engines import Engine
from impchat.errors import ChatError, EngineError
from impchat.history import History
from impchat.messages import Sampling
from impchat.models import library
from impchat.models.bundle import Bundle
from impchat.servers import Server

if TYPE_CHECKING:
    from impchat.engines.remote import RemoteEngine


def choose_bundle(data: Path, model: str | Path | None = None) -> Bundle:
    """The bundle to run: `model`, else the environment variable IMPCHAT_MODEL, else the one that was chosen in the data
    folder `data`, else the bundled demo model.

    Raises ModelError as `library.resolve` and `library.default` do."""
    wanted = model or os.environ.get("IMPCHAT_MODEL")
    return library.resolve(data, wanted) if wanted else library.default(data)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a bundle is run on this machine."""

    slots: int = settings.SLOTS  # conversations at a time
    threads: int | None = None  # None: as many as suit the model
    context_tokens: int | None = None  # None: the bundle's, which is also the most
    packed: bool = True  # see `OnnxVision`


class App:
    """One running ImpChat. Close it, or use it in a `with` block: answers that run are then kept as stopped."""

    def __init__(
        self, data: Path, history: History, bundle: Bundle | None, engine: Engine | None, slots: int = settings.SLOTS
    ) -> None:
        """`bundle` is opened at the first use of `engine` where no `engine` is given. Use `App.open`."""
        self.data = data
        self.history = history
        self.bundle = bundle
        self.tuning = Tuning(slots)
        self._engine = engine
        self._opening = threading.Lock()
        self._closed = False
        if bundle:
            self.model, self.system = bundle.id, _system(bundle)
        else:
            assert engine, "an App runs a bundle or an engine"
            self.model, self.system = engine.info.model, settings.SYSTEM
        self._answers = Answers(history)
        self._core = Core(history, self._answers, lambda: self.engine, self.model, self.system)
        self._remote: dict[Server, Core] = {}  # server -> what answers conversations that it was chosen for

    @classmethod
    def open(
        cls,
        data: str | Path | None = None,
        model: str | Path | None = None,
        engine: Engine | None = None,
        slots: int = settings.SLOTS,
    ) -> App:
        """Open the data folder (`paths.data_dir()` where None) and its history; the engine opens when it is first
        needed, for `slots` conversations at once. An `engine` given here is used in place of a `model`, or runs it
        where both are given, and is closed with the App.

        Raises HistoryError ("data.unwritable", those of `paths.data_dir` and of `History`) and ModelError (those of
        `choose_bundle`)."""
        folder = paths.ensure_data_dir(paths.typed(str(data)) if data else paths.data_dir())
        bundle = choose_bundle(folder, model) if model or not engine else None
        return cls(folder, History(paths.history_file(folder)), bundle, engine, slots)

    @property
    def demo(self) -> bool:
        """Whether the small demo model answers; every front end tells a person so."""
        return self.bundle.demo if self.bundle else bool(self.server) and self.model == settings.DEMO_MODEL

    @property
    def server(self) -> str:
        """The name of the server that answers, to which pictures and questions go; "": this machine. Every front end
        tells a person so."""
        return "" if self.bundle else self.engine.info.server

    @property
    def sampling(self) -> Sampling:
        """What the model recommends; known before the engine is open."""
        return self.bundle.sampling if self.bundle else self.engine.info.sampling

    @property
    def engine(self) -> Engine:
        """The engine; the first call verifies and loads the model, others wait for it.

        Raises ModelError "model.checksum", EngineError; the next call tries again."""
        with self._opening:
            if self._closed:
                raise EngineError("engine.closed")
            if self._engine is None:
                from impchat.engines.local import LocalEngine

                assert self.bundle
                self.bundle.verify()
                self._engine = LocalEngine(
                    self.bundle,
                    slots=self.tuning.slots,
                    threads=self.tuning.threads,
                    context_tokens=self.context_tokens,
                    packed=self.tuning.packed,
                )
            return self._engine

    @property
    def loaded(self) -> bool:
        """Whether the engine is open."""
        return self._engine is not None

    @property
    def idle(self) -> bool:
        """Whether no answer is being written and no picture read."""
        return not (self._answers.busy or self._core.prefills)

    @property
    def context_tokens(self) -> int:
        """Of each conversation; known before the engine is open."""
        if self.bundle is None:
            return self.engine.info.context_tokens
        return min(self.tuning.context_tokens or self.bundle.context_tokens, self.bundle.context_tokens)

    def unload(self) -> None:
        """Free the model until its next use, which loads it again; answers that run end as stopped. An engine that was
        given to `open` stays."""
        if self.bundle is None:
            return
        with self._opening:
            engine, self._engine = self._engine, None
        if engine:
            engine.close()

    def run_with(self, bundle: Bundle, tuning: Tuning) -> None:
        """Let `bundle` answer from now on, run so. What is loaded is freed: see `unload`."""
        assert self.bundle, "an engine that was given stays"
        if (bundle, tuning) == (self.bundle, self.tuning):
            return
        self.bundle, self.tuning, self.model = bundle, tuning, bundle.id
        self.system = _system(bundle)
        self._core.model, self._core.system = self.model, self.system
        self.unload()

    def chat(self, conversation: str | None = None, owner: str = settings.OWNER, server: Server | None = None) -> Chat:
        """The conversation with this uuid, or a new one, whose row is made at the first send or attach. Where a
        `server` is given, that answers in it in place of what answers else.

        Raises HistoryError "history.no_conversation" where there is none that is this owner's."""
        return Chat(self._remote_core(server) if server else self._core, conversation, owner)

    def remote(self, server: Server) -> RemoteEngine:
        """The engine over `server`, opened at the first call. It has asked nothing of it yet."""
        engine = self._remote_core(server).engine()
        from impchat.engines.remote import RemoteEngine

        assert isinstance(engine, RemoteEngine)
        return engine

    def _remote_core(self, server: Server) -> Core:
        with self._opening:
            if self._closed:
                raise EngineError("engine.closed")
            if server not in self._remote:
                from impchat.engines.remote import RemoteEngine

                engine, core = RemoteEngine(server), self._core
                self._remote[server] = Core(
                    core.history,
                    core.answers,
                    lambda: engine,
                    engine.info.model,
                    settings.SYSTEM,
                    core.drafts,
                    core.prefills,
                )
            return self._remote[server]

    def answer(self, message: str, owner: str = settings.OWNER) -> Answer:
        """The answer with this message uuid: running here, running in another process, or rebuilt from the history.

        Raises HistoryError "history.no_message" where there is none that is this owner's."""
        row = self.history.message(message, owner)
        if row.role != "assistant":
            raise ChatError("chat.not_an_answer")
        if known := self._answers.find(message):
            return known
        return self._answers.follow(row, owner) if row.state == "streaming" else rebuilt(row)

    def running(self, conversation: str, owner: str = settings.OWNER) -> Answer | None:
        """The answer that runs here in this conversation, if one does.

        Raises HistoryError "history.no_conversation"."""
        self.history.conversation(conversation, owner)
        return self._answers.running(conversation)

    def close(self) -> None:
        """Stop what runs, keep it as stopped, free the model, close the history. May be called more than once."""
        with self._core.drafts:
            prefills = list(self._core.prefills.values())
        for prefill in prefills:
            prefill.cancel()
        self._answers.close()
        for prefill in prefills:
            prefill.settled.wait()
        with self._opening:
            self._closed = True
            engine, self._engine = self._engine, None
            remote, self._remote = list(self._remote.values()), {}
        if engine:
            engine.close()
        for core in remote:
            core.engine().close()
        self.history.close()

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _system(bundle: Bundle) -> str:
    return settings.SYSTEM if bundle.text.system is None else bundle.text.system
