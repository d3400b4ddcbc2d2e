"""What is computed in: one table of the dtypes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Dtype(NamedTuple):
    """A floating-point dtype.

    Attributes:
        itemsize: bytes of a value.
        roundoff: u, the unit roundoff: half the distance from 1 to the next value.
        denormal, normal: the smallest positive value; the smallest with all of its digits.
    """

    name: str
    itemsize: int
    roundoff: float
    denormal: float
    normal: float

    def gamma(self, n: int) -> float:
        """γ_n = n·u / (1 - n·u): the relative error of n roundings in a row (Higham, Accuracy and Stability, lemma 3.1)."""
        return n * self.roundoff / (1 - n * self.roundoff)


TABLE = {dtype.name: dtype for dtype in (
    Dtype("float32", 4, 2.0**-24, 2.0**-149, 2.0**-126),
    Dtype("float64", 8, 2.0**-53, 2.0**-1074, 2.0**-1022),
)}
DTYPES = tuple(TABLE)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")  # what is compared, never summed
NATIVE: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in (*DTYPES, *INTEGERS)}
_NAMES = {dtype: name for name, dtype in NATIVE.items()}


def name_of(dtype: Any) -> str:
    """Its name, whatever its order of bytes; NumPy puts one together in three microseconds."""
    return _NAMES.get(dtype) or dtype.name
