"""The vision encoder of models other than Imp, by llama.cpp's mtmd: any projector that returns plain embeddings.

In: the mmproj file of a loaded language model; pictures. Out: float32 embeddings, and the text tokens that the model
expects around them. Phones do not have the library, so only the code that opens such a model loads it.
This file does not know prompts, nor how a bundle is made of two GGUF files.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import images
from impchat.bundle import Bundle
from impchat.engines.local import llama
from impchat.engines.local.vision import CachedVision, Embeddings
from impchat.errors import EngineError, ModelError
from impchat.messages import Picture

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_TEXT, _IMAGE = 0, 1  # mtmd_input_chunk_type
_STRIDE = 16  # operations between two checks for a stop during an encoding

_lock = threading.Lock()
_binding: Any = None


def binding() -> Any:
    """The module llama_cpp.mtmd_cpp, with its log silenced.

    Raises EngineError "engine.no_mtmd" if llama-cpp-python was built without it."""
    global _binding
    llama.binding()
    with _lock:
        if _binding is None:
            try:
                import llama_cpp.mtmd_cpp as module
            except (ImportError, OSError, RuntimeError) as exc:
                raise EngineError("engine.no_mtmd", detail=str(exc)) from exc
            module.mtmd_log_set(llama.log_callback(), None)
            _binding = module
    return _binding


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A picture as the model reads it: embeddings, and the text tokens around them."""

    before: tuple[int, ...]  # token ids
    embeddings: NDArray[numpy.float32]  # (tokens, hidden)
    after: tuple[int, ...]


class Projector:
    """A loaded mmproj file. Call its methods from one thread at a time; only `stop` is thread-safe."""

    def __init__(self, path: Path, model: llama.Model, threads: int) -> None:
        """Raises ModelError "model.load_failed", "mmproj.widths" (made for another language model), "mmproj.not_vision"
        or "mmproj.positions" (M-RoPE), EngineError "engine.no_mtmd"."""
        self._mtmd = mtmd = binding()
        self._hidden = model.hidden
        self._stopped = False
        self._asked = 0
        parameters = mtmd.mtmd_context_params_default()
        kinds: dict[str, Any] = dict(type(parameters)._fields_)
        self._watch = kinds["cb_eval"](self._goes_on)  # kept alive: mtmd holds its address
        parameters.cb_eval = self._watch
        parameters.n_threads = threads
        parameters.print_timings = False
        llama.forget_errors()
        self._handle = mtmd.mtmd_init_from_file(os.fsencode(path), model.handle, parameters)
        if not self._handle:
            widths = re.findall(r"n_embd = (\d+)", llama.last_error())
            if len(widths) == 2:
                raise ModelError("mmproj.widths", path=str(path), wanted=widths[0], width=widths[1])
            raise ModelError("model.load_failed", path=str(path), detail=llama.last_error())
        code = None
        if not mtmd.mtmd_support_vision(self._handle):
            code = "mmproj.not_vision"
        elif mtmd.mtmd_decode_use_mrope(self._handle):
            code = "mmproj.positions"
        if code:
            self.free()
            raise ModelError(code, path=str(path))
        self._path = path

    def see(self, pixels: NDArray[numpy.uint8]) -> Sight:
        """Encode `pixels`, uint8 RGB (height, width, 3). Raises as `measure`."""
        with self._chunks(pixels) as (before, chunk, after):
            return Sight(before, self._encode(chunk), after)

    def measure(self, pixels: NDArray[numpy.uint8]) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """The token ids before a picture, its number of embeddings, and the token ids after it.

        Raises ModelError "mmproj.slices" or "mmproj.attention" for a model that needs more than plain embeddings,
        EngineError "engine.vision_failed"."""
        with self._chunks(pixels) as (before, chunk, after):
            return before, int(self._mtmd.mtmd_input_chunk_get_n_tokens(chunk)), after

    @contextmanager
    def _chunks(self, pixels: NDArray[numpy.uint8]) -> Iterator[tuple[tuple[int, ...], Any, tuple[int, ...]]]:
        import numpy as np

        mtmd = self._mtmd
        pixels = np.ascontiguousarray(pixels, np.uint8)
        height, width, _ = pixels.shape
        values = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(width, height, values)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            marker = mtmd.mtmd_default_marker()
            text = mtmd.mtmd_input_text(marker, len(marker), False, True)
            bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            llama.forget_errors()
            if mtmd.mtmd_tokenize(self._handle, chunks, ctypes.byref(text), bitmaps, 1) != 0:
                raise EngineError("engine.vision_failed", detail=llama.last_error())
            found = [mtmd.mtmd_input_chunks_get(chunks, n) for n in range(mtmd.mtmd_input_chunks_size(chunks))]
            kinds = [mtmd.mtmd_input_chunk_get_type(chunk) for chunk in found]
            if kinds.count(_IMAGE) != 1 or not {*kinds} <= {_TEXT, _IMAGE}:
                raise ModelError("mmproj.slices", path=str(self._path))
            at = kinds.index(_IMAGE)
            if mtmd.mtmd_decode_use_non_causal(self._handle, found[at]):
                raise ModelError("mmproj.attention", path=str(self._path))
            before, after = (tuple(t for c in part for t in self._ids(c)) for part in (found[:at], found[at + 1 :]))
            yield before, found[at], after
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def _ids(self, chunk: Any) -> list[int]:
        count = ctypes.c_size_t()
        ids = self._mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return list(ids[: count.value])

    def _encode(self, chunk: Any) -> NDArray[numpy.float32]:
        import numpy as np

        mtmd = self._mtmd
        llama.forget_errors()
        failed = mtmd.mtmd_encode_chunk(self._handle, chunk)
        if failed or self._stopped:  # mtmd reports a stopped encoding as a success; its output is undefined
            raise EngineError("engine.vision_failed", detail=llama.last_error())
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), self._hidden)
        return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._handle), shape).astype(np.float32, copy=True)

    def _goes_on(self, _operation: int, asking: bool, _data: object) -> bool:
        """llama.cpp's `cb_eval`. With `asking` it returns whether to call again after this operation, which is true of
        one in `_STRIDE`; without, whether to continue."""
        if asking:
            self._asked += 1
            return self._asked % _STRIDE == 0
        return not self._stopped

    def stop(self) -> None:
        """Abort the encoding that runs, and fail every later one. May be called from any thread."""
        self._stopped = True

    def free(self) -> None:
        """Free the memory."""
        if self._handle:
            self._mtmd.mtmd_free(self._handle)
        self._handle = None


class MtmdVision(CachedVision):
    """The vision encoder of a bundle with an mmproj file."""

    def __init__(self, bundle: Bundle, model: llama.Model, threads: int, embeddings: Embeddings | None = None) -> None:
        """`model`: the bundle's language model, which must outlive this. Raises as `Projector`."""
        super().__init__(bundle.image.tokens, embeddings)
        assert bundle.mmproj
        self._projector = Projector(bundle.mmproj, model, threads)
        self._rule = bundle.image
        self.hidden = model.hidden

    def _encode(self, picture: Picture) -> NDArray[numpy.float32]:
        embeddings = self._projector.see(pixels(picture.data, self._rule.size, self._rule.aspect)).embeddings
        if embeddings.shape != (self._rule.tokens, self.hidden):
            detail = f"{embeddings.shape[0]} embeddings, not {self._rule.tokens}"
            raise EngineError("engine.vision_failed", detail=detail)
        return embeddings

    def close(self) -> None:
        """Abort the encoding that runs, and fail every later one."""
        self._projector.stop()

    def free(self) -> None:
        self._projector.free()


def pixels(data: bytes, size: int, aspect: str) -> NDArray[numpy.uint8]:
    """The pixels of a picture for mtmd, uint8 RGB (height, width, 3). With `aspect` "pad", where mtmd pads to a square,
    the longest side is scaled to `size` first: Pillow's filter uses every pixel of a large picture, mtmd's only a
    few."""
    import numpy as np
    import PIL.Image

    picture = images.decode(data)
    if aspect == "pad":
        scale = size / max(picture.size)
        shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(shape, PIL.Image.Resampling.BICUBIC)
    return np.asarray(picture)
