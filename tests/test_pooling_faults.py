"""Faults planted in pooling: in the tables, which all backends read, and in what reads them. Tests that are there find each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import test_pooling
import test_pooling_gradients
from planted_text import Fault, planted
from pooling_cases import LAYOUTS, OPS

from fastconv import pool_calls, pool_problem, unpooling
from fastconv.backends import naive_pooling, sliced_pooling

Test = Callable[[], None]


def tables() -> None:
    test_pooling.test_the_tables_say_which_taps_lie_in_the_input()


def large_tables() -> None:
    test_pooling.test_large_adaptive_sizes_do_not_overflow()


def by_hand() -> None:
    test_pooling.test_by_hand("naive")


def special() -> None:
    test_pooling.test_nan_ties_and_infinities("naive")


def random(*ops: str, direction: str = "forward") -> Test:
    """The backend that slices against the one that loops."""
    def test() -> None:
        for op in ops or OPS:
            for layout in LAYOUTS:
                for ndim in (1, 2):
                    test_pooling.test_random_problems(op, ndim, layout, direction, "im2col")
    return test


def gradients(*ops: str) -> Test:
    return random(*ops, direction="backward_input")


def differences(number: int) -> Test:
    """Against finite differences."""
    def test() -> None:
        name, arguments, more = test_pooling_gradients.CALLS[number]
        test_pooling_gradients.test_against_finite_differences(
            name, arguments, more, 2, "channels_last", "im2col", np.random.default_rng(20))
    return test


def given_indices() -> None:
    test_pooling_gradients.test_indices_that_are_given_are_used("max_pool2d", "im2col", np.random.default_rng(20))


def added() -> None:
    test_pooling_gradients.test_overlapping_windows_add_up("im2col")


def unread() -> None:
    test_pooling_gradients.test_what_no_window_reads_has_no_gradient("im2col")


def no_sum() -> None:
    test_pooling_gradients.test_a_window_of_zeros_has_no_gradient("im2col")


def unpooled() -> None:
    for no_native in test_pooling.NO_NATIVE:
        test_pooling.test_unpooling_puts_back_what_max_pooling_took(np.random.default_rng(20), no_native)


def unpooled_twice() -> None:
    for no_native in test_pooling.NO_NATIVE:
        test_pooling.test_unpooling_of_one_place_twice_keeps_the_last(no_native)


FAULTS: list[tuple[Fault, Test]] = [
    (Fault("windows begin one late", pool_problem, "* stride - padding[0]", "* stride - padding[0] + 1"), tables),
    (Fault("a clipped window begins off its taps", pool_problem,
           "first = start + skipped * dilation", "first = np.maximum(start, 0)"),
     tables),
    (Fault("a window in the near padding has all its taps", pool_problem, "np.minimum(kernel - skipped,", "np.minimum(kernel,"),
     tables),
    (Fault("a window at the far end lacks a tap", pool_problem, "(size - 1 - first) // dilation + 1)",
           "np.maximum(1, (size - 1 - first) // dilation))"), tables),
    (Fault("the divisor counts what lies beyond the padding", pool_problem, "np.minimum(kernel, (size + padding[1] - 1",
           "np.maximum(kernel, (size + padding[1] - 1"), tables),
    (Fault("the divisor is one short", pool_problem,
           "(size + padding[1] - 1 - start)", "(size + padding[1] - 2 - start)"), tables),
    (Fault("count_include_pad the other way round", pool_problem, "padded if include_pad else count",
           "count if include_pad else padded"), tables),
    (Fault("ceil_mode's last window begins in the padding", pool_problem,
           "number - 1 if ceil and", "number if ceil and"), by_hand),
    (Fault("ceil_mode has no window more", pool_problem, "(stride - 1 if ceil else 0)", "0"), tables),
    (Fault("adaptive windows end too early", pool_problem, "(-(o + 1) * rest // out)", "(-((o + 1) * rest // out))"), tables),
    (Fault("adaptive windows begin too late", pool_problem,
           "o * whole + o * rest // out", "o * whole - (-o * rest // out)"), tables),
    (Fault("adaptive products overflow", pool_problem, "o * whole + o * rest // out", "o * size // out"), large_tables),
    (Fault("NaN loses", naive_pooling, " or value != value", ""), special),
    (Fault("the last of equals wins", naive_pooling, "if sign * value > sign *", "if sign * value >= sign *"), special),
    (Fault("min is max", naive_pooling, '1 if self.problem.op == "max" else -1', "1"), by_hand),
    (Fault("the divisor given is ignored", naive_pooling, "p.divisor_override or math", "math"), by_hand),
    (Fault("NaN loses in slices", sliced_pooling, "wins |= np.isnan(value)", "pass"), random("max")),
    (Fault("the last of equals wins in slices", sliced_pooling,
           "np.greater if largest", "np.greater_equal if largest"), random("max")),
    (Fault("the index is that of the clipped window", sliced_pooling,
           "flat[i] + places[i]", "flat[i] + places[i] - places[i].min()"),
     random("max")),
    (Fault("the first index is one of the window", sliced_pooling,
           "np.take(places, p.first[number], axis.at)", "0"), random("min")),
    (Fault("taps begin one output late", sliced_pooling,
           "max(0, -(shift // stride))", "max(0, 1 - shift // stride)"), random("average")),
    (Fault("the last output of a tap is lost", sliced_pooling,
           "min(out - 1, (p.input", "min(out - 2, (p.input"), random("max")),
    (Fault("lp is not scaled", sliced_pooling, "x / self.divisor * self.problem.scale", "x / self.divisor"), random("lp")),
    (Fault("windows that overlap replace", sliced_pooling,
           "+= share[_at(axis, outputs)]", "= share[_at(axis, outputs)]"), added),
    (Fault("the gradient goes to the next plane", sliced_pooling, "np.arange(planes)[:, None] * size",
           "np.roll(np.arange(planes), 1)[:, None] * size"), gradients("max")),
    (Fault("the gradient goes to the neighbour", sliced_pooling,
           "places.ravel(), g", "(places.ravel() + 1) % (planes * size), g"),
     given_indices),
    (Fault("lp's slope lacks its power", sliced_pooling,
           "share * source**(p.norm_type - 1)", "share * source"), differences(7)),
    (Fault("what no window reads has a gradient", sliced_pooling, "self._along_axes(read) > 0", "True"), unread),
    (Fault("a sum of zeros has a slope", sliced_pooling, "np.where(sums == 0, 0,", "np.where(False, 0,"), no_sum),
    (Fault("the gradient is not divided", sliced_pooling, "share = g / self.divisor", "share = g * 1"), differences(3)),
    (Fault("indices that are given are found again", pool_calls, "and i is None", ""), given_indices),
    (Fault("unpooling adds", unpooling, "np.put_along_axis(filled, to, _flat(x, last, ndim), 1)",
           "np.add.at(filled, (np.arange(len(filled))[:, None], to), _flat(x, last, ndim))"), unpooled_twice),
    (Fault("unpooling keeps the first", unpooling, "filled, to, _flat(x, last, ndim), 1)",
           "filled, to[:, ::-1].copy(), _flat(x, last, ndim)[:, ::-1], 1)"), unpooled_twice),
    (Fault("unpooling keeps the last in memory", unpooling, "np.ascontiguousarray(_flat(places, last, ndim))",
           "_flat(places, last, ndim)"), unpooled_twice),
    (Fault("channels that are last come out as if first", unpooling,
           "return np.moveaxis(made, -ndim - 1, -1) if last else made\n\n\n",
           "return made.reshape(*made.shape[:-ndim - 1], *size, made.shape[-ndim - 1]) if last else made\n\n\n"), unpooled),
    (Fault("the gradient of unpooling is that of the place before", unpooling,
           "np.take_along_axis(_flat(g, last, ndim), _flat(places, last, ndim), 1)",
           "np.take_along_axis(_flat(g, last, ndim), np.maximum(0, _flat(places, last, ndim) - 1), 1)"), unpooled),
]


@pytest.mark.parametrize(("fault", "test"), FAULTS, ids=[fault.name for fault, _ in FAULTS])
def test_a_fault_is_found(fault, test):
    test()
    with planted(fault), pytest.raises((AssertionError, ValueError, IndexError)):
        test()
