"""The simulation of docs/scaling.md, where one can tell what must come out."""

from __future__ import annotations

from benchmarks.simulate import MACHINES, POLICIES, People, Play, Result, work_s

CORES = MACHINES[0]
FEW = People(users=60)


def play(policy: str, replicas: int = 20, seed: int = 1) -> Result:
    return Play(FEW, CORES, replicas, policy, seed).run(settle_s=120, seconds=240)


def test_one_seed_gives_one_result() -> None:
    assert play(POLICIES[-1]) == play(POLICIES[-1])
    assert play(POLICIES[-1]).waits != play(POLICIES[-1], seed=2).waits


def test_whoever_keeps_their_replica_finds_everything_there() -> None:
    kept, scattered = play("its own replica, always"), play("any replica")
    assert kept.hits == kept.later > 50
    assert scattered.hits < 0.2 * scattered.later


def test_nobody_waits_less_than_the_reading_takes() -> None:
    assert min(play(POLICIES[-1]).waits) >= FEW.question_tokens / CORES.read_per_s - 1e-9


def test_machines_work_as_much_as_comes_in() -> None:
    replicas = 40
    result = play("its own replica, always", replicas)
    expected = work_s(FEW, CORES) / replicas
    assert abs(result.busy_s / replicas / 240 / expected - 1) < 0.15
