"""Starting or joining Ray: a private instance on this machine, or an existing cluster.

In: a number of processors, or an address. Out: a Ray that this process is connected to inside a block. A private Ray
uses only loopback, requires a random token, and leaves no files or processes.
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

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # for pictures in transit; Ray's default is a third of the memory
_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a late thread of Ray Serve starts another Ray, open to the network
}
_OURS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: makes Ray use and bind to 127.0.0.1
    "RAY_AUTH_MODE": "token",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # SIGTERM during the start must not wait
    "RAY_worker_niceness": "0",  # at Ray's default of 15, any busy program delays answers and the start of replicas
}
# Even without usage statistics, Ray queries the network at its start to detect its cloud provider. This proxy, a port
# without a listener, blocks such requests of all its processes.
_NO_WAY_OUT = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
}


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """A private Ray inside the block, which assigns `cpus` processors, regardless of how many there are.

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
    """A temporary folder inside the block. At the end of the block, or of this process even if it is killed, the folder
    and the processes that use it are removed."""
    # mkdtemp makes it private, while Ray makes its own folders accessible to everyone. In /tmp, because Ray's sockets
    # lie deep inside it and their paths are limited to about a hundred characters.
    folder = tempfile.mkdtemp(prefix="impchat-", dir="/tmp")
    # Without it, two of Ray's processes would outlive this one by a minute, trying to reach the others.
    command = [sys.executable, "-I", reaper.__file__, folder]
    # A new session, so that Ctrl-C does not reach it. At the end, `with` closes the pipe and waits.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield Path(folder)


def _start(cpus: int, folder: Path) -> None:
    import ray

    for tries_left in (2, 1, 0):  # Ray's start timeout is 30 s without an option: too short on a busy machine
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
    """Connect to the cluster at `address`, "host:port" or "auto", inside the block. If it requires a token, set Ray's
    RAY_AUTH_MODE and RAY_AUTH_TOKEN.

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
    """Set environment variables inside the block. Ray reads them at import, and its processes inherit them."""
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
