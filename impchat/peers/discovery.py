"""Servers of the local network that say they are there: asked by mDNS, as any program may ask.

In: how long to wait. Out: what was said. The question comes from an ordinary socket, so the answers come back to that
socket alone (RFC 6762, 5.1 and 6.7): nothing is announced, nobody else's port 5353 is in the way, and Android wants no
lock for it.
Who answers may be anybody. Nothing here is believed: a name to show, and addresses at which pairing may begin.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, Any

from impchat import settings
from impchat.peers.pairing import one_line

if TYPE_CHECKING:
    from dns.name import Name
    from dns.rdatatype import RdataType

    Question = tuple[Name, RdataType]

SERVICE = "_impchat._tcp.local."
_EVERYBODY = ("224.0.0.251", 5353)
_PACKET = 9000  # bytes: mDNS sends no more


@dataclass(frozen=True, slots=True)
class Found:
    """A server that says it is there. Believe nothing of it: pairing proves who it is."""

    id: str
    name: str
    places: tuple[str, ...]  # host:port; where it answered from comes first


def discover(seconds: float = settings.DISCOVER_S, interfaces: Iterable[str] | None = None) -> list[Found]:
    """The servers that answer within `seconds`. `interfaces`: addresses of the cards to ask on; None: on the one that
    leads out of this device. A network that takes no such question has none."""
    answers = _Answers()
    with ExitStack() as stack, DefaultSelector() as selector:
        for card in interfaces or (None,):
            asking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            if card:
                asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(card))
            selector.register(asking, EVENT_READ, asking)
        again = time.monotonic()
        end = again + seconds
        while (now := time.monotonic()) < end:
            if now >= again:  # once is not enough: what is sent to everybody is easily lost on the air
                again += settings.DISCOVER_AGAIN_S
                for key in selector.get_map().values():
                    with suppress(OSError):  # there is no network, or none that takes such a question
                        key.data.sendto(answers.first, _EVERYBODY)
            for key, _ in selector.select(min(again, end) - now):
                with suppress(OSError):
                    data, (sender, _port) = key.data.recvfrom(_PACKET)
                    for packet in answers.take(data, sender):
                        key.data.sendto(packet, _EVERYBODY)
    return answers.found()


@dataclass
class _Answers:
    """What was said so far. Only answers to what is asked are kept, and only so many of them."""

    records: dict[Question, list[Any]] = field(default_factory=dict)
    asked: set[Question] = field(default_factory=set)
    senders: set[str] = field(default_factory=set)
    number: int = field(default_factory=lambda: secrets.randbelow(1 << 16))  # that every answer must repeat

    @property
    def first(self) -> bytes:
        """The question with which it begins, as a packet."""
        return self._packet(next(self._questions()))

    def take(self, data: bytes, sender: str) -> list[bytes]:
        """Take in a packet; what is still to be asked then, each once. Who answers should have said all at once."""
        from dns import exception, flags, message, rdataclass

        try:  # a record that cannot be read is left out: mDNS shortens names in some where DNS does not
            answer = message.from_wire(data, continue_on_error=True, ignore_trailing=True)
        except (exception.DNSException, ValueError):
            return []
        if answer.id != self.number or not answer.flags & flags.QR:
            return []
        self.senders.add(sender)
        said = {(s.name, s.rdtype): s for s in (*answer.answer, *answer.additional) if s.rdclass == rdataclass.IN}
        while new := [question for question in self._questions() if question in said]:
            for question in new:
                kept = [*self.records.get(question, ()), *said.pop(question, ())]
                self.records[question] = list(dict.fromkeys(kept))[: settings.DISCOVER_MOST]
        open_ones = [q for q in self._questions() if q not in self.records and q not in self.asked]
        return [self._packet(question) for question in dict.fromkeys(open_ones)]

    def _packet(self, question: Question) -> bytes:
        from dns import message

        self.asked.add(question)
        return message.make_query(*question, id=self.number, flags=0).to_wire()

    def _questions(self) -> Iterator[Question]:
        """Which servers there are; then of each where it is and what it is called; then the addresses of its host."""
        from dns import name, rdatatype

        service = name.from_text(SERVICE)
        yield service, rdatatype.PTR
        for server in self._servers():
            yield server, rdatatype.SRV
            yield server, rdatatype.TXT
            for place in self.records.get((server, rdatatype.SRV), ()):
                yield place.target, rdatatype.A

    def _servers(self) -> list[Name]:
        from dns import name, rdatatype

        service = name.from_text(SERVICE)
        return [p.target for p in self.records.get((service, rdatatype.PTR), ()) if p.target.is_subdomain(service)]

    def found(self) -> list[Found]:
        from dns import rdatatype

        found = []
        for server in self._servers():
            told = [text for record in self.records.get((server, rdatatype.TXT), ()) for text in record.strings]
            words = {key: value for key, _, value in (text.decode("utf-8", "replace").partition("=") for text in told)}
            places = [
                f"{address.address}:{place.port}"
                for place in self.records.get((server, rdatatype.SRV), ())
                for address in self.records.get((place.target, rdatatype.A), ())
                if place.port
            ]
            places.sort(key=lambda place: place.rpartition(":")[0] not in self.senders)
            if places:
                found.append(Found(one_line(words.get("id", "")), one_line(words.get("name", "")), tuple(places)))
        return sorted(found, key=lambda one: (one.name, one.places))
