"""The memory that the app takes on a phone: python -m tests.mobile.memory [BUNDLE] [--context 1024]

In: a bundle's folder (else the demo's), which the app of a new data folder runs, with a phone's settings. Out: the most
memory while the app starts, while its model opens, while a picture is read and answered. Wants no browser, so that it
runs with a phone's packages alone (`make phone-env`); Flutter's own part is not in it."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from impchat import paths, preferences
from impchat.bench.memory import measured
from impchat.preferences import Preferences
from impchat_mobile import launch
from tests.mobile.conftest import drawing, picked
from tests.mobile.fake import Phone


async def answer(data: Path, model: Path) -> None:
    with measured("the app, before its model is wanted"):
        phone = Phone({"pick_files": picked(drawing("red", (1024, 768)))})
        app = launch.open_app(data, str(model))
        screen = await launch.start(phone.page, lambda: app, "en")
        assert screen
    try:
        with measured("its model verified and opened"):
            await asyncio.to_thread(lambda: app.engine)
        with measured("a picture read and a question answered"):
            await phone.tap("Choose pictures")
            await screen.talk.send("What is in the picture?")
            await screen.talk.settled()
        print(f"  {app.model}, {app.context_tokens} tokens of context: {screen.talk.messages[-1].stats}")
    finally:
        await asyncio.to_thread(app.close)


def main() -> None:
    parser = argparse.ArgumentParser(description="The memory that the app takes on a phone.")
    parser.add_argument("bundle", type=Path, nargs="?", default=paths.demo_bundle())
    parser.add_argument("--context", type=int, default=1024, help="tokens")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        preferences.save(Path(folder), Preferences(context_tokens=options.context))
        asyncio.run(answer(Path(folder), options.bundle))


if __name__ == "__main__":
    main()
