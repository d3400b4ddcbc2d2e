"""Random problems through every algorithm and ISA, from arrays of any strides that lie flush against forbidden memory.

    python tests/fuzz.py --count 3000           problems 0, 1, ... on all cores
    python tests/fuzz.py --first 17 --count 1   problem 17 again; --here: in this process, for a debugger

A number says it all: the problem, its arrays, their strides, the way of each call. Work is done in child processes, which note
what they are about to do, so that one that dies can be told from its note, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzz_pooling import PoolFuzz
from odd_arrays import FAR, Arena, contiguous, extent, odd_strides, repeated
from odd_problems import odd_depthwise, odd_problem, odd_square
from planted_kernels import planted

import fastconv
from fastconv import settings, stated
from fastconv.algorithms import sums_products
from fastconv.backends import Candidate, cython_native, get, register
from fastconv.candidates import bind, listed, refusal
from fastconv.lowering import pack_once, terms
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, reference
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

_ROOM = 1 << 22  # bytes of an arena
_SPECIAL = (np.nan, np.inf, -np.inf, 1e30, 1e-40)
_NOTE = 4096
_POOLINGS = 4  # a pooling with every fourth problem
_KINDS = {3: odd_depthwise, 7: odd_square}  # by the number modulo 8


class Expected(NamedTuple):
    value: np.ndarray
    magnitude: np.ndarray
    integers: bool


class Fuzz:
    """Goes through problems; `note` is told what comes next, `fail` what was wrong. With an `algorithm` only those that it
    computes, by its kernels."""

    def __init__(self, backends: list[str], note: Callable[[str], None], fail: Callable[[str], None],
                 algorithm: str = "") -> None:
        self.backends, self.note, self.fail, self.algorithm = backends, note, fail, algorithm
        self.arenas = {name: Arena(_ROOM) for name in ("x", "w", "b", "residual", "out")}
        try:
            self.far: Arena | None = Arena(FAR + (1 << 24))
        except OSError:  # no overcommitting here
            self.far = None
        self.calls = 0
        self.pooling = PoolFuzz(backends, note, fail, _ROOM)

    def problem(self, number: int) -> None:
        """All calls of one problem."""
        dice = random.Random(number)
        problem = _KINDS.get(number % 8, odd_problem)(dice)
        kernels = list(self._kernels(problem))
        if self.algorithm and not kernels:
            return
        rng = np.random.default_rng(number)
        integers = dice.random() < 0.3 and terms(problem) < 2**14
        arrays = (integer_arrays if integers else random_arrays)(problem, rng)
        if not integers and dice.random() < 0.1:
            spoiled = arrays.x if dice.random() < 0.7 else arrays.w
            spoiled[tuple(dice.randrange(n) for n in spoiled.shape)] = dice.choice(_SPECIAL)
        strides = {name: odd_strides(a.shape, dice, True, False) if dice.random() < 0.6 else contiguous(a)
                   for name, a in arrays._asdict().items() if a is not None}
        far = self.far is not None and dice.random() < 0.1
        if far:
            strides["x"] = odd_strides(arrays.x.shape, dice, True, True)
        arrays = Arrays(*(None if a is None else repeated(a, strides[name]) for name, a in arrays._asdict().items()))
        expected = exact_enough(problem, arrays, integers)
        todo = kernels if self.algorithm else [*kernels, *self._public(dice)]
        for way, backend, candidate in todo:
            label = f"problem {number}: {way} {backend} {candidate} {problem.text} accuracy={problem.accuracy}"
            self.note(label)
            self.calls += 1
            try:
                wrong = self._one(way, backend, candidate, problem, arrays, strides, expected, dice)
            except fastconv.Unsupported:
                continue
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                self.fail(f"{label}\n    strides {strides}\n    {wrong}")

    def _kernels(self, problem: ConvProblem) -> Iterator[tuple[str, str, Candidate]]:
        """Every candidate, bound by itself."""
        for name in self.backends:
            who = get(name)
            for candidate in listed(who, problem):
                if refusal(who, problem, candidate, self.algorithm or None) is None:
                    yield "kernel", name, candidate

    def _public(self, dice: random.Random) -> Iterator[tuple[str, str, Candidate]]:
        """From arguments to result, once and again by the shortcut, with any ISA."""
        name = dice.choice(self.backends)
        isas = cython_native.chosen_isas() if name == "cython" else (None,)
        for way in ("per call", "prepared"):
            yield way, name, Candidate("", dice.choice(isas))
        if name == "cython":
            yield "per call", name, Candidate("dot", dice.choice(isas))  # reads the caller's weights

    def _one(self, way: str, backend: str, candidate: Candidate, problem: ConvProblem, arrays: Arrays,
             strides: dict[str, tuple[int, ...]], expected: Expected, dice: random.Random) -> str | None:
        side = dice.choice(("start", "end"))
        placed = {}
        for name, array in arrays._asdict().items():
            if array is not None:
                far = extent(array.shape, strides[name]) * array.itemsize > _ROOM
                placed[name] = (self.far if far else self.arenas[name]).place(array.shape, strides[name], array.dtype, side)
                placed[name].array[...] = array
        given = {name: each.read_only() for name, each in placed.items()}
        out_strides = odd_strides(problem.result_shape, dice, False, False)
        if extent(problem.result_shape, out_strides) * 8 > _ROOM:
            out_strides = contiguous(np.empty(problem.result_shape))
        out = self.arenas["out"].place(problem.result_shape, out_strides, np.dtype(problem.dtype), side)
        flush = Arrays(given["x"], given["w"], given.get("b"), given.get("residual"))
        if flush.residual is not None and dice.random() < 0.3:
            out.array[...] = flush.residual
            flush = flush._replace(residual=out.array)
        run = _bound if way == "kernel" else _called
        with settings.config(isa=candidate.isa):
            algorithm, remark = run(way, backend, candidate, problem, flush, out.array, dice)
        exact = expected.integers and sums_products(algorithm)
        allowed = bounds.bound(problem, algorithm, expected.value, expected.magnitude, arrays.x, arrays.w, exact,
                                 candidate.tile)
        worst = bounds.compare(out.array, expected.value, allowed)
        if not worst <= 1:
            off = ~(np.abs(out.array - expected.value) <= allowed) & ~(np.isnan(out.array) & np.isnan(expected.value))
            return f"{off.sum()} of {off.size} outputs wrong, by {worst:.3g} x the bound; out strides {out_strides} {remark}"
        return f"memory beside the output was written; out strides {out_strides}" if out.spoiled() else None


def _bound(way: str, backend: str, candidate: Candidate, problem: ConvProblem, arrays: Arrays, out: np.ndarray,
           dice: random.Random) -> tuple[str, str]:
    """What stands in scratch memory must not matter: NaNs are left there first."""
    kernel = get(backend).bind(problem, candidate) if problem.direction == "forward" else bind(problem, backend, candidate)
    threads = dice.choice((1, 1, 2, 3))
    native = getattr(kernel, "native", None)
    packed = pack_once(kernel, arrays.w, arrays.b) if dice.random() < 0.5 else kernel.pack(arrays.w, arrays.b)

    def run(x: np.ndarray, into: np.ndarray, residual: np.ndarray | None, packed: Any = packed) -> None:
        with settings.config(num_threads=threads):
            kernel.run(x, packed, into, residual)

    if dice.random() < 0.3:
        spoiled = np.full(problem.first_shape, np.nan, problem.dtype)
        run(spoiled, np.empty(problem.result_shape, problem.dtype),
            None if arrays.residual is None else np.zeros(problem.result_shape, problem.dtype))
    if dice.random() < 0.15 and problem.direction == "forward":
        with contextlib.suppress(ValueError):  # what is not refused must do
            other = _another(backend, candidate, problem, dice)
            another = get(backend).bind(other, candidate)
            if native or another.pack_key == kernel.pack_key:
                run(arrays.x, out, arrays.residual, another.pack(arrays.w, arrays.b))
                return candidate.algorithm, f"with weights packed for {other.text}"
    run(arrays.x, out, arrays.residual)
    return candidate.algorithm, ""


def _another(backend: str, candidate: Candidate, problem: ConvProblem, dice: random.Random) -> ConvProblem:
    """A problem that differs in one quantity, with the same weights (ValueError: it is none)."""
    axis, name = dice.randrange(problem.ndim), dice.choice(("stride", "dilation", "input_size", "padding", "padding_mode"))
    if name == "padding_mode":
        value: Any = dice.choice(("zeros", "replicate"))
    else:
        value = list(getattr(problem, name))
        value[axis] = {"padding": (dice.randint(0, 3), dice.randint(0, 3)),
                       "input_size": dice.randint(1, 2 * problem.input_size[axis])}.get(name, dice.randint(1, 4))
        value = tuple(value)
    other = dataclasses.replace(problem, **{name: value})
    if get(backend).refuses(other, candidate) is not None:
        raise ValueError("is not computed in this way")
    return other


def _called(way: str, backend: str, candidate: Candidate, problem: ConvProblem, arrays: Arrays, out: np.ndarray,
            dice: random.Random) -> tuple[str, str]:
    asked = candidate.algorithm or None
    once = arrays.residual is out
    if way == "prepared":
        conv = stated.operator(problem, arrays.w, arrays.b, backend=backend, algorithm=asked)
        for _ in range(1 if once else 3):
            assert conv(arrays.x, residual=arrays.residual, out=out) is out
        return conv.plan(arrays.x.shape).algorithm, ""
    call = stated.per_call(problem, backend=backend, algorithm=asked)
    for _ in range(1 if once else 3):
        assert call(*arrays, out) is out
    return asked or fastconv.explain(problem, backend=backend).algorithm, ""


def exact_enough(problem: ConvProblem, arrays: Arrays, integers: bool) -> Expected:
    """As `reference.evaluate` everywhere, but in extended precision instead of exactly rounded: 2**-64·K·S is nothing here."""
    points = np.array(list(np.ndindex(reference.spread(problem))), np.int64)
    value, magnitude = np.empty(len(points), np.longdouble), np.empty(len(points))
    with np.errstate(all="ignore"):
        for part, windows, weights in reference.windows_at(problem, arrays, points):
            products = windows.astype(np.longdouble) * weights
            value[part], magnitude[part] = products.sum(axis=1), np.abs(products).sum(axis=1)
        extras = [] if arrays.b is None else [arrays.b[points[:, 1]]]
        extras += [] if arrays.residual is None else [reference.at(problem, arrays.residual, points)]
        for extra in extras:
            value += extra
            magnitude += np.abs(extra)
    shaped = reference.as_output(problem, value.astype(np.float64))
    return Expected(reference.activated(problem, shaped), reference.as_output(problem, magnitude), integers)


# ---- processes


def work(options: argparse.Namespace, note: Callable[[str], None]) -> tuple[int, int]:
    """(calls, failures) of the problems asked for."""
    failures: list[str] = []

    def fail(text: str) -> None:
        failures.append(text)
        print(f"WRONG {text}", flush=True)

    if options.planted:
        register(planted(options.planted))
        options.backends = ["stepwise"]
    cython_native.runnable_isas = functools.cache(cython_native.runnable_isas)  # type: ignore[assignment]  # asked very often
    fuzz = Fuzz(options.backends, note, fail, options.algorithm)
    for number in range(options.first, options.first + options.count):
        fuzz.problem(number)
        if number % _POOLINGS == 0:
            fuzz.pooling.problem(number)
        if len(failures) >= options.most:
            break
    return fuzz.calls + fuzz.pooling.calls, len(failures)


def child(options: argparse.Namespace) -> None:
    with open(options.note, "r+b") as file, mmap.mmap(file.fileno(), _NOTE) as shared:
        def note(text: str) -> None:
            shared[:] = text.encode()[:_NOTE].ljust(_NOTE, b"\0")

        calls, _ = work(options, note)
        note(f"done {calls}")


def share(options: argparse.Namespace, first: int, count: int) -> tuple[int, int]:
    """(calls, failures) of one child after the other: each goes on after the problem that ended the one before."""
    calls = failures = 0
    while count > 0 and failures < options.most:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(_NOTE))
            file.flush()
            command = [sys.executable, __file__, "--note", file.name, "--first", str(first), "--count", str(count),
                       "--backends", ",".join(options.backends), "--most", str(options.most - failures),
                       "--planted", options.planted, "--algorithm", options.algorithm]
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE, env={**os.environ, "MALLOC_PERTURB_": "128"})
            note = Path(file.name).read_bytes().rstrip(b"\0").decode()
        print(done.stdout, end="", flush=True)
        failures += done.stdout.count("WRONG ")
        if note.startswith("done"):
            return calls + int(note.split()[1]), failures
        failures += 1
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        print(f"WRONG {note}\n    the process ended: {how}", flush=True)
        if not note:
            break
        reached = int(note.removeprefix("problem ").partition(":")[0])
        first, count = reached + 1, count - (reached + 1 - first)
    return calls, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--backends", type=lambda text: text.split(","), default=["cython", "im2col"])
    parser.add_argument("--algorithm", default="", help="only what this one computes, called by itself")
    parser.add_argument("--most", type=int, default=10, help="failures after which a process stops")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--here", action="store_true", help="in this process")
    parser.add_argument("--planted", default="", help="a fault of planted_kernels instead of a backend")
    parser.add_argument("--note", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.note:
        child(options)
        return 0
    if options.here:
        return int(work(options, lambda text: print(text, flush=True))[1] > 0)
    started, each = time.perf_counter(), -(-options.count // options.jobs)
    shares = [(first, min(each, options.first + options.count - first))
              for first in range(options.first, options.first + options.count, each)]
    with ThreadPoolExecutor(options.jobs) as threads:
        done = list(threads.map(lambda one: share(options, *one), shares))
    calls, failures = (sum(column) for column in zip(*done))
    print(f"{options.count} problems from {options.first} on, {calls} calls, {failures} failures, "
          f"{time.perf_counter() - started:.0f} s; one again: python tests/fuzz.py --count 1 --first NUMBER")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
