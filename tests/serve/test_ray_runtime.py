"""`impchat serve --cluster` and its Ray: how its own Ray ends, and how an existing one is joined."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from impchat.server.network import sockets
from tests.serve.processes import all_running, descendants

ROOT = Path(__file__).parents[2]
SECONDS = 90.0  # a limit far above normal durations


@contextmanager
def serving(*words: str, data: Path, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `impchat serve --cluster` with one replica; yields the process and its address."""
    command = [sys.executable, "-m", "impchat.cli.main", "serve", "--port", "0", "--replicas", "1", "--cluster", *words]
    command += ["--data", str(data), "--language", "en"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as process:
        try:
            assert process.stdout
            [url] = re.findall(r"http\S+/v1", process.stdout.readline())
            yield process, url
        finally:
            process.kill()


def folders() -> set[Path]:
    return {*Path("/tmp").glob("impchat-*")}


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_killing_a_server_ends_its_ray(signum: int, code: int, tmp_path: Path) -> None:
    others = folders()
    with serving(data=tmp_path) as (process, _):
        its = descendants(process.pid)
        assert len(its) > 3 and folders() - others
        process.send_signal(signum)
        assert process.wait(SECONDS) == code
        until = time.monotonic() + SECONDS
        while (its & all_running().keys() or folders() - others) and time.monotonic() < until:
            time.sleep(0.1)
        assert (its & all_running().keys(), folders() - others) == (set(), set())


@contextmanager
def foreign_ray(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """A password-protected Ray that ImpChat did not start; yields its address."""
    with closing(sockets.bind("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    command = [sys.executable, "-u", "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as process:
        try:
            assert process.stdout
            assert any("--block" in line for line in process.stdout)  # its last line of output before it waits
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_an_existing_ray_is_joined(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = os.environ | nowhere | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}
    env |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on loopback only
    with (
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder,  # socket paths must be short
        foreign_ray(Path(folder), env) as address,
        serving(address, data=tmp_path, env=env) as (process, url),
    ):
        body = {"model": "imp-demo-196", "messages": [{"role": "user", "content": "Hello!"}]}
        completion = httpx.post(f"{url}/chat/completions", json=body, timeout=SECONDS, trust_env=False).json()
        assert "Hello" in completion["choices"][0]["message"]["content"], completion
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
