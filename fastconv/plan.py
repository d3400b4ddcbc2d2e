"""The plan: the one place that chooses who computes a problem, and how.

Every candidate of every backend is listed, asked, and ranked: those with a time estimate by the estimate, then the others in
the registry's order. Where wisdom is in use (see `wisdom`) and knows the problem, it has the first word. A call needs the
kernel of the choice, which is remembered; a `Plan` has each reason besides, and prints itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import settings, wisdom
from .algorithms import named, sums_products
from .backends import Backend, Candidate, Kernel, Varied, get, registry
from .errors import Unavailable, Unsupported, clipped, shown
from .problem import ConvProblem


@dataclass(frozen=True)
class Rejected:
    """A candidate (None: the whole backend) that was not chosen, and why."""

    backend: str
    candidate: Candidate | None
    reason: str


class Ranked(NamedTuple):
    """A candidate that computes the problem."""

    backend: str
    candidate: Candidate
    seconds: float | None  # estimated; None: the backend gives no estimate

    def __str__(self) -> str:
        return f"{self.backend} {self.candidate}"


@dataclass(frozen=True)
class Plan:
    """The choice for a problem, and why each other candidate was refused or lost. ``print(plan)`` shows it.

    Attributes:
        seconds: of one image, estimated; measured, where the choice is wisdom's.
        wisdom: whether it is.
    """

    problem: ConvProblem
    backend: str
    candidate: Candidate
    seconds: float | None
    rejected: tuple[Rejected, ...]
    wisdom: bool = False

    @property
    def algorithm(self) -> str:
        return self.candidate.algorithm

    @property
    def isa(self) -> str | None:
        return self.candidate.isa

    @property
    def kernel(self) -> Kernel:
        """The kernel of this choice; made once per problem."""
        return bind(self.problem, self.backend, self.candidate)

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one call."""
        return self.kernel.workspace_bytes

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return self.kernel.packed_bytes

    def __str__(self) -> str:
        p = self.problem
        how = "from wisdom, measured" if self.wisdom else "estimated"
        estimate = "" if self.seconds is None else f", {how} {self.seconds * 1e3:.3g} ms"
        lines = [
            f"problem    {p.text}",
            f"           {p.flops / 1e6:.6g} MFLOP, {p.bytes / 1e6:.6g} MB, output {p.output_shape}",
            f"plan       {self.backend} {self.candidate}{estimate}",
            f"memory     workspace {self.workspace_bytes} bytes, packed weights {self.packed_bytes} bytes",
        ]
        width = max((len(_label(r)) for r in self.rejected), default=0)
        lines += [f"not        {_label(r):<{width}}  {r.reason}" for r in self.rejected]
        return "\n".join(lines)


def _label(rejected: Rejected) -> str:
    return rejected.backend if rejected.candidate is None else f"{rejected.backend} {rejected.candidate}"


def bind(problem: ConvProblem, backend: str, candidate: Candidate) -> Kernel:
    """The kernel of a candidate for a problem, cached."""
    return _bind(problem, get(backend), candidate)


@functools.lru_cache(maxsize=512)
def _bind(problem: ConvProblem, who: Backend, candidate: Candidate) -> Kernel:
    return who.bind(problem, candidate)  # keyed by the object: another backend may take its name (`register`)


def plan(problem: ConvProblem, backend: str = "auto", algorithm: str | None = None, device: str = "cpu",
         prepared: bool = False) -> Plan:
    """Choose for `problem` among the backends of `device` ("cpu" or "cuda"), or within the one that is named.

    Args:
        prepared: the weights are packed beforehand, once for many calls, and packing may take its time.

    Raises:
        Unavailable: the backend asked for cannot run here.
        Unsupported: everything that was asked for refuses the problem.
        ValueError: there is no such backend, or no such algorithm.
        TypeError: the algorithm is no name.
    """
    backend = _meant(backend, algorithm, device)
    best, known = _choose(problem, backend, algorithm, device, prepared, settings.current().planning)
    order, rejected = ranked(problem, backend, algorithm, device, prepared)
    lost = [Rejected(other.backend, other.candidate, _why_lost(other, best, known))
            for other in order if other[:2] != best[:2]]
    return Plan(problem, *best, (*lost, *rejected), known)


def chosen_kernel(problem: ConvProblem, backend: str = "auto", algorithm: str | None = None, device: str = "cpu",
                  prepared: bool = False) -> Kernel:
    """The kernel of `plan`'s choice, without the reasons. Arguments and errors as there."""
    best, _ = _choose(problem, _meant(backend, algorithm, device), algorithm, device, prepared, settings.current().planning)
    return bind(problem, best.backend, best.candidate)


@functools.lru_cache(maxsize=1024)
def _choose(problem: ConvProblem, backend: str, algorithm: str | None, device: str, prepared: bool,
            planning: tuple[Any, ...]) -> tuple[Ranked, bool]:
    """(the choice, whether it is wisdom's). Reasons are not kept: they take ten times as much memory as all the rest."""
    order, _ = ranked(problem, backend, algorithm, device, prepared)
    known = _from_wisdom(problem, backend, algorithm, prepared) if device == "cpu" else None
    best = known or order[0]
    if settings.current().verbose:
        print(f"fastconv: {problem.text} -> {best}{' from wisdom' if known else ''}", file=sys.stderr)
    return best, known is not None


def _meant(backend: str, algorithm: str | None, device: str) -> str:
    """The backend's name, once both words are names."""
    if not (algorithm is None or isinstance(algorithm, str)):
        raise TypeError(f"algorithm must be a name or None, got {shown(algorithm)}")
    if not isinstance(backend, str):
        get(backend)  # which says what there is
    return settings.current().backend if backend == "auto" and device == "cpu" else backend


def ranked(problem: ConvProblem, backend: str = "auto", algorithm: str | None = None, device: str = "cpu",
           prepared: bool = False) -> tuple[list[Ranked], list[Rejected]]:
    """(all that compute the problem, the model's choice first; all that do not). Arguments and errors as for `plan`."""
    accepted: list[tuple[tuple[bool, float, int], Ranked]] = []
    rejected: list[Rejected] = []
    for who in _asked(backend, device):
        if device == "cuda" and who.device != "cuda":
            raise Unsupported(f"backend {who.name!r} computes on the CPU, and does not take CUDA arrays")
        reason = who.unavailable()
        if reason is not None:
            if backend != "auto":
                raise Unavailable(f"backend {who.name!r} is not available: {reason}")
            rejected.append(Rejected(who.name, None, f"unavailable: {reason}"))
            continue
        for candidate in who.candidates(problem):
            reason = _refusal(who, problem, candidate, algorithm)
            if reason is not None:
                rejected.append(Rejected(who.name, candidate, f"refuses: {reason}"))
                continue
            seconds = who.seconds(problem, candidate, prepared)
            accepted.append(((seconds is None, seconds or 0.0, len(accepted)), Ranked(who.name, candidate, seconds)))
    if not accepted:
        known = {*named(), *algorithms(problem)}
        if algorithm is not None and algorithm not in known:
            raise ValueError(f"algorithm must be one of {clipped(', '.join(sorted(known)), 300)}, got {shown(algorithm)}")
        raise Unsupported(_nobody(problem, backend, algorithm, rejected))
    return [each for _, each in sorted(accepted)], rejected


def algorithms(problem: ConvProblem, backend: str = "auto") -> list[str]:
    """The algorithms of a backend, or of all those that can run here."""
    asked = registry().values() if backend == "auto" else [get(backend)]
    able = [who for who in asked if who.unavailable() is None]
    return list(dict.fromkeys(candidate.algorithm for who in able for candidate in who.candidates(problem)))


def variants(problem: ConvProblem, of: Ranked, prepared: bool) -> list[Ranked]:
    """Those that compute the problem in the same way with other tiles, best first."""
    who = get(of.backend)
    found = who.variants(problem, of.candidate) if isinstance(who, Varied) else ()
    return [Ranked(who.name, each, who.seconds(problem, each, prepared)) for each in found
            if _refusal(who, problem, each, None) is None]


def _from_wisdom(problem: ConvProblem, backend: str, algorithm: str | None, prepared: bool) -> Ranked | None:
    """What wisdom says, where it is in use, fits what was asked for, and can be had now."""
    usable = (each for each in wisdom.lookup(problem, prepared) if _usable(problem, each, backend, algorithm))
    entry = next(usable, None)
    if entry is None and settings.current().autotune and backend == "auto" and algorithm is None:
        from .tuning import automatic  # above this module, and used where a user turned it on

        entry = automatic.measured(problem, prepared)
    return None if entry is None else Ranked(entry.backend, entry.candidate, entry.seconds)


def _usable(problem: ConvProblem, entry: wisdom.Entry, backend: str, algorithm: str | None) -> bool:
    who = registry().get(entry.backend)
    if who is None or backend not in ("auto", who.name) or who.device != "cpu" or who.unavailable() is not None:
        return False
    if entry.candidate._replace(tile=None) not in who.candidates(problem):
        return False
    tiled = entry.candidate.tile is not None
    return (not tiled or isinstance(who, Varied)) and _refusal(who, problem, entry.candidate, algorithm) is None


def _asked(backend: str, device: str) -> Iterator[Backend]:
    if backend != "auto":
        yield get(backend)
        return
    for who in registry().values():
        if who.device == device:
            yield who


def _refusal(who: Backend, problem: ConvProblem, candidate: Candidate, algorithm: str | None) -> str | None:
    if algorithm is not None and candidate.algorithm != algorithm:
        return f"algorithm {algorithm!r} was asked for"
    if problem.accuracy == "strict" and not sums_products(candidate.algorithm):
        return "accuracy='strict' admits only algorithms that sum the products themselves"
    return who.refuses(problem, candidate)


def _why_lost(other: Ranked, best: Ranked, from_wisdom: bool) -> str:
    estimate = "" if other.seconds is None else f"estimated {other.seconds * 1e3:.3g} ms, "
    if from_wisdom:
        return estimate + "wisdom knows a faster one"
    if other.seconds is not None:
        return estimate + "slower"
    return "lower in the order" if best.seconds is None else "gives no estimate"


def _nobody(problem: ConvProblem, backend: str, algorithm: str | None, rejected: list[Rejected]) -> str:
    """One line, in which each reason stands once, and those of other algorithms than the one asked for do not."""
    asked = "no backend" if backend == "auto" else f"backend {backend!r}"
    which = "" if algorithm is None else f" with algorithm {algorithm!r}"
    negation = "computes" if backend == "auto" else "does not compute"
    reasons: dict[str, dict[str, None]] = {}
    for r in rejected:
        if r.candidate is None or algorithm in (None, r.candidate.algorithm):
            label = r.backend if r.candidate is None else f"{r.backend} {r.candidate.algorithm}"
            reasons.setdefault(r.reason, {})[label] = None
    told = "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items()) or "it has no such candidate"
    return clipped(f"{asked}{which} {negation} {clipped(problem.text, 160)}: {told}", 480)
