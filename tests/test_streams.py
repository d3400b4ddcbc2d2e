"""The command line in every locale, with its output closed, full or read by nobody, and with records that mean ill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fake_records
import pytest

from fastconv import cli

pytest.importorskip("rich")
ROOT = Path(__file__).resolve().parents[1]
TINY = 'mb1_ic3ih8iw8_oc4oh6ow6_kh3kw3sh1sw1ph0pw0_n"größe"'
BENCH = ("bench", TINY, "--backend", "im2col", "--seconds", "0.01", "--json", "x.json")
COMMANDS = [("info",), ("explain", TINY), ("--help",), ("compare", "old.json")]
SLOW = [("check", "--quick", "--backend", "im2col"), ("tune", TINY, "--seconds", "0.01", "--wisdom", "w.json"), BENCH]
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(tail: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``fastconv arguments tail``, as bash runs it; its exit status, of a pipeline's first part."""
    line = f'"$@" {tail}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(["bash", "-c", line, "bash", sys.executable, "-m", "fastconv", *arguments], cwd=folder,
                          capture_output=True, encoding="utf-8",
                          env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ein Ordner für größe"
    made.mkdir()
    (made / "größe.txt").write_text(TINY + "\n", "utf-8")
    fake_records.write(made / "old.json", fake_records.Machine("A Laptop"), 1, fake_records.layers())
    return made


@pytest.mark.parametrize("command, tail, status", [
    *((command, tail, status) for command in COMMANDS
      for tail, status in [(">&-", 0), (">&- <&- 2>&-", 0), ("| true", 141), ("> /dev/full", 2)]),
    *((command, ">&- 2>&-", 0) for command in SLOW), (("explain", TINY), "2>&-", 0)],
    ids=lambda value: " ".join(value)[:8] if isinstance(value, tuple) else str(value))
def test_output_that_nobody_gets(command: tuple[str, ...], tail: str, status: int, folder: Path) -> None:
    done = shell(tail, *command, folder=folder)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert done.returncode in ((0, 141) if status == 141 else (status,)), done.stderr  # it may have written all in time
    assert done.stderr == ("fastconv: No space left on device\n" if status == 2 else ""), done.stderr
    if command == BENCH:
        assert json.loads((folder / "x.json").read_text("utf-8"))["benchmarks"], "the record is kept, and nothing else in it"


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda command: " ".join(command)[:8])
def test_a_reader_that_leaves_ends_it_as_any_tool(arguments: tuple[str, ...], folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    left = subprocess.run([sys.executable, "-m", "fastconv", *arguments], stdout=write, stderr=subprocess.PIPE, cwd=folder,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(write)
    assert (left.returncode, left.stderr) == (141, b"")


@pytest.mark.parametrize("command", [*COMMANDS, SLOW[1], ("bench", "größe.txt", *BENCH[2:]),
                                     ("compare", "old.json", "--html", "ö/ü.html")],
                         ids=lambda command: " ".join(command)[:12].encode("ascii", "replace").decode())
def test_an_ascii_locale(command: tuple[str, ...], folder: Path) -> None:
    done = shell("", *command, folder=folder, **ASCII)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.isascii() and done.stdout
    if command[:1] == ("bench",):
        record = json.loads((folder / "x.json").read_text("utf-8"))
        assert "größe" in record["benchmarks"][0]["name"] and record["suites"] == ["größe.txt"]


def test_what_a_record_says_never_steers_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every text of a record, with an escape sequence, a NUL and HTML in it."""
    ill = "\x1b]0;mine\x07\0<script>alert(1)</script>\u202e[red]"
    record = json.loads((folder / "old.json").read_text("utf-8"))

    def spoiled(value, key=""):
        if isinstance(value, str) and key not in ("problem", "datetime", "kind", "version", "fingerprint"):
            return value + ill
        if isinstance(value, list):
            return [spoiled(each, key) for each in value]
        return {name: spoiled(each, name) for name, each in value.items()} if isinstance(value, dict) else value

    (folder / "ill\x1b[31m.json").write_text(json.dumps(spoiled(record)), "utf-8")
    assert cli.main(["compare", str(folder / "ill\x1b[31m.json"), "--html", str(folder / "page.html")]) == 0
    output = "".join(capsys.readouterr())
    page = (folder / "page.html").read_text("utf-8")
    for text in (output, page):
        assert not set("\x1b\0\x07\u202e") & set(text) and "mine" in text
    assert "<script>alert" not in page


def test_an_ill_problem_of_a_record_is_escaped_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "old.json").read_text("utf-8")
    problem = json.loads(text)["benchmarks"][0]["extra_info"]["problem"]
    spoiled = json.dumps(problem)[1:-1].replace('n\\"', 'n\\"\\u001b[2J')
    (folder / "ill.json").write_text(text.replace(json.dumps(problem)[1:-1], spoiled), "utf-8")
    assert cli.main(["compare", str(folder / "ill.json")]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("depth", (500, 2_000, 100_000))
def test_a_deeply_nested_record_is_one_line(depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth,
                 '{"benchmarks": [], "machine_info": ' + "[" * depth + "]" * depth + "}"):
        (tmp_path / "x.json").write_text(text)
        assert cli.main(["compare", str(tmp_path / "x.json")]) == 2
        output = capsys.readouterr()
        assert output.out == "" and output.err.count("\n") == 1 and "x.json" in output.err, output.err
