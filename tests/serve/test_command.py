"""`impchat serve` in a separate process, with README's curl commands."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from impchat import paths
from impchat.cli.main import main
from impchat.peers import servers
from impchat.server.network import tls
from tests.core.hands import endless_model

ROOT = Path(__file__).parents[2]


def words_of(cmdline: Path) -> bytes:
    """The command line of the process with this /proc entry; empty if it has ended."""
    try:
        return cmdline.read_bytes()
    except OSError:
        return b""


@contextmanager
def impchat(*words: str, data: Path) -> Iterator[str]:
    """Run `impchat serve`; yields its first line of output. Ctrl-C must end it without output."""
    command = [sys.executable, "-m", "impchat.cli.main", "serve", *words, "--data", str(data), "--language", "en"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            yield process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
        assert (process.returncode, out, errors) == (0, "", "")


def curl_lines() -> list[str]:
    """README's curl commands, each with its continuation lines."""
    section = (ROOT / "README.md").read_text().split("\n## For other programs\n", 1)[1].split("\n## ", 1)[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    ") or not line)
    return re.findall(r"^curl .*?(?=^\S|\n\n|\Z)", code, re.MULTILINE | re.DOTALL)


def test_readmes_curl_lines_run_as_they_stand(tmp_path: Path) -> None:
    with impchat("--port", "7861", data=tmp_path) as said:
        assert "http://127.0.0.1:7861/v1" in said
        results = []
        for line in curl_lines():
            run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=60)
            assert run.returncode == 0, run.stderr
            results.append(json.loads(run.stdout))
    models, answer = results
    assert models["data"][0]["id"] == "imp-demo-196"
    assert "red" in answer["choices"][0]["message"]["content"].lower(), answer


@pytest.mark.parametrize(
    ("words", "says"), [(["--port", "x"], "x"), (["--slots", "0"], "--slots"), (["--loud"], "--loud")]
)
def test_a_server_that_cannot_start_prints_one_sentence(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["serve", *words, "--data", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert (output.out, len(output.err.splitlines())) == ("", 1)
    assert says in output.err


def test_a_cluster_gives_the_same_answers_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    others = {*Path("/tmp").glob("impchat-*")}
    with impchat("--cluster", "--replicas", "1", "--port", "0", data=tmp_path) as said:
        [url] = re.findall(r"http\S+/v1", said)
        [folder] = {*Path("/tmp").glob("impchat-*")} - others
        body = {"model": "imp-demo-196", "messages": [{"role": "user", "content": "Hello!"}]}
        completion = httpx.post(f"{url}/chat/completions", json=body, timeout=60, trust_env=False).json()
        assert "Hello" in completion["choices"][0]["message"]["content"], completion
    assert not folder.exists()
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in words_of(p)]


@pytest.mark.parametrize("count", ["0", "2-1", "x", "1-2-3"])
def test_an_invalid_number_of_replicas_prints_one_sentence(
    count: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["serve", "--cluster", "--replicas", count, "--data", str(tmp_path)]) == 2
    assert count in capsys.readouterr().err


def test_listen_implies_tls_and_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert main(["serve", "token", "create", "laptop", "--data", str(data)]) == 0
    mine = {"authorization": f"Bearer {capsys.readouterr().out.strip()}"}
    with impchat("--listen", "127.0.0.1", "--port", "0", data=data) as said:
        (address,) = re.findall(r"https://127\.0\.0\.1:\d+/v1", said)
        trust = servers.trust(tls.certificate(data, []).pem)
        with httpx.Client(base_url=address, verify=trust, trust_env=False, timeout=30) as client:
            assert client.get("/models").status_code == 401
            assert client.get("/models", headers=mine).json()["data"][0]["id"] == "imp-demo-196"
            assert main(["serve", "token", "revoke", "laptop", "--data", str(data)]) == 0
            assert client.get("/models", headers=mine).status_code == 401
            assert client.get("/models", headers={"host": "rebound.example"} | mine).status_code == 403


def test_plain_http_prints_a_warning_and_no_code_is_created_for_loopback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "impchat.cli.main",
        "serve",
        "--listen",
        "127.0.0.1",
        "--http",
        "--pair",
        "--port",
        "0",
    ]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path), "--language", "en"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "http://127.0.0.1" in out
    assert "everybody in this network can read" in errors
    assert "--listen" in errors  # no other device could use the code
    assert "Traceback" not in errors


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_ending_the_server_during_an_answer_prints_nothing(
    tmp_path: Path, signals: list[signal.Signals], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = endless_model(paths.demo_bundle(), tmp_path_factory.mktemp("models") / "endless")
    command = [
        sys.executable,
        "-m",
        "impchat.cli.main",
        "serve",
        "--port",
        "0",
        "--data",
        str(tmp_path),
        "--model",
        model,
    ]
    body = {"model": "endless", "messages": [{"role": "user", "content": "Tell me a story"}]}
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        httpx.Client(trust_env=False, timeout=60) as client,
        ThreadPoolExecutor() as pool,
    ):
        assert process.stdout and process.stderr
        found = re.search(r"http://127\.0\.0\.1:\d+/v1", process.stdout.readline())
        assert found
        url = f"{found[0]}/chat/completions"
        whole = pool.submit(httpx.post, url, json=body, timeout=60, trust_env=False)
        with client.stream("POST", url, json=body | {"stream": True}) as streamed:
            next(streamed.iter_lines())
            for each in signals:
                process.send_signal(each)
            errors = process.stderr.read()
        whole.exception()
    assert (process.returncode, errors) == (0, "")


def test_a_server_runs_when_its_address_cannot_be_printed(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "impchat.cli.main", "serve", "--port", str(port), "--data", str(tmp_path)]
    with open("/dev/full", "w") as full, subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE) as process:
        while process.poll() is None:  # there is no line to wait for
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
                break
            except httpx.ConnectError:
                continue
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (0, b"")
