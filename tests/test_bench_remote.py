"""Contenders in processes of their own: quiet while others run, and nobody's crash costs anybody else a number.

The misbehaving backend is installed as a third party's would be: a package with an entry point, found on the path.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from problems import problem

from fastconv import config
from fastconv.backends import registry
from fastconv.bench import contenders, memory, probes, remote, runner
from fastconv.bench.admission import Limits
from fastconv.bench.remote import Remote
from fastconv.problem import ConvProblem
from fastconv.reasons import Failed, TimedOut
from fastconv.timing.paired import Lost

RUDE = '''
"""Computes with im2col, and misbehaves according to the number of output channels."""
import os, signal, sys, threading, time
from fastconv.backends import Candidate, im2col

class Kernel:
    workspace_bytes = packed_bytes = 0
    pack_key = None

    def __init__(self, problem):
        self.problem, self.real, self.runs = problem, im2col.backend.bind(problem, Candidate("im2col")), 0

    def pack(self, w, b):
        return self.real.pack(w, b)

    def run(self, x, packed, out, residual=None):
        self.runs += 1
        print("libraries talk")
        channels = self.problem.out_channels
        if channels == 2 or channels == 3 and self.runs > 20:
            print("something about a bus", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGBUS)
        if channels == 4:
            time.sleep(1000)
        if channels == 5:
            threading.Thread(target=spin, daemon=True).start()
        if channels == 6:
            os._exit(3)
        self.real.run(x, packed, out, residual)

def spin():
    while True:
        pass

class Rude:
    name, device = "rude", "cpu"
    def unavailable(self): return None
    def candidates(self, problem): return (Candidate("im2col"),)
    def refuses(self, problem, candidate): return None
    def seconds(self, problem, candidate, prepared): return None
    def bind(self, problem, candidate): return Kernel(problem)

backend = Rude()
'''


FINE, CRASHES, CRASHES_LATER, HANGS, SPINS, EXITS, FINE_TOO = (
    problem((3, channels), (8, 8), 3, padding=0, name=f"rude{channels}") for channels in range(1, 8))


@pytest.fixture
def rude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_registry):
    (tmp_path / "rude.py").write_text(RUDE)
    info = tmp_path / "rude-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rude\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastconv.backends]\nrude = rude\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with config(backends=("rude",), num_threads=1):
        registry()
        yield contenders.named("rude")
    sys.modules.pop("rude", None)


def started(contender, patience: float | None = 60.0) -> Remote:
    seat = Remote(contender, Limits(), patience)
    seat.start(1)
    return seat


def state(pid: int) -> str:
    """R, S, T (stopped) ... as Linux has it; of a process or thread."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(condition: Callable[[], bool]) -> None:
    """However long it takes: pytest-timeout ends what never comes."""
    while not condition():
        time.sleep(0.01)


def test_a_contender_in_its_own_process() -> None:
    seat = Remote(contenders.named("im2col"), Limits())
    library, seconds = seat.start(1)
    assert library.startswith("fastconv ") and seconds > 0
    admission = seat.admit(FINE)
    assert admission.reason is None and admission.algorithm == "im2col" and admission.verified > 20 and admission.calls > 0
    assert admission.prepare_seconds > 0 and admission.first_seconds > 0
    times = [seat.block() for _ in range(3)]
    seat.renew()
    times.append(seat.block())
    assert all(seconds > 0 for seconds in times)
    seat.leave()
    for direction in ("BWD_D", "BWD_W"):
        admission = seat.admit(ConvProblem.from_text(f"--dir={direction} mb1_ic3ih8_oc2oh6_kh3"))
        assert admission.reason is None and admission.verified > 10 and admission.calls > 0
        seat.leave()
    process = seat._process
    assert process is not None
    seat.close()
    assert process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_is_stopped_while_others_have_their_turn(rude) -> None:
    seat = started(rude)
    assert seat.admit(SPINS).reason is None
    pid = seat._process.pid  # type: ignore[union-attr]
    wait_until(lambda: {state(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()} == {"T"})
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    time.sleep(0.1)
    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] == ticks
    assert seat.block() > 0
    seat.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal when the parent dies")
def test_nobody_outlives_a_killed_parent() -> None:
    code = ("import time\nfrom fastconv.bench import contenders, remote, admission\n"
            "seat = remote.Remote(contenders.named('im2col'), admission.Limits())\n"
            "seat.start(1)\nprint(seat._process.pid, flush=True)\ntime.sleep(100)")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": path})
    pid = int(parent.stdout.readline())  # type: ignore[union-attr]
    assert state(pid) not in "XZ"
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z")


def test_crashes_are_told_and_not_the_end(rude) -> None:
    seat = started(rude)
    reason = seat.admit(CRASHES).reason
    assert reason == Failed("its process ended (SIGBUS): something about a bus")
    assert seat.admit(FINE).reason is None, "a new process took over"
    assert seat.admit(EXITS).reason == Failed("its process ended (exit code 3)")
    seat.admit(CRASHES)
    assert seat.admit(FINE).reason == Failed(f"its process ended {remote.LIVES} times")
    with pytest.raises(Lost, match="its process ended"):
        seat.block()
    seat.close()


def test_a_hanging_contender_is_ended(rude) -> None:
    seat = started(rude, patience=0.5)
    assert seat.admit(HANGS).reason == TimedOut("no answer within 0.5 s")
    seat.close()


def test_one_that_does_not_start(rude, tmp_path: Path) -> None:
    (tmp_path / "rude.py").write_text("raise OSError('no such chip')")
    with pytest.raises(Lost, match="no such chip"):
        Remote(rude, Limits()).start(1)


def test_the_others_go_on_without_one_that_does_not_start() -> None:
    both = [contenders.BackendContender("nonesuch"), contenders.named("im2col")]
    results = runner.run(runner.Work([FINE, FINE_TOO]), both, runner.Options(1, 0.1))
    assert [row.contender for row in results.rows] == ["im2col"] * 2
    assert [out.contender for out in results.left_out] == ["nonesuch"] * 2
    assert "got 'nonesuch'" in results.left_out[0].reason.why


def test_a_crash_in_the_middle_costs_nobody_else_a_number(rude, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(remote, "LIVES", 10)
    both = [rude, contenders.named("im2col")]
    results = runner.run(runner.Work([FINE, CRASHES_LATER, FINE_TOO]), both, runner.Options(1, 0.2, patience=60.0))
    assert [(row.problem.name, row.contender) for row in results.rows] == [
        ("rude1", "rude"), ("rude1", "im2col"), ("rude3", "im2col"), ("rude7", "rude"), ("rude7", "im2col")]
    assert [out.contender for out in results.left_out] == ["rude"]
    assert str(results.left_out[0].reason).startswith("failed: its process ended (")
    assert all(row.of_peak is not None and len(row.samples) >= 4 for row in results.rows)


def test_ctrl_c_ends_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "COPY_BYTES", 1 << 20)
    seats: list[Remote] = []

    def seat(contender, options):
        seats.append(Remote(contender, options.limits))
        return seats[-1]

    def progress(results, text: str) -> None:
        if len(results.problems) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    work = runner.Work([FINE, SPINS, HANGS])
    results = runner.run(work, [contenders.named("im2col")], runner.Options(1, 0.1), progress, seat)
    assert results.interrupted and results.problems == [FINE] and len(results.rows) == 1
    assert seats[0]._process is None


def test_copies_lie_in_fresh_memory() -> None:
    for shape in ((3, 5), (300, 1001), (1200, 1001)):
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        copies = [memory.fresh(array) for _ in range(3)]
        assert len({copy.ctypes.data for copy in copies}) == 3
        for copy in copies:
            assert np.array_equal(copy, array) and copy.flags.writeable and copy.flags.c_contiguous and copy.flags.aligned


WATCHES = """
import gc
import numpy as np
from fastconv.bench import memory

class Cycle:
    def __init__(self):
        self.itself, self.array = self, np.ones(8 << 20)

Cycle()  # garbage that waits for its collection
memory.reset_peak()
assert memory.rise() is not None, "not to be told here"
gc.collect()  # as may happen at any time
np.ones(8 << 20)
print(memory.rise())
memory.reset_peak()
print(memory.rise())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_that_is_given_back_still_counts() -> None:
    """In a process of its own: what other tests leave behind may be freed at any time."""
    ran = subprocess.run([sys.executable, "-c", WATCHES], capture_output=True, text=True)
    if "not to be told here" in ran.stderr:
        pytest.skip("/proc/self/clear_refs is not to be written here")
    assert ran.returncode == 0, ran.stderr
    rose, rose_again = map(int, ran.stdout.split())
    assert 60e6 < rose < 90e6 and rose_again < 10e6
