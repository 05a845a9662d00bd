"""The simulation of docs/scaling.md, with inputs whose results are known."""

from __future__ import annotations

from benchmarks.simulate import MACHINES, POLICIES, People, Play, Result, work_s

CORES = MACHINES[0]
FEW = People(users=60)


def play(policy: str, replicas: int = 20, seed: int = 1) -> Result:
    return Play(FEW, CORES, replicas, policy, seed).run(settle_s=120, seconds=240)


def test_one_seed_gives_one_result() -> None:
    assert play(POLICIES[-1]) == play(POLICIES[-1])
    assert play(POLICIES[-1]).waits != play(POLICIES[-1], seed=2).waits


def test_a_conversation_that_keeps_its_replica_finds_everything_cached() -> None:
    kept, scattered = play("its own replica, always"), play("any replica")
    assert kept.hits == kept.later > 50
    assert scattered.hits < 0.2 * scattered.later


def test_no_wait_is_shorter_than_processing_the_prompt() -> None:
    assert min(play(POLICIES[-1]).waits) >= FEW.question_tokens / CORES.read_per_s - 1e-9


def test_the_total_busy_time_matches_the_load() -> None:
    replicas = 40
    result = play("its own replica, always", replicas)
    expected = work_s(FEW, CORES) / replicas
    assert abs(result.busy_s / replicas / 240 / expected - 1) < 0.15
