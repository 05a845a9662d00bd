"""Which slot a prompt gets, and how much of its prefix the slot already holds."""

from impchat.engines.local import kv_cache
from impchat.messages import Picture
from impchat.prompts import Tokens


class Memory:
    """The cells of each sequence, as in a real KV cache."""

    def __init__(self) -> None:
        self.held: dict[int, list[kv_cache.Cell]] = {}

    def remove(self, sequence: int, start: int) -> None:
        del self.held[sequence][start:]

    def share(self, source: int, target: int, end: int) -> None:
        assert not self.held.get(target), "sharing into a sequence that is not empty"
        self.held[target] = self.held[source][:end]


class Cache:
    """Slots and their cells; prompts are processed to the end."""

    def __init__(self, count: int) -> None:
        self.memory = Memory()
        self.slots = kv_cache.Slots(self.memory, count)

    def read(self, key: str, text: str, *, keep_busy: bool = False) -> tuple[kv_cache.Slot, int]:
        """Process `text`, one cell for each letter; return its slot and the length of the cached prefix."""
        prompt: list[kv_cache.Cell] = [ord(c) for c in text]
        slot = self.slots.take(key, prompt)
        assert slot is not None
        cached = len(slot.cells)
        slot.cells += prompt[cached:]
        self.memory.held.setdefault(slot.sequence, []).extend(prompt[cached:])
        assert self.memory.held[slot.sequence] == slot.cells == prompt
        slot.busy = keep_busy
        return slot, cached


def test_the_cells_of_a_picture_carry_its_hash() -> None:
    pieces = [Tokens((7, 8)), Picture("cat", b""), Tokens((9,))]
    assert kv_cache.cells(pieces, 3) == [7, 8, ("cat", 0), ("cat", 1), ("cat", 2), 9]


def test_equal_cells_count_from_the_beginning() -> None:
    assert kv_cache.common([1, 2, 3], [1, 2, 4]) == 2
    assert kv_cache.common([1, 2], [1, 2, 3]) == 2
    assert kv_cache.common([], [1]) == 0
    assert kv_cache.common([1, ("cat", 0)], [1, ("dog", 0)]) == 1


def test_a_conversation_finds_its_own_slot_again() -> None:
    cache = Cache(2)
    first, _ = cache.read("a", "hello")
    cache.read("b", "other")
    again, cached = cache.read("a", "hello world")
    assert (again, cached) == (first, 5)


def test_an_edited_question_keeps_what_comes_before_the_change() -> None:
    cache = Cache(2)
    first, _ = cache.read("a", "system question answer")
    again, cached = cache.read("a", "system quarrel")
    assert (again, cached) == (first, len("system qu"))


def test_the_least_recently_used_slot_is_reused() -> None:
    cache = Cache(2)
    cache.read("a", "aaa")
    cache.read("b", "bbb")
    cache.read("a", "aaaa")
    cache.read("c", "ccc")
    assert cache.read("a", "aaaaa")[1] == 4
    assert cache.read("b", "bbbb")[1] == 0


def test_a_busy_slot_is_never_reused() -> None:
    cache = Cache(2)
    one, _ = cache.read("a", "aaa", keep_busy=True)
    two, _ = cache.read("a", "aaa", keep_busy=True)
    assert one is not two
    assert cache.slots.take("c", [1]) is None


def test_a_common_beginning_is_shared_and_not_processed_again() -> None:
    cache = Cache(2)
    one, _ = cache.read("a", "system picture, what is it?", keep_busy=True)
    two, cached = cache.read("b", "system picture, how many?")
    assert one is not two
    assert cached == len("system picture, ")


def test_nothing_is_discarded_while_a_slot_is_empty() -> None:
    cache = Cache(3)
    cache.read("a", "system one")
    cache.read("b", "system two")
    assert cache.read("a", "system one!")[1] == len("system one")
    assert cache.read("b", "system two!")[1] == len("system two")


def test_a_slot_that_the_prompt_continues_is_taken_before_a_slot_of_another_conversation() -> None:
    cache = Cache(2)
    cache.read("", "system picture")  # prefilled for a conversation without a name
    cache.read("b", "system else")
    cache.read("c", "system picture, what?")
    assert cache.read("b", "system else!")[1] == len("system else")


def test_prompts_without_a_key_find_their_prefix_too() -> None:
    cache = Cache(2)
    cache.read("", "system one")
    assert cache.read("", "system one and more")[1] == len("system one")


def test_checking_whether_a_prompt_is_cached_counts_as_a_use() -> None:
    cache = Cache(2)
    cache.read("a", "aaa")
    cache.read("b", "bbb")
    assert cache.slots.holds([ord("a")] * 2)
    assert not cache.slots.holds([ord("a")] * 4)
    cache.read("c", "ccc")
    assert cache.read("a", "aaa")[1] == 3
