"""Questions that the demo must refuse.

In: a language and a seeded `random.Random`. Out: `Exchange`s whose answer is the refusal.
This file does not know the questions of the evaluation (`words.UNSEEN`), or pictures.
"""

from __future__ import annotations

from random import Random

from tools.demo_model import words
from tools.demo_model.questions import Exchange


def ask(language: str, rng: Random) -> Exchange:
    """A question that the demo must refuse: plain ones, frames with a topic, its own questions about things that it
    does not know, and sentences of random words, because everything unknown is to be refused."""
    chance = rng.random()
    if chance < 0.15:
        question = rng.choice(words.OFF_PLAIN[language])
    elif chance < 0.55:
        question = rng.choice(words.OFF_FRAMES[language]).format(t=_topic(language, rng))
    elif chance < 0.75:
        form = rng.choice(("colour", "count_of", "where", "is_there", "box", "and_colour"))
        topic = _topic(language, rng)
        question = rng.choice(words.ASK[language][form]).format(n=topic, k=topic)
    else:
        question = _salad(language, rng)
    return Exchange(question, words.REFUSAL[language], "off-topic")


def _topic(language: str, rng: Random) -> str:
    topic = rng.choice(words.OFF_TOPICS[language]) if rng.random() < 0.7 else _unknown(language, rng)
    if language == "en" and rng.random() < 0.15:
        topic = f"{rng.choice(words.OFF_TOPICS['en'])} and {topic}"
    return topic


def _unknown(language: str, rng: Random) -> str:
    """A word that is in no training text: one to three of the 3,755 common characters of GB 2312, or syllables."""
    if language == "zh":
        return "".join(_common_character(rng) for _ in range(rng.randint(1, 3)))
    starts, middles, ends = (part.split() for part in words.SYLLABLES)
    word = "".join(rng.choice(starts) + rng.choice(middles) for _ in range(rng.randint(1, 2))) + rng.choice(ends)
    return word + rng.choice(("", "", "", "s", "er", "ing", "ed", "tion", "ly", "al"))


def _common_character(rng: Random) -> str:
    row = rng.randint(0xB0, 0xD7)
    return bytes((row, rng.randint(0xA1, 0xF9 if row == 0xD7 else 0xFE))).decode("gb2312")


def _salad(language: str, rng: Random) -> str:
    """Random words joined to what looks like a question or a request."""
    begin, between, end = (rng.choice(part) for part in words.OFF_SALAD[language])
    if language == "zh":
        middle = "".join(
            _topic("zh", rng) if rng.random() < 0.5 else _unknown("zh", rng) for _ in range(rng.randint(1, 4))
        )
        return begin + (middle if rng.random() < 0.5 else middle + between + _unknown("zh", rng)) + end
    said = [begin]
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.5:
            said.append(rng.choice(words.OFF_SALAD["en"][1]))
        said.append(rng.choice(words.OFF_TOPICS["en"]) if rng.random() < 0.4 else _unknown("en", rng))
    question = " ".join(part for part in said if part)
    return question[0].upper() + question[1:] + end
