"""Measures the processor time of the app's part of the screen: python -m tests.mobile.measure

In: nothing. Out: milliseconds for each update of a growing answer, and for an added message, in chats of 2, 100 and 500
messages. Processor time varies little with other work on the machine; Flutter's part is not included.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from impchat import preferences, settings
from impchat.messages import Progress
from impchat.preferences import Preferences
from impchat_mobile import launch
from tests.mobile.fake import Phone

ME = settings.OWNER
UPDATES = 100


async def measured(data: Path, messages: int) -> tuple[float, float]:
    app = launch.open_app(data)
    try:
        chat, parent = app.history.create_conversation(ME).uuid, None
        for number in range(messages // 2):
            question = app.history.add_question(chat, ME, parent=parent, text=f"Question {number}")
            parent = app.history.start_answer(chat, ME, parent=question.uuid, model="other").uuid
            app.history.finish_answer(parent, text=f"Answer {number}. " * 10, state="done")
        preferences.save(app.data, Preferences(conversation=chat))
        phone = Phone()
        screen = await launch.start(phone.page, lambda: app, "en")
        assert screen
        await screen._show_earlier()
        await screen.current.send("Hello")
        await screen._draw()
        answered = screen._running
        assert answered
        began = time.process_time()
        for number in range(UPDATES):
            answered.grow(Progress("A word and another one. " * (number // 2 + 1)))  # up to about 1.2 kB
        update_s = (time.process_time() - began) / UPDATES
        await phone.until(lambda: screen.current.growing is None)
        began = time.process_time()
        await screen.current.refresh()
        await screen._draw()
        return update_s, time.process_time() - began
    finally:
        await asyncio.to_thread(app.close)


def main() -> None:
    for messages in (2, 100, 500):
        with tempfile.TemporaryDirectory() as folder:
            update_s, redraw_s = asyncio.run(measured(Path(folder), messages))
        update_ms, redraw_ms = 1000 * update_s, 1000 * redraw_s
        print(f"{messages:4} messages: {update_ms:6.2f} ms an update, {redraw_ms:6.1f} ms to draw the chat anew")


if __name__ == "__main__":
    main()
