"""Discovery of ImpChat servers in the local network, by one-shot mDNS queries.

In: a time limit. Out: the servers that answered. Queries are sent from an ordinary socket, so the answers are unicast
to that socket (RFC 6762, 5.1 and 6.7): nothing is announced, another program on port 5353 does not matter, and Android
needs no multicast lock.
Anyone can answer, so nothing here is trusted: the result is a name to show, and addresses to try for pairing.
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
_PACKET = 9000  # bytes: the largest mDNS packet


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answered. Its fields are not authenticated; pairing proves its identity."""

    id: str
    name: str
    places: tuple[str, ...]  # host:port; addresses that an answer came from are first


def discover(seconds: float = settings.DISCOVER_S, interfaces: Iterable[str] | None = None) -> list[Found]:
    """The servers that answer within `seconds`. `interfaces`: IPv4 addresses of the network interfaces to query on;
    None: the default one. Empty on a network without multicast."""
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
            if now >= again:  # repeated, because Wi-Fi easily loses multicast packets
                again += settings.DISCOVER_AGAIN_S
                for key in selector.get_map().values():
                    with suppress(OSError):  # no network, or one without multicast
                        key.data.sendto(answers.first, _EVERYBODY)
            for key, _ in selector.select(min(again, end) - now):
                with suppress(OSError):
                    data, (sender, _port) = key.data.recvfrom(_PACKET)
                    for packet in answers.take(data, sender):
                        key.data.sendto(packet, _EVERYBODY)
    return answers.found()


@dataclass
class _Answers:
    """The answers so far. Keeps only answers to our questions, at most `settings.DISCOVER_MOST` per question."""

    records: dict[Question, list[Any]] = field(default_factory=dict)
    asked: set[Question] = field(default_factory=set)
    senders: set[str] = field(default_factory=set)
    number: int = field(default_factory=lambda: secrets.randbelow(1 << 16))  # query id, which every answer must repeat

    @property
    def first(self) -> bytes:
        """The first question, as a packet."""
        return self._packet(next(self._questions()))

    def take(self, data: bytes, sender: str) -> list[bytes]:
        """Process a packet from `sender`. Returns packets with follow-up questions, each asked once; usually none,
        because an answer should contain all records."""
        from dns import exception, flags, message, rdataclass

        try:  # skips unreadable records: mDNS compresses names in records where DNS does not
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
        """The questions that follow from the answers so far: the list of servers (PTR), then the host and the texts of
        each (SRV, TXT), then the addresses of its host (A)."""
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
            strings = [text for record in self.records.get((server, rdatatype.TXT), ()) for text in record.strings]
            words = {
                key: value for key, _, value in (text.decode("utf-8", "replace").partition("=") for text in strings)
            }
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
