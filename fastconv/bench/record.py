"""The record of a run: pytest-benchmark's JSON, so that its `compare` reads it too.

Each benchmark is one contender on one problem; `extra_info` holds what pytest-benchmark has no field for:

========================  ==============================================================================================
problem                   the problem text
contender, kind           its name; "backend" (fastconv's) or "peer" (another library)
library                   what computed, with its version
backend, algorithm, isa   what really ran
prepared                  true: weights were packed before the calls that were timed
threads                   at most
flops, bytes, count       of the problem; its count in the network
gflops                    at the median time
verified                  output values that were compared with the float64 reference in this run
estimate                  true: scaled up from a smaller problem, not measured
noisy                     true: the interval is wider than 5 %, and calls take over 0.2 ms
with_copies               true: the time includes copies to and from a device
import_seconds            one-time cost: importing the library in a fresh process,
prepare_seconds           binding to the problem (planning, compiling, packing),
first_seconds             the first call (compiling, where that happens then); null where unknown
peak_bytes                by how much resident memory rose over binding and first call; the output counts, the other arrays
                          do not; null where unknown
placement                 which placement in memory each round of `stats.data` belonged to (all contenders alike)
reference                 whom `speedup` compares with
speedup, speedup_interval the reference's time over this one's, median of per-round ratios, and [low, high] of 95 %; null
                          where the two did not take turns
of_peak, of_peak_interval the share of the peak measured in the same rounds, likewise
========================  ==============================================================================================

`stats.data` is in the order of the rounds: those of contenders of the same problem belong together one by one.

Beside pytest-benchmark's keys, `format` is the version of all this; `threads`; `suites` what was asked for, with `asked`
problems; `networks` the layers of those that are networks, as [problem, count]; `peaks` has what the machine could do beside
each problem, round by round; `left_out` who got no number and why; `repeated` how many
blocks were timed again, as other work disturbed the machine beside them; `interrupted` whether the run was ended early.
"""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, files
from ..timing.paired import Interval
from .results import Results, Row

FORMAT = 2


def build(results: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """The record as JSON-ready data."""
    return {
        "machine_info": _machine_info(machine),
        "commit_info": _commit_info(),
        "benchmarks": [_benchmark(row, results) for row in results.rows],
        "datetime": datetime.now(UTC).isoformat(),
        "version": f"fastconv {__version__}",
        "format": FORMAT,
        "threads": results.threads,
        "suites": list(results.suites),
        "networks": {name: [[layer.text, layer.count] for layer in layers] for name, layers in results.networks.items()},
        "asked": results.asked,
        "repeated": results.repeated,
        "interrupted": results.interrupted,
        "peaks": [
            {"problem": problem.text, "flops": peak.flops, "flops_method": peak.method, "bandwidth": peak.bandwidth,
             "bandwidth_method": peak.bandwidth_method, "flops_data": list(peak.flops_data),
             "bandwidth_data": list(peak.bandwidth_data)} for problem, peak in results.peaks.items()],
        "left_out": [
            {"problem": out.problem.text, "contender": out.contender, "reason": str(out.reason)} for out in results.left_out],
    }


def dumps(results: Results, machine: dict[str, Any]) -> str:
    """The record as text."""
    return json.dumps(build(results, machine), indent=1, allow_nan=False) + "\n"


def write(path: Path, results: Results, machine: dict[str, Any]) -> None:
    """As `files.write`: an abort leaves the last complete record."""
    files.write(path, dumps(results, machine))


def _benchmark(row: Row, results: Results) -> dict[str, Any]:
    title = row.problem.name or row.problem.text
    return {
        "group": title,
        "name": f"{title}[{row.contender}]",
        "fullname": f"fastconv bench::{title}[{row.contender}]",
        "params": {"contender": row.contender},
        "param": row.contender,
        "extra_info": _extra_info(row, results),
        "options": {"disable_gc": True, "timer": "perf_counter", "warmup": True},
        "stats": _stats(row),
    }


def _extra_info(row: Row, results: Results) -> dict[str, Any]:
    problem = row.problem
    library, import_seconds = results.libraries.get(row.contender, (None, None))
    return {
        "problem": problem.text, "contender": row.contender, "kind": row.kind, "library": library, "backend": row.backend,
        "algorithm": row.algorithm, "isa": row.isa, "prepared": row.prepared, "threads": results.threads,
        "flops": problem.flops, "bytes": problem.bytes, "count": problem.count, "gflops": row.gflops, "verified": row.verified,
        "estimate": row.estimate, "noisy": row.noisy, "with_copies": row.with_copies, "import_seconds": import_seconds,
        "prepare_seconds": row.prepare_seconds, "first_seconds": row.first_seconds, "peak_bytes": row.peak_bytes,
        "placement": list(row.placements), "reference": results.reference,
        "speedup": None if row.speedup is None else row.speedup.middle, "speedup_interval": _ends(row.speedup),
        "of_peak": None if row.of_peak is None else row.of_peak.middle, "of_peak_interval": _ends(row.of_peak),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _stats(row: Row) -> dict[str, Any]:
    """pytest-benchmark's fields, of the rounds' seconds per call."""
    data = np.sort(np.array(row.samples))
    q1, median, q3 = (float(q) for q in np.percentile(data, (25, 50, 75)))
    mean, deviation = float(data.mean()), float(data.std(ddof=1)) if len(data) > 1 else 0.0
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    by_iqr = int(((data < low) | (data > high)).sum())
    by_deviation = int((np.abs(data - mean) > deviation).sum())
    return {
        "min": float(data[0]), "max": float(data[-1]), "mean": mean, "stddev": deviation, "rounds": len(data),
        "median": median, "iqr": q3 - q1, "q1": q1, "q3": q3, "iqr_outliers": by_iqr, "stddev_outliers": by_deviation,
        "outliers": f"{by_deviation};{by_iqr}",
        "ld15iqr": float(data[data >= low][0]), "hd15iqr": float(data[data <= high][-1]),
        "ops": 1 / mean, "total": float(data.sum()), "iterations": row.calls, "data": list(row.samples),
    }


def _machine_info(machine: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's keys, without the host's name, and what `machine` says (but why a backend or module is not available:
    such reasons may name paths)."""
    stable = {name: fact for name, fact in machine.items() if name != "native_failed"}
    available = [name for name, reason in machine["backends"].items() if reason is None]
    return {
        "node": "", "processor": machine["cpu"], "machine": machine["architecture"], "system": machine["system"],
        "python_implementation": platform.python_implementation(), "python_version": machine["python"],
        "cpu": {"brand_raw": machine["cpu"], "arch_string_raw": machine["architecture"], "count": machine["logical_cpus"]},
        "fastconv": {**stable, "backends": available},
    }


def _commit_info() -> dict[str, Any]:
    """The commit of fastconv's checkout, if it runs from one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"id": None, "dirty": None, "project": "fastconv"}

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"id": git("rev-parse", "HEAD"), "time": git("log", "-1", "--format=%cI"),
                "dirty": bool(git("status", "--porcelain", "--untracked-files=no")), "project": "fastconv"}
    except (OSError, subprocess.CalledProcessError):
        return {"id": None, "dirty": None, "project": "fastconv"}
