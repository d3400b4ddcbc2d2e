"""check(): every available backend, algorithm and ISA against the oracle, over a matrix of problems.

Each candidate is bound by itself, past the plan, so what is checked is what ran. It computes into outputs full of NaN:

* random data, against the float64 reference and the hard bound of its algorithm (`bounds.bound`);
* integers, bit for bit where the algorithm sums the products themselves (every order of summing them is exact);
* integers through interleaved and Fortran-ordered arrays, and through arrays of which some axes lie backwards, where nothing
  beside the output may be touched.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import settings
from ..arguments import flag, integer
from ..backends import Backend, Candidate, Kernel, get, registry
from ..candidates import bind, listed, refusal
from ..errors import Unavailable, shown
from ..lowering import pack_once
from ..problem import ConvProblem
from ..terminal import aligned
from .data import Arrays, integer_arrays, random_arrays
from .judge import Judge
from .matrix import matrix, other_directions


class Trial(NamedTuple):
    """One set of data for a problem, with what it must give."""

    name: str
    judge: Judge
    strided: str = ""  # how the arrays lie in memory: a key of `_LAYOUTS`, or contiguous


class Failure(NamedTuple):
    """A wrong result, or an exception."""

    backend: str
    candidate: Candidate
    trial: str
    problem: ConvProblem
    what: str

    def __str__(self) -> str:
        label = f"  ({self.problem.name})" if self.problem.name else ""
        return f"WRONG  {self.backend} {self.candidate}, {self.trial}: {self.what}\n       {self.problem.text}{label}"


@dataclass
class Row:
    """One backend, algorithm and ISA."""

    backend: str
    candidate: Candidate
    problems: int = 0
    passed: int = 0
    worst: float = 0.0  # error, as a multiple of its bound
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        return self.refusals.total()


@dataclass
class Report:
    """What `check` found; print it."""

    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    directions: Counter[str] = field(default_factory=Counter)  # problems and candidates that were checked

    @property
    def ok(self) -> bool:
        """Whether something was checked, and all of it was right."""
        return not self.failures and any(row.passed for row in self.rows)

    def __str__(self) -> str:
        head = ("backend", "algorithm", "isa", "problems", "passed", "worst error / bound", "refused")
        table = [head] + [
            (row.backend, row.candidate.algorithm, row.candidate.isa or "-", str(row.problems), str(row.passed),
             f"{row.worst:.3g}" if row.problems else "-", str(row.refused)) for row in self.rows]
        lines = [str(failure) for failure in self.failures]
        lines += [f"unavailable  {name}: {reason}" for name, reason in self.unavailable.items()]
        lines += [f"refused      {row.backend} {row.candidate}: {count} x {reason}"
                  for row in self.rows for reason, count in row.refusals.most_common()]
        lines += aligned(table)
        wrong = len({(failure.backend, failure.candidate, failure.problem) for failure in self.failures})
        counts = ", ".join(f"{count} {direction}" for direction, count in self.directions.items())
        lines.append(f"{self.directions.total()} combinations checked{f' ({counts})' if counts else ''}, "
                     + ("all right" if self.ok else f"{wrong} wrong" if wrong else "none"))
        return "\n".join(lines)


def check(problems: Iterable[ConvProblem | str] | None = None, backends: Iterable[str] | None = None, quick: bool = False,
          repeats: int = 0) -> Report:
    """Compare every available backend with the oracle.

    Args:
        problems: problems or problem texts, small ones; by default those of `fastconv.verify.matrix`, in all directions.
        backends: their names; by default all that take part.
        quick: a fifth of the matrix.
        repeats: also run every candidate that often with 2 and with 8 threads, and compare the bits.

    Raises:
        Unavailable: a backend that was named cannot run here.
    """
    repeats, quick = integer("repeats", repeats, 0), flag("quick", quick)
    report = Report()
    asked = _asked(backends, report)
    rows: dict[tuple[str, Candidate], Row] = {}
    for problem in (*matrix(quick), *other_directions(quick)) if problems is None else _several("problems", problems):
        if not isinstance(problem, ConvProblem):
            problem = ConvProblem.from_text(problem)
        prepared: list[Trial] = []  # made once some candidate takes the problem
        for who in asked:
            for candidate in listed(who, problem):
                row = rows.setdefault((who.name, candidate), Row(who.name, candidate))
                reason = refusal(who, problem, candidate)
                if reason is not None:
                    row.refusals[reason] += 1
                    continue
                prepared = prepared or trials(problem)
                report.directions[problem.direction] += 1
                _check_one(problem, who, row, prepared, repeats, report.failures)
    order = list(registry())
    report.rows = sorted(rows.values(), key=lambda row: order.index(row.backend))
    return report


def _several(name: str, values: Iterable[Any]) -> list[Any]:
    """The entries of an argument that takes several."""
    try:
        if not isinstance(values, (str, bytes)):
            return list(values)
    except Exception:  # nothing to go through, or an object that fails when it is
        pass
    raise TypeError(f"{name} must be a list, got {shown(values)}")


def _asked(names: Iterable[str] | None, report: Report) -> list[Backend]:
    asked = []
    for who in registry().values() if names is None else map(get, _several("backends", names)):
        reason = who.unavailable()
        if reason is None:
            asked.append(who)
        elif names is not None:
            raise Unavailable(f"backend {who.name!r} is not available: {reason}")
        else:
            report.unavailable[who.name] = reason
    return asked


@functools.lru_cache(maxsize=512)  # the oracle takes most of the time of a check, and the matrix is gone through again
def trials(problem: ConvProblem) -> list[Trial]:
    """The data sets of a problem, the same ones every time; read-only."""
    rng = np.random.default_rng(zlib.crc32(problem.text.encode()))
    normal, integers = random_arrays(problem, rng), integer_arrays(problem, rng)
    for array in (*normal, *integers):
        if array is not None:
            array.flags.writeable = False
    exact = Judge(problem, integers, integers=True)
    return [Trial("random data", Judge(problem, normal)), Trial("integers", exact),
            *(Trial(f"integers, {how} arrays", exact, strided=how) for how in _LAYOUTS)]


def _check_one(problem: ConvProblem, who: Backend, row: Row, prepared: list[Trial], repeats: int,
               failures: list[Failure]) -> None:
    """All trials of one candidate on one problem. What it raises is a failure like a wrong number."""
    before = len(failures)
    row.problems += 1
    for trial in prepared:
        try:
            worst, what = verify(problem, who, row.candidate, trial)
            if what is None and repeats and not trial.strided:
                what = unstable(problem, who, row.candidate, trial, repeats)
        except Exception as error:
            worst, what = math.inf, f"{type(error).__name__}: {error}"
        row.worst = max(row.worst, worst)
        if what is not None:
            failures.append(Failure(who.name, row.candidate, trial.name, problem, what))
    row.passed += len(failures) == before


def verify(problem: ConvProblem, who: Backend, candidate: Candidate, trial: Trial) -> tuple[float, str | None]:
    """(worst error as a multiple of its bound, what is wrong or None)."""
    kernel = bind(problem, who.name, candidate)
    if trial.strided:
        out, spoiled = run_strided(kernel, problem, trial)
        if spoiled:
            return math.inf, "memory beside the output was written"
    else:
        out = run(kernel, problem, trial.judge.arrays)
    worst = trial.judge.worst(out, candidate.algorithm, candidate.tile)
    return worst, None if worst <= 1 else trial.judge.wrong(out, candidate.algorithm, candidate.tile)


def run(kernel: Kernel, problem: ConvProblem, arrays: Arrays) -> np.ndarray:
    """The output of one kernel, computed into an array full of NaN. (`cuda` copies NumPy arrays there and back.)"""
    out = np.full(problem.result_shape, np.nan, problem.dtype)
    kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out, arrays.residual)
    return out


def run_strided(kernel: Kernel, problem: ConvProblem, trial: Trial) -> tuple[np.ndarray, bool]:
    """(output, whether anything else was written), from awkward arrays; the residual, if any, is the output itself."""
    arrays = trial.judge.arrays
    x, w, out, beside = _LAYOUTS[trial.strided](problem, arrays)
    residual = None
    if arrays.residual is not None:
        out[...] = arrays.residual
        residual = out
    kernel.run(x, pack_once(kernel, w, arrays.b), out, residual)
    return out.copy(), not bool(np.isnan(beside).all())


Strided = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x, w, an output, and what lies beside it, full of NaN


def _interleaved(problem: ConvProblem, arrays: Arrays) -> Strided:
    x = arrays.x
    reversed_x = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan, x.dtype)[..., -2::-2]
    reversed_x[...] = x
    whole = np.full((*problem.result_shape[:-1], 2 * problem.result_shape[-1] + 1), np.nan, problem.dtype)
    return reversed_x, np.asfortranarray(arrays.w), whole[..., 1::2], whole[..., ::2]


def _backwards(problem: ConvProblem, arrays: Arrays) -> Strided:
    """About half of each array's axes, others for every problem."""
    rng = np.random.default_rng(zlib.crc32(problem.text.encode()))
    whole = np.full((3, *problem.result_shape), np.nan, problem.dtype)
    some = [tuple(np.flatnonzero(rng.random(a.ndim) < 0.5).tolist()) for a in (arrays.x, arrays.w, whole[1])]
    return backwards(arrays.x, some[0]), backwards(arrays.w, some[1]), np.flip(whole[1], some[2]), whole[::2]


def backwards(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The same values, from memory where these axes lie the other way round."""
    return np.flip(np.flip(array, axes).copy(), axes)


_LAYOUTS: dict[str, Callable[[ConvProblem, Arrays], Strided]] = {"interleaved": _interleaved, "backwards": _backwards}


def unstable(problem: ConvProblem, who: Backend, candidate: Candidate, trial: Trial, repeats: int,
             threads: Iterable[int] = (2, 8)) -> str | None:
    """What differs between one run with one thread and `repeats` runs with several; None if no bit does.

    BLAS promises this on integers only, so random data is left out for `im2col`.
    """
    if candidate.algorithm == "im2col" and not trial.judge.integers:
        return None
    kernel = bind(problem, who.name, candidate)
    with settings.config(num_threads=1):
        first = run(kernel, problem, trial.judge.arrays).tobytes()
    for count in threads:
        with settings.config(num_threads=count):
            for repeat in range(repeats):
                if run(kernel, problem, trial.judge.arrays).tobytes() != first:
                    return f"run {repeat + 1} with {count} threads gives other bits than one thread"
    return None
