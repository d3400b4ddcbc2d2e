"""The algorithms: what there is to know of each, whoever executes it.

A file per algorithm, named after it; the module itself keeps the protocol `Algorithm`, or `Tiled`. Nothing lists them, so that
another one is another file.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Protocol, cast, runtime_checkable

import numpy as np

from ..problem import ConvProblem
from ..spent import Parts
from . import _costs

Tile = tuple[int, ...]  # lengths along the axes

USUAL_CALLS = 2  # what a user's call takes in Python beside the kernel's, in least calls (`machine.Machine.call`)


class Algorithm(Protocol):
    """How a convolution is computed.

    Attributes:
        SUMS_PRODUCTS: whether it sums the products themselves, in whatever order: admitted by accuracy="strict", and exact on
            integers.

    May have `DIRECTIONS`, those that its native kernels compute, if not the forward one alone; in that of the gradient of the
    weight time is that of all images. May say `PACKS_ANY_ORDER`: its native kernels pack weights whatever the order of their
    axes, which others get C-contiguous. May have `CALLS`: how many of the least calls there are a user's takes, but for what
    depends on sizes.
    """

    SUMS_PRODUCTS: bool

    def bound(self, problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray, *tile: Tile) -> np.ndarray:
        """How far an output may be from the exact one, before the activation; `magnitude` is S (see `accuracy`)."""

    def cost(self, problem: ConvProblem, lanes: int, *tile: Tile) -> Parts:
        """Time of one image with packed weights in the native kernels, whose vectors have `lanes` elements: in vector
        multiply-adds of one thread, by what they are spent on (see `spent`)."""

    def packing_cost(self, problem: ConvProblem, lanes: int, *tile: Tile) -> float:
        """The same of packing the weights, in one number."""


@runtime_checkable
class Tiled(Protocol):
    """One whose kernels compute an input tile by tile, and let the problem choose which. `bound`, `cost` and `packing_cost` are
    those of its own choice, or of the tile that is given."""

    def tile(self, problem: ConvProblem) -> Tile:
        """Its own choice."""

    def choices(self, problem: ConvProblem) -> tuple[Tile, ...]:
        """All that may be the fastest, by `cost`."""

    def refuses(self, problem: ConvProblem, chosen: Tile | None = None) -> str | None:
        """Why it, or that tile of it, does not apply, in one line; None if it does."""


@functools.cache
def named() -> dict[str, Algorithm]:
    """fastconv's own, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: cast(Algorithm, importlib.import_module(f".{name}", __name__)) for name in names}


def spent(name: str, p: ConvProblem, lanes: int, prepared: bool, *tile: Tile) -> Parts:
    """What a call with one image takes, packing included unless that was done before."""
    algorithm = named()[name]
    parts = _costs.called(p, lanes, algorithm.cost(p, lanes, *tile), getattr(algorithm, "CALLS", USUAL_CALLS))
    if not prepared:
        parts["packing"] = algorithm.packing_cost(p, lanes, *tile)
    return parts


def sums_products(name: str) -> bool:
    """Whether that algorithm does. One that fastconv does not know counts as one that does not."""
    found = named().get(name)
    return found is not None and found.SUMS_PRODUCTS


def directions(name: str) -> tuple[str, ...]:
    """Those it computes itself; where the forward one is not among them, it serves no other either."""
    return getattr(named().get(name), "DIRECTIONS", ("forward",))


def packs_any_order(name: str) -> bool:
    """Whether the order of the weights' axes makes no difference to it."""
    return bool(getattr(named().get(name), "PACKS_ANY_ORDER", False))


@functools.cache
def tiled(name: str) -> Tiled | None:
    """The algorithm of that name, if it has tiles."""
    found = named().get(name)
    return found if isinstance(found, Tiled) else None
