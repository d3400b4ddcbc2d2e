"""Who takes part: fastconv's backends, called as a user calls them, and other libraries.

A contender's name says all of it: ``cython``, ``cython:gemm`` (one algorithm), ``cython/prepared`` (weights packed once, by
`prepare`), ``torch`` (a peer, see `fastconv.bench.peers`). A backend per call is timed as ``conv2d(x, w, b, ..., out=out,
backend=name)``: argument handling and packing of the weights included, the output's memory reused. Inputs stay the same, so
they are as warm as the caches allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import __version__, stated
from ..backends import get, registry
from ..candidates import algorithms
from ..errors import Unavailable, Unsupported, shown
from ..plan import plan
from ..problem import ConvProblem
from ..verify.data import Arrays
from . import peers

PREPARED = "/prepared"
_SMALL = ConvProblem((8, 8), (3, 3), 8, 8)  # a problem that a backend with an algorithm lists that for


@dataclass(frozen=True)
class Entry:
    """A contender bound to a problem and its arrays."""

    algorithm: str
    isa: str | None
    seconds: float | None  # the plan's estimate, if it has one
    call: Callable[[], Any]
    result: Callable[[], np.ndarray]  # of the latest call
    bound: str  # the algorithm whose error bound applies (see `verify.bounds`)
    tile: tuple[int, ...] | None = None  # likewise, where wisdom has chosen one


class Contender(Protocol):
    """Somebody who computes problems."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """"backend" or "peer"."""
    @property
    def backend(self) -> str:
        """The name without algorithm and preparation."""
    @property
    def prepared(self) -> bool:
        """Whether weights are packed before the calls that are timed."""
    @property
    def with_copies(self) -> bool:
        """Whether the time includes copies to and from another device."""

    def unavailable(self) -> str | None:
        """Why it cannot run here; None if it can."""

    def start(self, threads: int) -> str:
        """Load what it needs, and say which library in which version."""

    def enter(self, problem: ConvProblem, arrays: Arrays) -> Entry:
        """Bind to a problem and its arrays.

        Raises:
            Unsupported: it refuses the problem.
        """


@dataclass(frozen=True)
class BackendContender:
    """A backend of fastconv, with its own choice of algorithm or one that is named, per call or prepared."""

    backend: str
    asked: str | None = None  # algorithm
    prepared: bool = False
    kind = "backend"

    @property
    def name(self) -> str:
        return (self.backend if self.asked is None else f"{self.backend}:{self.asked}") + (PREPARED if self.prepared else "")

    @property
    def with_copies(self) -> bool:
        return get(self.backend).device != "cpu"

    def unavailable(self) -> str | None:
        return get(self.backend).unavailable()

    def start(self, threads: int) -> str:
        self.unavailable()  # imports what it needs
        return f"fastconv {__version__}"

    def enter(self, problem: ConvProblem, arrays: Arrays) -> Entry:
        chosen = plan(problem, self.backend, self.asked, prepared=self.prepared)
        out = np.full(problem.result_shape, np.nan, problem.dtype)  # what is not overwritten shows
        call = self._prepared(problem, arrays, out) if self.prepared else self._per_call(problem, arrays, out)
        return Entry(chosen.algorithm, chosen.isa, chosen.seconds, call, lambda: out, chosen.algorithm, chosen.candidate.tile)

    def _per_call(self, problem: ConvProblem, arrays: Arrays, out: np.ndarray) -> Callable[[], Any]:
        call = stated.per_call(problem, backend=self.backend, algorithm=self.asked)
        return lambda: call(*arrays, out)

    def _prepared(self, problem: ConvProblem, arrays: Arrays, out: np.ndarray) -> Callable[[], Any]:
        x, w, b, residual = arrays
        conv = stated.operator(problem, w, b, backend=self.backend, algorithm=self.asked, input_shape=problem.first_shape)
        return lambda: conv(x, residual=residual, out=out)


@dataclass(frozen=True)
class PeerContender:
    """Another library."""

    name: str
    kind = "peer"
    with_copies = False

    @property
    def backend(self) -> str:
        return self.name

    @property
    def prepared(self) -> bool:
        return peers.get(self.name).prepared

    def unavailable(self) -> str | None:
        return peers.get(self.name).unavailable()

    def start(self, threads: int) -> str:
        return peers.get(self.name).start(threads)

    def enter(self, problem: ConvProblem, arrays: Arrays) -> Entry:
        peer = peers.get(self.name)
        reason = peer.refuses(problem)
        if reason is not None:
            raise Unsupported(reason)
        bound = peer.bind(problem, arrays)
        judged_as = "tf32" if self.name.endswith("tf32") else "unknown"
        return Entry(bound.algorithm, None, None, bound.call, bound.result, judged_as)


def named(name: str) -> Contender:
    """The contender of that name.

    Raises:
        ValueError: there is no such backend and no such peer, or the backend has no such algorithm.
    """
    if name in peers.names():
        return PeerContender(name)
    backend, _, asked = name.removesuffix(PREPARED).partition(":")
    if asked and get(backend).unavailable() is None and asked not in (has := algorithms(_SMALL, backend)):
        raise ValueError(f"backend {shown(backend)} has no algorithm {shown(asked)}; it has {', '.join(has)}")
    get(backend)
    return BackendContender(backend, asked or None, name.endswith(PREPARED))


def chosen(names: Iterable[str] | None = None, with_peers: bool = False) -> list[Contender]:
    """The contenders of these names, each once; or every backend that is available here, the first of the CPU prepared too.

    Args:
        with_peers: add every peer that is installed.

    Raises:
        ValueError: there is none of that name.
        Unavailable: it cannot run here.
    """
    contenders = [named(name) for name in (_everyone() if names is None else names)]
    for contender in contenders:
        reason = contender.unavailable()
        if reason is not None:
            raise Unavailable(f"{contender.kind} {contender.backend!r} is not available: {reason}")
    if with_peers:
        contenders += [peer for peer in map(named, peers.names()) if peer.unavailable() is None]
    return list({contender.name: contender for contender in contenders}.values())


def _everyone() -> list[str]:
    able = [name for name, backend in registry().items() if backend.unavailable() is None]
    first = next((name for name in able if registry()[name].device == "cpu"), None)
    return [each for name in able for each in ([name + PREPARED, name] if name == first else [name])]
