"""Ten thousand people and their replicas: `python -m benchmarks.simulate` plays what nobody here has machines for.

In: how fast a machine is (measured; `MACHINES` says by whom), and how people ask (assumed; `People`). Out: for each way
of choosing a replica, how much of the prompts is found in KV caches, how long people wait, and how many machines it
takes until they do not wait long. Everything is drawn from one seed.
This file does not know Ray: it has the same ring, the same limits, and nothing else of it.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from impchat import settings

VIRTUAL_NODES = 100  # of each replica on the ring, as Ray has it
GB = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs one replica."""

    name: str
    read_per_s: float  # prompt tokens
    write_per_s: float  # tokens of answers, of all answers at once together: nothing is gained by batching them
    picture_s: float  # to encode one picture
    memory_bytes: float  # for KV caches
    first_token_s: float  # longer than this, for one in twenty, is too long


@dataclass(frozen=True, slots=True)
class People:
    """How they ask. The paper's protocol has a question of 41 tokens and an answer of 64."""

    users: int = 10_000
    think_s: float = 30.0  # between an answer and the next question, on average (exponential)
    questions: float = 4.0  # of a conversation, on average (geometric); the first one has a picture
    system_tokens: int = 40
    picture_tokens: int = 196
    question_tokens: int = 41
    answer_tokens: int = 64


# KV cache of Phi-2, a full context to each slot: 32 layers, in each a key and a value of 2560 numbers in 16 bits
TOKEN_BYTES = 32 * 2 * 2560 * 2
MACHINES = (
    # Measured here on two cores of an AMD EPYC: a full-size Imp-3B@196 in q4_k_m, eyes in float32
    Machine("two processor cores, 24 GB", 50.0, 16.0, 0.86, 20 * GB, 20.0),
    # The paper's Table 4: Imp-3B@196 in 4 bits, one person at a time
    Machine("RTX 3090, 24 GB", 3930.54, 170.42, 0.017, 20 * GB, 1.0),
)


@dataclass(slots=True, eq=False)
class Conversation:
    """What one person is in."""

    place: float  # on the ring
    questions: int  # still to come
    tokens: int = 0  # so far
    asked_at: float = 0.0


@dataclass(slots=True)
class Result:
    """What came of it, without the time until it had settled."""

    waits: list[float] = field(default_factory=list)  # seconds to the first token
    wanted: int = 0  # tokens of prompts
    known: int = 0  # of these, found in a KV cache
    later: int = 0  # requests with an earlier answer in them
    hits: int = 0  # of these, read from behind that answer on
    busy_s: float = 0.0

    def wait(self, share: float) -> float:
        return sorted(self.waits)[int(share * len(self.waits))]


@dataclass(slots=True, eq=False)
class Request:
    conversation: Conversation
    prompt: int  # tokens
    read_s: float = 0.0  # work until its first token
    write_s: float = 0.0


class Replica:
    """A machine whose answers share it evenly: so many at once, the others wait in their order."""

    def __init__(self, machine: Machine, slots: int) -> None:
        self.machine, self.slots = machine, slots
        self.kept: OrderedDict[Conversation, int] = OrderedDict()  # tokens in the KV cache, latest use last
        self.active: dict[Conversation, Request] = {}
        self.waiting: deque[Request] = deque()
        self.version = 0  # of its next event
        self._done_s = 0.0  # work that each active request got since the beginning
        self._at = 0.0
        self._steps: list[tuple[float, int, Request, bool]] = []  # when a request has read; when it has ended
        self._order = itertools.count()

    @property
    def load(self) -> int:
        return len(self.active) + len(self.waiting)

    def advance(self, now: float) -> float:
        """Work until `now`; how much of that time it worked."""
        spent = now - self._at if self.active else 0.0
        if self.active:
            self._done_s += (now - self._at) / len(self.active)
        self._at = now
        return spent

    def next_at(self) -> float:
        """When its next step is done, if nobody else comes."""
        if not self._steps:
            return math.inf
        return self._at + max(0.0, self._steps[0][0] - self._done_s) * len(self.active)

    def pop(self) -> tuple[Request, bool]:
        """The step that is done: a request, and whether it has ended; else it has read its prompt."""
        at, _, request, ended = heapq.heappop(self._steps)
        self._done_s = max(self._done_s, at)
        if ended:
            del self.active[request.conversation]
        else:
            heapq.heappush(self._steps, (at + request.write_s, next(self._order), request, True))
        return request, ended

    def admit(self, people: People, result: Result | None) -> None:
        """Take from those that wait as many as there are slots."""
        while self.waiting and len(self.active) < self.slots:
            request = self.waiting.popleft()
            talk = request.conversation
            known = self.kept.pop(talk, 0)
            if len(self.kept) >= self.slots:  # an idle one: there are as many slots as may be active
                del self.kept[next(kept for kept in self.kept if kept not in self.active)]
            self.kept[talk] = request.prompt + people.answer_tokens
            new_picture = known <= people.system_tokens
            request.read_s = (request.prompt - known) / self.machine.read_per_s + new_picture * self.machine.picture_s
            request.write_s = people.answer_tokens / self.machine.write_per_s
            self.active[talk] = request
            heapq.heappush(self._steps, (self._done_s + request.read_s, next(self._order), request, False))
            if result:
                result.wanted += request.prompt
                result.known += known
                result.later += talk.tokens > 0
                result.hits += 0 < talk.tokens == known


class Ring:
    """Consistent hashing: each place on the ring belongs to the next replica clockwise."""

    def __init__(self, replicas: int, draw: random.Random) -> None:
        nodes = sorted((draw.random(), node % replicas) for node in range(replicas * VIRTUAL_NODES))
        self._places = [place for place, _ in nodes]
        self._owners = [owner for _, owner in nodes]

    def owner(self, place: float) -> int:
        return self._owners[bisect.bisect(self._places, place) % len(self._owners)]

    def first_with_room(self, place: float, room: Callable[[int], bool]) -> int:
        """The owner or the first of its neighbours clockwise that has room, else the owner."""
        start = bisect.bisect(self._places, place)
        tried: set[int] = set()
        for n in range(len(self._owners)):
            owner = self._owners[(start + n) % len(self._owners)]
            if owner not in tried and room(owner):
                return owner
            tried.add(owner)
            if len(tried) > settings.CLUSTER_NEIGHBOURS:
                break
        return self.owner(place)


LIMITS = {f"its own replica, unless it has {most}": most for most in (2, 4, 8)}
POLICIES = ("any replica", "the shorter of two queues", "its own replica, always", *LIMITS)
TIMES = (1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0)


class Play:
    """One simulation."""

    def __init__(self, people: People, machine: Machine, replicas: int, policy: str, seed: int) -> None:
        self._people, self._policy = people, policy
        self._draw = random.Random(seed)
        self._slots = slots_of(machine)
        self._replicas = [Replica(machine, self._slots) for _ in range(replicas)]
        self._ring = Ring(replicas, self._draw)
        self._events: list[tuple[float, int, Conversation | None, int, int]] = []
        self._order = itertools.count()
        for _ in range(people.users):  # nobody begins at the same time
            self._ask_at(self._think_s(), self._new())

    def run(self, settle_s: float, seconds: float) -> Result:
        result = Result()
        while self._events and self._events[0][0] < settle_s + seconds:
            now, _, talk, number, version = heapq.heappop(self._events)
            counted = result if now >= settle_s else None
            if talk:
                number = self._choose(talk)
                prompt = self._people.question_tokens + (talk.tokens or self._beginning())
                self._replicas[number].waiting.append(Request(talk, prompt))
                talk.asked_at = now
            elif self._replicas[number].version != version:  # somebody has come since
                continue
            self._serve(number, now, counted, due=talk is None)
        return result

    def _serve(self, number: int, now: float, result: Result | None, due: bool) -> None:
        replica = self._replicas[number]
        spent = replica.advance(now)
        if result:
            result.busy_s += spent
        if due:
            request, ended = replica.pop()
            talk = request.conversation
            if not ended and result:
                result.waits.append(now - talk.asked_at)
            if ended:
                talk.tokens = request.prompt + self._people.answer_tokens
                talk.questions -= 1
                fits = talk.tokens + self._people.question_tokens + self._people.answer_tokens < settings.CONTEXT_TOKENS
                self._ask_at(now + self._think_s(), talk if talk.questions and fits else self._new())
        replica.admit(self._people, result)
        replica.version += 1
        if (at := replica.next_at()) < math.inf:
            heapq.heappush(self._events, (at, next(self._order), None, number, replica.version))

    def _choose(self, talk: Conversation) -> int:
        count = len(self._replicas)
        match self._policy:
            case "any replica":
                return self._draw.randrange(count)
            case "the shorter of two queues":
                two = self._draw.randrange(count), self._draw.randrange(count)
                return min(two, key=lambda n: self._replicas[n].load)
            case "its own replica, always":
                return self._ring.owner(talk.place)
            case _:
                most = LIMITS[self._policy]
                return self._ring.first_with_room(talk.place, lambda n: self._replicas[n].load < most)

    def _ask_at(self, at: float, talk: Conversation) -> None:
        heapq.heappush(self._events, (at, next(self._order), talk, 0, 0))

    def _new(self) -> Conversation:
        questions = 1 + int(math.log(1 - self._draw.random()) / math.log(1 - 1 / self._people.questions))
        return Conversation(self._draw.random(), questions)

    def _think_s(self) -> float:
        return self._draw.expovariate(1 / self._people.think_s)

    def _beginning(self) -> int:
        return self._people.system_tokens + self._people.picture_tokens


def slots_of(machine: Machine) -> int:
    """Conversations whose KV cache it keeps, and that it answers at once."""
    return int(machine.memory_bytes / (settings.CONTEXT_TOKENS * TOKEN_BYTES))


def work_s(people: People, machine: Machine) -> float:
    """The work that comes in each second, in seconds: so many machines are the least, if every KV cache had everything
    and nobody ever waited."""
    first = machine.picture_s + (people.system_tokens + people.picture_tokens) / machine.read_per_s
    each = people.question_tokens / machine.read_per_s + people.answer_tokens / machine.write_per_s
    each += first / people.questions
    return people.users / (people.think_s + each) * each


def enough(people: People, machine: Machine, policy: str, least: int, seconds: float, seed: int) -> int | None:
    """So many replicas that the first token comes early enough, of `least` times each of `TIMES`; None: more."""
    low, high = -1, len(TIMES)
    while high - low > 1:
        middle = (low + high) // 2
        result = Play(people, machine, math.ceil(least * TIMES[middle]), policy, seed).run(seconds, seconds)
        low, high = (middle, high) if result.wait(0.95) > machine.first_token_s else (low, middle)
    return math.ceil(least * TIMES[high]) if high < len(TIMES) else None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--users", type=int, default=People().users)
    parser.add_argument("--think", type=float, default=People().think_s, help="seconds")
    parser.add_argument("--seconds", type=float, default=180.0, help="that are counted, after as many to settle")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    people = People(users=args.users, think_s=args.think)
    thousand = replace(people, users=1000)
    for machine in MACHINES:
        replicas = math.ceil(work_s(people, machine) / 0.75)
        print(
            f"\n{machine.name}: {slots_of(machine)} conversations kept on each; {people.users} people, "
            f"{replicas} machines\n\n"
            "| a request goes to | later questions found whole in a KV cache | tokens read of each prompt | "
            "wait for the first token: median | 95th percentile | busy | machines for 1,000 people of whom 95 % wait "
            f"at most {machine.first_token_s:g} s |",
            "|---" * 7 + "|",
            sep="\n",
        )
        for policy in POLICIES:
            result = Play(people, machine, replicas, policy, args.seed).run(args.seconds, args.seconds)
            needed = enough(thousand, machine, policy, math.ceil(work_s(thousand, machine)), args.seconds, args.seed)
            print(
                f"| {policy} | {result.hits / result.later:.1%} | {1 - result.known / result.wanted:.0%} | "
                f"{result.wait(0.5):.2f} s | {result.wait(0.95):.2f} s | "
                f"{result.busy_s / replicas / args.seconds:.0%} | {needed or 'more than three times as many'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
