"""Preferences are stored for their owner, and the app lock needs the PIN."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from impchat import applock, preferences, settings
from impchat.errors import SettingsError
from impchat.messages import Sampling
from impchat.preferences import Preferences


def test_a_preference_is_stored_for_its_owner_only(tmp_path: Path) -> None:
    chosen = Preferences("zh", "dark", {"temperature": 0.7, "max_tokens": 100}, threads=2, context_tokens=1024)
    preferences.save(tmp_path, chosen)
    assert preferences.load(tmp_path) == chosen
    assert stat.S_IMODE((tmp_path / "preferences.json").stat().st_mode) == 0o600


def test_simultaneous_changes_are_both_stored(tmp_path: Path) -> None:
    def choose(theme: preferences.Theme) -> None:
        for _ in range(100):
            preferences.save(tmp_path, Preferences(theme=theme))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(choose, "dark"), pool.submit(choose, "light")]:
            done.result()
    assert preferences.load(tmp_path).theme in ("dark", "light")
    assert [file.name for file in tmp_path.iterdir()] == ["preferences.json"]


def test_invalid_stored_values_are_ignored(tmp_path: Path) -> None:
    assert preferences.load(tmp_path) == Preferences()
    for broken in (
        "no json",
        "[1]",
        '{"theme": "pink", "threads": -1, "language": "xx", "sampling": {"temperature": 99}, "else": 1, "servers": 3}',
    ):
        (tmp_path / "preferences.json").write_text(broken, encoding="utf-8")
        assert preferences.load(tmp_path) == Preferences()


def test_a_chosen_value_replaces_the_recommended_one() -> None:
    recommended = Sampling(temperature=0.0, max_tokens=256)
    chosen = Preferences(sampling={"temperature": 0.5, "top_k": 10.0})
    assert chosen.sampling_of(recommended) == Sampling(temperature=0.5, top_k=10, max_tokens=256)


# The app lock


def test_the_pin_unlocks_and_is_not_stored(tmp_path: Path) -> None:
    assert not applock.is_set(tmp_path)
    applock.set_pin(tmp_path, "48151623")
    assert applock.is_set(tmp_path)
    assert b"48151623" not in (tmp_path / "lock.json").read_bytes()
    applock.check(tmp_path, "48151623")
    with pytest.raises(SettingsError) as wrong:
        applock.check(tmp_path, "0000")
    assert wrong.value.values == {"left": settings.PIN_TRIES - 1}


@pytest.mark.parametrize("pin", ["", "123", "1" * 13, "12a4", "１２３４"])
def test_a_pin_is_four_to_twelve_digits(tmp_path: Path, pin: str) -> None:
    with pytest.raises(SettingsError, match="4 to 12 digits"):
        applock.set_pin(tmp_path, pin)


def test_after_five_wrong_pins_even_the_right_one_must_wait_longer_each_time(tmp_path: Path) -> None:
    applock.set_pin(tmp_path, "1234")
    now = 1_000_000.0
    waits = []
    for _ in range(settings.PIN_TRIES + 2):
        with pytest.raises(SettingsError) as refused:
            applock.check(tmp_path, "0000", lambda at=now: at)
        if refused.value.code == "lock.wait":
            waits.append(refused.value.values["seconds"])
            with pytest.raises(SettingsError) as early:
                applock.check(tmp_path, "1234", lambda at=now + 1: at)
            assert early.value.code == "lock.wait"
            now += waits[-1]
    assert waits == [30, 60, 120]
    applock.check(tmp_path, "1234", lambda at=now: at)
    assert applock.waiting_s(tmp_path, lambda: now) == 0, "the right PIN resets the count"


def test_setting_the_clock_back_does_not_shorten_the_wait(tmp_path: Path) -> None:
    applock.set_pin(tmp_path, "1234")
    for _ in range(settings.PIN_TRIES):
        with pytest.raises(SettingsError):
            applock.check(tmp_path, "0000", lambda: 1_000_000.0)
    assert applock.waiting_s(tmp_path, lambda: 0.0) == settings.PIN_PAUSE_S


def test_a_damaged_lock_file_stays_locked(tmp_path: Path) -> None:
    applock.set_pin(tmp_path, "1234")
    (tmp_path / "lock.json").write_text("{}", encoding="utf-8")
    assert applock.is_set(tmp_path)
    with pytest.raises(SettingsError, match="damaged"):
        applock.check(tmp_path, "1234")
