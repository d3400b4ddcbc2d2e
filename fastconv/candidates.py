"""The candidates of a problem: who could compute it, and how. Listed, asked, ranked, bound; `plan` chooses among them.

Those with a time estimate are ranked by the estimate, then come the others in the registry's order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import lowering, lowering_costs, phases_at_once, settings, weight_gradient
from .algorithms import named, sums_products
from .backends import Backend, Candidate, Itemized, Kernel, Varied, get, registry
from .errors import Unavailable, Unsupported, clipped, shown
from .problem import ConvProblem
from .reasons import Absent, Reason, Refused
from .spent import Spent

Estimate = Callable[[ConvProblem, Candidate, bool], float | None]  # of `Backend.seconds`


@dataclass(frozen=True)
class Rejected:
    """A candidate (None: the whole backend) that was not chosen, and why."""

    backend: str
    candidate: Candidate | None
    reason: Reason


class Ranked(NamedTuple):
    """A candidate that computes the problem."""

    backend: str
    candidate: Candidate
    seconds: float | None  # estimated; None: the backend gives no estimate

    def __str__(self) -> str:
        return f"{self.backend} {self.candidate}"


def bind(problem: ConvProblem, backend: str, candidate: Candidate) -> Kernel:
    """The kernel of a candidate for a problem, cached."""
    return _bind(problem, get(backend), candidate)


@functools.lru_cache(maxsize=512)
def _bind(problem: ConvProblem, who: Backend, candidate: Candidate) -> Kernel:
    """Keyed by the object: another backend may take its name (`register`)."""
    parts = _parts(who, problem, candidate)
    if parts is None:
        return who.bind(problem, candidate)

    def lowered(each: ConvProblem) -> Kernel:
        parts = lowering.parts(each)
        return lowering.LoweredKernel(each, parts, [part.problem and _bind(part.problem, who, candidate) for part in parts])

    def other(each: ConvProblem) -> Kernel:
        return _bind(each, who, candidate)

    if lowering_costs.as_products(problem, candidate.algorithm):
        return weight_gradient.ProductKernel(problem, other, lambda: lowered(problem))
    if _joined(problem, who, candidate) is not None:
        return phases_at_once.JoinedKernel(problem, other, lowered)
    return lowered(problem)


@functools.lru_cache(maxsize=512)
def _joined(problem: ConvProblem, who: Backend, candidate: Candidate) -> ConvProblem | None:
    """The forward problem of all phases at once, where a candidate computes it sooner than one by one: of one image, whatever
    batch is expected and wisdom says of the machine, as this is remembered, and binds."""
    found = phases_at_once.joined(problem)
    if found is None or who.refuses(found.problem, candidate) is not None:
        return None
    with settings.config(expected_batch=1, wisdom=None):
        pays = lowering_costs.joining_pays(problem, candidate.algorithm, lowering.parts(problem), found.problem,
                                           lambda each, packed: who.seconds(each, candidate, packed))
    return found.problem if pays else None


def _parts(who: Backend, problem: ConvProblem, candidate: Candidate) -> tuple[lowering.Part, ...] | None:
    """The forward problems of another direction that a CPU backend computes through them; None: itself, or not at all."""
    if problem.direction == "forward" or who.device != "cpu" or _computes(who, problem, candidate):
        return None
    return lowering.parts(problem)


def _computes(who: Backend, problem: ConvProblem, candidate: Candidate) -> bool:
    """Whether a candidate computes the direction itself."""
    computes = getattr(who, "computes", None)
    return _all_compute(who, problem) or computes is not None and bool(computes(problem.direction, candidate))


def _all_compute(who: Backend, problem: ConvProblem) -> bool:
    """Whether all candidates of a backend do."""
    return problem.direction in getattr(who, "directions", ("forward",))


def listed(who: Backend, problem: ConvProblem) -> tuple[Candidate, ...]:
    """The candidates of a backend that can run here."""
    parts = () if _all_compute(who, problem) or who.device != "cpu" else lowering.parts(problem)
    return who.candidates(next((part.problem for part in parts if part.problem is not None), problem))


def refusal(who: Backend, problem: ConvProblem, candidate: Candidate, algorithm: str | None = None) -> str | None:
    """Why a candidate does not compute a problem, or is not wanted: by its backend, or as no `algorithm` that was asked for."""
    if algorithm is not None and candidate.algorithm != algorithm:
        return f"algorithm {algorithm!r} was asked for"
    if problem.accuracy == "strict" and not sums_products(candidate.algorithm):
        return "accuracy='strict' admits only algorithms that sum the products themselves"
    parts = _parts(who, problem, candidate)
    if parts is None:
        return who.refuses(problem, candidate)
    lowered = lowering_costs.forward_problems(problem, candidate.algorithm, parts)
    reasons = (who.refuses(each, candidate) for each, _ in lowered)
    return next((reason for reason in reasons if reason is not None), None)


def seconds(who: Backend, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
    """Estimated time of one image of as many as a call is expected to have, which share what packing the weights takes; of a
    gradient of the weight, of all images, which it sums."""
    return _estimated(who, problem, candidate, prepared, who.seconds)


def spent(of: Ranked, problem: ConvProblem, prepared: bool) -> Spent | None:
    """The same, as a sum that knows its parts; None: the backend does not tell them."""
    who = get(of.backend)
    if not isinstance(who, Itemized):
        return None

    def itemized(each: ConvProblem, candidate: Candidate, packed: bool) -> Spent:
        parts, rate = who.spent(each, candidate, packed)
        return Spent(parts) / rate

    found = _estimated(who, problem, of.candidate, prepared, itemized)
    return found if isinstance(found, Spent) else None


def _estimated(who: Backend, problem: ConvProblem, candidate: Candidate, prepared: bool, estimate: Estimate) -> float | None:
    """By means of estimates of one image of a problem that the candidate computes itself."""
    parts = _parts(who, problem, candidate)
    if parts is None:
        alone = estimate(problem, candidate, prepared)
        images = settings.current().expected_batch or 1
        packed = None if prepared or images == 1 else estimate(problem, candidate, True)
        return alone if alone is None or packed is None else packed + (alone - packed) / images

    def of_image(each: ConvProblem, packed: bool) -> float | None:
        return estimate(each, candidate, packed)

    # with a residual as without, so that a prepared operator's plan holds for both
    joined = _joined(dataclasses.replace(problem, residual=False) if problem.residual else problem, who, candidate)
    if joined is not None:
        return lowering_costs.joined_seconds(problem, joined, prepared, of_image)
    return lowering_costs.seconds(problem, candidate.algorithm, parts, prepared, of_image)


def ranked(problem: ConvProblem, backend: str = "auto", algorithm: str | None = None, device: str = "cpu",
           prepared: bool = False) -> tuple[list[Ranked], list[Rejected]]:
    """(all that compute the problem, the model's choice first; all that do not). Arguments and errors as for `plan`."""
    accepted: list[tuple[tuple[bool, float, int], Ranked]] = []
    rejected: list[Rejected] = []
    for who, absence in asked(backend, device):
        if absence is not None:
            rejected.append(Rejected(who.name, None, Absent(absence)))
            continue
        for candidate in listed(who, problem):
            refused = refusal(who, problem, candidate, algorithm)
            if refused is not None:
                rejected.append(Rejected(who.name, candidate, Refused(refused)))
                continue
            estimate = seconds(who, problem, candidate, prepared)
            accepted.append(((estimate is None, estimate or 0.0, len(accepted)), Ranked(who.name, candidate, estimate)))
    if not accepted:
        known = {*named(), *algorithms(problem)}
        if algorithm is not None and algorithm not in known:
            raise ValueError(f"algorithm must be one of {clipped(', '.join(sorted(known)), 300)}, got {shown(algorithm)}")
        raise _nobody(problem, backend, algorithm, rejected)
    return [each for _, each in sorted(accepted)], rejected


def algorithms(problem: ConvProblem, backend: str = "auto") -> list[str]:
    """The algorithms of a backend, or of all those that can run here."""
    asked = registry().values() if backend == "auto" else [get(backend)]
    able = [who for who in asked if who.unavailable() is None]
    return list(dict.fromkeys(candidate.algorithm for who in able for candidate in listed(who, problem)))


def variants(problem: ConvProblem, of: Ranked, prepared: bool) -> list[Ranked]:
    """Those that compute the problem in the same way with other tiles, best first."""
    who = get(of.backend)
    if not isinstance(who, Varied) or _parts(who, problem, of.candidate) is not None:
        return []
    return [Ranked(who.name, each, seconds(who, problem, each, prepared)) for each in who.variants(problem, of.candidate)
            if refusal(who, problem, each) is None]


def asked(backend: str, device: str) -> Iterator[tuple[Backend, str | None]]:
    """(the backend of that name, or each of the device's; why it cannot run here).

    Raises:
        Unavailable: the one that is named cannot run here.
        Unsupported: it does not take arrays of the device.
    """
    if backend == "auto":
        yield from ((who, who.unavailable()) for who in registry().values() if who.device == device)
        return
    who = get(backend)
    if device == "cuda" and who.device != "cuda":
        raise Unsupported(f"backend {who.name!r} computes on the CPU, and does not take CUDA arrays")
    reason = who.unavailable()
    if reason is not None:
        raise Unavailable(f"backend {who.name!r} is not available: {reason}", reason)
    yield who, None


def _nobody(problem: ConvProblem, backend: str, algorithm: str | None, rejected: list[Rejected]) -> Unsupported:
    """One line, in which each reason stands once, and those of other algorithms than the one asked for do not; the last is its
    `why`."""
    asked = "no backend" if backend == "auto" else f"backend {backend!r}"
    which = "" if algorithm is None else f" with algorithm {algorithm!r}"
    negation = "computes" if backend == "auto" else "does not compute"
    reasons: dict[Reason, dict[str, None]] = {}
    for r in rejected:
        if r.candidate is None or algorithm in (None, r.candidate.algorithm):
            label = r.backend if r.candidate is None else f"{r.backend} {r.candidate.algorithm}"
            reasons.setdefault(r.reason, {})[label] = None
    none = "it has no such candidate"
    told = "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items()) or none
    return Unsupported(clipped(f"{asked}{which} {negation} {clipped(problem.text, 160)}: {told}", 480),
                       [none, *(reason.why for reason in reasons)][-1])
