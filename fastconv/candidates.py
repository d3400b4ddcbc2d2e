"""The candidates of a problem: who could compute it, and how. Listed, asked, ranked, bound; `plan` chooses among them.

Those with a time estimate are ranked by the estimate, then come the others in the registry's order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import lowering, weight_gradient
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


def bind(problem: ConvProblem, backend: str, candidate: Candidate) -> Kernel:
    """The kernel of a candidate for a problem, cached."""
    return _bind(problem, get(backend), candidate)


@functools.lru_cache(maxsize=512)
def _bind(problem: ConvProblem, who: Backend, candidate: Candidate) -> Kernel:
    """Keyed by the object: another backend may take its name (`register`)."""
    parts = _parts(who, problem)
    if parts is None:
        return who.bind(problem, candidate)

    def lowered() -> Kernel:
        kernels = [part.problem and _bind(part.problem, who, candidate) for part in parts]
        return lowering.LoweredKernel(problem, parts, kernels)

    if not _as_products(problem, candidate):
        return lowered()
    return weight_gradient.ProductKernel(problem, lambda each: _bind(each, who, candidate), lowered)


def _parts(who: Backend, problem: ConvProblem) -> tuple[lowering.Part, ...] | None:
    """The forward problems of another direction that a CPU backend computes through them; None: itself, or not at all."""
    if problem.direction in getattr(who, "directions", ("forward",)) or who.device != "cpu":
        return None
    return lowering.parts(problem)


def _as_products(problem: ConvProblem, candidate: Candidate) -> bool:
    """Whether a candidate computes the gradient of the weight as products over pixels: what sums products does."""
    return weight_gradient.applies(problem) and candidate.algorithm != "depthwise" and sums_products(candidate.algorithm)


def _problems(problem: ConvProblem, candidate: Candidate, parts: tuple[lowering.Part, ...]) -> list[tuple[ConvProblem, int]]:
    """(forward problem of another direction, how often)."""
    if _as_products(problem, candidate):
        return list(weight_gradient.products(problem))
    return [(part.problem, 1) for part in parts if part.problem is not None]


def listed(who: Backend, problem: ConvProblem) -> tuple[Candidate, ...]:
    """The candidates of a backend that can run here."""
    parts = _parts(who, problem) or ()
    return who.candidates(next((part.problem for part in parts if part.problem is not None), problem))


def refusal(who: Backend, problem: ConvProblem, candidate: Candidate, algorithm: str | None = None) -> str | None:
    """Why a candidate does not compute a problem, or is not wanted: by its backend, or as no `algorithm` that was asked for."""
    if algorithm is not None and candidate.algorithm != algorithm:
        return f"algorithm {algorithm!r} was asked for"
    if problem.accuracy == "strict" and not sums_products(candidate.algorithm):
        return "accuracy='strict' admits only algorithms that sum the products themselves"
    parts = _parts(who, problem)
    if parts is None:
        return who.refuses(problem, candidate)
    reasons = (who.refuses(each, candidate) for each, _ in _problems(problem, candidate, parts))
    return next((reason for reason in reasons if reason is not None), None)


def seconds(who: Backend, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
    """Estimated time of one image; of a gradient of the weight, of all images, which it sums."""
    parts = _parts(who, problem)
    if parts is None:
        return who.seconds(problem, candidate, prepared)
    total = 0.0
    for each, often in _problems(problem, candidate, parts):
        one = who.seconds(_as_one_image(each) if problem.direction == "backward_weight" else each, candidate, prepared)
        if one is None:
            return None
        if problem.direction == "backward_weight" and candidate.algorithm == "fft" and each.groups == 1 and each.batch > 1:
            one *= _SPECTRA
        if problem.direction == "backward_weight" and candidate.algorithm == "winograd":
            one += each.groups * _TRANSFORM
        total += often * one
    return total


_TRANSFORM = 2e-5  # seconds for the large kernel that a gradient is, in each group (measured on depthwise layers: 10 to 46 us)
_SPECTRA = 3  # of all weights are read for every image, which `_as_one_image` does not see (measured on 6 layers)
_TILE = 4  # rows of most of winograd's: those of an image are whole


@functools.lru_cache(maxsize=256)
def _as_one_image(p: ConvProblem) -> ConvProblem:
    """One image with as many rows as all images have: what estimates take for an image is there once."""
    if p.batch == 1:
        return p
    rows, extent = -(-p.output_size[0] // _TILE) * _TILE * p.batch, (p.kernel_size[0] - 1) * p.dilation[0] + 1
    size = max(1, (rows - 1) * p.stride[0] + extent - sum(p.padding[0]))
    return dataclasses.replace(p, batch=1, input_size=(size, *p.input_size[1:]))


def ranked(problem: ConvProblem, backend: str = "auto", algorithm: str | None = None, device: str = "cpu",
           prepared: bool = False) -> tuple[list[Ranked], list[Rejected]]:
    """(all that compute the problem, the model's choice first; all that do not). Arguments and errors as for `plan`."""
    accepted: list[tuple[tuple[bool, float, int], Ranked]] = []
    rejected: list[Rejected] = []
    for who, reason in asked(backend, device):
        if reason is not None:
            rejected.append(Rejected(who.name, None, f"unavailable: {reason}"))
            continue
        for candidate in listed(who, problem):
            reason = refusal(who, problem, candidate, algorithm)
            if reason is not None:
                rejected.append(Rejected(who.name, candidate, f"refuses: {reason}"))
                continue
            estimate = seconds(who, problem, candidate, prepared)
            accepted.append(((estimate is None, estimate or 0.0, len(accepted)), Ranked(who.name, candidate, estimate)))
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
    return list(dict.fromkeys(candidate.algorithm for who in able for candidate in listed(who, problem)))


def variants(problem: ConvProblem, of: Ranked, prepared: bool) -> list[Ranked]:
    """Those that compute the problem in the same way with other tiles, best first."""
    who = get(of.backend)
    found = who.variants(problem, of.candidate) if isinstance(who, Varied) and _parts(who, problem) is None else ()
    return [Ranked(who.name, each, seconds(who, problem, each, prepared)) for each in found
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
        raise Unavailable(f"backend {who.name!r} is not available: {reason}")
    yield who, None


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
