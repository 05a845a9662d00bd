"""Measures the app's memory on a phone: python -m tests.mobile.memory [BUNDLE] [--context 1024] [--packed]

In: a bundle's folder (default: the demo's), which the app runs in a new data folder with a phone's settings;
`--packed`: with a computer's vision settings. Out: the peak memory while the app starts, while its model is opened,
while a picture is processed and answered, and the four figures of the app's speed test. It needs no browser, so it runs
with only a phone's packages (`make phone-env`); Flutter's part is not included.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.memory import measured
from impchat import paths, preferences, speedtest
from impchat.preferences import Preferences
from impchat_mobile import launch
from tests.mobile.conftest import drawing, picked
from tests.mobile.fake import Phone


async def answer(data: Path, model: Path, packed: bool) -> None:
    with measured("the app, before its model is wanted"):
        phone = Phone({"pick_files": picked(drawing("red", (1024, 768)))})
        app = launch.open_app(data, str(model))
        assert app.bundle
        app.run_with(app.bundle, replace(app.resources, packed=packed))
        screen = await launch.start(phone.page, lambda: app, "en")
        assert screen
    try:
        with measured("its model verified and opened"):
            await asyncio.to_thread(lambda: app.engine)
        with measured("a picture read and a question answered"):
            await phone.tap("Choose pictures")
            await screen.current.send("What is in the picture?")
            await screen.current.settled()
        found = await asyncio.to_thread(speedtest.run, app.engine)
        print(
            f"{app.model}, {app.context_tokens} tokens of context: T_VE {found.vision_s:.2f} s, "
            f"S_prompt {found.prompt_tokens_per_s:.1f}, S_gen {found.generated_tokens_per_s:.1f} tokens/s, "
            f"T_total {found.total_s:.1f} s"
        )
    finally:
        await asyncio.to_thread(app.close)


def main() -> None:
    parser = argparse.ArgumentParser(description="The memory that the app takes on a phone.")
    parser.add_argument("bundle", type=Path, nargs="?", default=paths.demo_bundle())
    parser.add_argument("--context", type=int, default=1024, help="tokens")
    parser.add_argument("--packed", action="store_true", help="the eyes take memory for speed, as on a computer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        preferences.save(Path(folder), Preferences(context_tokens=options.context, sampling={"max_tokens": 64}))
        asyncio.run(answer(Path(folder), options.bundle, options.packed))


if __name__ == "__main__":
    main()
