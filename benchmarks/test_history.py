"""How fast a large history is: `python -m pytest benchmarks/test_history.py`, or `make bench-history`.

In: nothing. Out: pytest-benchmark's table: the times of lists, searches, saves and starts in a history of 100,000
messages in 5,000 conversations (`benchmarks.histories`), which takes some seconds to build. Nothing is asserted about
time, because machines differ; docs/benchmarks.md has figures, tests/core/test_query_plans.py asserts the plans.
"""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import histories
from impchat import images, paths, settings
from impchat.app import App
from impchat.history.store import History
from impchat.history.thumbnails import Thumbnails
from impchat.messages import Message

ME = settings.OWNER
PAGE = 50
SEARCHES = {
    "a common word": histories.COMMON,
    "a rare word": histories.RARE,
    "no word of the history": "nothingness",
    "one letter": "w",
    "the beginning of a word": "stre",
    "four common words": "the picture of a",
    "Chinese, one character": "图",
    "Chinese, three characters": "红色圆",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    histories.build(folder)
    return folder


@pytest.fixture(scope="module")
def history(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A copy, because saves make it grow."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(data, folder, dirs_exist_ok=True)
    history = History(paths.history_file(folder))
    yield history
    history.close()


@pytest.fixture(scope="module")
def page(history: History) -> list[str]:
    return [c.uuid for c in history.conversations(ME, limit=PAGE)]


@pytest.mark.benchmark(group="start")
def test_from_opening_the_history_to_the_first_list(benchmark: Any, data: Path) -> None:
    def start() -> int:
        history = History(paths.history_file(data))
        listed = history.conversations(ME, limit=PAGE)
        history.close()
        return len(listed)

    assert benchmark(start) == PAGE


@pytest.mark.benchmark(group="start")
def test_from_opening_the_app_to_the_first_list(benchmark: Any, data: Path) -> None:
    def start() -> int:
        with App.open(data) as app:
            return len(app.history.conversations(ME, limit=PAGE))

    assert benchmark(start) == PAGE


@pytest.mark.benchmark(group="list")
@pytest.mark.parametrize("number", [1, 50])
def test_a_page_of_the_list(benchmark: Any, history: History, number: int) -> None:
    assert len(benchmark(history.conversations, ME, limit=PAGE, offset=PAGE * (number - 1))) == PAGE


@pytest.mark.benchmark(group="list")
@pytest.mark.parametrize("query", ["", histories.COMMON])
def test_the_list_of_the_phone(benchmark: Any, data: Path, query: str) -> None:
    """With the pictures of its conversations, whose files do not exist here: decoding them is not measured."""
    from impchat_mobile.history_model import groups

    with App.open(data) as app:
        assert benchmark(groups, app, query, "en", date(2027, 1, 1), PAGE)


@pytest.mark.benchmark(group="list")
@pytest.mark.parametrize(
    "filters", [{"deleted": True}, {"folder": "none"}, {"tag": "none"}], ids=lambda f: next(iter(f))
)
def test_a_filtered_list(benchmark: Any, history: History, filters: dict[str, Any]) -> None:
    benchmark(lambda: history.conversations(ME, limit=PAGE, **filters))


@pytest.mark.benchmark(group="list")
@pytest.mark.parametrize("number", [1, 5])
def test_a_page_of_the_photo_library(benchmark: Any, history: History, number: int) -> None:
    assert len(benchmark(history.pictures, ME, 200, 200 * (number - 1))) == 200


@pytest.mark.benchmark(group="list")
@pytest.mark.parametrize("what", ["covers", "counts"])
def test_what_accompanies_a_page(benchmark: Any, history: History, page: list[str], what: str) -> None:
    assert benchmark(getattr(history, what), ME, page)


@pytest.mark.benchmark(group="thumbnails")
@pytest.mark.parametrize("kept", [False, True], ids=["made", "kept"])
def test_the_thumbnails_of_a_page(benchmark: Any, tmp_path: Path, kept: bool) -> None:
    """Of photos of the largest stored size, after a start of the App."""
    history = History(paths.history_file(tmp_path))
    chance = random.Random(3)
    photos = [history.add_image(images.prepare(_photo(chance)), ME).sha256 for _ in range(PAGE)]
    Thumbnails(history).available(photos)

    def start() -> tuple[tuple[Thumbnails, list[str]], dict[str, Any]]:
        if not kept:
            for file in tmp_path.rglob("*-thumbnail.jpg"):
                file.unlink()
        return (Thumbnails(history), photos), {}

    assert len(benchmark.pedantic(Thumbnails.available, setup=start, rounds=5)) == PAGE
    history.close()


@pytest.mark.benchmark(group="search")
@pytest.mark.parametrize("query", SEARCHES.values(), ids=SEARCHES)
def test_a_search(benchmark: Any, history: History, query: str) -> None:
    benchmark(history.search, ME, query)


@pytest.mark.benchmark(group="search")
def test_a_search_of_somebody_without_conversations(benchmark: Any, history: History) -> None:
    """The slowest: every hit is somebody else's."""
    assert benchmark(history.search, "nobody", histories.COMMON) == []


@pytest.mark.benchmark(group="save")
@pytest.mark.parametrize("what", ["question", "answer begun", "answer so far", "answer finished"])
def test_a_save(benchmark: Any, history: History, page: list[str], what: str) -> None:
    turns = (page[number % PAGE] for number in range(10**9))

    def ask(conversation: str, leaf: str) -> Message:
        return history.add_question(conversation, ME, parent=leaf, text="What is in the picture on the left?")

    def begin(question: Message) -> Message:
        return history.start_answer(question.conversation, ME, parent=question.uuid, model="m")

    def flush(answer: Message) -> Message:
        history.flush_answer(answer.uuid, "A large red circle. " * 5)
        return answer

    def finish(answer: Message) -> Message:
        return history.finish_answer(answer.uuid, text="A large red circle. " * 10, state="done", finish_reason="stop")

    steps: dict[str, Callable[..., Message]]
    steps = {"question": ask, "answer begun": begin, "answer so far": flush, "answer finished": finish}
    before = [step for name, step in steps.items() if list(steps).index(name) < list(steps).index(what)]

    def prepare() -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the measured step, after those before it."""
        conversation = next(turns)
        given: tuple[Any, ...] = (conversation, _leaf(history, conversation))
        for step in before:
            given = (step(*given),)
        return given, {}

    benchmark.pedantic(steps[what], setup=prepare, rounds=200)


def _leaf(history: History, conversation: str) -> str:
    """The last answer of a conversation, which a further question follows."""
    return [message.uuid for message in history.messages(conversation, ME) if message.role == "assistant"][-1]


def _photo(chance: random.Random) -> bytes:
    side = settings.IMAGE_STORED_SIDE
    coarse = Image.frombytes("RGB", (side // 16, side // 24), chance.randbytes(side // 16 * (side // 24) * 3))
    out = io.BytesIO()
    coarse.resize((side, side * 2 // 3), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()
