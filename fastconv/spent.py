"""What an estimate is the sum of, by name: the words in which `explain` says where time is expected to go.

Ranking adds up plain numbers, since every new problem asks for some twenty estimates. Where parts are asked for, the same
formulas are gone through with `Spent` in place of each kernel's seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Parts = dict[str, float]  # products, inputs, "weights from L3" (the level they come from), outputs, ...

_UNNAMED = "lowering"  # what is added as a plain number: what is done around the forward problems of a gradient


class Spent(float):
    """A sum that knows its parts. A plain number takes part under one name."""

    parts: Mapping[str, float]

    def __new__(cls, parts: Mapping[str, float]) -> Spent:
        made = super().__new__(cls, sum(parts.values()))
        made.parts = parts
        return made

    def __add__(self, other: float) -> Spent:
        return _joined(self, 1.0, other)

    def __sub__(self, other: float) -> Spent:
        return _joined(self, -1.0, other)

    def __mul__(self, factor: float) -> Spent:
        return Spent({name: part * factor for name, part in self.parts.items()})

    def __truediv__(self, divisor: float) -> Spent:
        return Spent({name: part / divisor for name, part in self.parts.items()})

    __radd__, __rmul__ = __add__, __mul__

    @property
    def shares(self) -> dict[str, float]:
        """Of each part that can be seen, the largest first."""
        whole = [(name, part / self) for name, part in self.parts.items() if part > 0.005 * self]
        return dict(sorted(whole, key=lambda each: -each[1]))


def _joined(one: Spent, sign: float, other: Any) -> Spent:
    theirs = other.parts if isinstance(other, Spent) else {_UNNAMED: other}
    return Spent({name: one.parts.get(name, 0.0) + sign * theirs.get(name, 0.0) for name in {**one.parts, **theirs}})
