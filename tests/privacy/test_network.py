"""Nothing leaves the machine, and only the files listed in docs/privacy.md stay on it.

The commands run with a separate home in a network namespace, in which everything that is sent is recorded. On a system
without namespaces this is impossible, and the tests say so.
"""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.convert import checkpoints
from tests.convert.checkpoints import Tiny
from tests.privacy import alone

ROOT = Path(__file__).parents[2]
ANSWERING = ("ask", "chat", "library", "serve", "cluster", "page", "phone_app")


def refusal() -> str:
    """The reason why this system allows no namespaces; "" if it does."""
    try:
        done = subprocess.run([*alone.unshared(), "true"], capture_output=True, text=True)
    except OSError as exc:
        return str(exc)
    return done.stderr.strip() if done.returncode else ""


pytestmark = pytest.mark.skipif(
    bool(why := refusal()), reason=f"NOT CHECKED: that nothing leaves the machine. No network namespace here: {why}"
)


def watched(world: Path, *command: object) -> dict[str, Any]:
    """The report of `alone` about a command."""
    words = [*alone.unshared(), sys.executable, "-m", "tests.privacy.alone", world, *command]
    done = subprocess.run([*map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 0
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["code"] == 0, report
    return report


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    world = tmp_path_factory.mktemp("world")
    source = checkpoints.write(world / "checkpoint", Tiny())
    return watched(world, sys.executable, "-m", "tests.privacy.day", world, source)


def documented() -> list[str]:
    """The places that docs/privacy.md lists, as patterns."""
    found = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "privacy.md").read_text(), re.MULTILINE)
    return [place.replace("NAME", "*") for place in found]


def test_every_command_answered(day: dict[str, Any]) -> None:
    answers = json.loads(day["out"])["answers"]
    assert all("red" in answers[name].lower() for name in ANSWERING), answers
    assert "imp-demo-196" in answers["models_list"]
    assert "✗" not in answers["doctor"]
    assert "impchat.json" in answers["convert"]
    assert not answers["models_pull"], "it prints on stderr"


def test_no_name_is_looked_up_and_no_packet_leaves_the_machine(day: dict[str, Any]) -> None:
    assert day["heard"] == []
    assert json.loads(day["out"])["asked"] == []


def test_files_are_left_only_in_the_documented_places(day: dict[str, Any]) -> None:
    places = documented()
    assert [file for file in day["files"] if not any(fnmatch.fnmatch(file, f"{place}/*") for place in places)] == []


SENDING = f"""
import pathlib, socket
assert socket.gethostbyname("somewhere.example") == "{alone.NOWHERE}"
for family, address in (("AF_INET", "192.0.2.7"), ("AF_INET6", "2001:db8::7"), ("AF_INET", "224.0.0.251")):
    socket.socket(getattr(socket, family), socket.SOCK_DGRAM).sendto(b"!", (address, 5353))
try:
    socket.create_connection(("192.0.2.8", 443))
except OSError:
    pass
pathlib.Path.home().joinpath(".mine").touch()
for folder in ("/tmp", "/var/tmp", "/dev/shm"):
    pathlib.Path(folder, "mine").mkdir()
"""


def test_packets_and_files_would_be_recorded(tmp_path: Path) -> None:
    seen = watched(tmp_path, sys.executable, "-c", SENDING)
    assert "name: somewhere.example" in seen["heard"]
    for target in ("192.0.2.7, IP protocol 17", "2001:db8::7", "224.0.0.251", "192.0.2.8, IP protocol 6, port 443"):
        assert any(f"packet: to {target}" in packet for packet in seen["heard"]), target
    assert seen["files"] == ["/dev/shm/mine/", "/tmp/mine/", "/var/tmp/mine/", "~/.mine"]


def test_onnxruntimes_telemetry_is_off_whatever_the_environment_says() -> None:
    words = [sys.executable, "-c", "import impchat, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"]
    output = subprocess.check_output(words, env={"ORT_DISABLE_TELEMETRY": "0"}, cwd=ROOT, text=True)
    assert output == "1\n"
