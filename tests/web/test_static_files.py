"""The page's own files: which of them a browser loads, how much they weigh, and what an update does."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import impchat_web
from impchat_web.static_files import StaticFiles
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Serve, Visit

KILOBYTES = 40  # modules, styles and logo at the first visit, compressed; a second on a line of 400 kbit/s is 50


def test_the_page_loads_each_module_once_without_a_chain_of_requests(serve: Serve, visit: Visit) -> None:
    page = visit(serve(ScriptedEngine()).url)
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)")
    files = StaticFiles.read()
    needed = sorted(files.address(name) for name in files.modules("main.js"))
    assert sorted(path for path in loaded if path.startswith("/page/") and path.endswith(".js")) == needed
    preloads = page.locator("link[rel=modulepreload]").evaluate_all(
        "links => links.map(({ href }) => new URL(href).pathname)"
    )
    assert sorted(path for path in preloads if path.startswith("/page/")) == needed


def test_the_first_visit_to_our_own_files_stays_light(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    with httpx.Client(base_url=site.url, trust_env=False, headers={"accept-encoding": "gzip"}) as client:
        paths = set(re.findall(r'(?:src|href)="(/page/[^"]+)"', client.get("/").text))
        weight = 0
        for path in paths:
            response = client.get(path)
            weight += int(response.headers["content-length"]) + len(str(response.headers))
    assert any(path.endswith("main.js") for path in paths)
    assert weight < KILOBYTES * 1000


def test_a_page_of_an_earlier_version_gets_no_file_of_this_one(serve: Serve) -> None:
    site = serve(ScriptedEngine())
    now = StaticFiles.read()
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        assert client.get(now.address("main.js")).headers["content-type"].startswith("text/javascript")
        assert client.get(now.address("main.js").replace(now.version, "0" * 12)).status_code == 404
        assert client.get(now.address("none.js")).status_code == 404
        assert client.get(now.address("..%2fserver.py")).status_code == 404


def test_comments_are_not_served_and_errors_name_the_right_line() -> None:
    served = StaticFiles.read().contents
    folder = Path(impchat_web.__file__).parent / "static"
    for module in folder.glob("*.js"):
        written, received = module.read_text(encoding="utf-8"), served[module.name].decode()
        assert written.startswith("// ") and "@param" not in re.sub(r"/\*\*[^\n]*\*/", "", received)
        for mine, theirs in zip(written.split("\n"), received.split("\n"), strict=True):
            assert theirs in (mine, "")


@pytest.mark.parametrize("name", ["main.js", "page.css"])
def test_only_documents_carry_the_headers_of_documents(serve: Serve, name: str) -> None:
    site = serve(ScriptedEngine())
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        part, picture = client.get(StaticFiles.read().address(name)), client.get("/favicon.ico")
    assert (
        "content-security-policy" not in part.headers
        and "default-src 'none'" in picture.headers["content-security-policy"]
    )
    assert part.headers["x-content-type-options"] == picture.headers["x-content-type-options"] == "nosniff"
