"""What the browser loads from us: ES modules, styles, the logo.

In: the folder `static`. Out: addresses that contain a hash of all these files, so that a browser keeps them until an
update, and the route that serves them. Modules import each other by relative addresses, which keep the hash.
This file does not know what the modules do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Response

PATH = "/page/"
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # for paths that contain a hash
_FOLDER = Path(__file__).with_name("static")
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_IMPORT = re.compile(r'^(?:import|\} from|import .* from) "\./([\w.-]+)";$', re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class StaticFiles:
    """The files by name, and a hash of them all."""

    contents: Mapping[str, bytes]
    version: str

    @classmethod
    def read(cls) -> StaticFiles:
        files = sorted(path for path in _FOLDER.iterdir() if path.suffix in _KINDS)
        contents = {path.name: _served(path) for path in files}
        whole = hashlib.sha256(b"".join(name.encode() + b"\0" + data + b"\0" for name, data in contents.items()))
        return cls(contents, whole.hexdigest()[:12])

    def address(self, name: str) -> str:
        return f"{PATH}{self.version}/{name}"

    def modules(self, entry: str) -> list[str]:
        """`entry` and every module that it imports, directly or not. `import()` does not count: the browser loads such
        a module only when it is needed."""
        found = [entry]
        for name in found:  # grows meanwhile
            found += [other for other in _IMPORT.findall(self.contents[name].decode()) if other not in found]
        return found

    def head(self) -> str:
        """Markup for the page's head. The modules run before any script that follows in the page."""
        modules = self.modules("main.js")
        preloads = "".join(f'<link rel="modulepreload" href="{self.address(name)}">' for name in modules)
        return f'{preloads}<script type="module" src="{self.address("main.js")}"></script>'

    def response(self, name: str) -> Response:
        return Response(self.contents[name], media_type=_KINDS[Path(name).suffix], headers=FOREVER)

    def add_to(self, web: FastAPI) -> None:
        """Add the route of the files to `web`. A page of an earlier version gets none: it must not mix versions."""

        @web.get(f"{PATH}{{version}}/{{name}}")
        def file(version: str, name: str) -> Response:
            if version != self.version or name not in self.contents:
                return Response(status_code=404)
            return self.response(name)


def _served(path: Path) -> bytes:
    """The content of a file. Comments are a quarter of the compressed modules, so lines that are comments become empty;
    errors still name the right line."""
    if path.suffix != ".js":
        return path.read_bytes()
    return _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), path.read_text(encoding="utf-8")).encode()
