"""Tables on narrow terminals: columns are dropped or stacked, words and figures never split; control characters never pass."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import fake_records
import pytest

from fastconv.bench.grid import packed
from fastconv.bench.results import LeftOut, Results, Row
from fastconv.problem import ConvProblem
from fastconv.reasons import Refused
from fastconv.timing import paired

rich_console = pytest.importorskip("rich.console")
table = pytest.importorskip("fastconv.bench.table")
SMALL = ConvProblem.from_text('mb1_ic16ih16_oc16oh16_kh3ph1_n"a small layer with a long name*3"')
PLAIN = ConvProblem.from_text("mb1_ic8ih16_oc16oh16_kh3ph1")


def row(problem: ConvProblem, name: str, seconds: float, wobble: float = 0.0, **more) -> Row:
    samples = tuple(seconds * (1 + wobble * (-1) ** i) for i in range(12))
    return Row(problem, name, "backend", name, "winograd", "avx512", 99, samples, (0,) * 6 + (1,) * 6,
               speedup=paired.Interval(1.9, 2.0, 2.1), of_peak=paired.Interval(0.415, 0.42, 0.425), **more)


@pytest.fixture
def results() -> Results:
    rows = [row(SMALL, "cython/prepared", 1e-3), row(SMALL, "numba", 1.001e-3, 0.1), row(SMALL, "im2col", 2.46813e-3),
            row(PLAIN, "cython/prepared", 1e-3), row(PLAIN, "im2col", 3e-3)]
    return Results(2, "im2col", {"cython/prepared": ("fastconv 0.1.0", 0.15)}, rows,
                   [LeftOut(PLAIN, "numba", Refused("computes\x1b[31m red things only"))], problems=[SMALL, PLAIN])


def shown(results: Results, width: int) -> str:
    stream = io.StringIO()
    table.show(results, rich_console.Console(file=stream, width=width, highlight=False, force_terminal=True, color_system=None))
    return stream.getvalue()


def words(text: str) -> set[str]:
    return {word for word in re.sub(r"[│┃┏┓┗┛━─┡┩└┘├┤┼╇┳┴╈]", " ", text).split() if "mb1_" not in word and "*3" not in word}


@pytest.mark.parametrize("width", (40, 60, 80, 100, 130, 250))
def test_no_word_is_split(results: Results, width: int) -> None:
    text = shown(results, width)
    assert words(text) <= words(shown(results, 10_000)) | {"not", "shown,", "for", "lack", "of", "room:", *words(
        "algorithm, algorithm GFLOP/s, GFLOP/s % of peak, peak problem")}
    assert {"cython/prepared", "2.47", "numba", "fastest", "tied"} <= words(text)
    for line in text.splitlines():
        assert len(line) <= width or "mb1_" in line, line


def test_control_characters_are_shown_escaped(results: Results) -> None:
    for width in (60, 250):
        assert "\x1b" not in shown(results, width) and r"\x1b[31m" in shown(results, width)


def test_a_lead_within_the_intervals_is_a_tie(results: Results) -> None:
    assert [each.contender for each in results.first(SMALL)] == ["cython/prepared", "numba"]
    assert [each.contender for each in results.first(PLAIN)] == ["cython/prepared"]
    lines = shown(results, 250).splitlines()
    assert [("tied for fastest" in line) for line in lines if "numba" in line and "refuses" not in line][0]
    alone = dataclasses.replace(results.rows[1], placements=())  # took no turns: nothing to pair
    assert results.first(SMALL)[0].contender == "cython/prepared" and alone.seconds > results.rows[0].seconds


def test_a_mean_says_how_well_it_is_known_and_of_what(results: Results) -> None:
    mean = results.geometric_mean("numba")
    assert mean is not None and mean.problems == (SMALL,)
    assert mean.ratio.low < mean.ratio.middle < mean.ratio.high
    assert re.fullmatch(r"[0-9.]+x \[[0-9.]+, [0-9.]+\] \(1 problem, without mb1_ic8.*\)", table._mean(mean, results))
    said = " ".join(shown(results, 250).split())
    assert re.search(r"cython/prepared 2\.72x \[[0-9.]+, [0-9.]+\] \(2 problems\)", said)


def test_parts_are_never_split() -> None:
    assert packed(["a", "bb", "c" * 9, "d"], 8) == ["a  bb", "  " + "c" * 9, "  d"]
    assert packed(["", "bb"], 80) == ["  bb"]


def test_what_tune_prints_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("filelock")
    from fastconv import cli
    from fastconv.cli import tune as command

    monkeypatch.setattr(command, "width_of", lambda stream: 60)
    where = ["--wisdom", str(tmp_path / "w.json")]
    assert cli.main(["tune", SMALL.text, "--seconds", "0.02", *where]) == 0
    assert cli.main(["tune", "--list", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("raced" in line for line in lines)
    assert all(len(line) <= 60 or "mb1_" in line or str(tmp_path) in line or "threads; ms" in line for line in lines), lines


def test_the_report_calls_a_tie_a_tie(tmp_path: Path) -> None:
    from fastconv.bench.report import across, contests, hardware, records

    data = fake_records.record(fake_records.Machine(), 1, fake_records.layers()[:2])
    layer = data["benchmarks"][0]["extra_info"]["problem"]
    rows = [each for each in data["benchmarks"] if each["extra_info"]["problem"] == layer]
    rows.sort(key=lambda each: min(each["stats"]["data"]))
    best, other = rows[:2]
    other["stats"]["data"] = [seconds * (1.03 if i % 2 else 0.98) for i, seconds in enumerate(best["stats"]["data"])]
    (tmp_path / "x.json").write_text(json.dumps(data))
    record = records.read(tmp_path / "x.json")
    names = {each["extra_info"]["contender"] for each in (best, other)}
    leaders = contests.leaders(record, record.problems[0])
    assert {each.contender for each in leaders} == names and "tied: " in hardware.winner(leaders).text
    assert "tied" in [line.cells[0].text for line in across.wins([record]).rows]
