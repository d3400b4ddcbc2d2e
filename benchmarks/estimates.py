"""How good the estimates are, by which fastconv chooses algorithms: seconds that a plan promises against seconds measured.

    python benchmarks/estimates.py [--layers 200] [--seed 23] [--direction forward] [--best 1] [--record FILE] [--plot FILE]
    python benchmarks/estimates.py --taken benchmarks/results/amd-epyc-zen3-2-cores.json [--kind zen3] [--plot FILE]

Layers are those of ``fastconv bench --generate``, prepared (but for gradients of weights) and per call, with one thread, `out`
given, and as many expected images as they have. Each result is verified before it is timed; CPU time of the fastest call
counts, or of the fastest few where calls are short. With `--best 3` the three best-ranked candidates take turns, and the
regret is the time of the choice by that of the fastest of them. FASTCONV_ISA and FASTCONV_WISDOM are those of any call.

With `--taken`, nothing is measured: what `fastconv bench` found on another machine is compared with what the model says of
such a one, by its microarchitecture, of the algorithms and ISAs that ran there. Its threads are assumed to have shared the work
evenly; shorter calls than 0.1 ms, which one of them may have done alone, are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import fastconv
from fastconv import hardware, lowering, settings
from fastconv import machine as model
from fastconv.backends import Candidate
from fastconv.backends.cython_native import backend
from fastconv.bench import machine
from fastconv.bench.generate import generate
from fastconv.candidates import Ranked, bind, ranked
from fastconv.problem import DIRECTIONS, ConvProblem
from fastconv.timing.fastest import fastest
from fastconv.verify.data import Arrays, same_arrays
from fastconv.verify.judge import Comparison

NEAR = 1.5  # an estimate is good within this factor
BLOCK, ROUNDS = 2e-3, 12  # seconds of a contender's turn; turns
SHARED = 1e-4  # seconds of a call from which all threads have work


class Row(NamedTuple):
    """A layer as it is used, and the candidates that were timed, the model's choice first; seconds are of one image."""

    problem: ConvProblem
    prepared: bool
    names: tuple[str, ...]
    algorithm: str
    estimates: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Of the choice: below 1 it takes longer than was estimated."""
        return self.estimates[0] / self.seconds[0]

    @property
    def regret(self) -> float:
        return self.seconds[0] / min(self.seconds)

    def stored(self) -> dict[str, Any]:
        short = {name: [float(f"{each:.4g}") for each in getattr(self, name)] for name in ("estimates", "seconds")}
        return {"problem": self.problem.text, "prepared": self.prepared, "candidates": self.names, **short}


# ---- measuring


def call_of(problem: ConvProblem, each: Ranked, arrays: Arrays, out: np.ndarray, prepared: bool) -> Callable[[], None]:
    kernel: Any = bind(problem, each.backend, each.candidate)
    x, w, b, residual = arrays
    packed = kernel.pack(w, b) if prepared else None
    if hasattr(kernel, "shortcut"):  # as calls come that were made before
        now = settings.current()
        take, (w, b) = kernel.shortcut(now, (), True, packed).take, (None, None) if prepared else (w, b)
        return lambda: take(now, (), x, w, b, residual, out)
    if prepared:
        return lambda: kernel.run(x, packed, out, residual)
    return lambda: kernel.run(x, lowering.pack_once(kernel, w, b), out, residual)


def measured(problem: ConvProblem, prepared: bool, count: int) -> Row:
    """The choice, and the candidates ranked next to it.

    Raises:
        AssertionError: one computes something wrong.
    """
    images = 1 if problem.direction == "backward_weight" else problem.batch
    with fastconv.config(expected_batch=problem.batch):
        order = ranked(problem, backend="cython", prepared=prepared)[0][:count]
        arrays, out = same_arrays(problem), np.empty(problem.result_shape, problem.dtype)
        results, calls = Comparison(problem, arrays), []
        for each in order:
            calls.append(call_of(problem, each, arrays, out, prepared))
            out.fill(np.nan)
            calls[-1]()
            wrong = results.wrong(out, each.candidate)
            assert wrong is None, f"{problem.text}, {each}: {wrong}"
        seconds = [found / images for found in fastest(calls, BLOCK, ROUNDS)]
    candidates: list[Candidate] = [each.candidate for each in order]
    return Row(problem, prepared, tuple(map(str, candidates)), candidates[0].algorithm,
               tuple(each.seconds or math.nan for each in order), tuple(seconds))


def generated(options: argparse.Namespace) -> list[Row]:
    modes = (False,) if options.direction == "backward_weight" else (False, True)
    rows = []
    for layer in generate(options.layers, options.seed):
        problem = dataclasses.replace(layer, direction=options.direction, bias=layer.bias and options.direction == "forward")
        rows += [measured(problem, prepared, options.best) for prepared in modes]
    return rows


# ---- what was measured elsewhere


def taken(path: Path, kind: str | None) -> list[Row]:
    """What fastconv's kernels took, by a record of `fastconv bench`, and what they are estimated to take on that machine.

    kind: its microarchitecture, where the record does not name it.
    """
    record = json.loads(path.read_text())
    facts = record["machine_info"]["fastconv"]
    kind = kind or facts["microarchitecture"]
    with mock.patch.multiple(hardware, microarchitecture=lambda: kind, caches=lambda: facts["caches"]):
        there = model.typical.__wrapped__()
    with mock.patch.object(model, "typical", return_value=there):
        rows = [estimated(each["extra_info"], each["stats"]["median"]) for each in record["benchmarks"]
                if each["extra_info"]["backend"] == "cython" and each["stats"]["median"] >= SHARED]
    return [row for row in rows if row is not None]


def estimated(info: dict[str, Any], seconds: float) -> Row | None:
    """None: this version has no such kernel here."""
    problem, candidate = ConvProblem.from_text(info["problem"]), Candidate(info["algorithm"], info["isa"])
    if backend.refuses(problem, candidate):
        return None
    images = 1 if problem.direction == "backward_weight" else problem.batch
    with fastconv.config(expected_batch=problem.batch):
        estimate = backend.seconds(problem, candidate, info["prepared"])
    assert estimate is not None
    spent = seconds * info["threads"] / images
    return Row(problem, info["prepared"], (str(candidate),), candidate.algorithm, (estimate,), (spent,))


# ---- telling


def summary(rows: Sequence[Row]) -> dict[str, float]:
    ratios = sorted(row.ratio for row in rows)
    cuts = {f"p{percent}": ratios[min(len(ratios) - 1, len(ratios) * percent // 100)] for percent in (5, 25, 50, 75, 95)}
    near = sum(1 / NEAR <= ratio <= NEAR for ratio in ratios) / len(ratios)
    regret = math.exp(statistics.fmean(math.log(row.regret) for row in rows))
    return {"rows": len(rows), "within": near, **cuts, "regret": regret}


def tell(title: str, rows: Sequence[Row]) -> None:
    found = summary(rows)
    cuts = "  ".join(f"{name} {value:.2f}" for name, value in found.items() if name.startswith("p"))
    print(f"{title:<28} {len(rows):4d}  within {NEAR}x {100 * found['within']:3.0f} %  {cuts}  regret {found['regret']:.3f}")


def report(rows: Sequence[Row]) -> None:
    """Ratios are estimate by time."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups["all"].append(row)
        groups["prepared" if row.prepared else "per call"].append(row)
        groups[row.names[0]].append(row)
    for title, some in groups.items():
        tell(title, some)
    print("worst:")
    for row in sorted(rows, key=lambda row: -abs(math.log(row.ratio)))[:10]:
        mode = "prepared" if row.prepared else "per call"
        print(f"  {row.ratio:5.2f}  {row.estimates[0] * 1e3:8.4f} ms estimated, {row.seconds[0] * 1e3:8.4f} taken  {mode}  "
              f"{row.names[0]:<18} {row.problem.name}")


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Estimate over time by algorithm; dotted: NEAR times too much or too little."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
    for algorithm in sorted({row.algorithm for row in rows}):
        some = [row for row in rows if row.algorithm == algorithm]
        axes.scatter([row.seconds[0] * 1e3 for row in some], [row.estimates[0] * 1e3 for row in some], s=12, label=algorithm)
    span = np.array([min(min(row.seconds[0], row.estimates[0]) for row in rows), max(max(row.seconds[0], row.estimates[0])
                                                                                    for row in rows)]) * 1e3
    for factor, style in ((1, "-"), (NEAR, ":"), (1 / NEAR, ":")):
        axes.plot(span, span * factor, style, color="gray", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms per image", ylabel="estimated, ms per image",
             title=f"{100 * summary(rows)['within']:.0f} % of {len(rows)} within {NEAR}x")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument("--direction", choices=DIRECTIONS, default="forward")
    parser.add_argument("--best", type=int, default=1, help="candidates to time")
    parser.add_argument("--taken", type=Path, metavar="RECORD", help="compare with what was measured on another machine")
    parser.add_argument("--kind", metavar="MICROARCHITECTURE", help="of that machine; what the table has not is unknown")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    fastconv.set_num_threads(1)
    rows = taken(options.taken, options.kind) if options.taken else generated(options)
    report(rows)
    if options.record:
        facts = {"machine": machine.describe(), "seed": options.seed, "direction": options.direction, "summary": summary(rows),
                 "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "rows": []}
        lines = ",\n  ".join(json.dumps(row.stored()) for row in rows)  # one for each row
        options.record.write_text(json.dumps(facts, indent=1).replace('"rows": []', f'"rows": [\n  {lines}\n ]') + "\n")
    if options.plot:
        draw(options.plot, rows)


if __name__ == "__main__":
    main()
