"""What all tests share."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_the_processes_that_tests_start() -> None:
    """A shell starts its background jobs with SIGINT ignored, and each process hands that on to those it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
