"""The plan: the one place that chooses who computes a problem, and how.

It takes the first of the candidates (see `candidates`), but where wisdom is in use (see `wisdom`) and knows the problem, it has
the first word. A call needs the kernel of the choice, which is remembered; a `Plan` has each reason besides, and prints itself.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from . import candidates, machine, settings, wisdom
from .backends import Candidate, Kernel, Pooling, PoolKernel, Varied, get, registry
from .candidates import Ranked, Rejected, asked, bind, listed, ranked, refusal
from .errors import Unsupported, clipped, shown
from .pool_problem import PoolProblem
from .problem import ConvProblem
from .reasons import Reason

_RESULTS = {"forward": "output", "backward_input": "gradient of the input", "backward_weight": "gradient of the weight"}


@dataclass(frozen=True)
class Plan:
    """The choice for a problem, and why each other candidate was refused or lost. ``print(plan)`` shows it.

    Attributes:
        seconds: of one image, estimated; measured, where the choice is wisdom's.
        wisdom: whether it is.
        shares: of the estimate, what it is expected to be spent on; empty: the backend does not tell.
        own_machine: whether the estimates are of this machine as `fastconv tune --machine` measured it.
    """

    problem: ConvProblem
    backend: str
    candidate: Candidate
    seconds: float | None
    rejected: tuple[Rejected, ...]
    wisdom: bool = False
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    own_machine: bool = False

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
        how = "from wisdom, measured" if self.wisdom else "estimated" + " (machine from wisdom)" * self.own_machine
        estimate = "" if self.seconds is None else f", {how} {self.seconds * 1e3:.3g} ms"
        lines = [
            f"problem    {p.text}",
            f"           {p.flops / 1e6:.6g} MFLOP, {p.bytes / 1e6:.6g} MB, {_RESULTS[p.direction]} {p.result_shape}",
            f"plan       {self.backend} {self.candidate}{estimate}",
            f"memory     workspace {self.workspace_bytes} bytes, packed weights {self.packed_bytes} bytes",
        ]
        if self.shares:
            lines.insert(3, "time       " + ", ".join(f"{part} {100 * share:.0f} %" for part, share in self.shares.items()))
        compiled = getattr(self.kernel, "compile_seconds", None)  # only of backends that do
        if compiled is not None:
            lines.append(f"compiled   in {compiled:.2g} s" if compiled else "compiled   before, or kept on disk")
        width = max((len(_label(r)) for r in self.rejected), default=0)
        lines += [f"not        {_label(r):<{width}}  {r.reason}" for r in self.rejected]
        return "\n".join(lines)


def _label(rejected: Rejected) -> str:
    return rejected.backend if rejected.candidate is None else f"{rejected.backend} {rejected.candidate}"


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
    lost = [Rejected(other.backend, other.candidate, Reason(_why_lost(other, best, known)))
            for other in order if other[:2] != best[:2]]
    spent = candidates.spent(best, problem, prepared)
    return Plan(problem, *best, (*lost, *rejected), known, {} if spent is None else spent.shares, machine.own() is not None)


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


def chosen_pool_kernel(problem: PoolProblem, backend: str = "auto", device: str = "cpu") -> PoolKernel:
    """The kernel of a pooling, which knows no candidates: of the first backend, in the registry's order, that does not refuse.

    Raises:
        Unavailable, ValueError: as `plan`.
        Unsupported: whoever was asked for refuses the problem, or does not pool.
    """
    reasons = []
    for who, reason in asked(_meant(backend, None, device), device):
        if reason is None:
            reason = who.refuses_pool(problem) if isinstance(who, Pooling) else "computes no pooling"
        if reason is None:
            if settings.current().verbose:
                print(f"fastconv: {problem} -> {who.name}", file=sys.stderr)
            return cast(Pooling, who).bind_pool(problem)
        reasons.append(f"{who.name}: {reason}")
    raise Unsupported(clipped(f"no backend that was asked for computes {problem}: {'; '.join(reasons)}", 480))


def _meant(backend: str, algorithm: str | None, device: str) -> str:
    """The backend's name, once both words are names."""
    if not (algorithm is None or isinstance(algorithm, str)):
        raise TypeError(f"algorithm must be a name or None, got {shown(algorithm)}")
    if not isinstance(backend, str):
        get(backend)  # which says what there is
    return settings.current().backend if backend == "auto" and device == "cpu" else backend


def _from_wisdom(problem: ConvProblem, backend: str, algorithm: str | None, prepared: bool) -> Ranked | None:
    """What wisdom says, where it is in use, fits what was asked for, and can be had now."""
    usable = (each for each in wisdom.lookup(problem, prepared) if _usable(problem, each, backend, algorithm))
    entry = next(usable, None)
    if entry is None and settings.current().autotune and backend == "auto" and algorithm is None:
        from .tuning import automatic  # only now: few turn it on

        entry = automatic.measured(problem, prepared)
    return None if entry is None else Ranked(entry.backend, entry.candidate, entry.seconds)


def _usable(problem: ConvProblem, entry: wisdom.Entry, backend: str, algorithm: str | None) -> bool:
    who = registry().get(entry.backend)
    if who is None or backend not in ("auto", who.name) or who.device != "cpu" or who.unavailable() is not None:
        return False
    if entry.candidate._replace(tile=None) not in listed(who, problem):
        return False
    tiled = entry.candidate.tile is not None
    return (not tiled or isinstance(who, Varied)) and refusal(who, problem, entry.candidate, algorithm) is None


def _why_lost(other: Ranked, best: Ranked, from_wisdom: bool) -> str:
    estimate = "" if other.seconds is None else f"estimated {other.seconds * 1e3:.3g} ms, "
    if from_wisdom:
        return estimate + "wisdom knows a faster one"
    if other.seconds is not None:
        return estimate + "slower"
    return "lower in the order" if best.seconds is None else "gives no estimate"
