"""fastconv's suites as a pytest-benchmark suite, for those who keep their benchmarks there.

    pytest benchmarks/
    pytest benchmarks/ --suite resnet50 --fastconv-backend cython,im2col --benchmark-save=mine
    pytest-benchmark compare 0001 benchmarks/results/amd-epyc-zen3-2-cores.json

It times one contender after the other in this process. Who is faster, and by how much, `fastconv bench` says more precisely:
there they take turns, each library in a process of its own, against the machine's peak.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastconv.bench.admission import Admission
from fastconv.bench.contenders import Contender
from fastconv.bench.local import Local
from fastconv.problem import ConvProblem
from fastconv.reasons import Refused
from fastconv.timing.paired import WallClock
from fastconv.verify.data import same_arrays
from fastconv.verify.judge import Judge, some_points

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark: pip install 'fastconv[bench]'")


def test_convolution(benchmark: Any, problem: ConvProblem, local: Local, threads: int) -> None:
    """Verify, then time."""
    contender = local.contender
    library, _ = local.start(threads)
    admission = local.admit(problem)
    local.leave()
    if admission.reason is not None:
        (pytest.skip if isinstance(admission.reason, Refused) else pytest.fail)(str(admission.reason))
    if admission.calls == 0:
        pytest.skip(f"too slow: a call takes {'about ' if admission.estimate else ''}{admission.seconds:.1f} s")
    arrays = same_arrays(problem)
    entry = contender.enter(problem, arrays)
    WallClock().settle()  # thread pools of whoever came before may still be spinning
    benchmark.group = problem.name or problem.text
    benchmark(entry.call)
    judge = Judge(problem, arrays, some_points(problem))
    reason = judge.wrong(entry.result(), entry.bound, entry.tile)  # what was timed computed this
    assert reason is None, reason
    benchmark.extra_info.update(_extra_info(problem, contender, admission), library=library, threads=threads,
                                verified=judge.count)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["gflops"] = problem.flops / benchmark.stats.stats.median / 1e9


def _extra_info(problem: ConvProblem, contender: Contender, admission: Admission) -> dict[str, Any]:
    """What the records of `fastconv bench` say as well (see `fastconv.bench.record`)."""
    return {
        "problem": problem.text, "contender": contender.name, "kind": contender.kind, "backend": contender.backend,
        "algorithm": admission.algorithm, "isa": admission.isa, "prepared": contender.prepared, "flops": problem.flops,
        "bytes": problem.bytes, "count": problem.count, "with_copies": contender.with_copies, "estimate": False,
        "prepare_seconds": admission.prepare_seconds, "first_seconds": admission.first_seconds,
    }
