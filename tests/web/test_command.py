"""`impchat web` in a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from impchat_web import cli
from impchat_web.languages import choose


def test_it_prints_its_address_serves_the_page_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "impchat.cli", "web", "--port", "0", "--no-open", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        with urllib.request.urlopen(address[0]) as page:
            assert b"ImpChat" in page.read()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (0, "", "")


def test_a_busy_port_gives_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert cli.run(["--port", port, "--data", str(tmp_path), "--no-open"]) == 2
        assert port in capsys.readouterr().err
        assert cli.run(["--port", port, "--data", str(tmp_path), "--no-open", "--language", "zh"]) == 2
        assert "占用" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--host", "0.0.0.0"], ["--port", "70000"], ["--port", "0", "--model", "no-such-model"]]
)
def test_what_cannot_be_served_gives_one_sentence(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run([*options, "--data", str(tmp_path), "--no-open"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9", "en"),
        ("fr,zh;q=0.5,en;q=0.7", "en"),
        ("de", "en"),
        ("", "en"),
        ("zh;q=0,en", "en"),
        ("zh;q=x", "en"),
    ],
)
def test_the_browser_chooses_the_language(header: str, language: str) -> None:
    assert choose(header) == language
    assert choose(header, "zh") == "zh"
