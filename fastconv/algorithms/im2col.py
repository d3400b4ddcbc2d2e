"""im2col: all windows are written out as the columns of a matrix, which a library multiplies by the weights."""

from ._bounds import summed as bound

__all__ = ["SUMS_PRODUCTS", "bound"]

SUMS_PRODUCTS = True
