"""A proxy between a phone and its computer whose connections can be cut. It counts the bytes to the phone; TLS hides
their content."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Wire:
    """A loopback port that forwards to the port of a computer."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._door.getsockname()[1]}"
        self.down = 0  # bytes that came to the phone
        self._least = 1 << 62  # of them, after which it is cut
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, after: int = 0) -> None:
        """Break every connection after `after` more bytes to the phone, and accept no new one."""
        self._least = self.down + after
        if not after:
            self._break()

    def mend(self) -> None:
        self._least = 1 << 62

    def close(self) -> None:
        self._door.close()
        self._break()

    @property
    def is_cut(self) -> bool:
        return self.down >= self._least

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._door.accept()
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(self._to)
                self._open += near, far
                threading.Thread(target=self._join, args=(near, far), daemon=True).start()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """Forward in both directions until one side closes its connection."""
        up = threading.Thread(target=self._pump, args=(near, far, False), daemon=True)
        up.start()
        self._pump(far, near, True)
        up.join()
        near.close()  # only here: the other thread may have been reading it
        far.close()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 14):
                target.sendall(data)
                self.down += len(data) if counts else 0
                if self.is_cut:
                    self._break()
        _shut(source, target)

    def _break(self) -> None:
        _shut(*self._open)
        self._open.clear()


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):  # it is already
            end.shutdown(socket.SHUT_RDWR)
