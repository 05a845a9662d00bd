"""Builds a large history: many conversations with questions, answers and pictures, in English and Chinese.

In: an empty folder. Out: a data folder that `History` opens. `History` makes the file and its schema; the rows are
inserted with SQL in one transaction, because a transaction for each of 100,000 messages takes minutes. They are those
that `History` writes, without token ids and without picture files.
This file does not know what is measured.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from impchat import paths, settings
from impchat.history import mutations, search
from impchat.history.store import History

CONVERSATIONS = 5_000
MESSAGES = 100_000
DELETED = 250  # of the conversations
OTHERS = 250  # of the conversations belong to OTHER, one of a server's other users
OTHER = "another"
RARE = "quetzal"  # in one message
COMMON = "picture"  # in about half of the messages

_START = datetime(2024, 1, 1, tzinfo=UTC)
_ENGLISH = (
    "the a picture of is in and there on left right red circle two blue dog person car square green tree small large "
    "white black house street table sky water standing holding window building light shadow count many what where how"
)
_CHINESE = "图片中有一个红色的圆形在左边和右边蓝绿黄黑白大小人狗猫车树房子天空水街道什么哪里谁描述数字多少"
_STATS = {"prompt_tokens": 260, "cached_tokens": 200, "generated_tokens": 40, "prefill_s": 0.8, "decode_s": 2.5}


def build(folder: Path, conversations: int = CONVERSATIONS, messages: int = MESSAGES) -> None:
    """Make the history in `folder`. Each conversation has the same number of messages, in turn a question and an
    answer. Two of three conversations begin with a picture, and a picture is in two conversations on average."""
    history = History(paths.history_file(folder))
    with history._database.write() as db:
        _fill(db, conversations, messages // conversations)
    history.close()


def _fill(db: sqlite3.Connection, conversations: int, length: int) -> None:
    chance = random.Random(17)
    pictures = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(conversations // 3)]
    db.executemany("insert into images values (?, 1024, 768, 'image/jpeg', 200000)", [(name,) for name in pictures])
    owners = (settings.OWNER, OTHER)
    db.executemany("insert into image_owners values (?, ?)", [(who, name) for who in owners for name in pictures])
    vocabulary = (_Words(_ENGLISH.split(), " "), _Words(list(_CHINESE), ""))
    middle = conversations // 2 * length + 2
    for key in range(1, conversations + 1):
        first = (key - 1) * length + 1
        words = vocabulary[key % 4 == 0]
        title = words.text(chance, 6)
        began = _START + timedelta(hours=4 * key)
        owner = OTHER if key % (conversations // OTHERS) == 7 else settings.OWNER
        deleted = mutations.utc(began + timedelta(days=1)) if key % (conversations // DELETED) == 3 else None
        updated = mutations.utc(began + timedelta(minutes=length))
        db.execute(
            "insert into conversations (id, uuid, owner, title, pinned, created_utc, updated_utc, deleted_utc)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, _uuid(chance), owner, title, key % 500 == 0, mutations.utc(began), updated, deleted),
        )
        db.execute("insert into title_search (rowid, text) values (?, ?)", (key, search.index_text(title)))
        for number in range(first, first + length):
            asks = (number - first) % 2 == 0
            text = words.text(chance, 10 if asks else 50) + (f" {RARE}" if number == middle else "")
            db.execute(
                "insert into messages (id, uuid, conversation, parent, role, text, state, created_utc, finish_reason,"
                " model, stats) values (?, ?, ?, ?, ?, ?, 'done', ?, ?, ?, ?)",
                (number, _uuid(chance), key, None if number == first else number - 1, "user" if asks else "assistant",
                 text, mutations.utc(began + timedelta(minutes=number - first)), *((None,) * 3 if asks else _END)),
            )  # fmt: skip
            db.execute("insert into message_search (rowid, text) values (?, ?)", (number, search.index_text(text)))
        db.execute("update conversations set leaf = ? where id = ?", (first + length - 1, key))
        if key % 3:
            db.execute("insert into message_images values (?, 0, ?)", (first, chance.choice(pictures)))


_END = ("stop", settings.DEMO_MODEL, json.dumps(_STATS))


class _Words:
    """Random text in which the n-th word of a vocabulary is 1/n times as frequent as the first; one word in fifty is
    a rare one out of thousands, as names and numbers are."""

    def __init__(self, words: list[str], space: str) -> None:
        self._words, self._space = words, space
        self._weights = [1 / rank for rank in range(1, len(words) + 1)]

    def text(self, chance: random.Random, length: int) -> str:
        picked = chance.choices(self._words, self._weights, k=length)
        return self._space.join(f"w{chance.randrange(20_000)}" if chance.random() < 0.02 else word for word in picked)


def _uuid(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))
