"""The benchmark's own correctness: timing arithmetic on a fake clock, verify-then-time, estimates, records. Nothing here
depends on how fast this machine is."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from fastconv.bench import machine, probes, record, runner, timing, verify
from fastconv.bench.contenders import BackendContender, Entry
from fastconv.bench.results import LeftOut, Results, Row
from fastconv.errors import Unsupported
from fastconv.problem import ConvProblem

SMALL = ConvProblem.from_text('mb1_ic4ih9iw9_oc6oh9ow9_kh3kw3sh1sw1ph1pw1_n"small"')
OTHER = ConvProblem.from_text('mb2_ic3ih8iw8_oc5oh6ow6_kh3kw3sh1sw1ph0pw0_n"other*3"')
LARGE = ConvProblem.from_text('mb4_ic16ih40iw40_oc32oh40ow40_kh3kw3sh1sw1ph1pw1_n"large"')


class FakeClock:
    """Time passes only where somebody says so."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def settle(self) -> None: ...


class FakeContender:
    """Computes with im2col; what it costs, and whether it is right, is up to the test."""

    with_copies = False

    def __init__(self, name: str, clock: FakeClock, flops_per_second: float, compiling: float = 0.0, error: float = 0.0,
                 raises: BaseException | None = None, fails_on: str = "") -> None:
        self.name = self.backend = name
        self.clock, self.rate, self.compiling, self.error = clock, flops_per_second, compiling, error
        self.raises, self.fails_on = raises, fails_on
        self.largest = 0  # flops

    def enter(self, problem: ConvProblem, arrays) -> Entry:
        if self.raises is not None and self.fails_on in problem.name:
            raise self.raises
        real = BackendContender("im2col").enter(problem, arrays)
        fresh = True

        def call() -> None:
            nonlocal fresh
            self.largest = max(self.largest, problem.flops)
            self.clock.time += problem.flops / self.rate + (self.compiling if fresh else 0)
            fresh = False
            real.call()
            np.add(real.out, self.error, out=real.out)

        return Entry("direct", "fake", None, real.out, call)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()

    def peak(dtype: str, threads: int):
        def measure() -> float:
            made.time += 0.01
            return 1e11

        return measure, "fake"

    monkeypatch.setattr(probes, "peak", peak)
    monkeypatch.setattr(probes, "COPY_BYTES", 1 << 16)
    return made


def run(problems, contenders, clock, **options) -> Results:
    return runner.run(problems, contenders, runner.Options(**{"seconds": 1.0, **options}), clock=clock)


# ---- timing


def entrant(name: str, clock: FakeClock, *costs: float, calls: int = 1) -> timing.Entrant:
    """Each call takes the next of `costs`, again and again."""
    state = {"calls": 0}

    def call() -> None:
        clock.time += costs[state["calls"] % len(costs)]
        state["calls"] += 1

    return timing.Entrant(name, call, calls)


@pytest.mark.parametrize(("cost", "calls"), [(1e-6, 20_000), (0.0025, 8), (0.5, 1)])
def test_blocks_take_about_twenty_milliseconds(cost: float, calls: int) -> None:
    clock = FakeClock()
    who = entrant("a", clock, cost)
    assert timing.calibrate(who, clock) == pytest.approx(cost)
    assert who.calls == pytest.approx(calls, rel=1e-3)


def test_a_drifting_clock_does_not_change_the_ratio() -> None:
    clock = FakeClock()
    speed = [1.0]

    def work(cost: float):
        def call() -> None:
            clock.time += cost * speed[0]
            speed[0] *= 1.02  # slower and slower: by the end eightfold

        return call

    a, b = timing.Entrant("a", work(0.01)), timing.Entrant("b", work(0.02))
    timing.rotate([a, b], 1000.0, clock, rounds=(5, 50))
    assert max(a.samples) > 5 * min(a.samples)
    ratio = timing.ratios(b.samples, a.samples)
    assert ratio.middle == pytest.approx(2.0, rel=0.03)
    assert ratio.low <= ratio.middle <= ratio.high and ratio.width < timing.NOISY


def test_everyone_takes_each_place_in_turn() -> None:
    clock, order = FakeClock(), []
    entrants = [timing.Entrant(name, lambda name=name: order.append(name)) for name in "abc"]
    timing.rotate(entrants, 0.0, clock, rounds=(6, 6))
    rounds = ["".join(order[i:i + 3]) for i in range(0, 18, 3)]
    assert rounds == ["abc", "cba", "bca", "acb", "cab", "bac"]


def test_rounds_stop_when_the_time_is_up() -> None:
    clock = FakeClock()
    assert timing.rotate([entrant("a", clock, 0.1)], 1.0, clock, rounds=(5, 40)) == pytest.approx(10, abs=1)
    assert timing.rotate([entrant("a", clock, 10.0)], 1.0, clock, rounds=(5, 40)) == 5


def test_interrupted_rounds_leave_samples_of_equal_length() -> None:
    clock, count = FakeClock(), [0]

    def interrupt() -> None:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt

    a, b = entrant("a", clock, 0.1), timing.Entrant("b", interrupt)
    with pytest.raises(KeyboardInterrupt):
        timing.rotate([a, b], 1.0, clock)
    assert len(a.samples) == len(b.samples) == 2


def test_probes_report_what_they_measure() -> None:
    probe = timing.Probe("peak", lambda: 5e10)
    timing.rotate([probe], 0.0, FakeClock(), rounds=(3, 3))
    assert probe.samples == [5e10] * 3


def test_intervals_are_deterministic_and_tell_noise() -> None:
    rng = np.random.default_rng(0)
    calm, wild = rng.normal(2.0, 0.01, 30), rng.normal(2.0, 0.6, 30)
    assert timing.interval(calm) == timing.interval(calm)
    assert timing.interval(calm).width < timing.NOISY < timing.interval(wild).width
    assert timing.interval([3.0]) == timing.Interval(3.0, 3.0, 3.0)


def test_noise_is_flagged_only_where_calls_are_long_enough() -> None:
    wide = timing.Interval(0.8, 1.0, 1.2)
    row = Row(SMALL, "a", "a", "direct", None, 10, (1e-3,) * 5, speedup=wide)
    assert row.noisy
    assert not dataclasses.replace(row, samples=(1e-4,) * 5).noisy
    assert not dataclasses.replace(row, speedup=timing.Interval(0.99, 1.0, 1.01)).noisy
    # the reference's ratio to itself is 1 in every round: it is judged by its share of peak
    reference = dataclasses.replace(row, speedup=timing.Interval(1, 1, 1), of_peak=wide)
    assert reference.noisy


def test_the_wall_clock_waits_for_idle_cores() -> None:
    clock = timing.WallClock()
    clock.settle(patience=0.02)
    assert clock.now() <= clock.now()


# ---- verify, then time


def test_paired_figures(clock: FakeClock) -> None:
    contenders = [FakeContender("fast", clock, 4e6), FakeContender("im2col", clock, 1e6)]
    results = run([SMALL, OTHER], contenders, clock)
    assert [(row.problem.name, row.contender) for row in results.rows] == [
        ("small", "fast"), ("small", "im2col"), ("other", "fast"), ("other", "im2col")]
    fast, reference = results.rows[:2]
    assert fast.speedup is not None and fast.speedup.middle == pytest.approx(4.0)
    assert reference.speedup is not None and reference.speedup.middle == 1.0
    assert fast.gflops == pytest.approx(0.004) and fast.of_peak.middle == pytest.approx(4e-5)
    assert fast.verified > 50 and fast.isa == "fake"
    assert results.geometric_mean("fast") == (pytest.approx(4.0), 2)
    assert results.network_seconds("im2col") == pytest.approx((SMALL.flops + 3 * OTHER.flops) / 1e6)
    assert results.peaks[SMALL].flops == 1e11


def test_wrong_results_get_no_number(clock: FakeClock) -> None:
    contenders = [FakeContender("wrong", clock, 1e6, error=1e-3), FakeContender("nan", clock, 1e6, error=float("nan")),
                  FakeContender("im2col", clock, 1e6)]
    results = run([SMALL], contenders, clock)
    assert [row.contender for row in results.rows] == ["im2col"]
    reasons = {out.contender: out.reason for out in results.left_out}
    assert "times its bound" in reasons["wrong"] and "not written" in reasons["nan"]


@pytest.mark.parametrize("problem", [
    SMALL, OTHER, dataclasses.replace(SMALL, layout="channels_last", residual=True, activation=("leaky_relu", 0.2)),
    dataclasses.replace(SMALL, dtype="float64", padding_mode="reflect"),
    ConvProblem.from_text("mb2_g2_ic4iw31_oc6ow11_kw5sw3pw1"), ConvProblem.from_text("mb1_ic2id5ih6iw7_oc3_kd3kh3kw3pd1ph1pw1"),
])
def test_a_single_wrong_output_among_few_is_found(problem: ConvProblem) -> None:
    arrays = verify.arrays_for(problem)
    entry = BackendContender("im2col").enter(problem, arrays)
    entry.call()
    checked, reason = verify.wrong(problem, entry.algorithm, arrays, entry.out)
    assert reason is None and checked > 20
    corner = (-1,) * entry.out.ndim
    entry.out[corner] += 0.01
    assert "times its bound" in (verify.wrong(problem, entry.algorithm, arrays, entry.out)[1] or "")


def test_refusals_and_failures_do_not_cost_the_others(clock: FakeClock) -> None:
    contenders = [
        FakeContender("refusing", clock, 1e6, raises=Unsupported("backend 'x' does not compute y: x gemm: too grouped")),
        FakeContender("broken", clock, 1e6, raises=RuntimeError("boom")), FakeContender("im2col", clock, 1e6)]
    results = run([SMALL], contenders, clock)
    assert [row.contender for row in results.rows] == ["im2col"]
    assert [out.reason for out in results.left_out] == ["refuses: too grouped", "failed: RuntimeError: boom"]


def test_empty_batches_are_refused(clock: FakeClock) -> None:
    results = run([dataclasses.replace(SMALL, batch=0)], [FakeContender("im2col", clock, 1e6)], clock)
    assert not results.rows and "empty batch" in results.left_out[0].reason


# ---- estimates


def test_slow_contenders_are_estimated(clock: FakeClock) -> None:
    slow, reference = FakeContender("slow", clock, 1e7), FakeContender("im2col", clock, 1e9)
    results = run([LARGE], [slow, reference], clock)
    row = results.rows[0]
    assert row.estimate and row.seconds == pytest.approx(LARGE.flops / 1e7) and row.verified > 10
    assert slow.largest < LARGE.flops / 4, "the whole problem was never run"
    assert results.speedup(row) == pytest.approx(0.01) and results.geometric_mean("slow") is None
    assert results.network_seconds("slow") is None


def test_all_runs_them(clock: FakeClock) -> None:
    slow = FakeContender("slow", clock, 1e7)
    row = run([LARGE], [slow, FakeContender("im2col", clock, 1e9)], clock, everything=True).rows[0]
    assert not row.estimate and slow.largest == LARGE.flops
    assert row.samples == (pytest.approx(LARGE.flops / 1e7),) and row.speedup is None


def test_estimates_are_checked_too(clock: FakeClock) -> None:
    results = run([LARGE], [FakeContender("slow", clock, 1e7, error=1.0)], clock)
    assert not results.rows and "wrong result" in results.left_out[0].reason


def test_compilation_is_not_mistaken_for_slowness(clock: FakeClock) -> None:
    row, _ = run([LARGE], [FakeContender("jit", clock, 1e10, compiling=20.0), FakeContender("im2col", clock, 1e9)], clock).rows
    assert not row.estimate and row.speedup is not None and row.speedup.middle == pytest.approx(10)


# ---- records


@pytest.fixture
def results(clock: FakeClock) -> Results:
    contenders = [FakeContender("fast", clock, 4e6), FakeContender("im2col", clock, 1e6), FakeContender("naive", clock, 1e4),
                  FakeContender("wrong", clock, 1e6, error=1.0)]
    return run([SMALL, OTHER, LARGE], contenders, clock, seconds=300.0)


def test_records_have_the_documented_fields(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write(path, results, machine.describe())
    read = json.loads(path.read_text())
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version", "peaks", "left_out", "interrupted"} == set(read)
    assert len(read["benchmarks"]) == 9 and len(read["left_out"]) == 3 and len(read["peaks"]) == 3
    documented = {word for line in (record.__doc__ or "").split("=\n")[1].splitlines() if line[:1].isalpha()
                  for word in line[:26].replace(",", " ").split()}
    for bench in read["benchmarks"]:
        extra = bench["extra_info"]
        assert set(extra) == documented
        assert ConvProblem.from_text(extra["problem"]) in (SMALL, OTHER, LARGE)
        assert extra["verified"] > 0 and extra["threads"] == 1 and bench["stats"]["median"] > 0
    assert [b["name"] for b in read["benchmarks"] if b["extra_info"]["estimate"]] == ["large[naive]"]


def test_records_name_no_host_and_no_path(results: Results) -> None:
    text = json.dumps(record.build(results, machine.describe()))
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text)
    assert str(Path(record.__file__).parents[2]) not in text


def test_pytest_benchmark_reads_them(results: Results, tmp_path: Path) -> None:
    storage = pytest.importorskip("pytest_benchmark.storage.file")
    logger = pytest.importorskip("pytest_benchmark.logger")
    path = tmp_path / "0001_run.json"
    record.write(path, results, machine.describe())
    loaded = list(storage.FileStorage(str(tmp_path), logger.Logger(logger.Logger.QUIET)).load_benchmarks(str(path)))
    assert len(loaded) == 9 and all(bench["rounds"] >= 1 and bench["median"] > 0 for bench in loaded)


def test_fingerprints_depend_on_hardware_only() -> None:
    facts = machine.describe()
    assert machine.fingerprint({**facts, "numpy": "0", "threads": 99, "python": "2"}) == facts["fingerprint"]
    assert machine.fingerprint({**facts, "cpu": "abacus"}) != facts["fingerprint"]


def test_ctrl_c_keeps_what_was_measured(clock: FakeClock) -> None:
    class Interrupting(FakeContender):
        def enter(self, problem: ConvProblem, arrays) -> Entry:
            if problem.name == "other":
                os.kill(os.getpid(), signal.SIGINT)
            return super().enter(problem, arrays)

    results = run([SMALL, OTHER, LARGE], [Interrupting("im2col", clock, 1e6)], clock)
    assert results.interrupted and results.problems == [SMALL]
    assert [row.problem.name for row in results.rows] == ["small"]
    assert record.build(results, machine.describe())["interrupted"] is True


def test_ctrl_c_lost_in_a_callback_still_ends_the_run(clock: FakeClock) -> None:
    class Swallowing(FakeContender):
        def enter(self, problem: ConvProblem, arrays) -> Entry:
            if problem.name == "other":
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    for _ in range(1000):
                        pass  # the handler runs between two of these
                except KeyboardInterrupt:
                    pass  # as ctypes does in a callback
            return super().enter(problem, arrays)

    results = run([SMALL, OTHER, LARGE], [Swallowing("im2col", clock, 1e6)], clock)
    assert results.interrupted and results.problems == [SMALL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- what is shown


def test_tables_show_everything(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    table = pytest.importorskip("fastconv.bench.table")
    table.show(results, table.console())
    text = capsys.readouterr().out
    assert "\x1b" not in text, "no colours outside a terminal"
    for part in ("small", "other x3", "wrong result", "estimate: ~", "4.00x", "direct/fake",
                 "geometric mean over im2col: fast 4.00x", "100 GFLOP/s"):
        assert part in text, part


@pytest.mark.parametrize(("value", "shown"), [
    (12345.6, "12346"), (99.96, "100.0"), (12.34, "12.3"), (9.996, "10.0"), (1.0, "1.00"), (0.9996, "1.00"), (0.1234, "0.123"),
    (0.00012345, "0.000123"), (0.0, "0.000000000")])
def test_significant_digits(value: float, shown: str) -> None:
    table = pytest.importorskip("fastconv.bench.table")
    assert table.significant(value) == shown


def test_charts_are_drawn(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastconv.bench import chart

    chart.write(tmp_path / "chart.png", results, machine.describe())
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    flat = Results(1, "im2col", results.rows[:1], [LeftOut(SMALL, "x", "refuses")], problems=[SMALL], asked=1)
    chart.write(tmp_path / "linear.svg", flat, machine.describe())
    assert "fastconv on" in (tmp_path / "linear.svg").read_text() or (tmp_path / "linear.svg").stat().st_size > 1000


def test_the_real_probes_measure_something(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv import config

    monkeypatch.setattr(probes, "COPY_BYTES", 1 << 20)
    copy = probes.Copy(2)
    assert copy() > 0 and np.array_equal(copy.source, copy.target)
    copy.close()
    measure, method = probes.peak("float32", 1)
    assert measure() > 0 and method
    with config(no_native=True):
        measure, method = probes.peak("float64", 1)
        assert "matrix product" in method and measure() > 0
