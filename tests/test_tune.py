"""Tuning: the right and the fastest wins; the command line, and autotuning."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_backend
from helpers import at_once
from test_cli import TINY, fails
from tuning_cases import IM2COL, NEWER, P, native, planned, untuned

import fastconv
from fastconv import cli, wisdom
from fastconv.backends import Candidate, im2col, register, registry
from fastconv.candidates import bind, ranked, variants
from fastconv.plan import plan
from fastconv.problem import ConvProblem
from fastconv.reasons import Failed, Reason
from fastconv.tuning import automatic, measure, store
from fastconv.verify.data import random_arrays
from fastconv.verify.judge import Comparison
from fastconv.wisdom import Entry


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    with untuned(monkeypatch):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wisdom.json"


# ---- variants


@native
def test_variants_are_other_tiles_that_compute_right() -> None:
    problem = dataclasses.replace(P, input_size=(30, 31))
    order, _ = ranked(problem)
    for algorithm in ("winograd", "fft"):
        of = next(each for each in order if each.candidate.algorithm == algorithm)
        found = variants(problem, of, prepared=True)
        assert 2 <= len(found) <= 6 and len({each.candidate for each in found} | {of.candidate}) == len(found) + 1
        arrays = random_arrays(problem, np.random.default_rng(0))
        results = Comparison(problem, arrays)
        for each in found:
            assert each.candidate.tile is not None and each.candidate[:2] == of.candidate[:2] and (each.seconds or 0) > 0
            out = np.full(problem.output_shape, np.nan, problem.dtype)
            kernel = bind(problem, each.backend, each.candidate)
            kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out)
            assert results.wrong(out, each.candidate) is None
        assert len({bind(problem, each.backend, each.candidate).packed_bytes for each in [of, *found]}) > 1
    gemm = next(each for each in order if each.candidate.algorithm == "gemm")
    assert variants(problem, gemm, prepared=True) == []


# ---- measuring


class Planted(toy_backend.ToyBackend):
    """A right backend whose time is planted: `seconds` what it says, `takes` what an image takes."""

    def __init__(self, name: str, seconds: float | None, takes: float, algorithm: str = "direct", fault: Any = None) -> None:
        self.name, self.takes, self._seconds, self.fault, self.runs = name, takes, seconds, fault, 0
        self._algorithm = algorithm

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        return (Candidate(self._algorithm),)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        return self._seconds

    def bind(self, problem: ConvProblem, candidate: Candidate) -> Any:
        return PlantedKernel(problem, self)


class PlantedKernel(im2col.Im2colKernel):
    def __init__(self, problem: ConvProblem, who: Planted) -> None:
        super().__init__(problem)
        self.who = who
        self.result: np.ndarray | None = None

    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        self.who.runs += 1
        Timeline.now += self.who.takes * self.problem.batch
        if self.result is None:
            super().run(array, packed, out, residual)
            self.result = out.copy()
        out[...] = self.result  # of the only arrays there are
        if self.who.fault is not None:
            self.who.fault(out)


class Timeline:
    """A clock that only planted kernels advance."""

    now = 0.0


class PlantedClock:
    def now(self) -> float:
        Timeline.now += 1e-6
        return Timeline.now

    def sleep(self, seconds: float) -> None:
        Timeline.now += seconds

    def settle(self) -> None:
        pass


@pytest.fixture
def race(toy_registry):
    """Lets these backends, and no others, race for P."""
    def run(*backends: Planted, problem: ConvProblem = P) -> measure.Tuned:
        taking_part = toy_registry()
        taking_part.clear()
        taking_part.update({each.name: each for each in backends})
        return measure.measure(problem, False, 0.05, PlantedClock())

    return run


def test_the_faster_one_wins_and_the_slow_choice_of_the_model_loses(race) -> None:
    found = race(Planted("model", 1e-3, 2e-3), Planted("other", 2e-3, 1e-3))
    assert found.model.backend == "model" and found.chosen and found.chosen.backend == "other"
    assert found.seconds == pytest.approx(1e-3, rel=0.01) and found.gain == pytest.approx(0.5, abs=0.01)
    assert found.entry == Entry("other", Candidate("direct"), found.seconds, found.gain)


@pytest.mark.parametrize("takes, winner", [(0.98e-3, "model"), (0.96e-3, "other"), (1.5e-3, "model")])
def test_three_percent_decide(takes: float, winner: str, race) -> None:
    found = race(Planted("model", 1e-3, 1e-3), Planted("other", 1e-3, takes))
    assert found.chosen.backend == winner and found.measured == 2


def test_hopeless_ones_are_dropped_early(race) -> None:
    far, slow, unknown = Planted("far", 6e-3, 1e-4), Planted("slow", 4e-3, 4e-3), Planted("unknown", None, 0.5)
    found = race(Planted("model", 1e-3, 1e-3), far, slow, unknown, Planted("last", None, 0.9e-3))
    reasons = {out.backend: out.reason for out in found.dropped}
    assert reasons["far"] == Reason("estimated 6.0 times the best estimate") and far.runs == 0
    assert reasons["slow"].why.startswith("took 4.0 times the best run") and slow.runs <= 3 and unknown.runs <= 3
    assert set(reasons) == {"far", "slow", "unknown"} and found.chosen.backend == "last"


def test_a_slow_one_without_an_estimate_runs_smaller_problems_only(race) -> None:
    large = dataclasses.replace(P, input_size=(60, 60))
    naive = Planted("slow", None, 10.0)
    batches: list[tuple[int, ...]] = []
    naive.bind = lambda problem, candidate: batches.append(problem.output_size) or PlantedKernel(problem, naive)
    found = race(Planted("model", 1e-3, 1e-3), naive, problem=large)
    assert "would take about" in found.dropped[0].reason.why and batches and large.output_size not in batches


@pytest.mark.parametrize("fault, reason", [
    (lambda out: out.fill(0), "times its bound"), (lambda out: out.__setitem__((0, 0, 0, 0), np.nan), "NaN")], ids=["0", "NaN"])
@pytest.mark.parametrize("culprit", ["model", "other"])
def test_a_wrong_result_is_reported_and_never_chosen(culprit: str, fault: Any, reason: str, race) -> None:
    found = race(*(Planted(name, 1e-3, 1e-4 if name == culprit else 1e-3, fault=fault if name == culprit else None)
                   for name in ("model", "other")))
    assert [out.backend for out in found.wrong] == [culprit] and reason in found.wrong[0].reason.why
    assert found.chosen.backend == ({"model", "other"} - {culprit}).pop()
    assert found.model_seconds is None if culprit == "model" else found.model_seconds == pytest.approx(1e-3, rel=0.01)


def test_nobody_right_nobody_chosen(race) -> None:
    found = race(Planted("model", 1e-3, 1e-3, fault=lambda out: out.fill(9)))
    assert found.chosen is None and found.entry is None and len(found.wrong) == 1


def test_one_that_breaks_costs_the_others_nothing(race) -> None:
    def breaks(out: np.ndarray) -> None:
        raise MemoryError("no room")

    found = race(Planted("model", 1e-3, 1e-3), Planted("broken", 1e-3, 1e-4, fault=breaks))
    assert found.chosen.backend == "model" and found.dropped[0].reason == Failed("MemoryError: no room")


def test_one_that_breaks_later_leaves_the_race(race) -> None:
    fragile = Planted("fragile", 1e-3, 1e-4)
    fragile.fault = lambda out: out[()] if fragile.runs < 9 else 1 / 0
    assert race(Planted("model", 1e-3, 1e-3), fragile).chosen.backend == "model"


def test_other_bits_in_another_batch_are_no_gain(race) -> None:
    blas = Planted("blas", 1e-3, 1e-5, algorithm="im2col")
    found = race(Planted("model", 1e-3, 1e-3), blas)
    assert found.chosen.backend == "model" and "other bits" in found.dropped[0].reason.why and blas.runs == 0
    assert race(Planted("model", 1e-3, 1e-3, algorithm="im2col"), blas).chosen.backend == "blas"


def test_seconds_are_of_one_image_and_enough_is_enough(race, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ENOUGH", 2e6)
    many = dataclasses.replace(P, batch=1000)
    found = race(Planted("model", 1e-3, 1e-5), problem=many)
    assert found.seconds == pytest.approx(1e-5, rel=0.05) and found.problem is many
    assert 1 < measure._fewer_images(many).batch < 1000 and measure._fewer_images(dataclasses.replace(P, batch=0)).batch == 1


def test_an_error_between_the_samples_is_seen() -> None:
    problem = dataclasses.replace(P, batch=3, input_size=(60, 60), activation="relu")
    arrays = random_arrays(problem, np.random.default_rng(0))
    right = fastconv.conv2d(*arrays[:3], padding=1, activation="relu", backend="im2col")
    results = Comparison(problem, arrays)
    points = results.judge.points.tolist()
    hidden = next(index for index in np.ndindex(right.shape) if index[0] == 2 and list(index) not in points)
    assert results.wrong(right, Candidate("im2col")) is None and results.wrong(right, Candidate("third party")) is None
    right[hidden] += 1
    assert "differs from im2col by" in (results.wrong(right, Candidate("gemm")) or "")


# ---- the command


def test_the_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = TINY.replace("mb1", "mb3")
    assert cli.main(["tune", TINY, several, "--seconds", "0.01", "--wisdom", str(path), "--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = [line for line in lines if line.startswith("tiny")]
    assert "1 problem," in lines[0] and ["per call" in head[0], "prepared" in head[1], len(head)] == [True, True, 2]
    assert all("raced" in line and "dropped early" in line and "gain" in line for line in head)
    assert any("dropped  " in line for line in lines) and str(path) in lines[-1]
    tiny = ConvProblem.from_text(TINY)
    assert planned(path, tiny).wisdom and planned(path, tiny, prepared=True).wisdom and planned(path, tiny).seconds
    assert cli.main(["tune", "--list", "--wisdom", str(path)]) == 0
    assert wisdom.key(tiny) in capsys.readouterr().out
    mine = tmp_path / "mine.json"
    assert cli.main(["tune", "--export", str(mine), "--wisdom", str(path)]) == 0 and mine.exists()
    assert cli.main(["tune", "--clear", "--wisdom", str(path)]) == 0 and store.listed(path) == []
    assert cli.main(["tune", "--import", str(mine), "--wisdom", str(path)]) == 0 and len(store.listed(path)) == 2
    assert "2 entries of" in capsys.readouterr().out
    with fastconv.config(wisdom=str(path)):
        assert cli.main(["explain", TINY]) == 0
    assert ", from wisdom, measured" in capsys.readouterr().out


def test_modes_and_accuracy(path: Path) -> None:
    assert cli.main(["tune", TINY, "--prepared", "--accuracy", "strict", "--seconds", "0.01", "--wisdom", str(path)]) == 0
    (problem, kind, entry), = store.listed(path)
    assert kind == "prepared" and "--accuracy=strict" in problem and entry.candidate.algorithm not in ("winograd", "fft")
    assert cli.main(["tune", TINY, "--per-call", "--seconds", "0.01", "--wisdom", str(path)]) == 0
    assert len(store.listed(path)) == 2


def test_wrong_input_is_one_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}")
    where = ("--wisdom", str(path))
    for arguments, told in (
            ((), "tune takes suites"), ((TINY, "--list"), "tune takes suites"), (("--list", "--clear"), "tune takes suites"),
            (("resnet",), "no suite or file"), (("mb1_ic3zz",), "cannot read"), ((TINY, "--seconds", "0"), "must be positive"),
            ((TINY, "--seconds", "nan"), "must be positive"), ((TINY, "--accuracy", "best"), "accuracy must be one of"),
            (("--list",), "there is no wisdom in"), (("--export", str(tmp_path / "x.json")), "there is no wisdom in"),
            (("--import", str(tmp_path / "absent.json")), "No such file"),
            (("--import", str(foreign)), "is no wisdom: not a file of fastconv tune")):
        assert told in fails(capsys, "tune", *arguments, *where), arguments
    assert not path.exists()
    assert "is no wisdom" in fails(capsys, "tune", "--list", "--wisdom", str(foreign))
    foreign.write_bytes(NEWER)
    assert "newer fastconv" in fails(capsys, "tune", TINY, "--wisdom", str(foreign))
    store.put(path, [(P, False, IM2COL)])
    assert "another file" in fails(capsys, "tune", "--export", str(path), *where)
    assert fails(capsys, "tune", TINY, "--wisdom", "/dev/null/x.json")


def test_wrong_results_end_with_1(path: Path, toy_registry, capsys: pytest.CaptureFixture[str]) -> None:
    register(Planted("liar", 1e-12, 0.0, fault=lambda out: out.fill(0)))
    assert cli.main(["tune", TINY, "--per-call", "--seconds", "0.01", "--wisdom", str(path)]) == 1
    assert "WRONG    liar direct" in capsys.readouterr().out
    assert store.listed(path)[0][2].backend != "liar"


def test_ctrl_c_keeps_what_was_found(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fastconv.cli import tune as command

    real = measure.measure

    def interrupted(problem: ConvProblem, *arguments: Any) -> measure.Tuned:
        if problem.dtype == "float64":
            raise KeyboardInterrupt
        return real(problem, *arguments)

    monkeypatch.setattr(command, "measure", interrupted)
    assert cli.main(["tune", TINY, f"--dt=f64 {TINY}", "--seconds", "0.01", "--wisdom", str(path)]) == 130
    assert "interrupted; 1 of 2 problems done" in capsys.readouterr().err and len(store.listed(path)) == 2


def test_what_nobody_computes_is_told(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for who in registry().values():
        monkeypatch.setattr(who, "refuses", lambda problem, candidate: "not today", raising=False)
    assert cli.main(["tune", TINY, "--wisdom", str(path)]) == 0
    assert capsys.readouterr().out.count("refused by every backend") == 2


@pytest.mark.parametrize("direction", ["BWD_D", "BWD_W"])
def test_other_directions_are_tuned(direction: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"--dir={direction} {TINY}"
    assert cli.main(["tune", text, "--seconds", "0.01", "--wisdom", str(path)]) == 0
    assert "WRONG" not in capsys.readouterr().out
    made = planned(path, ConvProblem.from_text(text))
    assert made.wisdom and made.problem.direction != "forward"


# ---- FASTCONV_AUTOTUNE


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ConvProblem, bool]]:
    """What is measured, all of it at once: `im2col` always wins."""
    asked: list[tuple[ConvProblem, bool]] = []

    def instantly(problem: ConvProblem, prepared: bool, seconds: float) -> measure.Tuned:
        asked.append((problem, prepared))
        order, _ = ranked(problem)
        chosen = next(each for each in order if each.backend == "im2col")
        return measure.Tuned(problem, prepared, order[0], 2e-3, chosen, 1e-3)

    monkeypatch.setattr(measure, "measure", instantly)
    return asked


def test_autotuning_measures_once(measured: list[Any], path: Path) -> None:
    x, w, b, _ = random_arrays(dataclasses.replace(P, batch=2), np.random.default_rng(0))
    for threads in (1, 2):
        with fastconv.config(autotune=True, num_threads=threads):
            for batch in (1, 2):
                fastconv.conv2d(x[:batch], w, b, padding=1)
                assert plan(dataclasses.replace(P, batch=batch)).wisdom
                assert plan(dataclasses.replace(P, batch=batch)).backend == "im2col"
    assert len(measured) == 1
    with fastconv.config(autotune=True):
        assert plan(P, prepared=True).wisdom and plan(P, backend="naive").backend == "naive"
        assert plan(P, backend="im2col").wisdom, "what is known fits what was asked for"
    assert [prepared for _, prepared in measured] == [False, True]
    store.put(path, [])
    assert not plan(P).wisdom and not planned(path).wisdom, "off again"


def test_autotuning_writes_and_reads(path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with fastconv.config(autotune=True, wisdom=str(path)), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan(P).wisdom and len(store.listed(path)) == 1
    monkeypatch.setattr(wisdom, "_remembered", {})  # another process
    with fastconv.config(autotune=True, wisdom=str(path)):
        assert plan(P).backend == "im2col"
    assert len(measured) == 1


def test_autotuning_leaves_asked_names_alone(measured: list[Any]) -> None:
    with fastconv.config(autotune=True):
        plan(P, backend="naive"), plan(P, algorithm="im2col")
        with fastconv.config(backend="im2col"):
            plan(P)
    assert measured == []


def test_autotuning_measures_what_the_file_names_in_vain(path: Path, measured: list[Any]) -> None:
    store.put(path, [(P, False, Entry("abacus", Candidate("direct"), 1e-9, 0.9))])
    with fastconv.config(autotune=True, wisdom=str(path)):
        assert plan(P).backend == plan(dataclasses.replace(P, batch=2)).backend == "im2col"
    assert len(measured) == 1 and store.listed(path)[0][2].backend == "im2col"


def test_threads_that_plan_at_once_measure_once(measured: list[Any]) -> None:
    found: list[str] = []

    def run(_: int) -> None:
        with fastconv.config(autotune=True):
            found.append(plan(P).backend)

    assert not at_once(run, 4)
    assert found == ["im2col"] * 4 and len(measured) == 1


def test_autotuning_never_raises(tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with fastconv.config(autotune=True, wisdom=str(tmp_path / "file" / "w.json")):
        with pytest.warns(UserWarning, match="goes on without"), pytest.warns(UserWarning, match="for this process only"):
            assert plan(P).backend == "im2col"
    tries: list[int] = []

    def fail(*arguments: Any) -> measure.Tuned:
        tries.append(1)
        raise MemoryError("no room")

    monkeypatch.setattr(measure, "measure", fail)
    other = dataclasses.replace(P, dtype="float64")
    with fastconv.config(autotune=True), pytest.warns(UserWarning, match="could not tune"):
        assert not plan(other).wisdom and not plan(dataclasses.replace(other, batch=5)).wisdom
    assert len(tries) == 1


def test_autotuning_in_earnest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "SECONDS", 0.01)
    x, w, b, _ = random_arrays(P, np.random.default_rng(0))
    expected = fastconv.conv2d(x, w, b, padding=1, backend="naive")
    with fastconv.config(autotune=True, wisdom=str(path)):
        assert np.allclose(fastconv.conv2d(x, w, b, padding=1), expected, atol=1e-3)
        assert plan(P).wisdom and store.listed(path)[0][2].candidate == plan(P).candidate


