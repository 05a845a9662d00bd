"""Low-level binding of llama.cpp's language models, and the place where its versions differ.

In: a GGUF file, token ids, embeddings. Out: a loaded `Model`, a `Context` that keeps the KV cache of several
sequences and decodes one batch at a time, and `Sampler`s. Uses only what both llama-cpp-python 0.3.36 (desktops) and
0.3.32 (phones) provide; a test checks that. This file does not know prompts or conversations. Use a Context and its
samplers on one thread; only `Context.abort` may be called from others.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import re
import threading
import unicodedata
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import machine, settings
from impchat.engines.local import backend
from impchat.engines.local.backend import Outcome, Row
from impchat.errors import EngineError, ModelError
from impchat.messages import Sampling

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_LOG_ERROR = 4  # ggml_log_level
_LONGEST_RUN = 1000  # characters of one class that are tokenised together; see _short_runs

_lock = threading.Lock()
_binding: Any = None
_log_callback: Any = None  # kept alive: llama.cpp holds its address until the process ends
_errors: deque[str] = deque(maxlen=4)  # the latest error messages of llama.cpp


def binding() -> Any:
    """The module llama_cpp.llama_cpp, with its backend initialised once and its log silenced.

    Raises EngineError "engine.not_installed" if the package or its library cannot be loaded."""
    global _binding
    with _lock:
        if _binding is None:
            try:
                import llama_cpp.llama_cpp as module
            except (ImportError, OSError, RuntimeError) as exc:
                raise EngineError("engine.not_installed", package="llama-cpp-python", detail=str(exc)) from exc
            atexit.register(_close_its_files)
            _silence(module)
            module.llama_backend_init()
            _binding = module
    return _binding


def _close_its_files() -> None:
    """Close the two handles of /dev/null that the package leaves open, which would cause a ResourceWarning."""
    from llama_cpp import _utils

    _utils.outnull_file.close()
    _utils.errnull_file.close()


def _silence(module: Any) -> None:
    """Keep llama.cpp from printing; remember its errors for our own error messages."""
    global _log_callback

    def note(level: int, text: bytes, _data: object) -> None:
        if level == _LOG_ERROR:
            _errors.append(text.decode("utf-8", "replace").strip())

    _log_callback = module.llama_log_callback(note)
    module.llama_log_set(_log_callback, None)


def log_callback() -> Any:
    """The log callback that silences llama.cpp, for its other libraries."""
    binding()
    return _log_callback


def forget_errors() -> None:
    """Clear the remembered errors, before a call that may fail."""
    _errors.clear()


def last_error() -> str:
    """The first remembered error of llama.cpp: it names the cause, later ones the consequences."""
    return _errors[0] if _errors else "no reason given"


def _set(parameters: Any, **values: Any) -> Any:
    """`parameters`, a structure of the binding, with `values` set. Asserts that the fields exist: ctypes accepts any
    attribute name, and llama.cpp would never see it."""
    names = {name for name, _ in parameters._fields_}
    assert values.keys() <= names, values.keys() - names
    for name, value in values.items():
        setattr(parameters, name, value)
    return parameters


def version() -> str:
    """The version of llama-cpp-python, which includes llama.cpp."""
    import llama_cpp

    return str(llama_cpp.__version__)


def default_threads() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _short_runs(text: str) -> list[str]:
    """`text` split so that no run of letters, digits, spaces or signs is longer than `_LONGEST_RUN` characters.

    Most BPE vocabularies split text with std::regex, which recurses for each character of a match: a run of about
    20,000 letters overflows a stack of 8 MB and ends the process (llama.cpp issue 27783), and threads on Android have
    1 MB. A split may cost one extra token, only in text that nobody writes."""
    if all(len(part[0]) <= _LONGEST_RUN for part in re.finditer(r"\S+|\s+", text)):
        return [text]
    runs = ("".join(run) for _, run in itertools.groupby(text, _kind))
    parts = [""]
    for run in runs:
        for at in range(0, len(run), _LONGEST_RUN):
            if at:
                parts.append("")
            parts[-1] += run[at : at + _LONGEST_RUN]
    return parts


def _kind(character: str) -> str:
    """The class of a character in a pre-tokenizer's expressions: letter (or its mark), digit, space or sign."""
    if character.isspace():
        return "Z"
    kind = unicodedata.category(character)[0]
    return {"L": "L", "M": "L", "N": "N"}.get(kind, "P")


class Model:
    """A loaded GGUF file: weights and vocabulary. `tokenize` and `piece` may be called from any thread."""

    def __init__(self, path: Path, repacked: bool = settings.REPACK_WEIGHTS) -> None:
        """`repacked`: see `Tuning`. Raises ModelError "model.load_failed", EngineError "engine.not_installed"."""
        self._llama = llama = binding()
        layers = settings.GPU_LAYERS if llama.llama_supports_gpu_offload() else 0
        parameters = _set(llama.llama_model_default_params(), n_gpu_layers=layers, use_extra_bufts=repacked)
        forget_errors()
        self.handle = llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise ModelError("model.load_failed", path=str(path), detail=last_error())
        self._vocab = llama.llama_model_get_vocab(self.handle)
        self.hidden = int(llama.llama_model_n_embd(self.handle))
        self.vocabulary = int(llama.llama_vocab_n_tokens(self._vocab))
        self.bos = int(llama.llama_vocab_bos(self._vocab))
        self._splits_by_regex = llama.llama_vocab_type(self._vocab) == llama.LLAMA_VOCAB_TYPE_BPE

    def tokenize(self, text: str, special: bool = False, /) -> list[int]:
        """Token ids of `text`, without bos or eos. With `special`, markers in `text` become one token each."""
        found: list[int] = []
        for part in _short_runs(text) if self._splits_by_regex else (text,):
            data = part.encode("utf-8", "replace")
            room = len(data) + 2  # a token is at least one byte; some vocabularies add a space in front
            ids = (self._llama.llama_token * room)()
            count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
            assert count >= 0, "the room for token ids was too small"
            found += ids[:count]
        return found

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, possibly only part of a character; empty for a special token."""
        room = 64
        while True:
            data = ctypes.create_string_buffer(room)
            size = self._llama.llama_token_to_piece(self._vocab, token, data, room, 0, False)
            if size >= 0:
                return data.raw[:size]
            room = -size

    @property
    def adds_bos(self) -> bool:
        """Whether the vocabulary asks for `bos` at the beginning of a prompt."""
        return bool(self._llama.llama_vocab_get_add_bos(self._vocab))

    @property
    def eos(self) -> int:
        return int(self._llama.llama_vocab_eos(self._vocab))

    @property
    def context_tokens(self) -> int:
        """The context length that the model was trained with, in tokens."""
        return int(self._llama.llama_model_n_ctx_train(self.handle))

    @property
    def forgets_a_tail(self) -> bool:
        """Whether single positions at the end of a sequence can be removed: true of a decoder without recurrent
        state."""
        llama, model = self._llama, self.handle
        kinds = (llama.llama_model_has_encoder, llama.llama_model_is_recurrent, llama.llama_model_is_hybrid)
        return not any(kind(model) for kind in kinds)

    def special_tokens(self) -> dict[int, str]:
        """Token id -> text of the tokens that `tokenize` produces only with `special`, and of those that end an answer
        (`ends_answer`)."""
        llama, vocab = self._llama, self._vocab
        marked = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_USER_DEFINED
        return {
            token: llama.llama_vocab_get_text(vocab, token).decode("utf-8", "replace")
            for token in range(self.vocabulary)
            if llama.llama_vocab_get_attr(vocab, token) & marked or self.ends_answer(token)
        }

    def ends_answer(self, token: int) -> bool:
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    def sampler(self, sampling: Sampling, seed: int) -> Sampler:
        """A sampler for one answer."""
        return Sampler(self, sampling, seed)

    def free(self) -> None:
        """Free the memory. The model must not be used afterwards."""
        if self.handle:
            self._llama.llama_model_free(self.handle)
        self.handle = None


class Context:
    """The KV cache of `sequences` conversations of at most `context_tokens` each, and decoding into it."""

    def __init__(
        self,
        model: Model,
        sequences: int,
        context_tokens: int,
        batch_tokens: int,
        threads: int,
        logits: int | None = None,
        *,
        flash_attention: bool = settings.FLASH_ATTENTION,
        unified: bool = settings.UNIFIED_CACHE,
    ) -> None:
        """`logits`: the most rows of a decode that have logits; None: one for each sequence. `flash_attention`,
        `unified`: see `Tuning`.

        Raises EngineError "engine.out_of_memory" if the KV cache cannot be allocated."""
        self._llama = llama = model._llama
        self._hidden = model.hidden
        self._vocabulary = model.vocabulary
        self.batch_tokens = batch_tokens
        parameters = _set(
            llama.llama_context_default_params(),
            n_ctx=sequences * context_tokens,
            n_seq_max=sequences,
            kv_unified=unified,
            n_batch=batch_tokens,
            n_ubatch=batch_tokens,
            flash_attn_type=(
                llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
            ),
            n_outputs_max=logits or sequences,  # the default allocates a whole batch
            n_threads=threads,
            n_threads_batch=threads,
        )
        forget_errors()
        self.handle = llama.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise EngineError("engine.out_of_memory", tokens=sequences * context_tokens, detail=last_error())
        self.decoded: Sequence[Row] = ()  # the rows of the last decode; empty if it did not complete
        self._memory = llama.llama_get_memory(self.handle)
        self._tokens = llama.llama_batch_init(batch_tokens, 0, 1)
        self._embeddings = llama.llama_batch_init(batch_tokens, self._hidden, 1)
        self._flag = ctypes.create_string_buffer(2)  # "" or "\x01": its length says whether to abort
        # llama.cpp calls this before each of the hundreds of operations of a decode. strlen runs without the GIL; a
        # Python callback would make every decode wait for other Python threads.
        abort = ctypes.cast(_libc().strlen, llama.ggml_abort_callback)
        llama.llama_set_abort_callback(self.handle, abort, ctypes.cast(self._flag, ctypes.c_void_p))

    def decode(self, rows: Sequence[Row], embeddings: NDArray[numpy.float32] | None = None) -> Outcome:
        """Decode 1 to `batch_tokens` `rows` into the KV cache: their tokens, or `embeddings`, float32 (rows, hidden).
        Within a sequence, positions must be consecutive and continue what the cache holds."""
        assert 0 < len(rows) <= self.batch_tokens, "llama.cpp ends the process above n_batch"
        batch = self._tokens if embeddings is None else self._embeddings
        batch.n_tokens = len(rows)
        for i, row in enumerate(rows):
            batch.pos[i] = row.position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row.sequence
            batch.logits[i] = row.logits
            if embeddings is None:
                batch.token[i] = row.token
        if embeddings is not None:
            assert embeddings.shape == (len(rows), self._hidden) and embeddings.dtype.name == "float32"
            assert embeddings.flags.c_contiguous
            ctypes.memmove(batch.embd, embeddings.ctypes.data, embeddings.nbytes)
        code = self._llama.llama_decode(self.handle, batch)
        self.decoded = rows if code == 0 else ()
        return {0: Outcome.DONE, 2: Outcome.ABORTED}.get(code, Outcome.FAILED)

    def logits(self, row: int) -> NDArray[numpy.float32]:
        """A copy of the logits, float32 (vocabulary,), of row `row` of the last decode. That row must have `logits`."""
        import numpy as np

        assert self.decoded[row].logits, "llama.cpp ends the process where there are no logits"
        values = self._llama.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(values, (self._vocabulary,)).copy()

    def abort(self) -> None:
        """Abort the running decode, and any later one until `rearm`. May be called from any thread."""
        self._flag[0] = b"\x01"

    def rearm(self) -> None:
        """Allow decodes again."""
        self._flag[0] = b"\x00"

    def use_threads(self, threads: int) -> None:
        """Compute later decodes with this number of threads."""
        self._llama.llama_set_n_threads(self.handle, threads, threads)

    def remove(self, sequence: int, start: int) -> None:
        """Remove the positions of `sequence` from `start` on."""
        self._llama.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def share(self, source: int, target: int, end: int) -> None:
        """Copy the first `end` positions of `source` to `target`, which must be empty."""
        state = self._state(source)
        copied = state is not None and self.restore(target, state)
        assert copied, "llama.cpp could not copy a sequence"
        self.remove(target, end)

    def save(self, sequence: int) -> NDArray[numpy.uint8] | None:
        """A copy of the state of `sequence`. None if that would take more than half of the free memory, or if llama.cpp
        cannot export it."""
        memory = machine.memory()
        size = self._llama.llama_state_seq_get_size(self.handle, sequence)
        return None if memory and size > memory.free / 2 else self._state(sequence)

    def _state(self, sequence: int) -> NDArray[numpy.uint8] | None:
        import numpy as np

        state = np.empty(self._llama.llama_state_seq_get_size(self.handle, sequence), np.uint8)
        data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        copied = self._llama.llama_state_seq_get_data(self.handle, data, len(state), sequence)
        return state if copied == len(state) else None

    def restore(self, sequence: int, state: NDArray[numpy.uint8]) -> bool:
        """Make `state`, which `save` returned, the content of `sequence`, which must be empty. Returns whether it fits
        this context; if not, the sequence stays empty."""
        data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        restored = self._llama.llama_state_seq_set_data(self.handle, data, len(state), sequence)
        if restored != len(state):
            self.remove(sequence, 0)
        return bool(restored == len(state))

    def free(self) -> None:
        """Free the memory. Call it before the model is freed."""
        if self.handle:
            self._llama.llama_batch_free(self._tokens)
            self._llama.llama_batch_free(self._embeddings)
            self._llama.llama_free(self.handle)
        self.handle = None


class Sampler:
    """Samples the tokens of one answer. The steps have the order of llama.cpp's own programs. The repeat penalty counts
    only the answer, because an answer about a picture should be free to repeat words of the question."""

    def __init__(self, model: Model, sampling: Sampling, seed: int) -> None:
        self._llama = llama = model._llama
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

        def add(sampler: Any) -> None:
            llama.llama_sampler_chain_add(self._chain, sampler)

        if sampling.repeat_penalty != 1.0:
            # 0.3.36 takes the size of the vocabulary as first argument, 0.3.32 does not.
            newer = len(llama.llama_sampler_init_penalties.argtypes) == 5
            size = (model.vocabulary,) if newer else ()
            add(llama.llama_sampler_init_penalties(*size, settings.PENALTY_TOKENS, sampling.repeat_penalty, 0.0, 0.0))
        if sampling.temperature == 0:
            add(llama.llama_sampler_init_greedy())
            return
        if sampling.top_k > 0:
            add(llama.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1:
            add(llama.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            add(llama.llama_sampler_init_min_p(sampling.min_p, 1))
        add(llama.llama_sampler_init_temp(sampling.temperature))
        add(llama.llama_sampler_init_dist(seed))

    def pick(self, context: backend.Context, row: int) -> int:
        """Sample the token after row `row` of the last decode. That row must have `logits`."""
        assert isinstance(context, Context)
        assert context.decoded[row].logits, "llama.cpp ends the process where there are no logits"
        return int(self._llama.llama_sampler_sample(self._chain, context.handle, row))

    def accept(self, token: int) -> None:
        """Treat `token`, which was sampled elsewhere, as if it had been picked here."""
        self._llama.llama_sampler_accept(self._chain, token)

    def free(self) -> None:
        if self._chain:
            self._llama.llama_sampler_free(self._chain)
        self._chain = None


def _libc() -> Any:
    return ctypes.CDLL("msvcrt" if os.name == "nt" else None)
