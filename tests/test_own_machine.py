"""`fastconv tune --machine`: a row of one's own in wisdom, its measuring, and what it changes."""

from __future__ import annotations

import copy
import json
import math

import pytest
from tuning_cases import P, native, untuned

import fastconv
from fastconv import algorithms, machine, settings, wisdom_file
from fastconv import native as modules
from fastconv.algorithms import winograd
from fastconv.cli import main
from fastconv.plan import plan
from fastconv.tuning import own_machine, store

KIND = machine.typical()
HALF = machine.Machine({isa: rate / 2 for isa, rate in KIND.multiply_adds.items()},
                       tuple(level._replace(speed=level.speed / 2) for level in KIND.levels), 2 * KIND.call)


@pytest.fixture(autouse=True)
def _untuned(monkeypatch):
    with untuned(monkeypatch):
        yield


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "wisdom.json"
    store.put_machine(found, HALF)
    return found


def test_a_row_comes_back_as_it_went():
    assert KIND.measured(json.loads(json.dumps(HALF.stored()))) == HALF


@pytest.mark.parametrize("change", [
    {"multiply_adds": None}, {"multiply_adds": {"avx2": "fast"}}, {"multiply_adds": {"avx2": math.nan}}, {"speeds": 3},
    {"multiply_adds": {"avx2": -1e9}}, {"multiply_adds": {"baseline": 1e15}}, {"speeds": [1e9]},
    {"speeds": [1e10, 1e10, math.inf]}, {"speeds": [0, 1e10, 1e10]}, {"call": 3.0}, {"call": None}, {"call": 10**400}])
def test_what_is_no_machine_is_ignored(change, path):
    stored = {**HALF.stored(), **change}
    assert KIND.measured(stored) is None
    document = json.loads(path.read_text())
    [about] = document["machines"].values()
    about["fastconv"][wisdom_file.release()]["machine"]["row"] = stored
    path.write_text(json.dumps(document))
    with fastconv.config(wisdom=str(path)):
        assert machine.own() is None and machine.this() == KIND
    assert store.listed_machine(path) is None


@pytest.mark.parametrize("stored", [None, [], "row", {}, 7])
def test_nor_is_anything_else(stored):
    assert KIND.measured(stored) is None


@native
def test_it_is_used_where_wisdom_is(path):
    before, tile = plan(P, "cython", "winograd"), winograd.tile(P)
    with fastconv.config(wisdom=str(path)):
        assert machine.this() == HALF
        slow = plan(P, "cython", "winograd")
        assert slow.own_machine and "estimated (machine from wisdom) " in str(slow)
        assert slow.seconds == pytest.approx(2 * before.seconds) and slow.shares == pytest.approx(before.shares)
        winograd.choices.cache_clear()
        assert winograd.tile(P) == tile  # kernels that are kept are bound with it
    after = plan(P, "cython", "winograd")
    assert after == before and "wisdom" not in str(after)
    assert winograd.tile(P) == tile


@native
def test_a_choice_follows_it(path):
    """Where one ISA is said to be a hundred times as fast, it is chosen, and no longer."""
    isas = modules.runnable_isas()
    other = next(isa for isa in isas if isa != plan(P, "cython").isa or len(isas) == 1)
    changed = copy.deepcopy(HALF)
    changed.multiply_adds[other] = 9e11
    store.put_machine(path, changed)
    before = plan(P, "cython")
    with fastconv.config(wisdom=str(path)):
        assert plan(P, "cython").isa == other
    assert plan(P, "cython") == before


def test_it_goes_where_other_entries_go(path, tmp_path, capsys):
    other, third = tmp_path / "exported.json", tmp_path / "third.json"
    assert main(["tune", "--wisdom", str(path), "--list"]) == 0 and capsys.readouterr().out.startswith("machine  vectors of")
    assert main(["tune", "--wisdom", str(path), "--export", str(other)]) == 0
    assert main(["tune", "--wisdom", str(third), "--import", str(other)]) == 0
    assert "1 entry of" in capsys.readouterr().out and store.listed_machine(third) == HALF
    assert store.clear(third) == 1
    assert store.listed_machine(third) is None
    assert store.listed_machine(path) == HALF


def test_another_version_has_another_row(path, monkeypatch):
    monkeypatch.setattr(wisdom_file, "release", lambda: "0.0.9")
    assert store.listed_machine(path) is None


@native
def test_measuring_finds_the_machine(monkeypatch, tmp_path, capsys):
    """Where calls take what a machine's row says, that row is found."""
    with settings.config(num_threads=1):
        def taken(p, algorithm, isa):
            lanes = modules.isa_module(isa).lanes
            if algorithm == "dot" and p.out_channels > 4:
                return p.out_channels * p.k * 4 / HALF.level(p.out_channels * p.k * 4).speed
            computed = sum(algorithms.named()[algorithm].cost(p, lanes).values()) if p.in_channels > 4 else 0
            return computed / HALF.multiply_adds[isa] + HALF.call

        monkeypatch.setattr(own_machine, "_seconds", taken)
        path = tmp_path / "new.json"
        assert main(["tune", "--machine", "--wisdom", str(path)]) == 0
    assert "used where FASTCONV_WISDOM names that file" in capsys.readouterr().out
    found = store.listed_machine(path)
    assert found.call == HALF.call
    assert [level.speed for level in found.levels] == pytest.approx([level.speed for level in HALF.levels])
    for isa in modules.runnable_isas():
        assert found.multiply_adds[isa] == pytest.approx(HALF.multiply_adds[isa])


@native
def test_what_it_runs_is_verified(monkeypatch):
    monkeypatch.setattr(own_machine, "SECONDS", 1e-4)
    assert own_machine._seconds(P, "gemm", modules.runnable_isas()[0]) > 0
    monkeypatch.setattr(own_machine.Comparison, "wrong", lambda *_: "off by one")
    with pytest.raises(RuntimeError, match="gemm/.* computes mb.* wrong: off by one"):
        own_machine._seconds(P, "gemm", modules.runnable_isas()[0])


def test_without_native_kernels_there_is_nothing_to_measure():
    with settings.config(no_native=True), pytest.raises(fastconv.Unavailable, match="native kernels: FASTCONV_NO_NATIVE"):
        own_machine.measure()
