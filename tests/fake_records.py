"""Records of machines that do not exist: what the reports and the search for regressions are tested with.

The model: a layer costs each contender flops / (its share of the peak), times what differs from run to run and from round to
round, all factors log-normal: the machine's drift (one per run, and a little per layer), the row's own jitter (most rows
1-3 %, one in twenty 8 %), the round's noise (1-4 %, partly shared by all that take turns in it).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.bench import suites
from fastconv.problem import ConvProblem

# name, kind, library, share of peak per algorithm family, one-time seconds (import, prepare, first), MB
CONTENDERS = (
    ("cython", "backend", "fastconv 0.1.0", 0.62, (0.08, None, 0.002), 3),
    ("cython/prepared", "backend", "fastconv 0.1.0", 0.68, (0.08, 0.001, 0.001), 4),
    ("numba", "backend", "fastconv 0.1.0", 0.50, (0.9, None, 1.4), 30),
    ("im2col", "backend", "fastconv 0.1.0", 0.30, (0.08, None, 0.004), 25),
    ("naive", "backend", "fastconv 0.1.0", 0.001, (0.08, None, 2.0), 1),
    ("torch", "peer", "torch 2.13.0", 0.55, (1.9, None, 0.010), 60),
    ("onnxruntime", "peer", "onnxruntime 1.30.0", 0.58, (0.4, 0.05, 0.004), 20),
    ("openvino", "peer", "openvino 2026.1", 0.64, (0.6, 0.08, 0.003), 45),
    ("ncnn", "peer", "ncnn 1.0.9", 0.45, (0.1, 0.01, 0.003), 12),
    ("opencv", "peer", "opencv 4.13.0", 0.40, (0.2, None, 0.004), 10),
)
ROUNDS, PLACEMENTS = 12, 4


@dataclass(frozen=True)
class Machine:
    cpu: str = "Fake EPYC 7000 Processor"
    fingerprint: str = "0123456789ab"
    threads: int = 2
    peak: float = 200e9  # flops per second
    bandwidth: float = 18e9


def layers(name: str = "layers") -> list[ConvProblem]:
    return suites.load([name])


def algorithm(problem: ConvProblem, contender: str) -> str:
    if contender.partition("/")[0] not in ("cython", "numba"):
        return {"im2col": "im2col", "naive": "direct"}.get(contender, "library")
    if problem.groups > 1:
        return "depthwise" if problem.groups == problem.in_channels else "direct"
    if problem.kernel_size == (1, 1):
        return "gemm"
    return "winograd" if set(problem.kernel_size) == {3} and problem.in_channels >= 32 else "direct"


def jitter(generator: np.random.Generator) -> float:
    """The log of one row's luck in one run."""
    scale = 0.08 if generator.random() < 0.05 else generator.uniform(0.01, 0.03)
    return float(generator.normal(0, scale))


def record(machine: Machine, seed: int, problems: list[ConvProblem], slower: dict[tuple[str, str], float] | None = None,
           when: str = "2026-11-20T10:00:00+00:00", suite: str = "layers") -> dict[str, Any]:
    """A record; `slower` multiplies the time of (contender, algorithm), or (contender, a problem's name)."""
    generator = np.random.default_rng(seed)
    drift = generator.uniform(-0.2, 0.2)
    benchmarks: list[dict[str, Any]] = []
    peaks, left_out = [], []
    for problem in problems:
        weather = drift + generator.normal(0, 0.03) + generator.normal(0, 0.02, ROUNDS)
        for contender in CONTENDERS:
            if contender[0] == "opencv" and problem.groups > 1:
                left_out.append({"problem": problem.text, "contender": "opencv", "reason": "refuses: grouped convolution"})
                continue
            factor = (slower or {}).get((contender[0], algorithm(problem, contender[0])), 1.0)
            factor *= (slower or {}).get((contender[0], problem.name), 1.0)
            benchmarks.append(_benchmark(problem, contender, machine, generator, weather, factor))
        peaks.append({"problem": problem.text, "flops": machine.peak * float(np.exp(-np.median(weather))),
                      "flops_method": "multiply-add loop, avx2", "bandwidth": machine.bandwidth,
                      "bandwidth_method": "copy, 128 MiB read and written",
                      "flops_data": (machine.peak * np.exp(-weather)).tolist(), "bandwidth_data": [machine.bandwidth] * ROUNDS})
    facts = {"fastconv": "0.1.0", "cpu": machine.cpu, "architecture": "x86_64", "system": "Linux", "cores": 8,
             "logical_cpus": 8, "caches": {"L1d": "32K", "L2": "512K", "L3": "32768K"}, "isas_supported": ["baseline", "avx2"],
             "isas_built": ["baseline", "avx2", "avx512"], "isa_forced": None, "threads": machine.threads,
             "backends": ["cython", "numba", "im2col", "naive"], "python": "3.11.2", "numpy": "2.4.6", "blas": "openblas",
             "packages": {"numba": "0.68.1", "torch": "2.13.0"}, "fingerprint": machine.fingerprint}
    return {"machine_info": {"fastconv": facts}, "commit_info": {"id": "b1a0879b0ec2"}, "benchmarks": benchmarks,
            "datetime": when, "version": "fastconv 0.1.0", "format": 2, "threads": machine.threads, "suites": [suite],
            "networks": {suite: [[p.text, p.count] for p in problems]} if any(p.count > 1 for p in problems) else {},
            "asked": len(problems), "interrupted": False, "peaks": peaks, "left_out": left_out}


def _benchmark(problem: ConvProblem, contender: tuple[Any, ...], machine: Machine, generator: np.random.Generator,
               weather: np.ndarray, factor: float) -> dict[str, Any]:
    name, kind, library, share, costs, megabytes = contender
    stable = np.random.default_rng([len(name), *problem.text.encode()]).uniform(0.6, 1.3)  # what this layer suits it
    best = max(problem.flops / (machine.peak * share * stable), problem.bytes / machine.bandwidth)
    noise = generator.normal(0, generator.uniform(0.01, 0.04), ROUNDS)
    data = best * factor * np.exp(weather + jitter(generator) + noise)
    estimate = name == "naive" and problem.flops > 1e9
    data = data[:1] if estimate else data
    extra = {
        "problem": problem.text, "contender": name, "kind": kind, "library": library, "backend": name.partition("/")[0],
        "algorithm": algorithm(problem, name), "isa": "avx2" if name.startswith("cython") else None, "threads": machine.threads,
        "prepared": name.endswith("/prepared") or costs[1] is not None, "flops": problem.flops, "bytes": problem.bytes,
        "count": problem.count, "verified": 200, "estimate": estimate, "with_copies": False, "reference": "im2col",
        "noisy": not estimate and bool(generator.random() < 0.01), "of_peak": None if estimate else share * float(stable),
        "import_seconds": costs[0], "prepare_seconds": costs[1], "first_seconds": None if estimate else costs[2],
        "peak_bytes": None if estimate else megabytes * 2**20 + problem.bytes,
        "placement": [i * PLACEMENTS // ROUNDS for i in range(len(data))]}
    return {"group": problem.name, "name": f"{problem.name}[{name}]", "extra_info": extra, "stats": {"data": data.tolist()}}


def write(path: Path, *arguments: Any, **more: Any) -> Path:
    path.write_text(json.dumps(record(*arguments, **more)), "utf-8")
    return path
