"""Set-up for all tests."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_the_processes_that_tests_start() -> None:
    """Restore SIGINT's default action: a shell starts background jobs with SIGINT ignored, and child processes
    inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
