"""Pooling against PyTorch: 20 calls as networks make them, each verified before it is timed.

    python benchmarks/pooling.py [--rounds 7] [--threads 2] [--only PART OF A NAME]

Every result, ours and PyTorch's, is compared with a float64 one first. PyTorch runs in a process of its own, as two thread
pools in one disturb each other; the two take turns, block by block, while the other sleeps, and a ratio is the median over
rounds of what each round gives. GB/s: bytes of input and output, each once, by the time of a call. "of copy": in relation to a
copy of as many bytes. "fresh": every call makes its output; "out=": one output for all of them.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv.native import runtime
from fastconv.timing.paired import WallClock

BLOCK = 0.05  # seconds
ROUNDOFF = 2.0**-24


class Case(NamedTuple):
    name: str
    function: str  # of fastconv, and without "_input" of torch
    shape: tuple[int, ...]  # (N, C, *space)
    arguments: dict[str, Any]
    last: bool = False  # channels_last

    @property
    def layout(self) -> str:
        return "channels_last" if self.last else "channels_first"

    def input(self) -> np.ndarray:
        """The same in every process; (N, *space, C) if channels_last."""
        x = np.random.default_rng(len(self.name)).standard_normal(self.shape, np.float32)
        return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if self.last else x


STEM = dict(kernel_size=3, stride=2, padding=1)
HALF = dict(kernel_size=2, stride=2)
SAME = dict(kernel_size=3, stride=1, padding=1)
ONE = dict(output_size=1)
CASES = (
    Case("resnet stem", "max_pool2d", (8, 64, 112, 112), STEM),
    Case("resnet stem", "max_pool2d", (8, 64, 112, 112), STEM, last=True),
    Case("resnet stem, one", "max_pool2d", (1, 64, 112, 112), STEM),
    Case("vgg 1", "max_pool2d", (1, 64, 224, 224), HALF),
    Case("vgg 3", "max_pool2d", (1, 256, 56, 56), HALF),
    Case("vgg 3", "max_pool2d", (1, 256, 56, 56), HALF, last=True),
    Case("googlenet", "max_pool2d", (1, 192, 56, 56), dict(kernel_size=3, stride=2, ceil_mode=True)),
    Case("inception 3a", "max_pool2d", (8, 192, 28, 28), SAME),
    Case("inception 5a", "max_pool2d", (8, 832, 7, 7), SAME),
    Case("spp", "max_pool2d", (1, 512, 13, 13), dict(kernel_size=5, stride=1, padding=2)),
    Case("unet, places", "max_pool2d", (1, 64, 256, 256), dict(**HALF, return_indices=True)),
    Case("inception", "avg_pool2d", (8, 288, 35, 35), SAME),
    Case("inception", "avg_pool2d", (8, 288, 35, 35), SAME, last=True),
    Case("densenet", "avg_pool2d", (1, 128, 56, 56), HALF),
    Case("global", "adaptive_avg_pool2d", (8, 2048, 7, 7), ONE),
    Case("global", "adaptive_avg_pool2d", (1, 2048, 7, 7), ONE, last=True),
    Case("alexnet", "adaptive_avg_pool2d", (8, 256, 13, 13), dict(output_size=6)),
    Case("speech", "max_pool1d", (8, 64, 16000), dict(kernel_size=4, stride=4)),
    Case("video", "max_pool3d", (1, 64, 16, 56, 56), HALF),
    Case("norm", "lp_pool2d", (1, 128, 56, 56), dict(norm_type=2.0, **HALF)),
)


def ours(case: Case, x: np.ndarray, out: np.ndarray | None = None, backend: str = "auto") -> Any:
    result = getattr(fastconv, case.function)(x, **case.arguments, layout=case.layout, out=out, backend=backend)
    return result[0] if isinstance(result, tuple) else result


def block(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of the calls that fit into a block; then the CPUs are left to the others."""
    end, best = time.perf_counter() + BLOCK, math.inf
    call()
    while time.perf_counter() < end or best == math.inf:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    WallClock().settle()
    return best


def wrong(case: Case, result: np.ndarray) -> str | None:
    """Compared with NumPy's slices in float64: maxima exactly, sums within their roundings."""
    x = case.input().astype(np.float64)
    exact, size = ours(case, x, backend="im2col"), ours(case, np.abs(x), backend="im2col")
    allowed = 0 if "max" in case.function else 80 * ROUNDOFF * size
    if not (result.shape == exact.shape and (np.abs(result - exact) <= allowed).all()):
        return f"{case.name}: wrong"
    return None


# ---- PyTorch, in a process of its own


def serve_torch(connection: Connection, threads: int) -> None:
    """For each case asked for: "verify" gives what is wrong, a number of one block's seconds."""
    import torch

    torch.set_num_threads(threads)
    connection.send(torch.__version__)

    @functools.lru_cache(maxsize=1)
    def call_of(number: int) -> Callable[[], Any]:
        case = CASES[number]
        x = torch.from_numpy(case.input())
        x = x.movedim(-1, 1) if case.last else x
        return functools.partial(getattr(torch.nn.functional, case.function), x, **case.arguments)

    with torch.inference_mode():
        while (asked := connection.recv()) is not None:
            what, number = asked
            if what == "time":
                connection.send(block(call_of(number)))
                continue
            result = call_of(number)()
            result = (result[0] if isinstance(result, tuple) else result).numpy()
            connection.send(wrong(CASES[number], np.moveaxis(result, 1, -1) if CASES[number].last else result))


class Torch:
    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve_torch, args=(theirs, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.version = self.connection.recv()

    def ask(self, what: str, number: int) -> Any:
        self.connection.send((what, number))
        return self.connection.recv()


# ---- the table


def measure(number: int, peer: Torch, rounds: int, threads: int) -> float | None:
    """Prints a row; PyTorch's time by ours, with fresh outputs."""
    case = CASES[number]
    x = case.input()
    out = np.full_like(ours(case, x), np.nan)
    reason = wrong(case, ours(case, x)) or wrong(case, ours(case, x, out)) or peer.ask("verify", number)
    if reason is not None:
        print(reason)
        return None
    nbytes = x.nbytes + out.nbytes
    fresh, kept, theirs, copies = [], [], [], []
    for _ in range(rounds):
        fresh.append(block(lambda: ours(case, x)))
        kept.append(block(lambda: ours(case, x, out)))
        copies.append(nbytes / runtime().copy_bandwidth(nbytes // 2, threads, BLOCK))
        theirs.append(peer.ask("time", number))
    ratio = statistics.median(t / f for t, f in zip(theirs, fresh))
    share = statistics.median(c / k for c, k in zip(copies, kept))
    rate, layout = nbytes / min(kept) / 1e9, "last" if case.last else "first"
    row = (case.name, case.function, "x".join(map(str, case.shape)), layout, min(fresh) * 1e6, min(kept) * 1e6, rate, share,
           min(theirs) * 1e6, ratio)
    print("{:17} {:20} {:17} {:6} {:8.0f} {:8.0f} {:7.1f} {:8.2f} {:9.0f} {:7.2f}".format(*row), flush=True)
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=fastconv.get_num_threads())
    parser.add_argument("--only", default="", help="part of a name")
    options = parser.parse_args()
    fastconv.set_num_threads(options.threads)
    peer = Torch(options.threads)
    print(f"fastconv {fastconv.__version__}, torch {peer.version}, {options.threads} threads; us a call; ratio: torch / fresh")
    names = ("name", "function", "shape", "", "fresh", "out=", "GB/s", "of copy", "torch", "ratio")
    print("{:17} {:20} {:17} {:6} {:>8} {:>8} {:>7} {:>8} {:>9} {:>7}".format(*names))
    chosen = [number for number, case in enumerate(CASES) if options.only in case.name]
    found = [measure(number, peer, options.rounds, options.threads) for number in chosen]
    peer.connection.send(None)
    ratios = [ratio for ratio in found if ratio is not None]
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"geometric mean of {len(ratios)}: {mean:.2f} times as fast as torch")


if __name__ == "__main__":
    main()
