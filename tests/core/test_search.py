"""Search finds words in any language, including single Chinese characters, and accepts every query."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from impchat.history import search
from impchat.history.store import History

ME = "me"

TEXTS = [
    "这只小猫是什么颜色的？",
    "The circle is red, the square is blue.",
    "一只蓝色的圆在左边 and a red square",
    "日本語のテキストを検索する",
    "한국어 문장도 찾는다",
    "ＡＢＣ full-width，１２３",
    "Crème brûlée in the café",
    "C++ and C# are languages; e-mail me at a_b@example.org, 3.14",
    "Great 👍🏽, she is an astronaut 👩‍🚀 with ❤️ from 🇩🇪",
    "It costs 5 € or $6, 20 °C → 1️⃣",
    "นี่คือภาษาไทยและวงกลมสีแดง",
    "ကျွန်တော် မြန်မာစကားပြောတယ်",
    "**红色**`圆形` and x≥3",
    "C is a language, 5 of 20",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a history that contains the texts."""
    file = tmp_path_factory.mktemp("written") / "history.db"
    history = History(file)
    for text in TEXTS:
        conversation = history.create_conversation(ME, "Untitled")
        history.add_question(conversation.uuid, ME, parent=None, text=text)
    history.close()
    return file


@pytest.fixture
def history(written: Path, tmp_path: Path) -> Iterator[History]:
    history = History(Path(shutil.copy(written, tmp_path)))
    yield history
    history.close()


def found(history: History, query: str) -> list[int]:
    texts = {}
    for conversation in history.conversations(ME):
        for message in history.messages(conversation.uuid, ME):
            texts[message.uuid] = TEXTS.index(message.text)
    return sorted(texts[hit.message] for hit in history.search(ME, query) if hit.message)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("猫", [0]),
        ("颜色", [0]),
        ("蓝色", [2]),
        ("色", [0, 2, 12]),
        ("色颜", []),
        ("小猫 颜色", [0]),
        ("左边 square", [2]),
        ("检索", []),
        ("検索", [3]),
        ("テキ", [3]),
        ("국어", [4]),
        ("문장", [4]),
        ("red", [1, 2]),
        ("RED", [1, 2]),
        ("squ", [1, 2]),
        ("quare", []),
        ("red circle", [1]),
        ("红", [12]),
        ("abc", [5]),
        ("ABC 123", [5]),
        ("creme", [6]),
        ("CAFÉ", [6]),
        ("a_b@example.org", [7]),
        ("e-mail", [7]),
        ("3.14", [7]),
        ("颜色的？", [0]),
        ("圆，", [2, 12]),
        ("👍", [8]),
        ("👍🏽", [8]),
        ("👍🏿", []),
        ("👩‍🚀", [8]),
        ("🚀", [8]),
        ("👩", [8]),
        ("❤", [8]),
        ("❤️", [8]),
        ("🇩🇪", [8]),
        ("🇫🇷", []),
        ("great👍", [8]),
        ("great 👍 astronaut", [8]),
        ("🐱", []),
        ("C++", [7]),
        ("c++", [7]),
        ("C#", [7]),
        ("+", [7]),
        ("€", [9]),
        ("5€", [9]),
        ("$6", [9]),
        ("°C", [9]),
        ("℃", [9]),
        ("→", [9]),
        ("1️⃣", [9]),
        ("≥", [12]),
        ("x≥3", [12]),
        ("ไทย", [10]),
        ("ภาษา", [10]),
        ("วงกลม", [10]),
        ("สีแดง", [10]),
        ("สีดำ", []),
        ("မြန်မာ", [11]),
        ("စကား", [11]),
        ("红色圆形", [12]),
        ("ｺﾞ", []),
        ("テキスト", [3]),
        ("ﾃｷｽﾄ", [3]),
        ("する", [3]),
        ("찾는다", [4]),
        ("찾는", [4]),
        ("는다", [4]),
        ("?", []),
        ("？", []),
    ],
)
def test_words_are_found(history: History, query: str, expected: list[int]) -> None:
    assert found(history, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "", " ", "\n", '"', '""', "'", "*", "red*", "^red", "-red", "+", "(", ")", "(red", "red)", "{red}", "text:red",
        "NOT", "red AND", "OR red", "NOT red", "NEAR(red blue)", "NEAR/2", "red NEAR blue", "a:b", "\\", "%", "_", ";",
        "--", "。", "？！", "🐱", "\0", "re\0d", "\ud800", "\u0301", "\u200b", "\U0001e900", "x" * 10_000, "猫" * 2_000,
        "red " * 100_000,
    ],
)  # fmt: skip
def test_every_query_is_accepted(history: History, query: str) -> None:
    assert len(history.search(ME, query)) <= len(TEXTS)


def test_operators_are_treated_as_words(history: History) -> None:
    conversation = history.create_conversation(ME, "Untitled")
    history.add_question(conversation.uuid, ME, parent=None, text="neither and nor or not near")
    assert len(history.search(ME, "AND NOT near")) == 1
    assert history.search(ME, "red OR pony") == []


def test_random_queries_never_raise(history: History) -> None:
    chance = random.Random(7)
    letters = "ab猫色\"'*()^:+-{}[]\\/.,;!?&|<>=~`@#$%_ \t\0\u0301é🐱０"
    for _ in range(500):
        history.search(ME, "".join(chance.choice(letters) for _ in range(chance.randint(1, 12))))


def test_the_latest_message_comes_first_and_the_limit_holds(history: History) -> None:
    conversation = history.create_conversation(ME, "Untitled")
    for number in range(5):
        history.add_question(conversation.uuid, ME, parent=None, text=f"zebra {number}")
    hits = history.search(ME, "zebra", limit=3)
    assert [hit.snippet for hit in hits] == ["zebra 4", "zebra 3", "zebra 2"]


def test_a_hit_says_where_it_is(history: History) -> None:
    conversation = history.create_conversation(ME, "Animals")
    question = history.add_question(conversation.uuid, ME, parent=None, text="Is it a zebra?")
    answer = history.start_answer(conversation.uuid, ME, parent=question.uuid, model="m")
    history.flush_answer(answer.uuid, "A zebra")
    history.finish_answer(answer.uuid, text="A giraffe, no zebra.", state="done")
    hits = history.search(ME, "zebra")
    assert [(hit.message, hit.role) for hit in hits] == [(answer.uuid, "assistant"), (question.uuid, "user")]
    assert {(hit.conversation, hit.title) for hit in hits} == {(conversation.uuid, "Animals")}
    assert hits[1].created_utc == question.created_utc
    assert [hit.message for hit in history.search(ME, "giraffe")] == [answer.uuid]


def test_a_title_is_found_by_its_current_words(history: History) -> None:
    conversation = history.create_conversation(ME, "Zoo visit")
    hit = history.search(ME, "zoo")[0]
    assert (hit.conversation, hit.message, hit.role, hit.snippet) == (conversation.uuid, None, None, "Zoo visit")
    history.update_conversation(conversation.uuid, ME, title="动物园")
    assert history.search(ME, "zoo") == [] and len(history.search(ME, "动物")) == 1


def test_a_conversation_found_by_its_messages_is_not_listed_again_for_its_title(history: History) -> None:
    conversation = history.create_conversation(ME)
    question = history.add_question(conversation.uuid, ME, parent=None, text="A zebra?")
    assert history.conversation(conversation.uuid, ME).title == "A zebra?"
    assert [hit.message for hit in history.search(ME, "zebra")] == [question.uuid]


def test_a_snippet_is_one_line_around_the_words() -> None:
    text = "start " * 50 + "\n\nthe Needle is\there " + "end " * 50
    snippet = search.snippet(text, "needle")
    assert "the Needle is here" in snippet and "\n" not in snippet
    assert snippet.startswith("…") and snippet.endswith("…") and len(snippet) < 130
    assert search.snippet("short", "nothing") == "short"
    assert search.snippet("前文。" * 60 + "目标" + "后文。" * 60, "目标").count("目标") == 1


def test_a_hundred_thousand_messages_are_searched_through_the_index(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    conversation = history.create_conversation(ME, "Untitled").uuid
    words = ["红色", "圆", "square", "描述", "图片", "count", "左边", "hello"]
    chance = random.Random(1)
    texts = [" ".join(chance.choices(words, k=12)) for _ in range(100_000)]
    texts[70_000] += " 斑马"
    with history._database.write() as db:  # a hundred thousand separate writes would take minutes
        db.executemany(
            "insert into messages (uuid, conversation, role, text, state, created_utc)"
            " values (?, 1, 'user', ?, 'done', '')",
            [(str(number), text) for number, text in enumerate(texts)],
        )
        db.executemany(
            "insert into message_search (rowid, text) values (?, ?)",
            [(number + 1, search.index_text(text)) for number, text in enumerate(texts)],
        )
    assert [hit.message for hit in history.search(ME, "斑马")] == ["70000"]
    assert [hit.message for hit in history.search(ME, "圆", limit=2)] == [
        str(number) for number in range(99_999, 0, -1) if "圆" in texts[number]
    ][:2]
    assert history.search("another", "圆") == []
    with history._database.read() as db:
        plan = db.execute(
            "explain query plan"
            " select rowid from message_search where message_search match '\"圆\" *' order by rowid desc"
        ).fetchall()
    assert not any("TEMP B-TREE" in row["detail"] for row in plan)  # not all hits are sorted to get the first
    assert history.conversation(conversation, ME).title == "Untitled"
    history.close()


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("A zebra and two zebras", "ZEBRA", ["zebra", "zebra"]),
        ("A zebra and a recap", "a cap", ["A", "a", "a"]),
        ("Le café d'été", "cafe ETE", ["café", "été"]),
        ("cafe\u0301 and Straße", "café strasse", ["cafe\u0301", "Straße"]),
        ("一只斑马在跑。斑马!", "斑马", ["斑马", "斑马"]),
        ("A cat 🐱 costs 5€", "🐱 5€", ["🐱", "5€"]),
        ("ab abc", "ab abc", ["ab", "abc"]),
        ("don't, stop", "don't", ["don", "t"]),
        ("<b>bold</b>", "bold", ["bold"]),
        ("nothing here", '"* ( -', []),
        ("", "x", []),
    ],
)
def test_words_are_marked_as_the_index_finds_them(text: str, query: str, marked: list[str]) -> None:
    ranges = search.marks(text, query)
    assert [text[start:end] for start, end in ranges] == marked
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


def test_a_hit_marks_its_words_in_the_snippet(history: History) -> None:
    conversation = history.create_conversation(ME, "My Café").uuid
    history.add_question(conversation, ME, parent=None, text="long\n" * 60 + "a Needle in\nhay " + "end " * 60)
    (hit,) = history.search(ME, "needle hay")
    assert hit.snippet.startswith("…") and [hit.snippet[a:b] for a, b in hit.marks] == ["Needle", "hay"]
    title = next(hit for hit in history.search(ME, "cafe") if hit.conversation == conversation)
    assert title.message is None and [title.snippet[a:b] for a, b in title.marks] == ["Café"]
