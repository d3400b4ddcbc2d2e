"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fastconv import cli
from fastconv.backends import registry

ROOT = Path(__file__).resolve().parents[1]
TINY = 'mb1_ic3ih8iw8_oc4oh6ow6_kh3kw3sh1sw1ph0pw0_n"tiny"'
OPTIONAL = ("rich", "matplotlib", "archspec", "cpuinfo", "threadpoolctl", "filelock", "platformdirs")


def fastconv(*arguments: str, without: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `without`: packages that do not import there."""
    code = f"import sys\nfor name in {without!r}: sys.modules[name] = None\nfrom fastconv.cli import main\nsys.exit(main())"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": path, **environment})


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong command ends with."""
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("fastconv: ") and output.err.count("\n") == 1
    return output.err


def test_info_as_json() -> None:
    done = fastconv("info", "--json", FASTCONV_NUM_THREADS="3", FASTCONV_ISA="baseline")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["threads"] == 3 and facts["isa_forced"] == "baseline"
    assert facts["microarchitecture"] and facts["cpu_id"]
    assert facts["cpu"] and facts["cores"] >= 1 and facts["numpy"] and facts["blas"] and len(facts["fingerprint"]) == 12
    assert set(facts["backends"]) == set(registry()) and facts["backends"]["im2col"] is None


def test_info_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("CPU", "ISAs", "threads", "im2col   available", "NumPy", "fingerprint"))


@pytest.mark.parametrize("command", [
    ("info",), ("explain", TINY), ("check", "--quick", "--backend", "im2col")], ids=lambda command: command[0])
def test_commands_without_optional_packages(command: tuple[str, ...]) -> None:
    done = fastconv(*command, without=OPTIONAL)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_bench_without_rich_says_what_to_install(tmp_path: Path) -> None:
    done = fastconv("bench", TINY, "--json", str(tmp_path / "x.json"), without=OPTIONAL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastconv: fastconv bench needs rich: pip install 'fastconv[bench]'\n"


def test_python_m_fastconv() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, env=environment,
                          check=True)
    assert done.stdout.startswith("fastconv ")


@pytest.mark.parametrize("name, value, rule", [
    ("NUM_THREADS", "abc", "a positive integer, at most 8192"), ("NUM_THREADS", "0", "a positive integer, at most 8192"),
    ("ISA", "mmx", "one of baseline, avx2, avx512"), ("ACCURACY", "best", "one of strict, fast, loose")])
def test_a_bad_variable_is_one_line(name: str, value: str, rule: str) -> None:
    done = fastconv("info", **{f"FASTCONV_{name}": value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fastconv: FASTCONV_{name} must be {rule}, got {value!r}\n"


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", f"--dt=f64 {TINY}", "--backend", "im2col"]) == 0
    text = capsys.readouterr().out
    assert "plan       im2col im2col" in text and "--dt=f64 mb1_ic3" in text


def test_explain_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot read 'x8oc4'" in fails(capsys, "explain", "mb1_ic3ih8x8oc4")
    assert "does not compute" in fails(capsys, "explain", TINY, "--backend", "im2col", "--algorithm", "winograd")
    assert "got 'abacus'" in fails(capsys, "explain", TINY, "--backend", "abacus")


def test_check_fails_where_a_backend_is_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv import activations

    monkeypatch.setattr(activations, "apply", lambda activation, array: array.fill(0))
    assert cli.main(["check", "--quick", "--backend", "im2col"]) == 1
    assert "im2col" in capsys.readouterr().out


def test_bench_writes_table_record_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", TINY, "--backend", "im2col,naive", "--seconds", "0.1", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    record, = Path("fastconv-results").glob("*.json")
    assert "tiny" in text and "im2col" in text and "1 thread" in text and f"record: {record}" in text
    read = json.loads(record.read_text())
    assert {b["extra_info"]["backend"] for b in read["benchmarks"]} == {"im2col", "naive"}
    assert record.with_suffix(".png").exists() or "no chart" in text


def test_the_record_on_stdout(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    done = fastconv("bench", TINY, "--backend", "im2col,im2col/prepared", "--seconds", "0.05", "--json", "-")
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert [b["extra_info"]["contender"] for b in read["benchmarks"]] == ["im2col", "im2col/prepared"]
    assert "fastconv bench, " in done.stderr and "record" not in done.stderr and not list(tmp_path.iterdir())


def test_lines_can_be_run_again(tmp_path: Path) -> None:
    """Each line of the table ends with what `fastconv bench` takes."""
    pytest.importorskip("rich")
    done = fastconv("bench", TINY, "--backend", "im2col,naive", "--seconds", "0.05", "--json", str(tmp_path / "x.json"))
    lines = [line for line in done.stdout.splitlines() if "im2col" in line and "GFLOP" not in line and "mb1_" in line]
    assert lines and shlex.split(lines[0].strip(" │┃")[-len(TINY) - 2:])[-1] == TINY


def test_generated_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "x.json"
    assert cli.main(["bench", TINY, "--generate", "1", "--seed", "5", "--backend", "im2col", "--seconds", "0.05", "--json",
                     str(path)]) == 0
    read = json.loads(path.read_text())
    assert read["asked"] == 2 and read["suites"] == [TINY, "generated 1, seed 5"] and "tiny" in capsys.readouterr().out
    assert "problems to generate must be positive, got 0" in fails(capsys, "bench", "--generate", "0")


def test_records_tell_no_folders(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    suite, path = tmp_path / "mine.txt", tmp_path / "x.json"
    suite.write_text(TINY.replace('tiny"', 'tiny*2"') + "\n")
    assert cli.main(["bench", str(suite), "--backend", "im2col", "--seconds", "0.05", "--json", str(path)]) == 0
    assert str(tmp_path) not in path.read_text()
    read = json.loads(path.read_text())
    assert read["suites"] == ["mine.txt"] and list(read["networks"]) == ["mine.txt"]


def test_a_folder_that_went_away_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    from fastconv.bench import runner

    folder, run = tmp_path / "results", runner.run

    def losing(*arguments):
        results = run(*arguments)
        folder.rmdir()
        return results

    monkeypatch.setattr(runner, "run", losing)
    assert cli.main(["bench", TINY, "--backend", "im2col", "--seconds", "0.05", "--json", str(folder / "x.json")]) == 2
    found = re.search(r"cannot write .*x\.json \(there is no folder .*results\); the record is (.*)", capsys.readouterr().out)
    assert found and len(json.loads(Path(found[1]).read_text())["benchmarks"]) == 1
    shutil.rmtree(Path(found[1]).parent)


def test_bench_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    done = fastconv("bench", TINY, "--backend", "im2col", "--seconds", "0.1", "--json", str(tmp_path / "made" / "x.json"),
                    "--chart", str(tmp_path / "x.svg"))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "colours only on a terminal"
    assert (tmp_path / "made" / "x.json").exists() and "im2col" in done.stdout


def test_bench_refuses_before_it_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text(f"{TINY}\n# fine so far\nmb1_ic3ih8\n")
    Path("file").write_text("")
    assert "bad.txt, line 3: malformed problem" in fails(capsys, "bench", "bad.txt")
    assert "no suite or file 'resnet'" in fails(capsys, "bench", "resnet")
    assert "cannot read" in fails(capsys, "bench", "mb1_ic3zz")
    assert "got 'abacus'" in fails(capsys, "bench", TINY, "--backend", "abacus")
    assert "num_threads must be positive" in fails(capsys, "bench", TINY, "--threads", "0")
    assert "--seconds: must be positive" in fails(capsys, "bench", TINY, "--seconds", "0")
    assert "--timeout: must be positive" in fails(capsys, "bench", TINY, "--timeout", "-1")
    assert "file" in fails(capsys, "bench", TINY, "--json", "file/x.json")
    assert "cannot write ." in fails(capsys, "bench", TINY, "--json", ".", "--chart", "x.png")
    assert "--chart must end in" in fails(capsys, "bench", TINY, "--chart", "x.gif")


@pytest.mark.parametrize("value", ("nan", "inf", "-inf", "1e400", "0", "-1", "86401", "soon", ""))
def test_durations_end(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("bench", TINY, "--seconds"), ("bench", TINY, "--timeout"), ("tune", TINY, "--seconds")):
        assert f"argument {command[-1]}: must be positive, and at most a day" in fails(capsys, *command[:-1],
                                                                                      f"{command[-1]}={value}")
    assert not list(tmp_path.iterdir())


def test_an_algorithm_that_a_backend_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("naive:nope", "naive:winograd/prepared", "im2col:direct"):
        algorithm = name.partition(":")[2].partition("/")[0]
        assert f"has no algorithm '{algorithm}'; it has" in fails(capsys, "bench", TINY, "--backend", name)
    assert "got 'nope'" in fails(capsys, "explain", TINY, "--algorithm", "nope")
    assert not list(tmp_path.iterdir())


def test_a_run_without_any_figure_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    in_this_process(monkeypatch)
    record = str(tmp_path / "x.json")
    assert cli.main(["bench", "--dir=BWD_W mb1_ic3ih8_oc4oh6_kh3", "--backend", "im2col/prepared", "--json", record]) == 1
    output = capsys.readouterr()
    assert "are prepared" in output.out and output.err == "fastconv: nobody has a figure for any of the problems\n"


def test_without_a_command_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "compare" in capsys.readouterr().out
    assert "invalid choice: 'nosuch'" in fails(capsys, "nosuch")
    assert "unrecognized arguments" in fails(capsys, "info", "--nosuch" + "x" * 10_000)


_HOMELESS = """
import os
import sys
from pathlib import Path
from fastconv import settings
assert settings.user_cache() is None or os.environ["HOME"] == ""
from fastconv.backends.numba_jit import compile
compile.BESIDE = Path("/dev/null/nowhere")  # as where fastconv is installed read-only
compile.stage("relu", "float32")
from fastconv.cli import main
sys.exit(main(["tune", sys.argv[1], "--seconds", "0.01"]))
"""


@pytest.mark.parametrize("home", ("~", "relative"))
def test_without_a_home(home: str, tmp_path: Path) -> None:
    """Containers and services: no folder named ~ is made, and tune says what it lacks in one line."""
    pytest.importorskip("numba")
    environment = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "FASTCONV_WISDOM")}
    done = subprocess.run([sys.executable, "-c", _HOMELESS, TINY], capture_output=True, text=True, cwd=tmp_path,
                          env={**environment, "HOME": home, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and done.stderr.startswith("fastconv: there is no home folder to keep wisdom in"), done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_hints_name_what_there_is() -> None:
    """Every extra that a message tells to install is one of the project's."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    found = {(path.name, extra.strip()) for path in (ROOT / "fastconv").rglob("*.py")
             for several in re.findall(r"fastconv\[([^\]\n]+)\]", path.read_text()) for extra in several.split(",")}
    assert {extra for _, extra in found} >= {"bench", "tune", "numba", "cuda"}
    assert not [each for each in found if each[1] not in extras]


def in_this_process(monkeypatch: pytest.MonkeyPatch):
    """Contenders that a test can tamper with; one of them."""
    from fastconv.bench import local, runner

    monkeypatch.setattr(runner, "remote", lambda contender, options: local.Local(contender, options.limits))
    return registry()["naive"]


def test_ctrl_c_keeps_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    naive = in_this_process(monkeypatch)
    bind = type(naive).bind

    def interrupted(self, problem, candidate):
        if problem.batch == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return bind(self, problem, candidate)

    monkeypatch.setattr(type(naive), "bind", interrupted)
    record = tmp_path / "kept.json"
    code = cli.main(["bench", TINY, TINY.replace("mb1", "mb3"), "--backend", "naive", "--seconds", "0.05", "--json",
                     str(record)])
    output = capsys.readouterr()
    assert code == 130 and "interrupted; 1 of 2 problems have figures" in output.err and "tiny" in output.out
    read = json.loads(record.read_text())
    assert read["interrupted"] is True and len(read["benchmarks"]) == 1


def test_wrong_results_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    from fastconv import activations

    in_this_process(monkeypatch)
    monkeypatch.setattr(activations, "apply", lambda activation, array: array.fill(0))
    assert cli.main(["bench", TINY, "--backend", "im2col", "--seconds", "0.05", "--json", str(tmp_path / "x.json")]) == 1
    assert "wrong result" in capsys.readouterr().out
