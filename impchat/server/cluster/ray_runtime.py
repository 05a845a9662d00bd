"""A Ray to run on: our own on this machine, or a cluster that is there already.

In: how many processors to count, or an address. Out: a Ray that this process is connected to inside a block. Our own
speaks and listens on loopback alone, asks for a password that nobody else has, and leaves nothing behind.
This file does not know what runs there.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from impchat.errors import EngineError
from impchat.server.cluster import reaper

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # for pictures under way; Ray would take a third of the memory
_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread of Serve's that comes late would start another Ray, open to the network
}
_OURS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: Ray calls this machine 127.0.0.1 and binds to that
    "RAY_AUTH_MODE": "token",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # `kill` while it starts waits for nobody
    "RAY_worker_niceness": "0",  # with Ray's 15 any busy program keeps answers, and the start of a replica, waiting
}
# With usage statistics off, Ray still asks the network at its start which cloud it runs in. No process of ours gets
# further than a port where nobody listens.
_NO_WAY_OUT = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
}


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """A Ray of our own inside the block, which gives `cpus` processors away, however many there are.

    Raises EngineError "cluster.no_start"."""
    with (
        _folder() as folder,
        _environment(_SILENT | _OURS | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}),
    ):
        import ray

        try:
            with _environment(_NO_WAY_OUT):
                _start(cpus, folder / "ray")
            there = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            assert there == "127.0.0.1", "Ray was imported before the environment said so"
            yield
        finally:
            ray.shutdown()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder inside the block. It goes with it, or with this process even where that is killed; so does who works
    in it."""
    # Private, for Ray lets everyone into the folders that it makes. Its sockets lie deep in there, and their names may
    # have some hundred characters.
    folder = tempfile.mkdtemp(prefix="impchat-", dir="/tmp")
    # Ray's processes would end with us by themselves, two of them a minute later: they try to tell the others first.
    command = [sys.executable, "-I", reaper.__file__, folder]
    # A session of its own, for Ctrl-C is not for it. At the end `with` closes the pipe and waits.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield Path(folder)


def _start(cpus: int, folder: Path) -> None:
    import ray

    for tries_left in (2, 1, 0):  # Ray gives its processes 30 seconds and no option for more: few on a busy machine
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
            )
            return
        except Exception as exc:  # Ray raises nothing narrower
            ray.shutdown()
            if not tries_left:
                raise EngineError("cluster.no_start", problem=str(exc).strip().splitlines()[0]) from exc


@contextmanager
def other_ray(address: str) -> Iterator[None]:
    """The cluster at `address`, "host:port" or "auto", inside the block. Where it asks for a password, Ray's own
    RAY_AUTH_MODE and RAY_AUTH_TOKEN say it.

    Raises EngineError "cluster.unreachable"."""
    with _environment(_SILENT):
        import ray
        from ray.exceptions import RayError

        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (RayError, OSError, RuntimeError, ValueError) as exc:
            problem = str(exc).strip().splitlines()[0]
            raise EngineError("cluster.unreachable", address=address, problem=problem) from exc
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """The environment with `values` inside the block. Ray reads it when it is imported, and its processes keep it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
