"""Ten thousand users and their replicas: `python -m benchmarks.simulate` simulates a cluster that nobody here has.

In: the speed of a machine (measured; `MACHINES` names the sources), and how users ask (assumed; `People`). Out: for
each policy of choosing a replica, the share of prompts found in KV caches, how long users wait, and how many machines
keep these times short. All random numbers come from one seed.
This file does not know Ray; it only has the same hash ring and the same limits.
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

VIRTUAL_NODES = 100  # of each replica on the ring, as in Ray
GB = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that runs one replica."""

    name: str
    read_per_s: float  # prompt tokens
    write_per_s: float  # answer tokens of all concurrent answers together: batching gains nothing
    picture_s: float  # to encode one picture
    memory_bytes: float  # for KV caches
    first_token_s: float  # the 95th percentile must not exceed this


@dataclass(frozen=True, slots=True)
class People:
    """How users ask. In the paper's protocol a question has 41 tokens and an answer 64."""

    users: int = 10_000
    think_s: float = 30.0  # mean time between an answer and the next question (exponential)
    questions: float = 4.0  # mean per conversation (geometric); the first one has a picture
    system_tokens: int = 40
    picture_tokens: int = 196
    question_tokens: int = 41
    answer_tokens: int = 64


# KV cache of Phi-2, a full context for each slot: 32 layers, each with a key and a value of 2560 16-bit numbers
TOKEN_BYTES = 32 * 2 * 2560 * 2
MACHINES = (
    # Measured on two cores of an AMD EPYC: a full-size Imp-3B@196 in q4_k_m, vision encoder in float32
    Machine("two processor cores, 24 GB", 50.0, 16.0, 0.86, 20 * GB, 20.0),
    # The paper's Table 4: Imp-3B@196 in 4 bits, one user at a time
    Machine("RTX 3090, 24 GB", 3930.54, 170.42, 0.017, 20 * GB, 1.0),
)


@dataclass(slots=True, eq=False)
class Conversation:
    """The conversation of one user."""

    place: float  # on the ring
    questions: int  # remaining
    tokens: int = 0  # so far
    asked_at: float = 0.0


@dataclass(slots=True)
class Result:
    """The results, without the time until the system has settled."""

    waits: list[float] = field(default_factory=list)  # seconds to the first token
    wanted: int = 0  # tokens of prompts
    known: int = 0  # of these, found in a KV cache
    later: int = 0  # requests that follow an earlier answer
    hits: int = 0  # of these, with the whole conversation so far in the KV cache
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
    """A machine that divides its time evenly among `slots` active answers; others wait in order of arrival."""

    def __init__(self, machine: Machine, slots: int) -> None:
        self.machine, self.slots = machine, slots
        self.kept: OrderedDict[Conversation, int] = OrderedDict()  # tokens in the KV cache, least recently used first
        self.active: dict[Conversation, Request] = {}
        self.waiting: deque[Request] = deque()
        self.version = 0  # increases with each change of its next event
        self._done_s = 0.0  # work done for each active request since the start
        self._at = 0.0
        self._steps: list[tuple[float, int, Request, bool]] = []  # see `pop`; sorted by work
        self._order = itertools.count()

    @property
    def load(self) -> int:
        return len(self.active) + len(self.waiting)

    def advance(self, now: float) -> float:
        """Work until `now`; returns the seconds worked."""
        spent = now - self._at if self.active else 0.0
        if self.active:
            self._done_s += (now - self._at) / len(self.active)
        self._at = now
        return spent

    def next_at(self) -> float:
        """The time at which its next step is done, if no other request arrives."""
        if not self._steps:
            return math.inf
        return self._at + max(0.0, self._steps[0][0] - self._done_s) * len(self.active)

    def pop(self) -> tuple[Request, bool]:
        """The finished step: a request, and whether it has ended; otherwise its prompt has been read."""
        at, _, request, ended = heapq.heappop(self._steps)
        self._done_s = max(self._done_s, at)
        if ended:
            del self.active[request.conversation]
        else:
            heapq.heappush(self._steps, (at + request.write_s, next(self._order), request, True))
        return request, ended

    def admit(self, people: People, result: Result | None) -> None:
        """Start waiting requests while there are free slots."""
        while self.waiting and len(self.active) < self.slots:
            request = self.waiting.popleft()
            talk = request.conversation
            known = self.kept.pop(talk, 0)
            if len(self.kept) >= self.slots:  # evict an idle one: there are as many slots as active requests
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
    """Consistent hashing: each position on the ring belongs to the next replica clockwise."""

    def __init__(self, replicas: int, draw: random.Random) -> None:
        nodes = sorted((draw.random(), node % replicas) for node in range(replicas * VIRTUAL_NODES))
        self._places = [place for place, _ in nodes]
        self._owners = [owner for _, owner in nodes]

    def owner(self, place: float) -> int:
        return self._owners[bisect.bisect(self._places, place) % len(self._owners)]

    def first_with_room(self, place: float, room: Callable[[int], bool]) -> int:
        """The owner, or the first of the next replicas clockwise that has room, else the owner."""
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
        for _ in range(people.users):  # users start at different times
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
            elif self._replicas[number].version != version:  # a request has arrived since
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
    """Conversations whose KV cache fits in its memory, and that it answers at the same time."""
    return int(machine.memory_bytes / (settings.CONTEXT_TOKENS * TOKEN_BYTES))


def work_s(people: People, machine: Machine) -> float:
    """The work that arrives per second, in seconds: the minimum number of machines, if every KV cache lookup hit and
    nobody ever waited."""
    first = machine.picture_s + (people.system_tokens + people.picture_tokens) / machine.read_per_s
    each = people.question_tokens / machine.read_per_s + people.answer_tokens / machine.write_per_s
    each += first / people.questions
    return people.users / (people.think_s + each) * each


def enough(people: People, machine: Machine, policy: str, least: int, seconds: float, seed: int) -> int | None:
    """The number of replicas with which the first token is early enough: `least` times one of `TIMES`; None: more."""
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
