"""Discovery of servers: a server's real announcement, real packets on loopback, and hostile packets."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from dns import flags, message, rrset
from dns.rdtypes.ANY.TXT import TXT

from impchat import settings
from impchat.peers import discovery
from impchat.peers.discovery import SERVICE, Found
from impchat.server.network.mdns import Announcement

HERE = ["127.0.0.1"]
INSTANCE = f"desk.{SERVICE}"


def test_a_phone_lists_the_servers_on_its_network() -> None:
    with closing(Announcement("0123456789abcdef", "desk of Änna", HERE, 7861, {"scheme": "https"})):
        assert Found("0123456789abcdef", "desk of Änna", ("127.0.0.1:7861",)) in discovery.discover(1.0, HERE)


def test_two_servers_of_one_data_folder_are_both_listed() -> None:
    """For example the page's port and `impchat serve`."""
    with (
        closing(Announcement("fedcba9876543210", "desk", HERE, 7861, {})),
        closing(Announcement("fedcba9876543210", "desk", HERE, 7862, {})),
    ):
        found = {one.places for one in discovery.discover(1.0, HERE) if one.id == "fedcba9876543210"}
    assert found == {("127.0.0.1:7861",), ("127.0.0.1:7862",)}


def test_a_server_that_has_ended_is_not_listed() -> None:
    Announcement("00000000deadbeef", "gone", HERE, 7861, {}).close()
    assert "00000000deadbeef" not in [one.id for one in discovery.discover(0.5, HERE)]


def test_without_an_answer_the_list_is_empty() -> None:
    assert discovery.discover(0.2, ["127.0.0.9"]) == []


def record(name: str, kind: str, text: str) -> rrset.RRset:
    return rrset.from_text(name, 120, "IN", kind, text)


ALL = {
    "PTR": record(SERVICE, "PTR", INSTANCE),
    "SRV": record(INSTANCE, "SRV", "0 0 7861 host.local."),
    "TXT": record(INSTANCE, "TXT", '"id=abc" "name=desk"'),
    "A": record("host.local.", "A", "127.0.0.1"),
}


def reply(number: int, *records: rrset.RRset) -> message.Message:
    """A unicast mDNS response."""
    made = message.Message(number)
    made.flags = flags.QR | flags.AA
    made.answer.extend(records)
    return made


@contextmanager
def responder(answer: Callable[[message.Message], list[bytes]]) -> Iterator[list[str]]:
    """An mDNS responder on loopback that sends `answer` to each query. Yields the queries."""
    heard: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("224.0.0.251", 5353))
        group = struct.pack("4s4s", socket.inet_aton("224.0.0.251"), socket.inet_aton("127.0.0.1"))
        listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        listening.settimeout(0.1)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    data, sender = listening.recvfrom(9000)
                except TimeoutError:
                    continue
                asked = message.from_wire(data)
                heard.append(asked.question[0].to_text())
                for packet in answer(asked):
                    listening.sendto(packet, sender)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join()


def test_records_missing_in_an_answer_are_queried_once() -> None:
    def sparing(asked: message.Message) -> list[bytes]:
        kind = asked.question[0].to_text().rpartition(" ")[2]
        return [reply(asked.id, ALL[kind]).to_wire()]

    with responder(sparing) as heard:
        assert discovery.discover(0.7, HERE) == [Found("abc", "desk", ("127.0.0.1:7861",))]
    assert sorted(heard) == sorted(f"{each.name} IN {kind}" for kind, each in ALL.items())


def test_the_address_that_answered_is_listed_first() -> None:
    host = rrset.from_text("host.local.", 120, "IN", "A", "10.1.2.3", "127.0.0.1")

    def several(asked: message.Message) -> list[bytes]:
        return [reply(asked.id, ALL["PTR"], ALL["SRV"], ALL["TXT"], host).to_wire()]

    with responder(several):
        [found] = discovery.discover(0.5, HERE)
    assert found.places == ("127.0.0.1:7861", "10.1.2.3:7861")


PRINTER = "desk._ipp._tcp.local."
LIES: dict[str, Callable[[int], bytes]] = {
    "to another question": lambda number: reply(number ^ 1, *ALL.values()).to_wire(),
    "a question": lambda number: message.make_query(SERVICE, "PTR", id=number).to_wire(),
    "another service": lambda number: reply(
        number, record(SERVICE, "PTR", PRINTER), record(PRINTER, "SRV", "0 0 1 host.local."), ALL["A"]
    ).to_wire(),
    "no port": lambda number: reply(
        number, ALL["PTR"], record(INSTANCE, "SRV", "0 0 0 host.local."), ALL["A"]
    ).to_wire(),
    "cut off": lambda number: reply(number, *ALL.values()).to_wire()[:40],
    "nothing": lambda number: b"",
    "noise": lambda number: random.Random(1).randbytes(300),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_invalid_answer_is_ignored(lie: Callable[[int], bytes]) -> None:
    with responder(lambda asked: [lie(asked.id)]):
        assert discovery.discover(0.3, HERE) == []


def test_no_damaged_packet_raises() -> None:
    chance = random.Random(7)
    for _ in range(1500):
        answers = discovery._Answers()
        packet = bytearray(reply(answers.number, *ALL.values()).to_wire())
        for _ in range(chance.randint(1, 10)):
            packet[chance.randrange(2, len(packet))] = chance.randrange(256)
        answers.take(
            bytes(packet[: chance.randint(2, len(packet))] + chance.randbytes(chance.randint(0, 9))), "1.2.3.4"
        )
        answers.found()


def test_a_hostile_responder_can_fill_neither_the_list_nor_the_network() -> None:
    answers = discovery._Answers()
    for number in range(60):
        instance = f"n{number}.{SERVICE}"
        records = [record(SERVICE, "PTR", instance), record(instance, "SRV", "0 0 7861 host.local."), ALL["A"]]
        texts = [f"id={number}".encode(), f"name=a\nb\u202e{'x' * 200}".encode()]
        text_record = rrset.from_rdata(instance, 120, TXT("IN", "TXT", texts))
        answers.take(reply(answers.number, *records, text_record).to_wire(), "10.0.0.1")
    found = answers.found()
    assert len(found) == settings.DISCOVER_MOST
    assert {one.name for one in found} == {"a b" + "x" * (settings.DEVICE_NAME_CHARS - 3)}
