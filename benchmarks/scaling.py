"""How time grows: with fewer threads, and with batch, pixels and channels.

    python benchmarks/scaling.py [--threads 2] [--rounds 15] [--suite layers] [--record FILE]

Threads: each layer of a suite whose prepared call takes a millisecond or more by one thread, T1 by T2 being the median over
rounds in which both take turns. Sizes: layers of several algorithms, of which one size is doubled again and again; what counts
is the time of one multiply-add, by the least of the series, one thread. Time is linear where that stays 1. MB: of both arrays
and the weights. Every result is verified before it is timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _paired import fastest

import fastconv
from fastconv.backends import Candidate
from fastconv.bench import contenders, machine, suites
from fastconv.problem import ConvProblem
from fastconv.verify.data import same_arrays
from fastconv.verify.judge import Comparison

LONG = 1e-3  # seconds of one thread from which a layer counts
BLOCK = 0.03
BASES = {  # by what a name says of the kernel; 28x28, one image
    "3x3 64-64": "ic64ih28_oc64oh28_kh3ph1", "1x1 64-64": "ic64ih28_oc64oh28_kh1ph0",
    "3x3 s2 64-64": "ic64ih28_oc64oh14_kh3sh2ph1",
    "depthwise 3x3 64": "g64ic64ih28_oc64oh28_kh3ph1", "5x5 16-16": "ic16ih28_oc16oh28_kh5ph2",
}
BATCHES, SIZES, CHANNELS = (1, 2, 4, 8, 16, 32), (14, 28, 56, 112, 224), (16, 32, 64, 128, 256, 512)


def call_of(p: ConvProblem) -> Callable[[], Any]:
    """A prepared call, whose result is right.

    Raises:
        AssertionError: it is not.
    """
    arrays = same_arrays(p)
    entry = contenders.named("cython/prepared").enter(p, arrays)
    entry.call()
    wrong = Comparison(p, arrays).wrong(entry.result(), Candidate(entry.bound, entry.isa, entry.tile))
    assert wrong is None, f"{p.text}: {wrong}"
    return entry.call


def seconds(call: Callable[[], Any], threads: int) -> float:
    """Of the wall clock: a thread's own does not count the others."""
    with fastconv.config(num_threads=threads):
        return fastest((call,), 2, BLOCK)[0]


def by_threads(problems: list[ConvProblem], threads: int, rounds: int) -> Iterator[tuple[str, float, float]]:
    """(name, T1 in seconds, T1 by that of `threads`) of the long ones."""
    for p in problems:
        call = call_of(p)
        if seconds(call, 1) < LONG:
            continue
        pairs = [(seconds(call, 1), seconds(call, threads)) for _ in range(rounds)]
        yield p.name or p.text, min(one for one, _ in pairs), statistics.median(one / all_ for one, all_ in pairs)


def series(name: str) -> Iterator[tuple[str, list[ConvProblem]]]:
    """(what grows, problems), the smallest first."""
    base = ConvProblem.from_text("mb1_" + BASES[name])
    grouped = base.groups > 1

    def wide(channels: int) -> ConvProblem:
        return dataclasses.replace(base, in_channels=channels, out_channels=channels, groups=channels if grouped else 1)

    yield "batch", [dataclasses.replace(base, batch=batch) for batch in BATCHES]
    yield "pixels", [dataclasses.replace(base, input_size=(size, size)) for size in SIZES]
    yield "channels", [wide(channels) for channels in CHANNELS]


def growth(problems: list[ConvProblem], rounds: int) -> list[float]:
    """Seconds of a multiply-add, by the least."""
    each = []
    for p in problems:
        call = call_of(p)
        with fastconv.config(num_threads=1):
            each.append(min(fastest((call,), 1, BLOCK)[0] for _ in range(rounds // 5 + 1)) / p.flops)
    return [one / min(each) for one in each]


def megabytes(p: ConvProblem) -> float:
    return 4e-6 * sum(map(np.prod, (p.input_shape, p.weight_shape, p.output_shape)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=fastconv.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--suite", default="layers")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {"machine": machine.describe(), "threads": [], "sizes": []}
    print(f"T1 / T{options.threads}, layers of 1 ms and more")
    for name, one, ratio in by_threads(suites.load([options.suite]), options.threads, options.rounds):
        print(f"{name:28} {one * 1e3:9.3f} ms {ratio:6.2f}", flush=True)
        record["threads"].append({"layer": name, "seconds": one, "ratio": ratio})
    print("time of a multiply-add, by the least of the row; MB of the last")
    for name in BASES:
        for what, problems in series(name):
            found = growth(problems, options.rounds)
            print(f"{name:18} {what:9}", *(f"{one:6.2f}" for one in found), f"{megabytes(problems[-1]):8.1f}", flush=True)
            record["sizes"].append({"layer": name, "grows": what, "problems": [p.text for p in problems], "growth": found})
    if options.record:
        options.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
