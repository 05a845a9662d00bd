"""The low-level binding of llama.cpp: the only module that touches it, and where its versions differ.

In: a GGUF file, token ids, embeddings. Out: a loaded `Model`, a `Context` that keeps the KV cache of several
sequences and decodes one batch at a time, and `Sampler`s. Uses only what llama-cpp-python 0.3.36 (desktops) and
0.3.32 (phones) both have; a test holds that. This file does not know prompts, conversations or threads: a Context and
its samplers belong to one thread, only `Context.abort` may come from another.
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

from impchat import settings
from impchat.engines.local import backend
from impchat.engines.local.backend import Outcome, Row
from impchat.errors import EngineError, ModelError
from impchat.messages import Sampling

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_LOG_ERROR = 4  # ggml_log_level
_LONGEST_RUN = 1000  # characters of one kind that are tokenised together; see _short_runs

_lock = threading.Lock()
_binding: Any = None
_log_callback: Any = None  # llama.cpp holds its address for as long as the process lives
_errors: deque[str] = deque(maxlen=4)  # what llama.cpp said last


def binding() -> Any:
    """The module llama_cpp.llama_cpp, its backend started once and its log silenced.

    Raises EngineError "engine.not_installed" where the package or its library cannot be loaded."""
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
    """The package opens /dev/null twice and leaves it open, which Python tells where warnings are shown."""
    from llama_cpp import _utils

    _utils.outnull_file.close()
    _utils.errnull_file.close()


def _silence(module: Any) -> None:
    """Keep llama.cpp from printing; its errors are remembered for the sentence of ours."""
    global _log_callback

    def note(level: int, text: bytes, _data: object) -> None:
        if level == _LOG_ERROR:
            _errors.append(text.decode("utf-8", "replace").strip())

    _log_callback = module.llama_log_callback(note)
    module.llama_log_set(_log_callback, None)


def log_callback() -> Any:
    """What keeps llama.cpp from printing, for its other libraries."""
    binding()
    return _log_callback


def forget_errors() -> None:
    """Begin anew to remember what llama.cpp says, before a call that may fail."""
    _errors.clear()


def last_error() -> str:
    """The most telling of llama.cpp's last words: the first error names the cause, later ones what it led to."""
    return _errors[0] if _errors else "no reason given"


def _set(parameters: Any, **values: Any) -> Any:
    """`parameters`, a structure of the binding, with `values`. A name it lacks is our mistake: ctypes would take it
    and llama.cpp would never see it."""
    names = {name for name, _ in parameters._fields_}
    assert values.keys() <= names, values.keys() - names
    for name, value in values.items():
        setattr(parameters, name, value)
    return parameters


def default_threads() -> int:
    """As many threads as this process may use processors."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _short_runs(text: str) -> list[str]:
    """`text` cut wherever letters, digits, spaces or signs run on for `_LONGEST_RUN` characters.

    Most vocabularies of the BPE kind split text by std::regex, which calls itself for each character of a match: a run
    of about 20,000 letters overflows a stack of 8 MB and ends the process (llama.cpp issue 27783), and threads on
    Android have 1 MB. A cut may cost one token of a text that nobody writes."""
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
    """The class that a pre-tokenizer's expressions put it in: letters with their marks, digits, spaces, signs."""
    if character.isspace():
        return "Z"
    kind = unicodedata.category(character)[0]
    return {"L": "L", "M": "L", "N": "N"}.get(kind, "P")


class Model:
    """A loaded GGUF: weights and vocabulary. `tokenize` and `piece` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError "model.load_failed", EngineError "engine.not_installed"."""
        self._llama = llama = binding()
        layers = settings.GPU_LAYERS if llama.llama_supports_gpu_offload() else 0
        parameters = _set(
            llama.llama_model_default_params(), n_gpu_layers=layers, use_extra_bufts=settings.REPACK_WEIGHTS
        )
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
        """Token ids of `text`, without bos or eos; with `special`, markers in it become one token each."""
        found: list[int] = []
        for part in _short_runs(text) if self._splits_by_regex else (text,):
            data = part.encode("utf-8", "replace")
            room = len(data) + 2  # a token stands for at least a byte; some vocabularies put a space in front
            ids = (self._llama.llama_token * room)()
            count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
            assert count >= 0, "the room for token ids was too small"
            found += ids[:count]
        return found

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, often a part of a character only; none for a special token."""
        room = 64
        while True:
            data = ctypes.create_string_buffer(room)
            size = self._llama.llama_token_to_piece(self._vocab, token, data, room, 0, False)
            if size >= 0:
                return data.raw[:size]
            room = -size

    @property
    def adds_bos(self) -> bool:
        """Whether its vocabulary says that a prompt begins with `bos`."""
        return bool(self._llama.llama_vocab_get_add_bos(self._vocab))

    @property
    def eos(self) -> int:
        return int(self._llama.llama_vocab_eos(self._vocab))

    @property
    def context_tokens(self) -> int:
        """Positions it was made for."""
        return int(self._llama.llama_model_n_ctx_train(self.handle))

    @property
    def forgets_a_tail(self) -> bool:
        """Whether the last positions of a sequence can be removed, one by one: a decoder without recurrent state."""
        llama, model = self._llama, self.handle
        kinds = (llama.llama_model_has_encoder, llama.llama_model_is_recurrent, llama.llama_model_is_hybrid)
        return not any(kind(model) for kind in kinds)

    def special_tokens(self) -> dict[int, str]:
        """Token id -> text of those that only stand where `tokenize` is told to look for markers, or that end an
        answer; see `ends_answer`."""
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
        """What chooses the tokens of one answer."""
        return Sampler(self, sampling, seed)

    def free(self) -> None:
        """Give the memory back; nothing of this model may be used afterwards."""
        if self.handle:
            self._llama.llama_model_free(self.handle)
        self.handle = None


class Context:
    """The KV cache of `sequences` conversations of at most `context_tokens` each, and the decoding into it."""

    def __init__(self, model: Model, sequences: int, context_tokens: int, batch_tokens: int, threads: int) -> None:
        """Raises EngineError "engine.out_of_memory" where the KV cache cannot be made."""
        self._llama = llama = model._llama
        self._hidden = model.hidden
        self._vocabulary = model.vocabulary
        self.batch_tokens = batch_tokens
        parameters = _set(
            llama.llama_context_default_params(),
            n_ctx=sequences * context_tokens,
            n_seq_max=sequences,
            # One buffer for all, so that rows of several sequences and lengths are one batch, and a beginning that two
            # conversations share is kept once.
            kv_unified=True,
            n_batch=batch_tokens,
            n_ubatch=batch_tokens,
            n_outputs_max=sequences,  # logits of at most one row each; by default memory for a whole batch of them
            n_threads=threads,
            n_threads_batch=threads,
        )
        forget_errors()
        self.handle = llama.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise EngineError("engine.out_of_memory", tokens=sequences * context_tokens, detail=last_error())
        self.decoded: Sequence[Row] = ()  # the rows of the last decode, where it was done
        self._memory = llama.llama_get_memory(self.handle)
        self._tokens = llama.llama_batch_init(batch_tokens, 0, 1)
        self._embeddings = llama.llama_batch_init(batch_tokens, self._hidden, 1)
        self._flag = ctypes.create_string_buffer(2)  # "" or "\x01": its length says whether to abort
        # llama.cpp asks this before each of a decode's hundreds of operations. strlen answers without Python's lock;
        # a Python function would make every decode wait for whatever else Python is doing.
        abort = ctypes.cast(_libc().strlen, llama.ggml_abort_callback)
        llama.llama_set_abort_callback(self.handle, abort, ctypes.cast(self._flag, ctypes.c_void_p))

    def decode(self, rows: Sequence[Row], embeddings: NDArray[numpy.float32] | None = None) -> Outcome:
        """Read `rows` (1 to `batch_tokens`) into the KV cache: their tokens, or `embeddings` (float32, rows x hidden).
        Per sequence, positions follow each other and what is there already."""
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
        """The logits (vocabulary,) behind row number `row` of the last decode, one with `logits`. A copy."""
        import numpy as np

        assert self.decoded[row].logits, "llama.cpp ends the process where there are no logits"
        values = self._llama.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(values, (self._vocabulary,)).copy()

    def abort(self) -> None:
        """End the decode that runs, and any later one until `rearm`. May be called from any thread."""
        self._flag[0] = b"\x01"

    def rearm(self) -> None:
        """Let decodes run again."""
        self._flag[0] = b"\x00"

    def remove(self, sequence: int, start: int) -> None:
        """Forget the positions of `sequence` from `start` on."""
        self._llama.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def share(self, source: int, target: int, end: int) -> None:
        """Let `target`, which is empty, begin with the first `end` positions of `source`. Takes no memory."""
        self._llama.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def free(self) -> None:
        """Give the memory back; the model must still be there."""
        if self.handle:
            self._llama.llama_batch_free(self._tokens)
            self._llama.llama_batch_free(self._embeddings)
            self._llama.llama_free(self.handle)
        self.handle = None


class Sampler:
    """Chooses the next token of one answer, in the order of llama.cpp's own programs. The repeat penalty looks at the
    answer alone: an answer about a picture must be free to take up the words of the question."""

    def __init__(self, model: Model, sampling: Sampling, seed: int) -> None:
        self._llama = llama = model._llama
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

        def add(sampler: Any) -> None:
            llama.llama_sampler_chain_add(self._chain, sampler)

        if sampling.repeat_penalty != 1.0:
            # 0.3.36 wants the size of the vocabulary first, 0.3.32 does not know it.
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
        """The next token after row number `row` of the last decode, one with `logits`."""
        assert isinstance(context, Context)
        assert context.decoded[row].logits, "llama.cpp ends the process where there are no logits"
        return int(self._llama.llama_sampler_sample(self._chain, context.handle, row))

    def accept(self, token: int) -> None:
        """Count `token`, which was chosen elsewhere, among those picked."""
        self._llama.llama_sampler_accept(self._chain, token)

    def free(self) -> None:
        if self._chain:
            self._llama.llama_sampler_free(self._chain)
        self._chain = None


def _libc() -> Any:
    return ctypes.CDLL("msvcrt" if os.name == "nt" else None)
