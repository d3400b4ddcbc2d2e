"""The record of a run: pytest-benchmark's JSON, so that its `compare` reads it too.

Each benchmark is one contender on one problem; `extra_info` holds what pytest-benchmark has no field for:

========================  ==============================================================================================
problem                   the problem text
backend, algorithm, isa   what really ran
threads                   at most
flops, bytes, count       of the problem; its count in the network
gflops                    at the median time
verified                  output values that were compared with the float64 reference in this run
estimate                  true: scaled up from a smaller problem, not measured
noisy                     true: the interval is wider than 5 %, and calls take over 0.2 ms
with_copies               true: the time includes copies to and from a device
reference                 whom `speedup` compares with
speedup, speedup_interval the reference's time over this one's, median of per-round ratios, and [low, high] of 95 %; null
                          where the two did not take turns
of_peak, of_peak_interval the share of the peak measured in the same rounds, likewise
========================  ==============================================================================================

Beside pytest-benchmark's keys, `peaks` has what the machine could do beside each problem, `left_out` who got no number and
why, and `interrupted` whether the run was ended early.
"""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .results import Results, Row
from .timing import Interval


def build(results: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """The record as JSON-ready data."""
    return {
        "machine_info": _machine_info(machine),
        "commit_info": _commit_info(),
        "benchmarks": [_benchmark(row, results) for row in results.rows],
        "datetime": datetime.now(UTC).isoformat(),
        "version": f"fastconv {__version__}",
        "interrupted": results.interrupted,
        "peaks": [
            {"problem": problem.text, "flops": peak.flops, "flops_method": peak.method, "bandwidth": peak.bandwidth,
             "bandwidth_method": peak.bandwidth_method} for problem, peak in results.peaks.items()],
        "left_out": [
            {"problem": out.problem.text, "contender": out.contender, "reason": out.reason} for out in results.left_out],
    }


def write(path: Path, results: Results, machine: dict[str, Any]) -> None:
    path.write_text(json.dumps(build(results, machine), indent=1, allow_nan=False) + "\n", "utf-8")


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
    return {
        "problem": problem.text, "backend": row.backend, "algorithm": row.algorithm, "isa": row.isa, "threads": results.threads,
        "flops": problem.flops, "bytes": problem.bytes, "count": problem.count, "gflops": row.gflops, "verified": row.verified,
        "estimate": row.estimate, "noisy": row.noisy, "with_copies": row.with_copies, "reference": results.reference,
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
    """pytest-benchmark's keys, without the host's name, and what `machine` says (but why a backend is not available: such
    reasons may name paths)."""
    available = [name for name, reason in machine["backends"].items() if reason is None]
    return {
        "node": "", "processor": machine["cpu"], "machine": machine["architecture"], "system": machine["system"],
        "python_implementation": platform.python_implementation(), "python_version": machine["python"],
        "cpu": {"brand_raw": machine["cpu"], "arch_string_raw": machine["architecture"], "count": machine["logical_cpus"]},
        "fastconv": {**machine, "backends": available},
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
