"""A bundle is copied over HTTP: whole, interrupted and resumed, and only if it matches the promised hashes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from impchat import bundle, paths
from impchat.bundle import MANIFEST
from impchat.errors import ModelError
from impchat.models import copying, library
from impchat.models.copying import Source

ID = "copied-demo"


class Files(BaseHTTPRequestHandler):
    """Serves a folder with range requests. `cut`: bytes after which a connection breaks; `asked`: the requested
    ranges."""

    folder: Path
    cut: int | None = None
    refuses: bool = False
    asked: list[str]

    def do_GET(self) -> None:
        if self.refuses:
            self.send_error(401)
            return
        data = (self.folder / self.path.lstrip("/")).read_bytes()
        wanted = self.headers.get("range", "")
        type(self).asked.append(f"{self.path} {wanted}".strip())
        start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if wanted else 200)
        self.send_header("content-length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + self.cut] if self.cut and "vision" in self.path else data[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def offered(tmp_path: Path) -> Path:
    """The demo model under another name."""
    folder = tmp_path / "offered"
    folder.mkdir()
    for file in paths.demo_bundle().iterdir():
        text = file.read_bytes()
        (folder / file.name).write_bytes(
            text.replace(b'"imp-demo-196"', f'"{ID}"'.encode()) if file.suffix == ".json" else text
        )
    return folder


@pytest.fixture
def web(offered: Path) -> Iterator[type[Files]]:
    handler = type("Handler", (Files,), {"folder": offered, "cut": None, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def source(web: type[Files], offered: Path) -> Source:
    digest = hashlib.sha256((offered / MANIFEST).read_bytes()).hexdigest()
    return copying.source(f"{web.address}/{MANIFEST}", digest)  # type: ignore[attr-defined]


def copied(data: Path, source: Source, stop_at: int | None = None) -> bundle.Bundle | None:
    """Copy the bundle; stop once `stop_at` bytes have been written, if given."""
    stop = threading.Event()

    def watch(done: int, total: int) -> None:
        assert 0 < done <= total
        if stop_at is not None and done >= stop_at:
            stop.set()

    with copying.connection() as http:
        return copying.copy(data, source, http, watch, stop)


def test_a_bundle_is_copied_whole_and_runs(tmp_path: Path, web: type[Files], offered: Path) -> None:
    made = copied(tmp_path / "data", source(web, offered))
    assert made
    made.verify()
    assert library.resolve(tmp_path / "data", ID) == made
    assert copying.unfinished(tmp_path / "data") == []


def test_a_stopped_copy_is_listed_after_a_restart_and_resumes_in_the_middle_of_a_file(
    tmp_path: Path, web: type[Files], offered: Path
) -> None:
    data = tmp_path / "data"
    assert copied(data, source(web, offered), stop_at=1) is None
    [half] = copying.unfinished(data)
    assert (half.id, half.source) == (ID, source(web, offered))
    assert 0 < half.done < half.total
    assert ID not in [model.id for model in library.models(data)]
    web.asked.clear()
    assert copied(data, half.source)
    assert [line for line in web.asked if "bytes=" in line and not line.endswith("bytes=0-")]


def test_a_broken_connection_is_reported_and_loses_nothing(tmp_path: Path, web: type[Files], offered: Path) -> None:
    data = tmp_path / "data"
    web.cut = 500_000
    with pytest.raises(ModelError) as lost:
        copied(data, source(web, offered))
    assert lost.value.code == "copy.unreachable"
    before = copying.unfinished(data)[0].done
    with pytest.raises(ModelError):
        copied(data, source(web, offered))
    assert copying.unfinished(data)[0].done > before
    web.cut = None
    assert copied(data, source(web, offered))


def test_a_revoked_device_is_reported_as_such(tmp_path: Path, web: type[Files], offered: Path) -> None:
    data = tmp_path / "data"
    assert copied(data, source(web, offered), stop_at=600_000) is None
    [before] = copying.unfinished(data)
    web.refuses = True
    with pytest.raises(ModelError, match="pair it again"):
        copied(data, source(web, offered))
    web.refuses = False
    assert copying.unfinished(data) == [before]
    assert copied(data, source(web, offered))


def test_a_file_with_another_hash_never_becomes_a_model(tmp_path: Path, web: type[Files], offered: Path) -> None:
    data, wanted = tmp_path / "data", source(web, offered)
    file = offered / "vision.onnx"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(ModelError) as wrong:
        copied(data, wanted)
    assert (wrong.value.code, wrong.value.values) == ("copy.corrupt", {"file": "vision.onnx"})
    assert ID not in [model.id for model in library.models(data)]
    (offered / MANIFEST).write_bytes(b"{}")
    with pytest.raises(ModelError) as other:
        copied(data, wanted)
    assert other.value.values == {"file": MANIFEST}


def test_no_file_name_leads_out_of_the_folder(tmp_path: Path, web: type[Files], offered: Path) -> None:
    manifest = offered / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"vision.onnx", b"../../evil"))
    with pytest.raises(ModelError) as strange:
        copied(tmp_path / "data", source(web, offered))
    assert strange.value.code == "copy.strange"


def test_a_cancelled_copy_leaves_nothing(tmp_path: Path, web: type[Files], offered: Path) -> None:
    data = tmp_path / "data"
    copied(data, source(web, offered), stop_at=1)
    copying.forget(data, ID)
    assert copying.unfinished(data) == []


@pytest.mark.parametrize(
    ("address", "digest"), [("ftp://x/impchat.json", "0" * 64), ("http://x", "0" * 64), ("http://x/impchat.json", "00")]
)
def test_an_invalid_address_or_hash_is_refused_at_once(address: str, digest: str) -> None:
    with pytest.raises(ModelError, match="SHA-256"):
        copying.source(address, digest)
