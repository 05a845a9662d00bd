"""`impchat web` in a separate process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from impchat import paths, settings
from impchat.cli.main import main
from impchat.history.store import History
from impchat.peers import servers
from impchat.server.network import tls
from impchat.server.tokens import Access
from impchat_web.languages import choose
from tests.core.hands import endless_model
from tests.web.conftest import Visit
from tests.web.hands import send


def test_the_page_opens_without_the_packages_of_the_phone_app(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['flet'] = None; from impchat.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["web", "--port", "0", "--no-open", "--data", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", hidden, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert address, line
            assert httpx.get(address[0], trust_env=False).status_code == 200
            assert httpx.get(f"{address[0]}/mobile/", trust_env=False).status_code == 404
        finally:
            process.send_signal(signal.SIGINT)


def test_it_prints_its_address_serves_the_page_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "impchat.cli.main", "web", "--port", "0", "--no-open", "--data", str(tmp_path)]
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


def test_ctrl_c_during_an_answer_prints_nothing_and_keeps_the_answer(tmp_path: Path, visit: Visit) -> None:
    model = endless_model(paths.demo_bundle(), tmp_path / "endless")
    data = tmp_path / "data"
    command = [sys.executable, "-m", "impchat.cli.main", "web", "--port", "0", "--no-open", "--data", str(data)]
    command += ["--model", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert address
        page = visit(address[0], may_log=("",))  # a page that loses its server logs errors
        send(page, "Tell me a story")
        expect(page.locator(".answer .words")).to_contain_text(re.compile(r"\w"))
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")
    with closing(History(paths.history_file(data))) as history:
        [row] = history.conversations(settings.OWNER)
        answer = history.branch(row.uuid, settings.OWNER)[-1]
    assert answer.state == "stopped" and answer.text


def test_devices_reach_the_api_over_tls_but_not_the_page(tmp_path: Path) -> None:
    with closing(Access(tmp_path)) as access:
        token = access.create("laptop")[1]
    command = [sys.executable, "-m", "impchat.cli.main", "web", "--port", "0", "--no-open", "--data", str(tmp_path)]
    command += ["--listen", "127.0.0.1", "--listen-port", "0", "--language", "en"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = process.stdout.readline() + process.stdout.readline()
        page, door = re.findall(r"https?://127\.0\.0\.1:\d+", lines)
        trust = servers.trust(tls.certificate(tmp_path, []).pem)
        with httpx.Client(verify=trust, trust_env=False, timeout=60) as client:
            assert client.get(f"{page}/v1/models").status_code == 200
            assert client.get(f"{door}/v1/models").status_code == 401
            mine = {"authorization": f"Bearer {token}"}
            assert client.get(f"{door}/v1/models", headers=mine).status_code == 200
            assert client.get(door, headers=mine).status_code == 404
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")


def test_a_busy_port_prints_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["web", "--port", port, "--data", str(tmp_path)]) == 2
        assert f"Port {port} is in use" in capsys.readouterr().err
        assert main(["web", "--port", port, "--data", str(tmp_path), "--language", "zh"]) == 2
        assert "占用" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "this machine alone"),
        (["--port", "70000"], "70000"),
        (["--port", "http"], "http"),
        (["--port", "0", "--model", "no-such-model"], "no-such-model"),
        (["--port", "0", "--data", "~nosuchuser/x"], "~nosuchuser/x"),
        (["--share"], "--share"),
    ],
)
def test_a_page_that_cannot_start_prints_one_sentence(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["web", "--data", str(tmp_path), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert says in output.err


def test_the_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "--help"]) == 0
    help_text = capsys.readouterr().out
    assert all(option in help_text for option in ("--host", "--port", "--open", "--data", "--model", "--language"))


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
