"""The entry point to ImpChat: opens the data folder, the history and the engine once, and creates conversations.

In: a data folder, and a model's name or path. Out: `Chats`, those of the history and temporary ones.
This file does not know the content of a conversation, or who shows it.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from impchat import paths, preferences, settings
from impchat.answer import Answers
from impchat.bundle import Bundle
from impchat.chat import Core
from impchat.chats import Chats, done
from impchat.engines import Engine
from impchat.engines.local import tuning
from impchat.engines.local.tuning import Tuning
from impchat.errors import EngineError
from impchat.history.database import MEMORY
from impchat.history.store import History
from impchat.messages import Prompt, Sampling, Turn
from impchat.models import library, verified

if TYPE_CHECKING:
    from impchat.engines.local.engine import LocalEngine


def choose_bundle(data: Path, model: str | Path | None = None) -> Bundle:
    """The bundle to run: `model`, else that of the environment variable IMPCHAT_MODEL, else the one chosen in the data
    folder `data`, else the included demo model.

    Raises ModelError as `library.resolve` and `library.default`."""
    wanted = model or os.environ.get("IMPCHAT_MODEL")
    return library.resolve(data, wanted) if wanted else library.default(data)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a bundle may use of this machine."""

    slots: int = settings.SLOTS  # conversations at the same time
    threads: int | None = None  # None: as measured, or chosen to suit the model
    context_tokens: int | None = None  # None: the bundle's, which is also the maximum
    packed: bool = True  # False: never memory for a faster copy of weights
    kv_states_bytes: int = settings.KV_STATES_BYTES  # of the disk, for KV states


def tuning_of(data: Path, bundle: Bundle, resources: Resources) -> Tuning:
    """How `bundle` runs with `resources`: as `impchat doctor --tune` measured, else by default. Repacked weights are
    used only if there is memory for them now."""
    found = tuning.load(data, bundle) or tuning.default(bundle)
    return replace(
        found,
        threads=resources.threads or found.threads,
        vision_threads=resources.threads or found.vision_threads,
        packed=found.packed and resources.packed,
        repacked=found.repacked and resources.packed and library.may_repack(bundle, resources.slots),
    )


class App(Chats):
    """A running ImpChat, with the chats of its history. Call `close`, or use it in a `with` block; running answers are
    then saved as stopped."""

    def __init__(
        self, data: Path, history: History, bundle: Bundle | None, engine: Engine | None, slots: int = settings.SLOTS
    ) -> None:
        """Use `App.open` instead. If `engine` is None, the engine of `bundle` is loaded at its first use."""
        self.data = data
        self.bundle = bundle
        self.resources = Resources(slots)
        self.reads_typed = preferences.load(data).reads_typed  # whether questions are read while they are typed
        self._given = done(engine) if engine else None
        self._loading: Future[LocalEngine] | None = None  # the bundle's engine, loaded or loading
        if bundle:
            self.model, self.system = bundle.id, _system(bundle)
        else:
            assert engine, "an App runs a bundle or an engine"
            self.model, self.system = engine.info.model, settings.SYSTEM
        self._temporary: Chats | None = None
        super().__init__(self._new_core(history))

    @classmethod
    def open(
        cls,
        data: str | Path | None = None,
        model: str | Path | None = None,
        engine: Engine | None = None,
        slots: int = settings.SLOTS,
    ) -> App:
        """Open the data folder (`paths.data_dir()` if None) and its history. The engine is loaded when it is first
        needed, for `slots` conversations at the same time. An `engine` given here replaces the model, or runs `model`
        if both are given; it is closed with the App.

        Raises HistoryError ("data.unwritable", those of `paths.data_dir` and of `History`) and ModelError (those of
        `choose_bundle`)."""
        folder = paths.ensure_data_dir(paths.typed(str(data)) if data else paths.data_dir())
        bundle = choose_bundle(folder, model) if model or not engine else None
        return cls(folder, History(paths.history_file(folder)), bundle, engine, slots)

    @property
    def demo(self) -> bool:
        """Whether the small demo model answers. Every front end must show this."""
        return self.bundle.demo if self.bundle else bool(self.server) and self.model == settings.DEMO_MODEL

    @property
    def unverified(self) -> bool:
        """Whether an unverified model answers (`Bundle.unverified`). Every front end must show this."""
        return bool(self.bundle.unverified) if self.bundle else self.engine.info.unverified

    @property
    def server(self) -> str:
        """The name of the server that answers and receives pictures and questions; "" for this machine. Every front end
        must show this."""
        return "" if self.bundle else self.engine.info.server

    @property
    def sampling(self) -> Sampling:
        """The values that the model recommends; for a bundle known before the engine is loaded."""
        return self.bundle.sampling if self.bundle else self.engine.info.sampling

    def opened(self) -> Future[Engine]:
        """The engine, once it is loaded. The first call verifies and loads the model on a new thread; later calls
        return the same future. After a failed load, or if the engine has broken, the next call loads again.

        Raises EngineError "engine.closed"; the future raises ModelError "model.checksum", EngineError."""
        with self._lock:
            if self._closed:
                raise EngineError("engine.closed")
            if self._given:
                return self._given
            loading = self._loading
            if loading is None or _has_broken(loading):
                assert self.bundle
                loading = self._loading = Future()
                work = (loading, self.bundle, self.resources, self.context_tokens)
                # Not a daemon: Python must not exit while native code loads a model.
                threading.Thread(target=self._load, args=work, name="impchat-load").start()
            return cast("Future[Engine]", loading)

    def _load(self, loading: Future[LocalEngine], bundle: Bundle, resources: Resources, context_tokens: int) -> None:
        """Load the bundle's engine and complete `loading`. Runs on a thread of its own."""
        from impchat.engines.local.engine import Kept, LocalEngine

        try:
            verified.verify(self.data, bundle)
            engine = LocalEngine(
                bundle,
                slots=resources.slots,
                context_tokens=context_tokens,
                tuning=tuning_of(self.data, bundle, resources),
                kept=Kept(self.data, self.history.has_conversation, self.history.has_image, resources.kv_states_bytes),
            )
        except Exception as exc:  # noqa: BLE001 - raised to callers that wait for the engine
            loading.set_exception(exc)
            return
        with self._lock:
            if wanted := self._loading is loading:
                # All conversations begin with the system text, so it is read once, before the first question.
                engine.prefill(Prompt(self.system, (Turn("user", ""),), open_turn=True))
                loading.set_result(engine)
        if not wanted:  # unloaded or closed in the meantime
            engine.close()
            loading.set_exception(EngineError("engine.closed"))

    @property
    def engine(self) -> Engine:
        """The loaded engine; blocks until then. Raises as `opened`."""
        return self.opened().result()

    @property
    def loaded(self) -> bool:
        """Whether the engine is loaded."""
        loading = self._given or self._loading
        return loading is not None and loading.done() and loading.exception() is None

    def _new_core(self, history: History) -> Core:
        return Core(history, Answers(history), self.opened, self.model, self.system, lambda: self.reads_typed)

    @property
    def temporary(self) -> Chats:
        """Chats that are never stored: rows, pictures and drafts are in memory, and are lost when the App is closed.
        To free their memory sooner, purge them (`temporary.history.purge_conversation`)."""
        with self._lock:
            if self._closed:
                raise EngineError("engine.closed")
            if self._temporary is None:
                self._temporary = Chats(self._new_core(History(MEMORY)))
            return self._temporary

    def _all_chats(self) -> list[Chats]:
        return [self, self._temporary] if self._temporary else [self]

    @property
    def idle(self) -> bool:
        """Whether no answer is running and no picture is being read."""
        return all(chats._is_idle for chats in self._all_chats())

    @property
    def context_tokens(self) -> int:
        """The maximum for each conversation; for a bundle known before the engine is loaded."""
        if self.bundle is None:
            return self.engine.info.context_tokens
        return min(self.resources.context_tokens or self.bundle.context_tokens, self.bundle.context_tokens)

    def unload(self) -> None:
        """Free the model; its next use loads it again. Running answers end as stopped. An engine given to `open` stays
        loaded."""
        with self._lock:
            loading, self._loading = self._loading, None
        _close(loading)

    def run_with(self, bundle: Bundle, resources: Resources) -> None:
        """Use `bundle` with `resources` from now on. A loaded engine is freed, see `unload`."""
        assert self.bundle, "an engine that was given stays"
        if (bundle, resources) == (self.bundle, self.resources):
            return
        with self._lock:
            loading, self._loading = self._loading, None
            self.bundle, self.resources, self.model = bundle, resources, bundle.id
            self.system = _system(bundle)
            for chats in self._all_chats():
                chats._core.model, chats._core.system = self.model, self.system
        _close(loading)

    def close(self) -> None:
        """Stop running answers and save them as stopped, free the model, close the history. Idempotent."""
        self._stop()
        if self._temporary:
            self._temporary._stop()
        with self._lock:
            loading, self._loading = self._loading, None
        _close(loading)
        if self._given:
            self._given.result().close()
        for chats in self._all_chats():
            chats.history.close()

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _system(bundle: Bundle) -> str:
    return settings.SYSTEM if bundle.text.system is None else bundle.text.system


def _has_broken(loading: Future[LocalEngine]) -> bool:
    """Whether the load failed, or the engine broke later."""
    return loading.done() and (loading.exception() is not None or loading.result().broken)


def _close(loading: Future[LocalEngine] | None) -> None:
    """Close an engine that is no longer `App._loading`. One that is still loading is closed by its own thread."""
    if loading and loading.done() and loading.exception() is None:
        loading.result().close()
