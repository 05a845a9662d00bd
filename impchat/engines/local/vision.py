"""The vision encoder: pictures -> embeddings for the language model.

In: a picture's stored bytes. Out: embeddings, float32 (tokens, hidden), computed by onnxruntime from the bundle's
vision file and cached under the picture's hash. `EncoderThread` encodes on a separate thread, so that answers continue
meanwhile. This file does not know prompts or the language model.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from impchat import images, settings
from impchat.bundle import Bundle
from impchat.engines.local.backend import Vision
from impchat.engines.local.disk_cache import DiskCache
from impchat.errors import EngineError, ImpChatError, ModelError
from impchat.messages import Picture

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_SILENT = 4  # onnxruntime's log level: fatal errors only


class Embeddings:
    """The embeddings of pictures on disk. `encoder`: names the vision file, its preprocessing and its library.
    `is_wanted`: whether those of the picture with this sha256 may be saved; asked before and after each write, because
    the picture may be deleted at any time."""

    def __init__(self, cache: DiskCache, encoder: str, is_wanted: Callable[[str], bool]) -> None:
        self._cache = cache
        self._encoder = encoder
        self._is_wanted = is_wanted

    def get(self, sha256: str, shape: tuple[int, int]) -> NDArray[numpy.float32] | None:
        """The embeddings of a picture, float32 of this shape, or None."""
        import numpy as np

        found = self._cache.read(self._name(sha256))
        if found is None or found[1].nbytes != 4 * shape[0] * shape[1]:
            return None
        return found[1].view(np.float32).reshape(shape)

    def put(self, sha256: str, embeddings: NDArray[numpy.float32]) -> None:
        with suppress(ImpChatError):  # such as a database that another process has locked
            if self._is_wanted(sha256):
                self._cache.write(self._name(sha256), {}, embeddings.data)
                if not self._is_wanted(sha256):
                    self._cache.remove(self._name(sha256))

    def _name(self, sha256: str) -> str:
        return f"{sha256}-{self._encoder}"


class CachedVision(ABC):
    """A vision encoder that caches the embeddings of the latest `settings.EMBEDDING_CACHE` pictures in memory, and
    more of them on disk if there are `embeddings`. All methods may be called from any thread; pictures are encoded one
    at a time."""

    hidden: int  # size of an embedding

    def __init__(self, tokens: int, embeddings: Embeddings | None = None) -> None:
        """`tokens`: embeddings of a picture."""
        self._tokens = tokens
        self._saved = embeddings
        self._lock = threading.Lock()  # guards _cache
        self._encoding = threading.Lock()
        self._cache: OrderedDict[str, NDArray[numpy.float32]] = OrderedDict()  # least recently used first

    def cached(self, sha256: str) -> NDArray[numpy.float32] | None:
        """The cached embeddings of the picture with this hash, or None."""
        with self._lock:
            if sha256 in self._cache:
                self._cache.move_to_end(sha256)
            return self._cache.get(sha256)

    def encode(self, picture: Picture) -> NDArray[numpy.float32]:
        """The embeddings of `picture`, float32 (tokens, hidden), read-only. Raises ImageError for bytes that are not a
        picture, EngineError "engine.vision_failed"."""
        with self._encoding:
            known = self.cached(picture.sha256)
            if known is not None:
                return known
            shape = self._tokens, self.hidden
            embeddings = self._saved.get(picture.sha256, shape) if self._saved else None
            if embeddings is None:
                embeddings = self._encode(picture)
                if self._saved:
                    self._saved.put(picture.sha256, embeddings)
            embeddings.setflags(write=False)
            with self._lock:
                self._cache[picture.sha256] = embeddings
                while len(self._cache) > settings.EMBEDDING_CACHE:
                    self._cache.popitem(last=False)
            return embeddings

    @abstractmethod
    def _encode(self, picture: Picture) -> NDArray[numpy.float32]:
        """As `encode`, for a picture that is not cached. Returns a new array."""


class OnnxVision(CachedVision):
    """The vision encoder of a bundle with an ONNX file."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        packed: bool = settings.PACK_VISION,
        embeddings: Embeddings | None = None,
    ) -> None:
        """`packed`: copy the weights into the layout that the processor prefers. A picture then takes half the time,
        but opening takes a second longer and the copy needs memory (docs/benchmarks.md).

        Raises ModelError "model.load_failed" or "model.parts_disagree", EngineError "engine.not_installed"."""
        super().__init__(bundle.image.tokens, embeddings)
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except (ImportError, OSError) as exc:
            raise EngineError("engine.not_installed", package="onnxruntime", detail=str(exc)) from exc
        # onnxruntime's exceptions have no common base class.
        raised = [k for k in vars(state).values() if isinstance(k, type) and issubclass(k, Exception)]
        self._failures: tuple[type[Exception], ...] = (*raised, MemoryError)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        if not packed:
            options.add_session_config_entry("session.disable_prepacking", "1")
        # Threads that spin while they wait for a picture would take processors from the language model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(bundle.vision, options, ["CPUExecutionProvider"])
        except self._failures as exc:
            raise ModelError("model.load_failed", path=str(bundle.vision), detail=_short(exc)) from exc
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 3 or shape[1] != bundle.image.tokens:
            raise ModelError("model.parts_disagree", path=str(bundle.path))
        self.hidden = shape[2]
        self._input: str = self._session.get_inputs()[0].name
        self._rule = bundle.image
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _SILENT

    def _encode(self, picture: Picture) -> NDArray[numpy.float32]:
        import numpy as np

        rule = self._rule
        try:
            pixels = images.model_input(picture.data, rule.size, rule.aspect, rule.mean, rule.std)
            output = self._session.run(None, {self._input: pixels}, self._run_options)[0][0]
        except self._failures as exc:
            raise EngineError("engine.vision_failed", detail=_short(exc)) from exc
        return np.ascontiguousarray(output, dtype=np.float32)

    def close(self) -> None:
        """Abort the encoding that runs, and fail every later one."""
        self._run_options.terminate = True

    def free(self) -> None:
        """Does nothing: onnxruntime frees its memory with the last reference."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodeResult:
    """The result of encoding a picture: embeddings or an error, or neither if no request needed it any more."""

    sha256: str
    embeddings: NDArray[numpy.float32] | None = None
    error: ImpChatError | None = None
    seconds: float = 0.0  # spent encoding


class EncoderThread:
    """One thread that encodes pictures in the order in which they were queued."""

    def __init__(self, vision: Vision, wanted: Callable[[str], bool], done: Callable[[EncodeResult], None]) -> None:
        """`wanted`: called with a picture's hash before it is encoded; False skips it. `done`: called with the result.
        Both are called on the encoding thread."""
        self._vision = vision
        self._is_wanted = wanted
        self._done = done
        self._wanted: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="impchat-eyes", daemon=True)
        self._thread.start()

    def look(self, picture: Picture) -> None:
        """Queue `picture`. When its turn comes it is encoded if `wanted` returns True, and `done` is called."""
        self._wanted.put(picture)

    def close(self) -> None:
        """End the thread and abort the encoding that runs. Pictures that wait get no `done`. May be called more than
        once."""
        self._closing = True
        self._vision.close()
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (picture := self._wanted.get()) is not None and not self._closing:
            self._done(self._result_of(picture))

    def _result_of(self, picture: Picture) -> EncodeResult:
        if not self._is_wanted(picture.sha256):
            return EncodeResult(picture.sha256)
        begun = time.perf_counter()
        embeddings, error = None, None
        try:
            embeddings = self._vision.encode(picture)
        except ImpChatError as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 - one picture fails, not the thread that encodes all
            _log.exception("encoding a picture failed")
            error = EngineError("engine.vision_failed", detail=_short(exc))
        return EncodeResult(picture.sha256, embeddings, error, time.perf_counter() - begun)


def _short(exc: Exception) -> str:
    """The first line of an error's message; onnxruntime adds source locations and a stack trace."""
    return (str(exc).splitlines() or [type(exc).__name__])[0]
