"""What a model is made of: for each layer its output, what it sees, what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..arguments import shape
from ..receptive_field import Field
from ..settings import current
from ..terminal import aligned
from ..timing.peak import peak
from .module import Module, joined
from .observation import observed

_RUNS = 3  # of which the fastest counts


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer."""

    place: str
    kind: str
    output: tuple[int, ...]
    field: tuple[int, ...] | None  # of the input that an element of the output sees, in pixels; None: all of it
    parameters: int
    multiply_adds: int
    seconds: float
    share: float | None  # of the measured peak; None: nothing is multiplied


@dataclasses.dataclass(frozen=True)
class Summary:
    """All layers of a model; `str` is a table."""

    rows: list[Row]
    peak: float  # flops per second

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "sees", "parameters", "multiply-adds", "ms", "of peak")
        lines = [head, *map(_cells, self.rows), ("all", "", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}",
                                                f"{self.seconds * 1e3:.3f}", "")]
        return "\n".join(aligned(lines, numbers=range(4, 8)))


def _cells(row: Row) -> tuple[str, ...]:
    sees = "all" if row.field is None else " x ".join(map(str, row.field)) or "1"
    return (row.place, row.kind, " x ".join(map(str, row.output)), sees, f"{row.parameters:,}", f"{row.multiply_adds:,}",
            f"{row.seconds * 1e3:.3f}", "" if row.share is None else f"{row.share:.0%}")


def summary(model: Module, input_shape: Any) -> Summary:
    """Measure a model in eval mode, layer by layer; it stays in its mode.

    Args:
        input_shape: with the batch axis.
    """
    was, dtype = model.training, next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    x = np.random.default_rng(0).standard_normal(shape("input_shape", input_shape)).astype(dtype)
    model.eval()
    try:
        with observed(model) as seen:
            for _ in range(_RUNS):
                model(x)
    finally:
        model.train(was)
    runs = [seen[begin::len(seen) // _RUNS] for begin in range(len(seen) // _RUNS)]
    best = peak(dtype.name, current().num_threads)[0]()
    fields: dict[str, Field | None] = {}
    _look(model, "", Field((), ()), fields)
    return Summary([_row(run, fields[run[0].place], best) for run in runs], best)


def _row(runs: list[Any], field: Field | None, best: float) -> Row:
    """Of one layer's runs."""
    place, module, x, y, _ = runs[0]
    seconds = min(run.seconds for run in runs)
    products = module.multiply_adds(x.shape, y.shape)
    return Row(place, type(module).__name__, y.shape, None if field is None else field.pixels(),
               sum(parameter.size for parameter in module.parameters()), products, seconds,
               2 * products / seconds / best if products else None)


def _look(module: Module, place: str, before: Field | None, fields: dict[str, Field | None]) -> Field | None:
    """The field behind a module; those behind its layers are written down."""
    children = list(module.named_children())
    if not children:
        fields[place] = None if before is None else before.through(module.window())
        return fields[place]
    behind, last = [before], before
    for name, child in children:
        last = _look(child, joined(place, name), before if module.parallel else last, fields)
        behind.append(last)
    if not module.parallel:
        return last
    return None if None in behind[1:] else max((each for each in behind if each is not None), key=lambda field: field.size)
