"""llama.cpp's own programs and llama-cpp-python's image handler, as the peers of `impchat bench peers`.

In: a language file, an mmproj file, prompts as text with a mark for each picture. Out: the same times that
`asking.Timed` has. Every program gets the same number of threads; all else is its default.
This file does not know what is asked, or ImpChat's engine.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from impchat.bench.asking import Timed, timed_from
from impchat.errors import SettingsError
from impchat.messages import Stats

MARK = "<__media__>"  # stands for a picture in the text of a prompt
SERVER, BENCH = "llama-server", "llama-bench"
_START_S = 300.0  # for loading a model, and for any pause in an answer
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Programs:
    """Where llama.cpp's programs are, and the files that they run."""

    folder: Path
    language: Path
    mmproj: Path
    threads: int


def find(folder: Path | None) -> Path:
    """The folder with llama.cpp's programs: `folder`, or the one that `make peers` writes to.

    Raises SettingsError "bench.no_programs" if a program is not there."""
    place = made_by_make() if folder is None else folder
    for name in (SERVER, BENCH):
        if not _program(place, name).is_file():
            raise SettingsError("bench.no_programs", program=name, path=str(place))
    return place


def made_by_make() -> Path:
    """The folder that `make peers` writes to."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path(os.path.expanduser("~/.cache"))) / "impchat" / "peers" / "bin"


def _program(folder: Path, name: str) -> Path:
    return folder / (f"{name}.exe" if os.name == "nt" else name)


# llama-server


class LlamaServer:
    """A running llama-server."""

    def __init__(self, port: int, log: IO[bytes]) -> None:
        """`log`: the file of its output."""
        import httpx

        # A new connection for each request: it closes idle ones after a few seconds, just when one may be used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        address = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=address, timeout=_START_S, trust_env=False, limits=limits)
        self._log = log

    def ask(self, text: str, pictures: Sequence[bytes], tokens: int, slot: int = 0) -> tuple[Timed, str]:
        """Complete the prompt `text`, in which each `MARK` is a picture, with `tokens` tokens, the likeliest ones.
        0 reads the prompt only. `slot`: the conversation. Returns the times and the text."""
        import httpx

        shown = [base64.b64encode(picture).decode() for picture in pictures]
        body = {
            "prompt": {"prompt_string": text, "multimodal_data": shown},
            "n_predict": tokens,
            "temperature": 0.0,
            "ignore_eos": True,  # as many tokens as ImpChat generated
            "cache_prompt": True,
            "id_slot": slot,
            "stream": True,
        }
        words, seen, last = "", [], dict[str, Any]()
        begun = time.perf_counter()
        try:
            with self._client.stream("POST", "/completion", json=body) as response:
                for line in response.iter_lines():
                    if line.startswith("error") or response.status_code != 200:
                        raise SettingsError("bench.program_failed", program=SERVER, detail=line)
                    if line.startswith("data: {"):
                        last = json.loads(line.removeprefix("data: "))
                        if last.get("tokens"):
                            seen.append(time.perf_counter())
                        words += str(last.get("content", ""))
        except httpx.HTTPError as exc:
            detail = f"{exc} / {_last_lines(self._log)}"
            raise SettingsError("bench.program_failed", program=SERVER, detail=detail) from exc
        ended, found = time.perf_counter(), last.get("timings", {})
        stats = Stats(
            cached_tokens=int(found.get("cache_n", 0)),
            new_tokens=int(found.get("prompt_n", 0)),
            generated_tokens=int(found.get("predicted_n", 0)) if tokens else 0,
        )
        return timed_from(begun, seen if tokens else (), ended, stats), words

    def close(self) -> None:
        self._client.close()

    def is_up(self) -> bool:
        """Whether it has loaded its model."""
        import httpx

        try:
            return self._client.get("/health", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def started_server(programs: Programs, slots: int, context_tokens: int) -> Iterator[LlamaServer]:
    """Start llama-server for `slots` conversations of at most `context_tokens` each, and end it after the block.

    Raises SettingsError "bench.program_failed"."""
    port = _free_port()
    command = [
        str(_program(programs.folder, SERVER)),
        *("--model", str(programs.language), "--mmproj", str(programs.mmproj)),
        *("--host", "127.0.0.1", "--port", str(port), "--threads", str(programs.threads)),
        *("--parallel", str(slots), "--ctx-size", str(slots * context_tokens), "--offline"),
    ]
    with tempfile.TemporaryFile() as log:
        process = _start(SERVER, command, log, os.environ | {"LLAMA_MEDIA_MARKER": MARK})
        server = LlamaServer(port, log)
        try:
            give_up = time.monotonic() + _START_S
            while not server.is_up():
                if process.poll() is not None or time.monotonic() > give_up:
                    raise SettingsError("bench.program_failed", program=SERVER, detail=_last_lines(log))
                time.sleep(0.1)
            yield server
        finally:
            server.close()
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:  # it ends after the step that it is computing
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _start(name: str, command: list[str], log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    except OSError as exc:
        raise SettingsError("bench.program_failed", program=name, detail=exc.strerror or exc) from exc


def _last_lines(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").split("\n")
    return " / ".join(line.strip() for line in lines if line.strip())[-400:]


# llama-bench


@dataclass(frozen=True, slots=True)
class Flags:
    """Options of llama-bench that change its speed."""

    flash_attention: bool
    repack: bool

    def __str__(self) -> str:
        return f"-fa {int(self.flash_attention)} --repack {int(self.repack)}"


ALL_FLAGS = tuple(Flags(flash, repack) for flash in (False, True) for repack in (False, True))


def bench_speeds(programs: Programs, flags: Flags, depth: int, read: int, generate: int) -> dict[str, float]:
    """Tokens per second by llama-bench: "generate_0" and "generate" (`generate` tokens at depth 0 and `depth`), and
    "read" (`read` tokens at `depth`).

    Raises SettingsError "bench.program_failed"."""
    command = [str(_program(programs.folder, BENCH)), "-m", str(programs.language), "-t", str(programs.threads)]
    command += ["-fa", "on" if flags.flash_attention else "off", "--repack", str(int(flags.repack))]
    command += ["-p", str(read), "-n", str(generate), "-d", f"0,{depth}", "-r", "1", "-o", "json"]
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, check=False)
        except OSError as exc:
            raise SettingsError("bench.program_failed", program=BENCH, detail=exc.strerror or exc) from exc
        try:
            rows = json.loads(done.stdout)
            found = {(row["n_prompt"], row["n_gen"], row["n_depth"]): float(row["avg_ts"]) for row in rows}
            return {
                "generate_0": found[0, generate, 0],
                "generate": found[0, generate, depth],
                "read": found[read, 0, depth],
            }
        except (ValueError, KeyError, TypeError) as exc:
            raise SettingsError("bench.program_failed", program=BENCH, detail=_last_lines(log)) from exc


# llama-cpp-python's image handler


class ImageHandler:
    """llama-cpp-python's `Llama` with the chat handler for LLaVA, which reads the whole prompt for every answer."""

    def __init__(self, programs: Programs, context_tokens: int) -> None:
        """Load both models. Raises SettingsError "bench.program_failed"."""
        from llama_cpp import Llama
        from llama_cpp.llama_chat_format import Llava15ChatHandler

        from impchat.engines.local import llama, mtmd

        mtmd.binding().mtmd_helper_log_set(llama.log_callback(), None)

        class Handler(Llava15ChatHandler):
            """The same prompt as ours: what is before the picture, the picture, and what is after it."""

            CHAT_FORMAT = (
                "{% set part = messages[0].content %}{{ part[0].text }}{{ part[1].image_url.url }}{{ part[2].text }}"
            )
            DEFAULT_SYSTEM_MESSAGE = None

        try:
            handler = Handler(clip_model_path=str(programs.mmproj), verbose=False)
            self._llama = Llama(
                str(programs.language),
                chat_handler=handler,
                n_ctx=context_tokens,
                n_threads=programs.threads,
                n_threads_batch=programs.threads,
                verbose=False,
            )
        except (ValueError, OSError, RuntimeError) as exc:
            raise SettingsError("bench.program_failed", program="llama-cpp-python", detail=exc) from exc

    def ask(self, text: str, picture: bytes, tokens: int) -> tuple[Timed, str]:
        """Complete `text`, in which `MARK` is the picture, with at most `tokens` tokens. Returns times and text."""
        before, after = text.split(MARK)
        url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        parts = [
            {"type": "text", "text": before},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": after},
        ]
        begun, seen, words = time.perf_counter(), [], ""
        question: Any = {"role": "user", "content": parts}
        stream: Any = self._llama.create_chat_completion([question], stream=True, max_tokens=tokens, temperature=0.0)
        for piece in stream:
            if content := piece["choices"][0]["delta"].get("content"):
                seen.append(time.perf_counter())
                words += content
        ended = time.perf_counter()
        stats = Stats(new_tokens=int(self._llama.n_tokens) - max(len(seen) - 1, 0), generated_tokens=len(seen))
        return timed_from(begun, seen, ended, stats), words

    def close(self) -> None:
        self._llama.close()
