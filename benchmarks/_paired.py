"""What `pooling.py` and `pointwise.py` have in common: calls of fastconv's against PyTorch's, each verified before it is timed.
`networks.py` has the blocks and the processes from here.

PyTorch runs in a process of its own, as two thread pools in one disturb each other; the two take turns, block by block,
while the other sleeps, and a ratio is the median over rounds of what each round gives. With one thread CPU time is what is
measured, which other programs change least. GB/s: bytes that are read and written, each array once, by the time of a call.
"of copy": in relation to a copy, by as many threads, that reads and writes as many bytes. "fresh": every call makes its
output; "out=": one output for all of them. Large cases are far beyond the caches.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

import fastconv
from fastconv.native import runtime
from fastconv.timing.paired import WallClock

BLOCK = 0.05  # seconds
ROUNDOFF = 2.0**-24
HEADS = ("fresh", "out=", "GB/s", "of copy", "torch", "ratio")


class Case(Protocol):
    """A call, picklable; what it makes is the same in every process."""

    @property
    def label(self) -> tuple[str, ...]: ...
    @property
    def large(self) -> bool: ...
    def operands(self) -> tuple[np.ndarray, ...]: ...
    def ours(self, operands: tuple[np.ndarray, ...], out: np.ndarray | None = None) -> np.ndarray: ...
    def theirs(self, torch: Any, operands: tuple[np.ndarray, ...]) -> Callable[[], Any]: ...
    def of_torch(self, result: Any) -> np.ndarray: ...  # what their call returns, as ours
    def wrong(self, operands: tuple[np.ndarray, ...], result: np.ndarray) -> str | None: ...
    @property
    def takes_out(self) -> bool: ...


def fastest(calls: Sequence[Callable[[], Any]], threads: int, seconds: float = BLOCK) -> list[float]:
    """Seconds of each of the calls, which go one after the other, at the fastest of the times that this fits into a block;
    then the CPUs are left to the others."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    end, best = time.perf_counter() + seconds, [math.inf]
    for call in calls:
        call()
    while time.perf_counter() < end or best == [math.inf]:
        taken = []
        for call in calls:
            start = clock()
            call()
            taken.append(clock() - start)
        best = min(best, taken, key=sum)
    WallClock().settle()
    return best


def block(call: Callable[[], Any], threads: int) -> float:
    """Seconds of the fastest of the calls that fit into a block."""
    return fastest((call,), threads)[0]


def copying(nbytes: int, threads: int) -> float:
    """Seconds of a copy that reads and writes `nbytes`, half of them each."""
    if threads > 1:
        return nbytes / runtime().copy_bandwidth(nbytes // 2, threads, BLOCK)
    source, target = np.ones(nbytes // 2, np.uint8), np.zeros(nbytes // 2, np.uint8)
    return block(lambda: np.copyto(target, source), threads)


# ---- PyTorch, in a process of its own


def serve_torch(connection: Connection, cases: Sequence[Case], threads: int) -> None:
    """For each case asked for: "verify" gives what is wrong, "time" one block's seconds."""
    import torch

    torch.set_num_threads(threads)
    connection.send(torch.__version__)

    @functools.lru_cache(maxsize=1)
    def call_of(number: int) -> Callable[[], Any]:
        return cases[number].theirs(torch, cases[number].operands())

    with torch.inference_mode():
        while (asked := connection.recv()) is not None:
            what, number = asked
            if what == "time":
                connection.send(block(call_of(number), threads))
            else:
                case = cases[number]
                connection.send(case.wrong(case.operands(), case.of_torch(call_of(number)())))


class Peer:
    """A library in a process of its own.

    Args:
        serve: called there with a connection and `arguments`; sends its version, then an answer to whatever it is asked,
            until that is None.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.version = self.connection.recv()

    def ask(self, *asked: Any) -> Any:
        self.connection.send(asked)
        return self.connection.recv()


# ---- the table


def measure(case: Case, peer: Peer, number: int, rounds: int, threads: int) -> tuple[tuple[float, ...], float] | str:
    """(a row's figures, PyTorch's time by ours with fresh outputs), or what is wrong."""
    given = case.operands()
    made = case.ours(given)
    out = np.full_like(made, np.nan) if case.takes_out else None
    reason = case.wrong(given, made) or case.wrong(given, case.ours(given, out)) or peer.ask("verify", number)
    if reason is not None:
        return reason
    nbytes = sum(array.nbytes for array in given) + made.nbytes
    del made
    fresh, kept, theirs, copies = [], [], [], []
    for _ in range(rounds):
        fresh.append(block(lambda: case.ours(given), threads))
        kept.append(block(lambda: case.ours(given, out), threads))
        copies.append(copying(nbytes, threads))
        theirs.append(peer.ask("time", number))
    ratio = statistics.median(t / f for t, f in zip(theirs, fresh))
    share = statistics.median(c / k for c, k in zip(copies, kept))
    return (min(fresh) * 1e6, min(kept) * 1e6, nbytes / min(kept) / 1e9, share, min(theirs) * 1e6, ratio), ratio


def run(description: str | None, cases: Sequence[Case], heads: tuple[str, ...], widths: tuple[int, ...]) -> None:
    """The command line of a benchmark, whose rows begin with the cases' labels."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=fastconv.get_num_threads())
    parser.add_argument("--only", default="", help="part of a label")
    options = parser.parse_args()
    fastconv.set_num_threads(options.threads)
    peer = Peer(serve_torch, cases, options.threads)
    print(f"fastconv {fastconv.__version__}, torch {peer.version}, {options.threads} threads; us a call; ratio: torch / fresh")
    line = " ".join(f"{{:{width}}}" for width in widths)
    print(line.format(*heads), "{:>8} {:>8} {:>7} {:>8} {:>9} {:>7}".format(*HEADS))
    chosen = [number for number, case in enumerate(cases) if options.only in " ".join(case.label)]
    for large in (False, True):
        numbers = [number for number in chosen if cases[number].large == large]
        if large and numbers:
            print("large:")
        ratios = []
        for number in numbers:
            found = measure(cases[number], peer, number, options.rounds, options.threads)
            if isinstance(found, str):
                print(f"{' '.join(cases[number].label)}: {found}")
                continue
            figures = "{:8.0f} {:8.0f} {:7.1f} {:8.2f} {:9.0f} {:7.2f}".format(*found[0])
            print(line.format(*cases[number].label), figures, flush=True)
            ratios.append(found[1])
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            print(f"geometric mean of {len(ratios)}: {mean:.2f} times as fast as torch")
    peer.connection.send(None)
