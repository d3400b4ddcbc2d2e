"""The coefficients of vector_math.hpp: python kernels/minimax.py prints them, with the relative errors of their polynomials.

Least squares at Chebyshev's points in 60 digits: within a small factor of the best polynomial of its degree (Trefethen,
Approximation Theory and Approximation Practice, ch. 16), and nothing to converge.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60


def fitted(function: Callable[[mp.mpf], mp.mpf], low: float, high: float, degree: int, bits: int) -> list[mp.mpf]:
    """Coefficients, the constant first, of least squares of the relative error at Chebyshev's points of [low, high]. One after
    another is rounded, and what follows is fitted anew: it makes up for most of the rounding."""
    count = 3 * degree + 8
    middle, half = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2
    points = [middle + half * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    values = [function(point) for point in points]
    found: list[mp.mpf] = []
    while len(found) <= degree:
        powers = range(len(found), degree + 1)
        matrix, rest = mp.matrix(count, len(powers)), mp.matrix(count, 1)
        for i, (point, value) in enumerate(zip(points, values)):
            for column, power in enumerate(powers):
                matrix[i, column] = point**power / value
            rest[i] = 1 - (mp.polyval(found[::-1], point) / value if found else 0)
        found.append(rounded(mp.qr_solve(matrix, rest)[0][0], bits))
    return found


def rounded(value: mp.mpf, bits: int) -> mp.mpf:
    with mp.workprec(bits):
        return +value


def exponential(r: mp.mpf) -> mp.mpf:
    """(exp r - 1 - r) / r^2, whose first terms are exact in the kernels."""
    return mp.nsum(lambda k: r**int(k) / mp.factorial(int(k) + 2), [0, 40])


SHIFT = {24: 3, 53: 4}  # k of the tail: about where erfcx turns from its series at 0 to the one at infinity


def tail(q: mp.mpf, k: int) -> mp.mpf:
    """Q(a) exp(a^2/2) / (1 - q), Q the normal distribution's upper tail, at q = (a - k) / (a + k): smooth and bounded on
    [-1, 1] (M. M. Shepherd, J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x", 1981)."""
    a = k * (1 + q) / (1 - q)
    return mp.erfc(a / mp.sqrt(2)) * mp.exp(a * a / 2) / 2 / (1 - q)


def error_function(square: mp.mpf) -> mp.mpf:
    """erf(x) / x as a function of x^2."""
    x = mp.sqrt(square)
    return mp.erf(x) / x if x else 2 / mp.sqrt(mp.pi)


def report(name: str, function: Callable[[mp.mpf], mp.mpf], low: float, high: float, degree: int, bits: int) -> None:
    found = fitted(function, low, high, degree, bits)
    worst = mp.mpf(0)
    for i in range(401):
        point = low + (mp.mpf(high) - low) * i / 400
        value = function(point)
        worst = max(worst, abs(mp.polyval(found[::-1], point) - value) / abs(value))
    print(f"{name}, {bits} bits: relative error 2^{float(mp.log(worst, 2)):.1f}")
    print("    " + ", ".join(mp.nstr(c, 9 if bits == 24 else 17) for c in found))


if __name__ == "__main__":
    for bits, of_exp, of_tail, farthest, of_erf in ((24, 4, 9, 15, 6), (53, 9, 22, 40, 12)):
        k = SHIFT[bits]
        edge = mp.log(2) / 2 * mp.mpf("1.001")
        report("exp", exponential, -edge, edge, of_exp, bits)
        last = mp.mpf(farthest - k) / (farthest + k)
        report(f"tail, k = {k}", lambda q, k=k: tail(q, k), -1, last, of_tail, bits)
        report("erf", error_function, 0, 1, of_erf, bits)
