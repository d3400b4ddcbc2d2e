"""Wisdom: plans use it where it fits, its file survives everything, and without being asked for nothing changes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_cli
from test_cli import TINY
from tuning_cases import IM2COL, NEWER, P, native, planned, untuned

import fastconv
from fastconv import settings, wisdom, wisdom_file
from fastconv.backends import Candidate, cython_native
from fastconv.plan import plan
from fastconv.problem import ConvProblem
from fastconv.tuning import store
from fastconv.verify import reference
from fastconv.verify.data import Arrays, random_arrays
from fastconv.verify.judge import Judge
from fastconv.wisdom import Entry


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    with untuned(monkeypatch):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wisdom.json"


def tiled(tile: tuple[int, ...] | None = (2, 2), algorithm: str = "winograd") -> Entry:
    return Entry("cython", Candidate(algorithm, cython_native.runnable_isas()[-1], tile), 1e-5, 0.1)


# ---- what it is filed under


def test_keys_know_neither_batch_nor_name() -> None:
    same = dataclasses.replace(P, batch=8, name="layer", count=3)
    assert wisdom.key(same) == wisdom.key(P) == wisdom.key(dataclasses.replace(P, batch=0))
    assert ConvProblem.from_text(wisdom.key(P)) == P
    others = [dataclasses.replace(P, **change) for change in (
        {"accuracy": "strict"}, {"bias": not P.bias}, {"dtype": "float64"}, {"layout": "channels_last"}, {"residual": True},
        {"activation": "relu"}, {"activation": ("leaky_relu", 0.5)}, {"padding_mode": "reflect"}, {"padding": ((1, 2),) * 2})]
    assert len({wisdom.key(each) for each in [P, *others]}) == len(others) + 1


def test_fingerprints_tell_machines_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = wisdom_file.fingerprint()
    assert wisdom_file.fingerprint() == here and set(wisdom_file.machine()) == {"cpu", "cpu_id", "caches", "isas"}
    with monkeypatch.context() as patch:
        patch.setattr(wisdom_file.hardware, "cpu_model", lambda: "another")
        assert wisdom_file.fingerprint() != here
    with monkeypatch.context() as patch:  # clouds call several microarchitectures by one name
        patch.setattr(wisdom_file.hardware, "cpu_id", lambda: "AuthenticAMD family 26 model 2")
        assert wisdom_file.fingerprint() != here
    with monkeypatch.context() as patch:
        patch.setattr(wisdom_file.hardware, "caches", lambda: {"L1d": "1K", "L2": "1K", "L3": "1K"})
        assert wisdom_file.fingerprint() != here


@native
def test_a_forced_isa_is_another_machine() -> None:
    here = wisdom_file.fingerprint()
    with fastconv.config(isa="baseline"):
        assert wisdom_file.machine()["isas"] == ["baseline"]
    if len(cython_native.runnable_isas()) > 1:
        with fastconv.config(isa="baseline"):
            assert wisdom_file.fingerprint() != here
    with fastconv.config(no_native=True):
        assert wisdom_file.fingerprint() != here


def test_a_candidate_shows_its_tile() -> None:
    assert str(Candidate("winograd", "avx2", (4, 4))) == "winograd 4x4/avx2"
    assert str(Candidate("fft", None, (1, 16, 20))) == "fft 1x16x20" and str(Candidate("gemm", "avx2")) == "gemm/avx2"


# ---- what a plan makes of it


def test_off_unless_asked_for(path: Path, tmp_path: Path) -> None:
    store.put(path, [(P, prepared, IM2COL) for prepared in (False, True)])
    with fastconv.config(cache_dir=str(tmp_path / "cache")):
        store.put(store.place(), [(P, False, IM2COL)])  # where `fastconv tune` keeps it by default
        assert not plan(P).wisdom and plan(P).backend != "im2col" and "wisdom" not in str(plan(P))
    assert planned(path).wisdom and planned(path).backend == "im2col"


def test_the_plan_says_so(path: Path) -> None:
    store.put(path, [(P, False, IM2COL)])
    shown = str(planned(path))
    assert "plan       im2col im2col, from wisdom, measured 0.1 ms" in shown and "wisdom knows a faster one" in shown
    assert planned(path).seconds == 1e-4 and len(planned(path).rejected) == len(plan(P).rejected)


def test_per_call_and_prepared_are_two_things(path: Path) -> None:
    store.put(path, [(P, True, IM2COL)])
    assert not planned(path).wisdom and planned(path, prepared=True).wisdom
    weight = np.ones(P.weight_shape, np.float32)
    with fastconv.config(wisdom=str(path)):
        conv = fastconv.prepare(weight, np.ones(8, np.float32), padding=1, input_shape=P.input_shape)
        assert conv.plan(P.input_shape).wisdom and conv.plan(P.input_shape).backend == "im2col"


@native
def test_the_same_plan_and_bits_for_any_batch_and_threads(path: Path) -> None:
    store.put(path, [(P, False, tiled((3, 2)))])
    eight = dataclasses.replace(P, batch=8, name="eight")
    x, w, b, _ = random_arrays(eight, np.random.default_rng(0))
    with fastconv.config(wisdom=str(path), num_threads=1):
        assert plan(P).candidate == plan(eight).candidate == tiled((3, 2)).candidate and plan(eight).wisdom
        whole = fastconv.conv2d(x, w, b, padding=1)
        assert np.array_equal(fastconv.conv2d(x[3:4], w, b, padding=1), whole[3:4])
        assert not np.array_equal(fastconv.conv2d(x, w, b, padding=1, backend="naive"), whole)
    with fastconv.config(wisdom=str(path), num_threads=3):
        assert plan(P).candidate == tiled((3, 2)).candidate
        assert np.array_equal(fastconv.conv2d(x, w, b, padding=1), whole)
    points = reference.sample_points(eight, 500, np.random.default_rng(1))
    assert Judge(eight, Arrays(x, w, b, None), points).wrong(whole, "winograd", (3, 2)) is None


def test_a_file_that_changes_changes_no_plan_of_these_settings(path: Path) -> None:
    store.put(path, [(P, False, IM2COL)])
    with fastconv.config(wisdom=str(path)):
        assert plan(P).backend == "im2col"
        store.clear(path)
        assert plan(dataclasses.replace(P, batch=8)).backend == "im2col"
    assert not planned(path).wisdom


@native
def test_what_is_asked_for_by_name_comes_first(path: Path) -> None:
    store.put(path, [(P, False, tiled())])
    assert planned(path, backend="cython").candidate == tiled().candidate
    assert planned(path, algorithm="winograd").candidate == tiled().candidate
    for asked in ({"backend": "im2col"}, {"algorithm": "gemm"}, {"backend": "cython", "algorithm": "direct"}):
        found = planned(path, **asked)
        assert not found.wisdom and (found.backend, found.algorithm) == (plan(P, **asked).backend, plan(P, **asked).algorithm)
    with fastconv.config(backend="im2col"):
        assert planned(path).backend == "im2col"


@pytest.mark.parametrize("who, candidate", [
    ("abacus", Candidate("direct")), ("cython", Candidate("magic", "baseline")), ("cython", Candidate("gemm", "avx1024")),
    ("cython", Candidate("gemm")), ("cython", Candidate("gemm", "baseline", (4, 4))),
    ("im2col", Candidate("im2col", None, (4, 4))),
    ("cython", Candidate("winograd", "baseline", (9, 9))), ("cython", Candidate("winograd", "baseline", (2,))),
    ("cython", Candidate("winograd", "baseline", (6, 6))), ("cython", Candidate("fft", "baseline", (17, 16))),
    ("cython", Candidate("fft", "baseline", (2, 16))), ("cython", Candidate("depthwise", "baseline")),
    ("cuda", Candidate("direct"))], ids=str)
def test_what_cannot_be_had_is_ignored(who: str, candidate: Candidate, path: Path) -> None:
    store.put(path, [(P, False, Entry(who, candidate, 1e-9, 0.9))])
    found = planned(path)
    assert not found.wisdom and found.candidate == plan(P).candidate
    assert "from wisdom" not in str(found)


@native
def test_accuracy_is_respected(path: Path) -> None:
    strict = dataclasses.replace(P, accuracy="strict")
    store.put(path, [(strict, False, tiled()), (dataclasses.replace(P, accuracy="loose"), False, tiled((6, 6)))])
    assert not planned(path, strict).wisdom and not planned(path).wisdom  # P itself is "fast"
    assert planned(path, dataclasses.replace(P, accuracy="loose")).candidate.tile == (6, 6)


# ---- the file


def test_entries_survive_the_file(path: Path) -> None:
    entry = Entry("cython", Candidate("fft", "avx2", (1, 16, 20)), 1.25e-3, 0.125)
    store.put(path, [(P, True, entry), (P, False, IM2COL)])
    assert store.listed(path) == [(wisdom.key(P), "per call", IM2COL), (wisdom.key(P), "prepared", entry)]
    store.put(path, [(dataclasses.replace(P, batch=4), True, IM2COL)])
    assert store.listed(path)[1][2] == IM2COL and len(store.listed(path)) == 2


@pytest.mark.parametrize("change", [
    {"tile": "ab"}, {"tile": [4, 0]}, {"tile": [4.0, 4]}, {"tile": 4}, {"seconds": "soon"}, {"seconds": 0}, {"seconds": -1},
    {"backend": None}, {"algorithm": ["gemm"]}, {"isa": 2}, {"gain": None}, {"seconds": float("inf")}, None], ids=str)
def test_a_damaged_entry_is_none(change: dict[str, Any] | None, path: Path) -> None:
    store.put(path, [(P, False, IM2COL), (P, True, IM2COL)])
    document = json.loads(path.read_text())
    entries = wisdom_file.entries(document, "per call")
    entries[wisdom.key(P)] = [] if change is None else {**entries[wisdom.key(P)], **change}
    path.write_text(json.dumps(document))
    assert not planned(path).wisdom and planned(path, prepared=True).wisdom


def test_cut_anywhere_it_is_never_fatal(path: Path) -> None:
    store.put(path, [(P, False, IM2COL)])
    whole = path.read_bytes()
    assert wisdom_file.parse(whole.rstrip()) == wisdom_file.parse(whole)
    for length in range(len(whole.rstrip())):
        with pytest.raises(ValueError):
            wisdom_file.parse(whole[:length])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for length in range(0, len(whole) - 2, 16):
            path.write_bytes(whole[:length])
            assert not planned(path).wisdom
    assert len(said) == 1 and str(path) in str(said[0].message), "one warning for each path"


NOT_WISDOM = [b"", b"null", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b"{}", b'{"format": "fastconv wisdom"}',
              b'{"format": "fastconv wisdom", "version": 1, "machines": []}',
              b'{"format": "fastconv wisdom", "version": 1, "machines": {"x": {}}}',
              b'{"format": "fastconv wisdom", "version": 1, "machines": {"x": {"fastconv": {"0.1.0": {"prepared": []}}}}}',
              b'{"benchmarks": []}', b"int main() { return 0; }"]


@pytest.mark.parametrize("content", [*NOT_WISDOM, NEWER], ids=lambda content: repr(content[-30:]))
def test_other_files_are_never_fatal(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="goes on without the wisdom in"):
        assert not planned(path).wisdom
    path.unlink()
    path.mkdir()
    assert not planned(path).wisdom, "a folder"


def test_a_missing_file_is_told_once(path: Path) -> None:
    with pytest.warns(UserWarning, match="No such file"):
        assert not planned(path).wisdom
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not planned(path).wisdom


@pytest.mark.parametrize("content", NOT_WISDOM, ids=lambda content: repr(content[-30:]))
def test_tuning_moves_a_corrupt_file_aside(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="was no wisdom"):
        store.put(path, [(P, False, IM2COL)])
    assert path.with_name("wisdom.json.corrupt").read_bytes() == content and planned(path).wisdom


def test_the_file_of_a_newer_fastconv_is_left_alone(path: Path) -> None:
    path.write_bytes(NEWER)
    with pytest.raises(ValueError, match="written by a newer fastconv"):
        store.put(path, [(P, False, IM2COL)])
    assert path.read_bytes() == NEWER


@pytest.mark.parametrize("which", ["machine", "version"])
def test_what_others_measured_is_kept_but_not_used(which: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ("fingerprint", lambda: "0123456789ab") if which == "machine" else ("release", lambda: "0.0.9")
    with monkeypatch.context() as patch:
        patch.setattr(wisdom_file, *other)
        store.put(path, [(P, False, IM2COL)])
        theirs = store.listed(path)
    assert not planned(path).wisdom and store.listed(path) == []
    store.put(path, [(dataclasses.replace(P, dtype="float64"), False, IM2COL)])
    assert len(store.listed(path)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(wisdom_file, *other)
        assert store.listed(path) == theirs


WRITER = """
import dataclasses, sys
from pathlib import Path
from fastconv.backends import Candidate
from fastconv.problem import ConvProblem
from fastconv.tuning import store
from fastconv.wisdom import Entry
from fastconv.verify.data import Arrays, random_arrays
from fastconv.verify.judge import Judge
who = int(sys.argv[2])
for i in range(10):
    p = ConvProblem.from_text(f"mb1_ic{who + 1}ih9_oc{i + 1}_kh3")
    store.put(Path(sys.argv[1]), [(p, False, Entry("im2col", Candidate("im2col"), 1e-3, 0.0))])
"""


def test_writers_at_once_lose_nothing(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(test_cli.ROOT), os.environ.get("PYTHONPATH", "")])}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who)], env=environment) for who in range(4)]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            store.listed(path)  # whole at any moment: parse() raises where it is not
    assert all(writer.returncode == 0 for writer in writers)
    assert len(store.listed(path)) == 40 and not list(path.parent.glob("*.tmp"))


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(path)
    store.put(store.place(link), [(P, False, IM2COL)])
    assert link.is_symlink() and len(store.listed(path)) == 1


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(path, [(P, False, IM2COL)])
    before = path.read_bytes()

    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "write", full)
        store.put(path, [(P, True, IM2COL)])
    assert path.read_bytes() == before


def test_export_and_import(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(wisdom_file, "fingerprint", lambda: "0123456789ab")
        store.put(path, [(P, False, IM2COL)])
    target, other = tmp_path / "made" / "mine.json", tmp_path / "other.json"
    with pytest.raises(ValueError, match="no wisdom of this machine"):
        store.export(path, target)
    store.put(path, [(P, False, IM2COL), (P, True, IM2COL)])
    assert store.export(path, target) == 2 and "0123456789ab" not in target.read_text()
    assert planned(target).wisdom, "it can be used as it is"
    store.put(other, [(P, False, IM2COL._replace(seconds=5.0)), (dataclasses.replace(P, bias=False), False, IM2COL)])
    assert store.merge(other, target) == (2, 2) and len(store.listed(other)) == 3
    assert store.listed(path)[0] in store.listed(other), "what is imported wins"
    assert store.merge(other, path) == (3, 2) and "0123456789ab" in other.read_text()
    assert store.clear(other) == 3 and store.listed(other) == [] and "0123456789ab" in other.read_text()
    assert store.clear(tmp_path / "absent.json") == 0


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fastconv.config(cache_dir=str(tmp_path / "cache")):
        assert store.place() == (tmp_path / "cache" / "wisdom.json").resolve()
    with fastconv.config(wisdom=str(tmp_path / "w.json")):
        assert store.place() == (tmp_path / "w.json").resolve() and store.place("x.json") == Path("x.json").resolve()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with fastconv.config(cache_dir=None):
        assert store.place().name == "wisdom.json" and "fastconv" in str(store.place())


def test_reading_needs_numpy_alone(path: Path) -> None:
    problem = ConvProblem.from_text(TINY)
    store.put(path, [(problem, False, IM2COL)])
    done = test_cli.fastconv("explain", TINY, without=test_cli.OPTIONAL, FASTCONV_WISDOM=str(path))
    assert done.returncode == 0 and "im2col im2col, from wisdom" in done.stdout and not done.stderr
    told = test_cli.fastconv("tune", TINY, "--wisdom", str(path), without=("filelock",))
    assert told.returncode == 2 and told.stderr == "fastconv: writing wisdom needs filelock: pip install 'fastconv[tune]'\n"
    told = test_cli.fastconv("tune", TINY, without=("platformdirs",))
    assert told.returncode == 2 and told.stderr.count("\n") == 1 and "platformdirs" in told.stderr


def test_the_variables(path: Path) -> None:
    code = "import fastconv; p = fastconv.explain(" + repr(TINY) + "); print(p.wisdom, p.backend)"
    store.put(path, [(ConvProblem.from_text(TINY), False, IM2COL)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(test_cli.ROOT), os.environ.get("PYTHONPATH", "")])}
    for variables, told in (({}, "False"), ({"FASTCONV_WISDOM": str(path)}, "True im2col")):
        done = subprocess.run([sys.executable, "-c", code], env={**environment, **variables}, capture_output=True, text=True,
                              check=True)
        assert done.stdout.startswith(told) and not done.stderr
    assert settings.current().wisdom is None
