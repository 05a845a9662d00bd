"""Questions and right answers about scenes, in English and Chinese.

In: a scene, a language and a seeded `random.Random`. Out: `Exchange`s: a question as a user would type it, its only
right answer, and its kind, for training and evaluation.
This file does not know how text becomes tokens or how answers are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from tools.demo_model import words
from tools.demo_model.scenes import CELLS, COLOURS, MOST_COUNTED, SHAPES, Scene, Thing

LANGUAGES = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its right answer. `thing`: the single thing it is about, for follow-up questions and boxes;
    `about`: all things that the question refers to; `parts`: pieces of the answer in order, each with the things it
    names."""

    question: str
    answer: str
    kind: str
    thing: Thing | None = None
    about: Sequence[Thing] = ()
    parts: Sequence[tuple[str, Sequence[Thing]]] = ()

    def looks(self) -> list[tuple[int, Sequence[Thing]]]:
        """The things to attend to while the answer is generated, as (index in the answer, things): up to that index,
        attend to these things."""
        meant = (self.thing,) if self.thing else self.about
        looks: list[tuple[int, Sequence[Thing]]] = []
        said = 0
        for text, things in self.parts:
            begin = self.answer.index(text, said)
            if not looks:
                looks.append((begin, meant))
            said = begin + len(text)
            looks.append((said, things))
        return [*looks, (len(self.answer), meant)]


def each(texts: Sequence[str], things: Sequence[Thing]) -> list[tuple[str, Sequence[Thing]]]:
    """Parts of an answer, one for each thing."""
    return [(text, (thing,)) for text, thing in zip(texts, things, strict=False)]


def alike(named: Sequence[tuple[str, Thing]]) -> list[tuple[str, Sequence[Thing]]]:
    """Parts of an answer, one for each name, in the order in which the names come first."""
    groups: dict[str, list[Thing]] = {}
    for name, thing in named:
        groups.setdefault(name, []).append(thing)
    return list(groups.items())


class Asker:
    """Asks about one scene in one language."""

    def __init__(self, scene: Scene, language: str, rng: Random) -> None:
        self.scene, self.language, self.rng = scene, language, rng
        self.things = scene.things
        self.zh = language == "zh"
        self.ask = words.ASK[language]

    # names

    def kind_name(self, kind: str, plural: bool = False) -> str:
        """ "circle", "circles"; 圆形."""
        name = words.SHAPE_NAMES[self.language][kind]
        return name + "s" if plural and not self.zh else name

    def asked_kind(self, kind: str, plural: bool = False) -> str:
        """A kind in words that a user might use."""
        names = [self.kind_name(kind, plural)] * 4
        names += [n + "s" if plural and not self.zh else n for n in words.SHAPE_SYNONYMS[self.language].get(kind, ())]
        return self.rng.choice(names)

    def colour_name(self, colour: str) -> str:
        """The colour's name in answers."""
        return words.COLOUR_NAMES[self.language][colour]

    def asked_colour(self, colour: str) -> str:
        """A colour in words that a user might use."""
        names = [self.colour_name(colour)] * 4 + list(words.COLOUR_SYNONYMS[self.language].get(colour, ()))
        return self.rng.choice(names)

    def name(self, thing: Thing) -> str:
        """ "red circle"; 红色圆形."""
        return self.colour_name(thing.colour) + ("" if self.zh else " ") + self.kind_name(thing.kind)

    def asked_name(self, colour: str, kind: str) -> str:
        """A coloured thing in words that a user might use."""
        between = self.rng.choice(("", "", "的")) if self.zh else " "
        return self.asked_colour(colour) + between + self.asked_kind(kind)

    def cell(self, thing: Thing) -> str:
        """ "at the top left"; 左上角."""
        return words.CELL_NAMES[self.language][thing.cell]

    def asked_cell(self, cell: int) -> str:
        """A cell in words that a user might use."""
        return self.rng.choice(
            (words.CELL_NAMES[self.language][cell],) * 3 + words.CELL_SYNONYMS[self.language].get(cell, ())
        )

    @staticmethod
    def article(name: str) -> str:
        """The name with "a" or "an"."""
        return ("an " if name[0] in "aeiou" else "a ") + name

    def join(self, parts: Sequence[str]) -> str:
        """ "a, b and c"; a、b和c."""
        if len(parts) < 2:
            return "".join(parts)
        return ("、" if self.zh else ", ").join(parts[:-1]) + ("和" if self.zh else " and ") + parts[-1]

    # the things that a question may be about

    def matching(self, kind: str | None = None, colour: str | None = None) -> list[Thing]:
        """The things of a kind and a colour."""
        return [t for t in self.things if (kind is None or t.kind == kind) and (colour is None or t.colour == colour)]

    def some_kind(self, present: float = 0.85) -> str:
        """A kind, with probability `present` one that is in the picture."""
        if self.things and self.rng.random() < present:
            return self.rng.choice(self.things).kind
        return self.rng.choice(SHAPES)

    def some_colour(self, present: float = 0.85) -> str:
        """A colour, with probability `present` one that is in the picture."""
        if self.things and self.rng.random() < present:
            return self.rng.choice(self.things).colour
        return self.rng.choice(list(COLOURS))

    def pick(self, form: str, **places: str) -> str:
        """A phrasing of a form with its placeholders filled."""
        return self.rng.choice(self.ask[form]).format(**places)

    # the kinds of questions

    def describe(self) -> Exchange:
        """Everything in reading order."""
        parts: list[str] = []
        if not self.things:
            answer = "图片是空白的。" if self.zh else "The picture is empty."
        elif len(self.things) > MOST_COUNTED:
            answer = self.many()
        elif self.zh:
            parts = [f"{self.cell(t)}有一个{self.name(t)}" for t in self.things]
            answer = "，".join(parts) + "。"
        else:
            parts = [f"{self.article(self.name(t))} {self.cell(t)}" for t in self.things]
            answer = f"There {'is' if len(parts) == 1 else 'are'} {self.join(parts)}."
        only = self.things[0] if len(self.things) == 1 else None
        return Exchange(self.pick("describe"), answer, "describe", only, self.things, each(parts, self.things))

    def many(self) -> str:
        """The answer for more things than can be counted."""
        return "有超过四个图形。" if self.zh else "There are more than four shapes."

    def colour(self) -> Exchange:
        """The colour of a thing, or of all things."""
        if self.rng.random() < 0.15 and self.things:
            colours = alike([(self.colour_name(t.colour), t) for t in self.things])
            names = self.join([name for name, _ in colours])
            if len(colours) == 1:
                answer = f"颜色是{names}。" if self.zh else f"The color is {names}."
            else:
                answer = f"颜色有{names}。" if self.zh else f"The colors are {names}."
            return Exchange(self.pick("colours"), answer, "colour", None, self.things, colours)
        if len(self.things) == 1 and self.rng.random() < 0.3:
            thing = self.things[0]
            return Exchange(self.pick("colour_one"), self.is_colour(thing), "colour", thing)
        kind = self.some_kind()
        asked = self.asked_kind(kind)
        return self.colour_of(self.pick("colour", n=asked), kind, asked)

    def colour_of(self, question: str, kind: str, asked: str) -> Exchange:
        """The answer about the colour of a kind, for any phrasing of the question."""
        found = self.matching(kind)
        if not found:
            return Exchange(question, self.absent(self.kind_name(kind)), "colour")
        if len(found) == 1:
            return Exchange(question, self.is_colour(found[0]), "colour", found[0])
        colours = alike([(self.colour_name(t.colour), t) for t in found])
        names = self.join([name for name, _ in colours])
        answer = f"{self.kind_name(kind)}是{names}的。" if self.zh else f"The {self.kind_name(kind, True)} are {names}."
        return Exchange(question, answer, "colour", None, found, colours)

    def is_colour(self, thing: Thing) -> str:
        """The circle is red."""
        name, colour = self.kind_name(thing.kind), self.colour_name(thing.colour)
        return f"{name}是{colour}的。" if self.zh else f"The {name} is {colour}."

    def absent(self, name: str) -> str:
        """There is no red circle."""
        return f"没有{name}。" if self.zh else f"There is no {name}."

    def shape(self) -> Exchange:
        """The shape of the things with a colour or in a cell."""
        if len(self.things) == 1 and self.rng.random() < 0.3:
            return Exchange(self.pick("shape_one"), self.it_is(self.things[0]), "shape", self.things[0])
        if self.rng.random() < 0.3:
            cell = (
                self.rng.choice(self.things).cell
                if self.things and self.rng.random() < 0.85
                else self.rng.randrange(len(CELLS))
            )
            return self.at(cell)
        colour = self.some_colour()
        question = self.pick("shape", c=self.asked_colour(colour))
        found = self.matching(colour=colour)
        if not found:
            return Exchange(
                question, self.absent(self.colour_name(colour) + ("图形" if self.zh else " shape")), "shape"
            )
        if len(found) == 1:
            return Exchange(question, self.it_is(found[0]), "shape", found[0])
        names = [self.kind_name(t.kind) if self.zh else self.article(self.kind_name(t.kind)) for t in found]
        answer = f"是{self.join(names)}。" if self.zh else f"They are {self.join(names)}."
        return Exchange(question, answer, "shape", None, found, each(names, found))

    def at(self, cell: int) -> Exchange:
        """The things in a ninth of the picture."""
        question = self.pick("at", a=self.asked_cell(cell))
        place = words.CELL_NAMES[self.language][cell]
        found = [t for t in self.things if t.cell == cell]
        if not found:
            return Exchange(question, f"{place}没有图形。" if self.zh else f"There is nothing {place}.", "shape")
        names = [self.name(t) if self.zh else self.article(self.name(t)) for t in found]
        they = "是" if self.zh else "It is " if len(names) == 1 else "They are "
        answer = they + self.join(names) + ("。" if self.zh else ".")
        return Exchange(question, answer, "shape", found[0] if len(found) == 1 else None, found, each(names, found))

    def it_is(self, thing: Thing) -> str:
        """It is a circle."""
        name = self.kind_name(thing.kind)
        return f"是{name}。" if self.zh else f"It is {self.article(name)}."

    def count_all(self) -> Exchange:
        """How many things there are."""
        return Exchange(
            self.pick("count"),
            self.there_are(len(self.things), "图形" if self.zh else "shape"),
            "count",
            about=self.things,
        )

    def count(self) -> Exchange:
        """How many things there are, all or some."""
        if self.rng.random() < 0.45 or not self.things:
            return self.count_all()
        which = self.rng.random()
        kind = self.rng.choice(SHAPES) if self.rng.random() < 0.3 else self.some_kind()
        if which < 0.5:
            asked, name, found = self.asked_kind(kind, True), self.kind_name(kind), self.matching(kind)
        elif which < 0.85:
            colour = self.some_colour()
            thing = self.rng.choice(("图形", "东西")) if self.zh else self.rng.choice(("shapes", "things", "objects"))
            asked = self.asked_colour(colour) + ("" if self.zh else " ") + thing
            name, found = self.colour_name(colour) + ("图形" if self.zh else " shape"), self.matching(colour=colour)
        else:
            colour = self.rng.choice([t.colour for t in self.matching(kind)] or list(COLOURS))
            asked = self.asked_colour(colour) + ("" if self.zh else " ") + self.asked_kind(kind, True)
            name, found = (
                self.colour_name(colour) + ("" if self.zh else " ") + self.kind_name(kind),
                self.matching(kind, colour),
            )
        return Exchange(self.pick("count_of", n=asked), self.there_are(len(found), name), "count", about=found)

    def there_are(self, number: int, name: str) -> str:
        """There are two circles."""
        if number > MOST_COUNTED:
            return f"有超过四个{name}。" if self.zh else f"There are more than four {name}s."
        if self.zh:
            return f"有{words.NUMBERS['zh'][number]}个{name}。" if number else f"没有{name}。"
        if number == 1:
            return f"There is one {name}."
        return f"There are {words.NUMBERS['en'][number]} {name}s."

    def where(self) -> Exchange:
        """Where a thing is."""
        thing = self.rng.choice(self.things) if self.things else None
        if thing is None or self.rng.random() < 0.08:
            colour, kind = self.rng.choice(list(COLOURS)), self.rng.choice(SHAPES)
            found, asked = self.matching(kind, colour), self.asked_name(colour, kind)
            absent = self.absent(self.colour_name(colour) + ("" if self.zh else " ") + self.kind_name(kind))
            if not found:
                return Exchange(self.pick("where", n=asked), absent, "where")
            thing = found[0]
        alone = len(self.matching(thing.kind)) == 1
        asked = (
            self.asked_kind(thing.kind)
            if alone and self.rng.random() < 0.5
            else self.asked_name(thing.colour, thing.kind)
        )
        found = [thing] if alone else self.matching(thing.kind, thing.colour)
        question = self.pick("where", n=asked)
        if len(found) == 1:
            return Exchange(question, self.is_at(thing), "where", thing)
        places = alike([(self.cell(t), t) for t in found])
        names = self.join([place for place, _ in places])
        answer = f"{self.name(thing)}在{names}。" if self.zh else f"The {self.name(thing)}s are {names}."
        return Exchange(question, answer, "where", None, found, places)

    def is_at(self, thing: Thing) -> str:
        """The red circle is at the top left."""
        return (
            f"{self.name(thing)}在{self.cell(thing)}。" if self.zh else f"The {self.name(thing)} is {self.cell(thing)}."
        )

    def yes_no(self) -> Exchange:
        """A question to answer with yes or no, each about half of the time."""
        forms: list[Callable[[], Exchange | None]] = [
            self.is_there,
            self.is_there,
            self.asks_colour,
            self.asks_shape,
            self.asks_place,
            self.asks_count,
        ]
        while True:
            asked = self.rng.choice(forms)()
            if asked is not None:
                return replace(asked, kind="yes/no")

    def _yes(self, right: bool, yes: str, no: str) -> str:
        if self.zh:
            return f"是的，{yes}。" if right else f"不，{no}。"
        return f"Yes, {yes}." if right else f"No, {no}."

    def is_there(self) -> Exchange:
        """Is there a red circle?"""
        thing = self.rng.choice(self.things) if self.things else None
        colour: str | None
        kind: str | None
        colour, kind = (
            (thing.colour, thing.kind) if thing else (self.rng.choice(list(COLOURS)), self.rng.choice(SHAPES))
        )
        if self.rng.random() < 0.5:  # change either the colour or the kind
            if self.rng.random() < 0.5:
                colour = self.rng.choice(list(COLOURS))
            else:
                kind = self.rng.choice(SHAPES)
        part = self.rng.random()
        if part < 0.25:
            colour = None
            kind = self.rng.choice(SHAPES) if self.rng.random() < 0.5 else kind
        elif part < 0.4:
            kind = None
            colour = self.rng.choice(list(COLOURS)) if self.rng.random() < 0.5 else colour
        shape = "图形" if self.zh else "shape"
        gap = "" if self.zh else " "
        colours = (self.asked_colour(colour) + gap, self.colour_name(colour) + gap) if colour else ("", "")
        kinds = (self.asked_kind(kind), self.kind_name(kind)) if kind else (shape, shape)
        asked, name = colours[0] + kinds[0], colours[1] + kinds[1]
        found = self.matching(kind, colour)
        question = self.pick("is_there", n=asked if self.zh else asked + "s", k=self.article(asked))
        yes, no = (f"有{name}", f"没有{name}") if self.zh else (f"there is {self.article(name)}", f"there is no {name}")
        return Exchange(
            question, self._yes(bool(found), yes, no), "yes/no", found[0] if len(found) == 1 else None, found
        )

    def _lone(self) -> Thing | None:
        """A thing that is the only one of its kind."""
        alone = [t for t in self.things if len(self.matching(t.kind)) == 1]
        return self.rng.choice(alone) if alone else None

    def asks_colour(self) -> Exchange | None:
        """Is the circle red?"""
        thing = self._lone()
        if thing is None:
            return None
        colour = thing.colour if self.rng.random() < 0.5 else self.some_colour(0.5)
        question = self.pick("is_colour", n=self.asked_kind(thing.kind), c=self.asked_colour(colour))
        told = self.is_colour(thing)[:-1]
        told = told if self.zh else "the" + told[3:]
        return Exchange(question, self._yes(colour == thing.colour, told, told), "yes/no", thing)

    def asks_shape(self) -> Exchange | None:
        """Is the red shape a circle?"""
        alone = [t for t in self.things if len(self.matching(colour=t.colour)) == 1]
        if not alone:
            return None
        thing = self.rng.choice(alone)
        kind = thing.kind if self.rng.random() < 0.5 else self.rng.choice(SHAPES)
        asked = self.asked_kind(kind)
        question = self.pick("is_shape", c=self.asked_colour(thing.colour), n=asked, k=self.article(asked))
        told = self.it_is(thing)[:-1]
        told = told if self.zh else "it" + told[2:]
        return Exchange(question, self._yes(kind == thing.kind, told, told), "yes/no", thing)

    def asks_place(self) -> Exchange | None:
        """Is the red circle at the top?"""
        alone = [t for t in self.things if len(self.matching(t.kind, t.colour)) == 1]
        if not alone:
            return None
        thing = self.rng.choice(alone)
        cell = thing.cell if self.rng.random() < 0.5 else self.rng.randrange(len(CELLS))
        question = self.pick("is_at", n=self.asked_name(thing.colour, thing.kind), a=self.asked_cell(cell))
        told = f"它在{self.cell(thing)}" if self.zh else f"it is {self.cell(thing)}"
        return Exchange(question, self._yes(cell == thing.cell, told, told), "yes/no", thing)

    def asks_count(self) -> Exchange | None:
        """Are there three shapes?"""
        number = len(self.things)
        if not 1 <= number <= MOST_COUNTED:
            return None
        asked = number if self.rng.random() < 0.5 else self.rng.randint(2, MOST_COUNTED)
        if asked == 1:
            return None
        question = self.pick("is_count", m=words.NUMBERS[self.language][asked])
        told = self.there_are(number, "图形" if self.zh else "shape")[:-1]
        told = told if self.zh else "there" + told[5:]
        return Exchange(question, self._yes(asked == number, told, told), "yes/no")

    def box(self) -> Exchange | None:
        """Four fractions, as Imp gives them."""
        alone = [t for t in self.things if len(self.matching(t.kind, t.colour)) == 1]
        if not alone:
            return None
        thing = self.rng.choice(alone)
        only = len(self.matching(thing.kind)) == 1
        asked = (
            self.asked_kind(thing.kind)
            if only and self.rng.random() < 0.4
            else self.asked_name(thing.colour, thing.kind)
        )
        return Exchange(self.pick("box", n=asked), box_text(thing.box), "box", thing)

    def follow_up(self, before: Exchange) -> Exchange | None:
        """A short question that is understandable only after `before`."""
        thing = before.thing
        if thing is not None and self.rng.random() < 0.6:
            form = self.rng.choice(("it_where", "it_colour", "it_box"))
            if form == "it_where" and before.kind != "where":
                return Exchange(self.pick(form), self.is_at(thing), "where", thing)
            if form == "it_colour" and before.kind != "colour":
                return Exchange(self.pick(form), self.is_colour(thing), "colour", thing)
            if form == "it_box" and before.kind != "box":
                return Exchange(self.pick(form), box_text(thing.box), "box", thing)
            return None
        if before.kind == "colour" and thing is not None and self.things:
            kind = self.some_kind()
            asked = self.asked_kind(kind)
            return self.colour_of(self.pick("and_colour", n=asked), kind, asked)
        return None

    def makers(self) -> tuple[tuple[Callable[[], Exchange | None], float], ...]:
        """The kinds of questions that the picture allows, and their relative frequencies."""
        if len(self.things) > MOST_COUNTED:
            return ((self.describe, 0.5), (self.count_all, 0.5))
        return (
            (self.describe, 0.14),
            (self.colour, 0.13),
            (self.shape, 0.13),
            (self.count, 0.14),
            (self.where, 0.16),
            (self.yes_no, 0.16),
            (self.box, 0.12),
        )

    def one(self) -> Exchange:
        """One random question with its answer."""
        makers, weights = zip(*self.makers(), strict=True)
        while True:
            asked: Exchange | None = self.rng.choices(makers, weights)[0]()
            if asked is not None:
                return asked

    def of_several(self) -> Exchange | None:
        """A question about the colour or shape of several things, the hardest kind; None if none was found."""
        if not 2 <= len(self.things) <= MOST_COUNTED:
            return None
        tries = (self.rng.choice((self.colour, self.colour, self.shape))() for _ in range(5))
        return next((asked for asked in tries if len(asked.about) > 1), None)

    def conversation(self, turns: int) -> list[Exchange]:
        """`turns` questions in a row, some of them follow-ups."""
        if self.scene.photo:
            other = Asker(Scene(self.scene.picture, _SOMETHING, self.scene.mask), self.language, self.rng)
            return [Exchange(e.question, words.REFUSAL[self.language], "photo") for e in other.conversation(turns)]
        asked: list[Exchange] = []
        while len(asked) < turns:
            follow = self.follow_up(asked[-1]) if asked and self.rng.random() < 0.5 else None
            asked.append(follow or self.one())
        return asked


_SOMETHING = (Thing("circle", "red", (0.1, 0.1, 0.3, 0.3), 0), Thing("square", "blue", (0.6, 0.6, 0.9, 0.9), 8))


def box_text(box: Sequence[float]) -> str:
    """[x1, y1, x2, y2] as Imp writes it, two decimals."""
    return "[" + ", ".join(f"{v:.2f}" for v in box) + "]"


def small_talk(language: str, rng: Random) -> Exchange:
    """A greeting, thanks, "who are you?" and so on."""
    said, answer = rng.choice(words.SMALL_TALK[language])
    return Exchange(rng.choice(said), answer, "small talk")


def two_pictures(first: Scene, second: Scene, language: str, rng: Random) -> Exchange:
    """A question about two pictures that were sent together, or one after the other."""
    zh = language == "zh"
    askers = (Asker(first, language, rng), Asker(second, language, rng))
    form = rng.choice(("describe", "describe", "count", "colour", "more", "which"))
    at = rng.randrange(2)
    where = (("第一张图", "第二张图") if zh else ("the first picture", "the second picture"))[at]
    asker = askers[at]
    if form == "more":
        question = rng.choice(words.TWO[language]["more"])
        counts = (len(first.things), len(second.things))
        answer = words.TWO[language]["answers"][2 if counts[0] == counts[1] else int(counts[1] > counts[0])]
    elif form == "which":
        thing = asker.rng.choice(asker.things) if asker.things else Thing("circle", "red", (0, 0, 1, 1), 0)
        question = rng.choice(words.TWO[language]["which"]).format(n=asker.asked_name(thing.colour, thing.kind))
        held = [bool(a.matching(thing.kind, thing.colour)) for a in askers]
        answer = words.TWO[language]["holders"][3 if not any(held) else 2 if all(held) else int(held[1])]
    elif form == "describe":
        question, answer = rng.choice(words.TWO[language]["describe"]).format(w=where), asker.describe().answer
    elif form == "count":
        question = rng.choice(words.TWO[language]["count"]).format(w=where)
        answer = asker.there_are(len(asker.things), "图形" if zh else "shape")
    else:
        kind = asker.some_kind()
        asked = asker.asked_kind(kind)
        question = rng.choice(words.TWO[language]["colour"]).format(w=where, n=asked)
        answer = asker.colour_of("", kind, asked).answer
    return Exchange(question, answer, "two pictures")


def without_picture(language: str, rng: Random) -> Exchange:
    """A question about a picture that nobody attached."""
    nowhere = Asker(Scene(None, _SOMETHING, None), language, rng)  # type: ignore[arg-type]
    return replace(nowhere.one(), answer=words.NO_PICTURE[language], kind="no picture", thing=None)


def typed(question: str, rng: Random) -> str:
    """The question as users type it: lower case, without the question mark, with "please"."""
    if rng.random() < 0.25:
        question = question.rstrip("?.？。!！")
    if rng.random() < 0.25:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.04 and question[0].isascii():
        question = "Please " + question[0].lower() + question[1:]
    return question.replace("？", "?") if rng.random() < 0.15 else question
