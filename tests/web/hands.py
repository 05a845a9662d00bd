"""Actions of a user on the page: typing, sending, and adding pictures by click, drop and paste."""

from __future__ import annotations

import base64
import re

from playwright.sync_api import Locator, Page, expect

QUESTION = "#question textarea"

LEAVING = ("AbortError", "Connection errored out")  # logged by Gradio's client when a page is closed during a request


def add_by_click(page: Page, data: bytes, name: str = "picture.png") -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add a picture").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})


def _bring(page: Page, event: str, carrier: str, target: str, data: bytes) -> None:
    page.evaluate(
        """([event, carrier, target, data]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "picture.png", { type: "image/png" }));
            const Kind = event === "paste" ? ClipboardEvent : DragEvent;
            const options = { bubbles: true, cancelable: true, [carrier]: transfer };
            document.querySelector(target).dispatchEvent(new Kind(event, options));
        }""",
        [event, carrier, target, base64.b64encode(data).decode()],
    )


def add_by_drop(page: Page, data: bytes) -> None:
    for event in ("dragenter", "dragover", "drop"):
        _bring(page, event, "dataTransfer", "#thread", data)


def add_by_paste(page: Page, data: bytes) -> None:
    page.focus(QUESTION)
    _bring(page, "paste", "clipboardData", QUESTION, data)


def send(page: Page, text: str) -> None:
    page.fill(QUESTION, text)
    page.press(QUESTION, "Enter")


def answer(page: Page, number: int) -> Locator:
    """Wait for the answer `number`, counted from 1, to finish with its statistics, and return it."""
    article = page.locator("#thread .answer").nth(number - 1)
    expect(article.locator(".receipt")).to_be_attached()
    return article.locator(".words")


def conversation(page: Page) -> str:
    """Wait for a uuid in the address and return it."""
    page.wait_for_url(re.compile(r"\?c=."))
    return page.url.partition("?c=")[2]
