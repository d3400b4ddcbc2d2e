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
from test_bench_timing import FakeClock

from fastconv.bench import machine, probes, record, runner
from fastconv.bench.contenders import BackendContender, Entry
from fastconv.bench.local import Local
from fastconv.bench.results import LeftOut, Results, Row
from fastconv.errors import Unsupported
from fastconv.problem import ConvProblem
from fastconv.reasons import Failed, Refused, Wrong
from fastconv.timing import paired
from fastconv.verify.data import same_arrays
from fastconv.verify.judge import Judge, some_points

SMALL = ConvProblem.from_text('mb1_ic4ih9iw9_oc6oh9ow9_kh3kw3sh1sw1ph1pw1_n"small"')
OTHER = ConvProblem.from_text('mb2_ic3ih8iw8_oc5oh6ow6_kh3kw3sh1sw1ph0pw0_n"other*3"')
LARGE = ConvProblem.from_text('mb4_ic16ih40iw40_oc32oh40ow40_kh3kw3sh1sw1ph1pw1_n"large"')


class FakeContender:
    """Computes with im2col; what it costs, and whether it is right, is up to the test."""

    with_copies = prepared = False
    kind = "backend"

    def __init__(self, name: str, clock: FakeClock, flops_per_second: float, compiling: float = 0.0, error: float = 0.0,
                 raises: BaseException | None = None, fails_on: str = "") -> None:
        self.name = self.backend = name
        self.clock, self.rate, self.compiling, self.error = clock, flops_per_second, compiling, error
        self.raises, self.fails_on = raises, fails_on
        self.largest = 0  # flops
        self.inputs: list[int] = []  # addresses

    def unavailable(self) -> None: ...

    def start(self, threads: int) -> str:
        return f"fake on {threads}"

    def enter(self, problem: ConvProblem, arrays) -> Entry:
        if self.raises is not None and self.fails_on in problem.name:
            raise self.raises
        real = BackendContender("im2col").enter(problem, arrays)
        self.inputs.append(arrays.x.ctypes.data)
        fresh = True

        def call() -> None:
            nonlocal fresh
            self.largest = max(self.largest, problem.flops)
            self.clock.time += problem.flops / self.rate + (self.compiling if fresh else 0)
            fresh = False
            real.call()
            np.add(real.result(), self.error, out=real.result())

        return Entry("direct", "fake", None, call, real.result, "direct")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()

    def peak(dtype: str, threads: int):
        def measure() -> float:
            made.time += made.probe
            return 1e11

        return measure, "fake"

    monkeypatch.setattr(probes, "peak", peak)
    monkeypatch.setattr(probes, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(probes, "small_work", lambda: None)
    return made


def run(problems, contenders, clock, **options) -> Results:
    work = runner.Work(problems, networks={"net": [SMALL, OTHER]})
    return runner.run(work, contenders, runner.Options(**{"seconds": 1.0, **options}), clock=clock,
                      seat=lambda contender, options: Local(contender, options.limits, clock))


def test_noise_is_flagged_only_where_calls_are_long_enough() -> None:
    wide = paired.Interval(0.8, 1.0, 1.2)
    row = Row(SMALL, "a", "backend", "a", "direct", None, 10, (1e-3,) * 5, of_peak=wide)
    assert row.noisy
    assert not dataclasses.replace(row, samples=(1e-4,) * 5).noisy
    assert not dataclasses.replace(row, of_peak=paired.Interval(0.99, 1.0, 1.01)).noisy
    assert not dataclasses.replace(row, of_peak=None, speedup=wide).noisy, "the reference's noise is not the contender's"


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
    mean = results.geometric_mean("fast")
    assert mean is not None and mean.ratio.middle == pytest.approx(4.0) and mean.problems == (SMALL, OTHER)
    assert mean.ratio.low == pytest.approx(4.0) == mean.ratio.high and results.first(SMALL) == [fast]
    assert results.network_seconds("net", "im2col") == pytest.approx((SMALL.flops + 3 * OTHER.flops) / 1e6)
    assert results.peaks[SMALL].flops == 1e11
    assert results.libraries["fast"][0] == "fake on 1"


def test_everyone_gets_fresh_memory_and_goes_on(clock: FakeClock) -> None:
    contenders = [FakeContender("fast", clock, 4e6), FakeContender("im2col", clock, 1e6)]
    rows = run([SMALL], contenders, clock).rows
    assert rows[0].placements == rows[1].placements and len(rows[0].samples) == len(rows[0].placements)
    assert len(set(rows[0].placements)) >= 3 and len(contenders[0].inputs) == len(set(rows[0].placements))
    assert 1.0 <= clock.time < 1.5


def test_noisy_problems_get_more_rounds(clock: FakeClock) -> None:
    rng = np.random.default_rng(0)

    class Jittery(FakeContender):
        def enter(self, problem: ConvProblem, arrays) -> Entry:
            self.rate = 1e6 * float(rng.uniform(0.5, 2))
            return super().enter(problem, arrays)

    calm = run([SMALL], [FakeContender("im2col", clock, 1e6)], clock).rows[0]
    wild = run([SMALL], [Jittery("im2col", clock, 1e6)], clock).rows[0]
    assert wild.noisy and not calm.noisy and len(wild.samples) > 2 * len(calm.samples)


class Lives(Local):
    """Notes who starts anew, and where."""

    log: list[str]

    def admit(self, problem: ConvProblem):
        self.log.append(problem.name)
        return super().admit(problem)

    def close(self) -> None:
        self.log.append("end")


def run_lives(contenders, clock: FakeClock, progress=lambda results, text: None) -> tuple[Results, list[str]]:
    log: list[str] = []

    def seat(contender, options: runner.Options) -> Lives:
        made = Lives(contender, options.limits, clock)
        made.log = log
        return made

    work = runner.Work([SMALL, OTHER])
    return runner.run(work, contenders, runner.Options(seconds=1.0), progress, seat, clock), log


def test_every_pass_has_processes_of_its_own(clock: FakeClock) -> None:
    results, log = run_lives([FakeContender("im2col", clock, 1e6)], clock)
    assert " ".join(log).split(" end")[:3] == ["small other", " small other", ""], "and no more, as nothing is noisy"
    assert [row.problem.name for row in results.rows] == ["small", "other"] and results.problems == [SMALL, OTHER]
    assert len(set(results.rows[0].placements)) == runner.PLACEMENTS


def test_what_differs_between_processes_widens_the_interval(clock: FakeClock) -> None:
    class Lucky(FakeContender):
        def enter(self, problem: ConvProblem, arrays) -> Entry:
            self.rate = 1e6 if len(self.inputs) % 4 < 2 else 1.2e6
            return super().enter(problem, arrays)

    row = run([SMALL], [Lucky("im2col", clock, 1e6)], clock).rows[0]
    assert len(set(row.placements)) > runner.PLACEMENTS, "and more passes could not help it"
    assert row.noisy and row.of_peak is not None and row.of_peak.high == pytest.approx(1.2 * row.of_peak.low)


def test_ctrl_c_in_the_second_pass_keeps_all_figures_of_the_first(clock: FakeClock) -> None:
    def progress(results: Results, text: str) -> None:
        if results.share > 0.35:
            raise KeyboardInterrupt

    results, _ = run_lives([FakeContender("im2col", clock, 1e6)], clock, progress)
    assert results.interrupted and [row.problem.name for row in results.rows] == ["small", "other"]
    assert len({len(row.samples) for row in results.rows}) == 2 and results.share == 0.75 / runner.LONGER


def test_who_turns_out_wrong_later_gets_no_number(clock: FakeClock) -> None:
    class Fading(FakeContender):
        def enter(self, problem: ConvProblem, arrays) -> Entry:
            self.error = 1.0 if len(self.inputs) == 2 else 0.0
            return super().enter(problem, arrays)

    results = run([SMALL], [Fading("fading", clock, 1e6), FakeContender("im2col", clock, 1e6)], clock)
    assert [row.contender for row in results.rows] == ["im2col"] and isinstance(results.left_out[0].reason, Wrong)


def test_wrong_results_get_no_number(clock: FakeClock) -> None:
    contenders = [FakeContender("wrong", clock, 1e6, error=1e-3), FakeContender("nan", clock, 1e6, error=float("nan")),
                  FakeContender("im2col", clock, 1e6)]
    results = run([SMALL], contenders, clock)
    assert [row.contender for row in results.rows] == ["im2col"]
    reasons = {out.contender: out.reason.why for out in results.left_out}
    assert "times its bound" in reasons["wrong"] and "not written" in reasons["nan"]


@pytest.mark.parametrize("problem", [
    SMALL, OTHER, dataclasses.replace(SMALL, layout="channels_last", residual=True, activation=("leaky_relu", 0.2)),
    dataclasses.replace(SMALL, dtype="float64", padding_mode="reflect"),
    ConvProblem.from_text("mb2_g2_ic4iw31_oc6ow11_kw5sw3pw1"), ConvProblem.from_text("mb1_ic2id5ih6iw7_oc3_kd3kh3kw3pd1ph1pw1"),
])
def test_a_single_wrong_output_among_few_is_found(problem: ConvProblem) -> None:
    arrays = same_arrays(problem)
    entry = BackendContender("im2col").enter(problem, arrays)
    entry.call()
    out = entry.result()
    judge = Judge(problem, arrays, some_points(problem))
    assert judge.wrong(out, entry.bound) is None and judge.count > 20
    out[(-1,) * out.ndim] += 0.01
    assert "times its bound" in (judge.wrong(out, entry.bound) or "")
    assert "float16" in (judge.wrong(out.astype(np.float16), entry.bound) or "")
    assert "instead of" in (judge.wrong(out[:, :1], entry.bound) or "")


def test_refusals_and_failures_do_not_cost_the_others(clock: FakeClock) -> None:
    contenders = [
        FakeContender("refusing", clock, 1e6, raises=Unsupported("backend 'x' does not compute y", "too grouped")),
        FakeContender("broken", clock, 1e6, raises=RuntimeError("boom")), FakeContender("im2col", clock, 1e6)]
    results = run([SMALL], contenders, clock)
    assert [row.contender for row in results.rows] == ["im2col"]
    assert [out.reason for out in results.left_out] == [Refused("too grouped"), Failed("RuntimeError: boom")]


def test_empty_batches_are_refused(clock: FakeClock) -> None:
    results = run([dataclasses.replace(SMALL, batch=0)], [FakeContender("im2col", clock, 1e6)], clock)
    assert not results.rows and "empty batch" in results.left_out[0].reason.why


# ---- estimates


def test_slow_contenders_are_estimated(clock: FakeClock) -> None:
    slow, reference = FakeContender("slow", clock, 1e7), FakeContender("im2col", clock, 1e9)
    results = run([LARGE], [slow, reference], clock)
    row = results.rows[0]
    assert row.estimate and row.seconds == pytest.approx(LARGE.flops / 1e7) and row.verified > 10
    assert slow.largest < LARGE.flops / 4, "the whole problem was never run"
    assert results.speedup(row) == pytest.approx(0.01) and results.geometric_mean("slow") is None
    assert results.network_seconds("net", "slow") is None


def test_whoever_refuses_the_smaller_problem_runs_the_real_one(clock: FakeClock) -> None:
    class Choosy(FakeContender):
        def enter(self, problem: ConvProblem, arrays) -> Entry:
            if problem.batch != 4:
                raise Unsupported("only four at a time")
            return super().enter(problem, arrays)

    row, _ = run([LARGE], [Choosy("choosy", clock, 1e9), FakeContender("im2col", clock, 1e9)], clock).rows
    assert row.contender == "choosy" and not row.estimate and row.placements


def test_all_runs_them(clock: FakeClock) -> None:
    slow = FakeContender("slow", clock, 1e7)
    row = run([LARGE], [slow, FakeContender("im2col", clock, 1e9)], clock, everything=True).rows[0]
    assert not row.estimate and slow.largest == LARGE.flops
    assert row.samples == (pytest.approx(LARGE.flops / 1e7),) and row.speedup is None


def test_estimates_are_checked_too(clock: FakeClock) -> None:
    results = run([LARGE], [FakeContender("slow", clock, 1e7, error=1.0)], clock)
    assert not results.rows and isinstance(results.left_out[0].reason, Wrong)


def test_compilation_is_not_mistaken_for_slowness(clock: FakeClock) -> None:
    row, _ = run([LARGE], [FakeContender("jit", clock, 1e10, compiling=20.0), FakeContender("im2col", clock, 1e9)], clock).rows
    assert not row.estimate and row.speedup is not None and row.speedup.middle == pytest.approx(10)


# ---- records


@pytest.fixture
def results(clock: FakeClock) -> Results:
    contenders = [FakeContender("fast", clock, 4e7), FakeContender("im2col", clock, 1e7), FakeContender("naive", clock, 1e5),
                  FakeContender("wrong", clock, 1e7, error=1.0)]
    clock.probe = 1.0
    return run([SMALL, OTHER, LARGE], contenders, clock, seconds=30.0)


def test_records_have_the_documented_fields(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write(path, results, machine.describe())
    read = json.loads(path.read_text())
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version", "peaks", "left_out", "interrupted", "format",
            "threads", "suites", "networks", "asked", "repeated"} == set(read)
    assert read["networks"] == {"net": [[SMALL.text, 1], [OTHER.text, 3]]}
    assert read["format"] == record.FORMAT and read["asked"] == 3
    assert len(read["benchmarks"]) == 9 and len(read["left_out"]) == 3 and len(read["peaks"]) == 3
    documented = {word for line in (record.__doc__ or "").split("=\n")[1].splitlines() if line[:1].isalpha()
                  for word in line[:26].replace(",", " ").split()}
    for bench in read["benchmarks"]:
        extra = bench["extra_info"]
        assert set(extra) == documented
        assert ConvProblem.from_text(extra["problem"]) in (SMALL, OTHER, LARGE)
        assert extra["verified"] > 0 and extra["threads"] == 1 and bench["stats"]["median"] > 0
        assert len(extra["placement"]) in (0, len(bench["stats"]["data"]))
        assert bool(extra["placement"]) == bool(extra["speedup"])
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


# ---- what is shown


def test_tables_show_everything(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    table = pytest.importorskip("fastconv.bench.table")
    results.repeated = 7
    table.show(results, table.console())
    text = capsys.readouterr().out
    assert "\x1b" not in text, "no colours outside a terminal"
    for part in ("small", "other x3", "wrong result", "estimate: ~", "4.00x", "direct/fake",
                 "geometric mean over im2col: fast 4.00x", "100 GFLOP/s", "net, all 4 convolutions: fast ",
                 "one-time costs", "fake on 1", "7 blocks timed again"):
        assert part in text, part


@pytest.mark.parametrize(("value", "shown"), [
    (12345.6, "12346"), (99.96, "100.0"), (12.34, "12.3"), (9.996, "10.0"), (1.0, "1.00"), (0.9996, "1.00"), (0.1234, "0.123"),
    (0.00012345, "0.000123"), (0.0, "0.000000000")])
def test_significant_digits(value: float, shown: str) -> None:
    table = pytest.importorskip("fastconv.bench.table")
    assert table.significant(value) == shown


def test_charts_say_the_answer(results: Results, tmp_path: Path) -> None:
    from fastconv.bench import chart

    chart.write(tmp_path / "chart.svg", results, machine.describe())  # which needs no library
    text = (tmp_path / "chart.svg").read_text("utf-8")
    assert re.search("<title [^>]*>On .*, 1 thread, fast is 4[.]00 times as fast as im2col: ahead on all 3 layers[.]<", text)
    assert "Not drawn" in text and "95 % interval" in text and record.build(results, machine.describe())["version"] in text
    for name in ("small", "other ×3"):
        assert f">{name}<" in text
    left_out = [LeftOut(SMALL, "x", Refused("unlike"))]
    flat = Results(1, "im2col", rows=results.rows[:1], left_out=left_out, problems=[SMALL], asked=1)
    chart.write(tmp_path / "flat.svg", flat, machine.describe())
    assert "nobody to compare with" in (tmp_path / "flat.svg").read_text("utf-8")
    guessed = Results(1, "im2col", rows=[dataclasses.replace(results.rows[0], estimate=True)], problems=[SMALL], asked=1)
    assert not chart.write(tmp_path / "none.svg", guessed, machine.describe()) and not (tmp_path / "none.svg").exists()


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_charts_are_drawn_as_what_the_suffix_says(results: Results, tmp_path: Path, suffix: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    from fastconv.bench import chart

    chart.write(tmp_path / f"chart{suffix}", results, machine.describe())
    assert (tmp_path / f"chart{suffix}").read_bytes().startswith(start)


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
