"""The GPU benchmark: `make gpu`. Needs NumPy, numba-cuda and a GPU; uses pytest and torch where they are.

First the CUDA tests, then the suite "layers": each problem verified on sampled outputs against float64, then timed with CUDA
events after a warm-up, the L2 cache flushed before every run, on random data; against cuDNN through torch, in IEEE float32
and in TF32, the better of NCHW and channels_last. "with copies" is the time from NumPy to NumPy. The record is written after
every problem, so that nothing measured is lost.

    python benchmarks/gpu.py [folder for the record] [--seconds 480] [--no-tests]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fastconv  # noqa: E402
from fastconv import files  # noqa: E402
from fastconv.backends import Candidate, get  # noqa: E402
from fastconv.candidates import bind  # noqa: E402
from fastconv.problem import ConvProblem  # noqa: E402
from fastconv.verify import bounds, reference  # noqa: E402
from fastconv.verify.data import Arrays, random_arrays  # noqa: E402
from fastconv.verify.judge import Judge  # noqa: E402

RUNS, LEAST_RUNS, BUDGET = 30, 5, 0.6  # runs of one contender on one problem, or as many as fit these seconds
FLUSHED = 128 << 20  # bytes written before every run: more than any L2
ORDER = ("fastconv", "fastconv other", "cudnn", "cudnn tf32")


def main() -> int:
    parser = argparse.ArgumentParser(description="The GPU benchmark.")
    parser.add_argument("folder", nargs="?", default=os.environ.get("OUT") or str(ROOT / "benchmarks" / "results"))
    parser.add_argument("--seconds", type=float, default=480.0, help="after these no further problem is started")
    parser.add_argument("--no-tests", action="store_true")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    reason = get("cuda").unavailable()
    if reason is not None:
        print(f"the cuda backend cannot run here: {reason}", file=sys.stderr)
        return 1
    record = new_record()
    name = re.sub(r"[^a-z0-9]+", "-", record["machine_info"]["gpu"].lower()).strip("-")
    path = Path(arguments.folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not arguments.no_tests:
        record["tests"] = tests(arguments.seconds / 2)
        save(path, record)
    benchmark(record, path, deadline)
    failed = [row for row in record["benchmarks"] if row.get("error")]
    print(f"\n{len(record['benchmarks']) - len(failed)} measured, {len(failed)} failed, {len(record['left_out'])} left out")
    print(f"record: {path.name}")
    return 1 if failed or record.get("tests", {}).get("failed") else 0


# ---- tests


def tests(seconds: float) -> dict[str, Any]:
    """The tests in tests/test_cuda_gpu.py by pytest, or the same cases by a loop."""
    start = time.monotonic()
    try:
        import hypothesis  # noqa: F401  (tests/conftest.py)
        import pytest  # noqa: F401
    except ImportError:
        done = _loop(start + seconds)
    else:
        command = [sys.executable, "-m", "pytest", "-q", "-x" if seconds < 60 else "--maxfail=20", "-p", "no:cacheprovider",
                   str(ROOT / "tests" / "test_cuda_gpu.py")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        try:
            run = subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds, capture_output=True, text=True)
            print(run.stdout[-6000:], run.stderr[-2000:], flush=True)
            last = run.stdout.strip().splitlines()[-1:] or [""]
            done = {"by": "pytest", "failed": run.returncode != 0, "summary": last[0]}
        except subprocess.TimeoutExpired:
            done = {"by": "pytest", "failed": True, "summary": f"not finished after {seconds:.0f} s"}
    return {**done, "seconds": round(time.monotonic() - start, 1)}


def _loop(deadline: float) -> dict[str, Any]:
    import cuda_cases

    count, wrong = 0, []
    for result in cuda_cases.results():
        count += 1
        if result["wrong"]:
            wrong.append(result["name"])
            print(f"FAILED {result['name']}: {result['wrong']}", flush=True)
        if time.monotonic() > deadline:
            break
    return {"by": "loop", "failed": bool(wrong), "summary": f"{count - len(wrong)} passed, {len(wrong)} failed", "wrong": wrong}


# ---- the record


def new_record() -> dict[str, Any]:
    from numba import cuda

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for module in ("numba", "numba_cuda", "torch"):
        try:
            versions[module] = str(__import__(module).__version__)
        except Exception:
            continue
    info = {"node": "", "machine": platform.machine(), "system": platform.system(), "gpu": name,
            "compute_capability": list(device.compute_capability), "multiprocessors": device.MULTIPROCESSOR_COUNT,
            "versions": versions}
    return {"machine_info": info, "datetime": datetime.now(UTC).isoformat(), "version": f"fastconv {fastconv.__version__}",
            "benchmarks": [], "left_out": []}


def save(path: Path, record: dict[str, Any]) -> None:
    """As `files.write`: an abort leaves the last complete record."""
    files.write(path, json.dumps(record, indent=1) + "\n")


def problems() -> list[ConvProblem]:
    text = (ROOT / "fastconv" / "bench" / "suites" / "layers.txt").read_text("utf-8")
    return [ConvProblem.from_text(line) for line in text.splitlines() if line and not line.startswith("#")]


def benchmark(record: dict[str, Any], path: Path, deadline: float) -> None:
    columns = (*(f"{name} ms" for name in ORDER), "TFLOP/s", "with copies", "x cudnn", "x tf32")
    print(f"\n{'problem':<24} {'plan':<7}" + "".join(f"{column:>18}" for column in columns), flush=True)
    clock = Clock()
    record["copy_bytes_per_second"] = clock.copy_rate()
    for problem in problems():
        if time.monotonic() > deadline:
            record["left_out"].append({"problem": problem.text, "reason": "out of time"})
            continue
        rows = measure(problem, clock)
        record["benchmarks"] += rows
        save(path, record)
        print(line(problem, rows), flush=True)


def line(problem: ConvProblem, rows: list[dict[str, Any]]) -> str:
    by = {row["contender"]: row for row in rows}
    ms = {name: by[name]["median"] * 1e3 if name in by and not by[name]["error"] else None for name in ORDER}
    own, ieee, tf32 = ms["fastconv"], ms["cudnn"], ms["cudnn tf32"]
    copies = by.get("fastconv with copies", {}).get("median")
    cells = [*(ms[name] for name in ORDER), problem.flops / own / 1e9 if own else None, copies * 1e3 if copies else None,
             ieee / own if own and ieee else None, tf32 / own if own and tf32 else None]
    text = f"{problem.name or problem.text:<24} {by.get('fastconv', {}).get('algorithm', ''):<7}"
    text += "".join(f"{'-' if cell is None else format(cell, '.4g'):>18}" for cell in cells)
    return text + "".join(f"\n    {row['contender']}: {row['error']}" for row in rows if row["error"])


# ---- measuring


class Clock:
    """Times work on the current stream by events, with the L2 cache overwritten before each run."""

    def __init__(self) -> None:
        from numba import cuda

        self.cuda = cuda
        self.scratch = cuda.device_array(FLUSHED // 4, np.float32)
        self.other = cuda.device_array(FLUSHED // 4, np.float32)

    def seconds(self, work: Callable[[], Any]) -> list[float]:
        """Of each run, after two that do not count."""
        cuda = self.cuda
        for _ in range(2):
            work()
        cuda.synchronize()
        pairs, end = [], time.monotonic() + BUDGET
        while len(pairs) < LEAST_RUNS or (len(pairs) < RUNS and time.monotonic() < end):
            self.scratch.copy_to_device(self.other)
            first, last = cuda.event(), cuda.event()
            first.record()
            work()
            last.record()
            last.synchronize()
            pairs.append((first, last))
        return [first.elapsed_time(last) / 1e3 for first, last in pairs]

    def copy_rate(self) -> float:
        """Bytes per second of a copy within the device, read and written."""
        return 2 * FLUSHED / statistics.median(self.seconds(lambda: self.scratch.copy_to_device(self.other)))


def measure(problem: ConvProblem, clock: Clock) -> list[dict[str, Any]]:
    """One row per contender; an error is recorded in its row."""
    data = random_arrays(problem, np.random.default_rng(0))
    candidates = [c for c in get("cuda").candidates(problem) if get("cuda").refuses(problem, c) is None]
    contenders: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        (name, candidate.algorithm, lambda c=candidate: own(problem, c, data, clock))  # type: ignore[misc]
        for name, candidate in zip(ORDER, candidates, strict=False)]
    contenders.append(("fastconv with copies", candidates[0].algorithm, lambda: with_copies(problem, candidates[0], data)))
    for name, tf32 in (("cudnn", False), ("cudnn tf32", True)):
        contenders.append((name, "", lambda tf32=tf32: cudnn(problem, data, clock, tf32)))  # type: ignore[misc]
    rows = []
    for name, algorithm, run in contenders:
        row = {"problem": problem.text, "contender": name, "algorithm": algorithm, "flops": problem.flops, "error": None}
        try:
            row.update(run())
        except ModuleNotFoundError:
            continue
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            print(traceback.format_exc(limit=-3), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def _stats(samples: list[float], verified: int, **more: Any) -> dict[str, Any]:
    return {"median": statistics.median(samples), "min": min(samples), "rounds": len(samples), "data": samples,
            "verified": verified, **more}


def _verify(problem: ConvProblem, algorithm: str, data: Arrays, out: np.ndarray, looser: float = 1.0) -> int:
    """The number of outputs compared.

    Raises:
        ArithmeticError: one is wrong; nothing is timed then.
    """
    points = reference.sample_points(problem, max(16, min(200, (1 << 23) // problem.k)), np.random.default_rng(1))
    judge = Judge(problem, data, points)
    worst = bounds.compare(reference.at(problem, out, points), judge.expected, judge.allowed(algorithm) * looser)
    if not (worst <= 1 and np.isfinite(out).all()):
        raise ArithmeticError(f"wrong result: the error reaches {worst:.3g} times its bound")
    return len(points)


def own(problem: ConvProblem, candidate: Candidate, data: Arrays, clock: Clock) -> dict[str, Any]:
    from numba import cuda

    from fastconv.cuda_arrays import device_view

    kernel: Any = bind(problem, "cuda", candidate)
    start = time.perf_counter()
    packed = kernel.pack(data.w, data.b)
    x, y = cuda.to_device(data.x), cuda.to_device(np.full(problem.output_shape, np.nan, problem.dtype))
    views = device_view(x), device_view(y)
    kernel.run(views[0], packed, views[1])
    out = y.copy_to_host()
    compiling = time.perf_counter() - start
    verified = _verify(problem, candidate.algorithm, data, out)
    samples = clock.seconds(lambda: kernel.run(views[0], packed, views[1]))
    choice = getattr(kernel, "choice", None)
    return _stats(samples, verified, first_call=compiling, tile=list(choice.tile) if choice else None,
                  parts=getattr(kernel, "parts", 1))


def with_copies(problem: ConvProblem, candidate: Candidate, data: Arrays) -> dict[str, Any]:
    """From NumPy to NumPy, by the clock on the wall; weights packed beforehand."""
    kernel: Any = bind(problem, "cuda", candidate)
    packed, out = kernel.pack(data.w, data.b), np.full(problem.output_shape, np.nan, problem.dtype)
    kernel.run(data.x, packed, out)
    verified, samples = _verify(problem, candidate.algorithm, data, out), []
    for _ in range(LEAST_RUNS):
        start = time.perf_counter()
        kernel.run(data.x, packed, out)
        samples.append(time.perf_counter() - start)
    return _stats(samples, verified)


def cudnn(problem: ConvProblem, data: Arrays, clock: Clock, tf32: bool) -> dict[str, Any]:
    """torch's conv2d: the better of NCHW and channels_last memory, after cuDNN's own search."""
    import torch

    torch.backends.cudnn.benchmark = True
    if hasattr(torch.backends.cudnn, "conv"):  # the older switch may not be mixed with this one
        torch.backends.cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"
    else:
        torch.backends.cudnn.allow_tf32 = tf32
    stride, dilation = problem.stride, problem.dilation
    padding = tuple(low for low, _ in problem.padding)
    best: dict[str, Any] = {}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, w = (torch.from_numpy(a).cuda().contiguous(memory_format=memory_format) for a in (data.x, data.w))
        b = None if data.b is None else torch.from_numpy(data.b).cuda()

        def work(x: Any = x, w: Any = w, b: Any = b) -> Any:
            return torch.nn.functional.conv2d(x, w, b, stride, padding, dilation, problem.groups)

        with torch.inference_mode():  # on the default stream, as the events
            out = work().contiguous().cpu().numpy()
            # TF32 keeps 10 bits of each factor's fraction
            verified = _verify(problem, "direct", data, out, 2.0**14 if tf32 else 2.0**6)
            samples = clock.seconds(work)
        found = _stats(samples, verified, memory_format=str(memory_format), library=f"cudnn {torch.backends.cudnn.version()}")
        best = found if not best or found["median"] < best["median"] else best
    return best


if __name__ == "__main__":
    sys.exit(main())
