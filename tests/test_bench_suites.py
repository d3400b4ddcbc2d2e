"""What the benchmark runs: suites of problems, contenders by name, and the smaller problems that estimates are made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fastconv import ops
from fastconv.backends import registry
from fastconv.bench import estimate, suites, verify
from fastconv.bench.contenders import BackendContender, chosen
from fastconv.errors import Unavailable
from fastconv.problem import ConvProblem

SMALL = ConvProblem.from_text('mb1_ic4ih9iw9_oc6oh9ow9_kh3kw3sh1sw1ph1pw1_n"small"')
OTHER = ConvProblem.from_text('mb2_ic3ih8iw8_oc5oh6ow6_kh3kw3sh1sw1ph0pw0_n"other*3"')


# ---- suites


@pytest.mark.parametrize("name", suites.names())
def test_suites_parse_and_round_trip(name: str) -> None:
    problems = suites.load([name])
    assert len({p.name for p in problems}) == len(problems), "names tell problems apart"
    for problem in problems:
        again = ConvProblem.from_text(problem.text)
        assert again == problem and (again.name, again.count) == (problem.name, problem.count)


def test_suites_are_complete() -> None:
    assert set(suites.names()) == {"quick", "layers", "resnet50"}
    resnet, layers = suites.load(["resnet50"]), suites.load(["layers"])
    assert sum(p.count for p in resnet) == 53 and sum(p.flops * p.count for p in resnet) == pytest.approx(8.18e9, rel=0.01)
    assert len(layers) == 36
    assert set(layers[:12]) <= set(resnet)
    quick = suites.load([suites.DEFAULT])
    assert {p.ndim for p in quick} == {1, 2, 3} and max(p.batch for p in quick) > 1
    assert any(p.groups == p.in_channels > 1 for p in quick) and any(max(p.dilation) > 1 for p in quick)


def test_loads_files_and_texts_each_problem_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(f"# mine\n\n{SMALL.text}  # a comment\n--dt=f64 {OTHER.text}\n")
    loaded = suites.load([str(file), SMALL.text])
    assert loaded == [SMALL, dataclasses.replace(OTHER, dtype="float64")]


@pytest.mark.parametrize(("text", "message"), [
    ("mb1_ic3ih8oc4kh3\n\nmb1_ic3xx8oc4kh3\n", "mine.txt, line 3: malformed problem"),
    ("mb1_g2_ic3ih8oc4kh3", "line 1: groups must divide"),
    ("# nothing\n", "contains no problems"),
])
def test_malformed_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        suites.load([str(tmp_path / "mine.txt")])


def test_binary_files_and_unknown_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        suites.load([str(tmp_path / "binary")])
    with pytest.raises(ValueError, match="no suite or file 'resnet'.*layers, quick, resnet50"):
        suites.load(["resnet"])


# ---- smaller problems


@pytest.mark.parametrize("problem", suites.load(["layers", "quick"]), ids=lambda p: p.name)
def test_reduced_problems_are_smaller_and_of_the_same_kind(problem: ConvProblem) -> None:
    small = estimate.reduced(problem, 1e6)
    assert small.flops < problem.flops or small is problem
    floor = 2 * small.taps * int(np.prod(small.output_size[1:]))
    assert small.flops <= max(1e6, floor)
    same = ("kernel_size", "stride", "dilation", "dtype", "layout", "ndim", "taps")
    assert all(getattr(small, name) == getattr(problem, name) for name in same)
    assert (small.groups > 1) == (problem.groups > 1) or small.groups == 1


# ---- contenders


def test_contenders_by_name() -> None:
    assert [c.name for c in chosen(["im2col", "naive:direct", "im2col"])] == ["im2col", "naive:direct"]
    assert "im2col" in [c.name for c in chosen()]
    assert all(registry()[c.backend].unavailable() is None for c in chosen())
    with pytest.raises(ValueError, match="one of .*im2col.* got 'abacus'"):
        chosen(["abacus"])


def test_unavailable_contenders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry()["naive"], "unavailable", lambda: "out of patience", raising=False)
    with pytest.raises(Unavailable, match="'naive' is not available: out of patience"):
        chosen(["naive"])
    assert "naive" not in [c.name for c in chosen()]


def test_contenders_call_the_public_api_with_everything() -> None:
    problem = dataclasses.replace(SMALL, stride=(2, 2), residual=True, activation=("relu", 0.0), accuracy="strict")
    arrays = verify.arrays_for(problem)
    entry = BackendContender("naive").enter(problem, arrays)
    assert np.isnan(entry.out).all(), "what is not overwritten must show"
    entry.call()
    assert (entry.algorithm, entry.isa) == ("direct", None)
    expected = ops.conv2d(arrays.x, arrays.w, arrays.b, 2, 1, activation="relu", residual=arrays.residual, backend="im2col")
    np.testing.assert_allclose(entry.out, expected, atol=1e-5)
