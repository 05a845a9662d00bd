"""Detokenizer: token bytes become text with whole characters, without a leading space or parts of a stop string."""

from collections.abc import Iterable

import pytest

from impchat.engines.detokenizer import Detokenizer


def streamed(pieces: Iterable[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    """Return the text of each piece and of the end, and the detokenizer."""
    words = Detokenizer(stop)
    given = [words.add(piece) for piece in pieces]
    return [*given, words.end()], words


def by_bytes(text: str) -> list[bytes]:
    return [bytes([b]) for b in text.encode()]


@pytest.mark.parametrize("text", ["Grün", "图里有红色的圆。", "🟥🔵 ok"])
def test_characters_are_whole_however_their_bytes_are_split(text: str) -> None:
    given, _ = streamed(by_bytes(text))
    assert "".join(given) == text
    assert [g for g in given if g] == [*text]


def test_an_invalid_byte_becomes_a_replacement_character() -> None:
    assert "".join(streamed([b"a", b"\xff", b"b"])[0]) == "a\ufffdb"


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert "".join(streamed([b"ab", "圆".encode()[:2]])[0]) == "ab"


@pytest.mark.parametrize("pieces", [[b" Yes", b" it is"], [b" ", b"Yes it is"], [b"  Yes it", b" is"]])
def test_the_leading_space_of_an_answer_is_dropped(pieces: list[bytes]) -> None:
    assert "".join(streamed(pieces)[0]) == "Yes it is"


def test_text_is_not_held_back_where_no_stop_string_can_begin() -> None:
    assert streamed([b"one", b" two"], stop=("STOP",))[0] == ["one", " two", ""]


@pytest.mark.parametrize("pieces", [[b"one STOP two"], [b"one ", b"ST", b"OP", b" two"], by_bytes("one STOP two")])
def test_an_answer_ends_before_a_stop_string_however_it_is_split(pieces: list[bytes]) -> None:
    given, words = streamed(pieces, stop=("STOP", "other"))
    assert words.stopped
    assert "".join(given) == "one "


def test_text_that_only_began_like_a_stop_string_is_given_out() -> None:
    assert streamed([b"a S", b"TO", b"RY"], stop=("STOP",))[0] == ["a ", "", "STORY", ""]
    assert streamed([b"STO"], stop=("STOP",))[0] == ["", "STO"]


def test_a_stop_string_that_begins_inside_a_partial_match_is_found() -> None:
    given, words = streamed([b"x", b"aa", b"ab", b"!"], stop=("aab",))
    assert ("".join(given), words.stopped) == ("xa", True)


def test_the_first_of_several_stop_strings_in_the_text_counts() -> None:
    given, _ = streamed([b"one two three"], stop=("three", "two"))
    assert "".join(given) == "one "


def test_a_stop_string_of_chinese_characters_is_found_across_their_bytes() -> None:
    given, words = streamed(by_bytes("红色的圆。再见"), stop=("。再",))
    assert ("".join(given), words.stopped) == ("红色的圆", True)


def test_an_empty_stop_string_stops_nothing() -> None:
    assert "".join(streamed([b"one"], stop=("",))[0]) == "one"
