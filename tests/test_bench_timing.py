"""The arithmetic of paired timing, on a fake clock."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.reasons import Failed
from fastconv.timing import paired


class FakeClock:
    """Time passes only where somebody says so."""

    def __init__(self) -> None:
        self.time = 0.0
        self.probe = 0.01  # seconds that a probe takes

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def settle(self) -> None: ...


def costing(clock: FakeClock, *costs: float):
    """A call that takes the next of `costs`, again and again."""
    state = {"calls": 0}

    def call() -> None:
        clock.time += costs[state["calls"] % len(costs)]
        state["calls"] += 1

    return call


def entrant(name: str, clock: FakeClock, *costs: float, calls: int = 1) -> paired.Entrant:
    call = costing(clock, *costs)
    return paired.Entrant(name, lambda: paired.block(call, calls, clock))


@pytest.mark.parametrize(("cost", "calls"), [(1e-6, 10_000), (0.002, 5), (0.5, 1)])
def test_blocks_take_about_ten_milliseconds(cost: float, calls: int) -> None:
    clock = FakeClock()
    assert paired.calls_per_block(costing(clock, cost), clock) == pytest.approx(calls, rel=1e-3)


def test_the_first_call_of_a_block_is_not_timed() -> None:
    clock = FakeClock()
    assert paired.block(costing(clock, 9.0, 1.0, 1.0), 2, clock) == pytest.approx(1.0)
    assert paired.block(costing(clock, 1.0, 3.0, 9.0, 1.0, 2.0, 4.0), 5, clock) == pytest.approx(2.0), "the lower quartile"
    assert paired.block(costing(clock, 9.0), 1, clock) == 9.0, "unless a call fills the block"


def test_a_drifting_clock_does_not_change_the_ratio() -> None:
    clock = FakeClock()
    speed = [1.0]

    def work(cost: float):
        def call() -> float:
            taken = cost * speed[0]
            clock.time += taken
            speed[0] *= 1.02  # slower and slower: by the end eightfold
            return taken

        return call

    a, b = paired.Entrant("a", work(0.01)), paired.Entrant("b", work(0.02))
    paired.rotate([a, b], 50, 0.0, clock)
    assert max(a.samples) > 5 * min(a.samples)
    ratio = paired.ratios(b.samples, a.samples)
    assert ratio.middle == pytest.approx(2.0, rel=0.03)
    assert ratio.low <= ratio.middle <= ratio.high and ratio.width < paired.NOISY


def test_everyone_takes_each_place_in_turn() -> None:
    clock, order = FakeClock(), []
    entrants = [paired.Entrant(name, lambda name=name: order.append(name) or 1.0) for name in "abc"]
    paired.rotate(entrants, 4, 0.0, clock)
    paired.rotate(entrants, 2, 0.0, clock, first=4)
    sweeps = ["".join(order[i:i + 3]) for i in range(0, len(order), 3)]
    assert sweeps == ["abc", "cba", "bca", "acb", "cab", "bac"] * (paired.SWEEPS * 6 // 6)


def test_rounds_stop_when_the_time_is_up() -> None:
    clock = FakeClock()
    assert paired.rotate([entrant("a", clock, 0.1)], 2, 3.0, clock) == pytest.approx(10, abs=1)
    assert paired.rotate([entrant("a", clock, 10.0)], 5, 1.0, clock) == 5


def test_interrupted_rounds_leave_samples_of_equal_length() -> None:
    clock, count = FakeClock(), [0]

    def interrupt() -> float:
        count[0] += 1
        if count[0] == 3 * paired.SWEEPS - 1:
            raise KeyboardInterrupt
        return 1.0

    a, b = entrant("a", clock, 0.1), paired.Entrant("b", interrupt)
    with pytest.raises(KeyboardInterrupt):
        paired.rotate([a, b], 10, 0.0, clock)
    assert len(a.samples) == len(b.samples) == 2


def test_whoever_gets_lost_does_not_stop_the_others() -> None:
    clock, count = FakeClock(), [0]

    def lose() -> float:
        count[0] += 1
        if count[0] == 2 * paired.SWEEPS + 1:
            raise paired.Lost(Failed("crashed"))
        return 1.0

    a, b, c = entrant("a", clock, 0.1), paired.Entrant("b", lose), entrant("c", clock, 0.2)
    assert paired.rotate([a, b, c], 6, 0.0, clock) == 6
    assert b.lost == Failed("crashed") and count[0] == 2 * paired.SWEEPS + 1
    assert len(a.samples) == len(c.samples) == 6 and paired.ratios(c.samples, a.samples).middle == pytest.approx(2)
    alone = paired.Entrant("alone", lose, lost=Failed("before"))
    assert paired.rotate([alone], 6, 0.0, clock) == 0


class Weather:
    """Everything takes three times as long while it is stormy; each piece of work brings the next hour."""

    def __init__(self, clock: FakeClock, stormy: set[int]) -> None:
        self.clock, self.stormy, self.hour = clock, stormy, -20  # the watch's first looks

    def work(self, seconds: float) -> float:
        taken = seconds * (3 if self.hour in self.stormy else 1)
        self.hour += 1
        self.clock.time += taken
        return taken


def test_disturbed_blocks_are_repeated() -> None:
    clock = FakeClock()
    weather = Weather(clock, {4, 5, 12, 13, 14})
    watch = paired.Watch(lambda: weather.work(0.002), clock)
    a = paired.Entrant("a", lambda: weather.work(1.0))
    paired.rotate([a], 8, 0.0, clock, watch=watch)
    assert a.samples == [1.0] * 8 and watch.repeated == 2 and watch.slowness == 1
    assert weather.hour > 8 * 2 + 4, "blocks, looks, and those while it was stormy"


def test_a_machine_that_never_calms_down_is_measured_all_the_same() -> None:
    clock = FakeClock()
    weather = Weather(clock, set(range(3, 10**6)))
    watch = paired.Watch(lambda: weather.work(0.002), clock)
    a = paired.Entrant("a", lambda: weather.work(1.0))
    assert paired.rotate([a], 3, 0.0, clock, watch=watch) == 3
    assert a.samples[0] == 1.0 and a.samples[2] == 3.0 and watch.repeated >= paired.TRIES - 1


def test_of_disturbed_blocks_the_least_disturbed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "SWEEPS", 1)
    monkeypatch.setattr(paired, "TRIES", 5)
    clock, slowness = FakeClock(), iter([*[1.0] * 20, 2.0, 2.0, 1.5, 1.5, 1.2, 1.3, *[9.0] * 100])
    watch = paired.Watch(lambda: next(slowness), clock)
    timing_of = iter([10.0, 20.0, 30.0, 40.0, 50.0])
    clock.sleep = lambda seconds: setattr(clock, "time", clock.time + 1)  # type: ignore[method-assign]
    a = paired.Entrant("a", lambda: next(timing_of))
    paired.rotate([a], 1, 0.0, clock, watch=watch)
    assert a.samples == [20.0], "at 1.5 before and after"


def test_the_best_of_a_round_counts() -> None:
    clock = FakeClock()
    a, rate = entrant("a", clock, 3.0, 1.0, 2.0), iter([5.0, 7.0, 6.0] * 4)
    b = paired.Entrant("b", lambda: next(rate), best=max)
    assert paired.SWEEPS == 3 and paired.rotate([a, b], 4, 0.0, clock) == 4
    assert a.samples == [1.0] * 4 and b.samples == [7.0] * 4


def test_the_watch_follows_a_drifting_clock() -> None:
    clock, taken = FakeClock(), [1.0]
    watch = paired.Watch(lambda: taken[0], clock)
    taken[0] = 1.5
    assert watch.look() == 1.5
    for _ in range(paired._REMEMBERED):
        watch.look()
    assert watch.look() == 1, "what is usual by now is no disturbance"


def test_intervals_are_deterministic_and_tell_noise() -> None:
    rng = np.random.default_rng(0)
    calm, wild = rng.normal(2.0, 0.01, 30), rng.normal(2.0, 0.6, 30)
    assert paired.interval(calm) == paired.interval(calm)
    assert paired.interval(calm).width < paired.NOISY < paired.interval(wild).width
    assert paired.interval([3.0]) == paired.Interval(3.0, 3.0, 3.0)


def test_intervals_cover_other_placements() -> None:
    """Each placement has a speed of its own: 95 % of the intervals must hold the truth, not those of one placement."""
    rng, placements = np.random.default_rng(1), np.repeat(np.arange(8), 4)
    hits, blind = 0, 0
    for _ in range(200):
        values = rng.normal(1.0, 0.05, 8)[placements] * rng.normal(1.0, 0.005, len(placements))
        found = paired.interval(values, placements.tolist())
        hits += found.low <= 1.0 <= found.high
        plain = paired.interval(values)
        blind += plain.low <= 1.0 <= plain.high
    assert hits >= 175 and hits > blind + 20


def test_placements_of_different_length_count_by_their_rounds() -> None:
    values = [1.0] * 9 + [2.0] + [1.0] * 9
    found = paired.interval(values, [0] * 9 + [1] + [2] * 9)
    assert found.middle == 1.0 and found.low == 1.0 and found.high <= 2.0
    assert paired.interval([1.0, 2.0, 3.0], [5, 5, 5]) == paired.interval([1.0, 2.0, 3.0])


def test_the_wall_clock_waits_for_idle_cores() -> None:
    clock = paired.WallClock()
    clock.settle(patience=0.02)
    assert clock.now() <= clock.now()
