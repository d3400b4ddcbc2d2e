"""Faults planted in how a direction becomes forward problems: `check` goes through its own problems and must find every one.

Those that only data that is not finite can show are for the tests that have such data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import test_directions
from planted_text import Fault, forget, planted

import fastconv
from fastconv import candidates, lowering, lowering_costs, phases_at_once, weight_gradient
from fastconv.backends import cython_native
from fastconv.problem import ConvProblem
from fastconv.verify.check import Failure, trials
from fastconv.verify.matrix import other_directions

NATIVE = cython_native.backend.unavailable() is None
BACKENDS = ("im2col", "cython") if NATIVE else ("im2col",)

OF_INPUT = [
    Fault("phases are written in the other order", lowering, "slice(phase.begin, None, step)",
          "slice(step - 1 - phase.begin, None, step)"),
    Fault("a phase begins one input late", lowering, "divmod(first + low, stride)", "divmod(first + low + 1, stride)"),
    Fault("taps are not flipped", lowering, "slice(last, tap - 1 if tap else None, -every)", "slice(tap, last + 1, every)"),
    Fault("a phase's padding is one too far", lowering, "(read.start - begin, end - read.stop)",
          "(read.start - begin + 1, end - read.stop - 1)"),
    Fault("channels are not swapped", lowering, "return np.swapaxes(taps, 0, 1)",
          "return taps.reshape(p.in_channels, p.out_channels, *taps.shape[2:])"),
    Fault("channels of groups are not swapped", lowering, "np.swapaxes(grouped, 1, 2).reshape(p.in_channels",
          "grouped.reshape(p.in_channels"),
    Fault("what stride and dilation share is forgotten", lowering, "common = math.gcd(stride, dilation)", "common = 1"),
    Fault("a phase has the whole dilation", lowering, "stride // common, dilation // common", "stride // common, dilation"),
    Fault("the first tap of a phase reads where the phase begins", lowering,
          "start - (tap * dilation - phase) // stride", "start"),
    Fault("a phase without taps is left as it was", lowering, "_finish(self.problem, weight, bias, result, added)", "continue"),
    Fault("a phase without taps has no bias", lowering, "_finish(self.problem, weight, bias,",
          "_finish(self.problem, weight, None,"),
    Fault("the residual is lost", lowering, "None if residual is None else part.result(residual)", "None"),
    Fault("the border replaces what it repeats", lowering,
          "folded[source[at]] += padded[at]", "folded[source[at]] = padded[at]"),
    Fault("the border is added to its neighbour", lowering, "folded[source[at]] +=", "folded[(source[at] + 1) % size] +="),
    Fault("the first element of the far border is lost", lowering, "range(low + reached, len(source))",
          "range(low + reached + 1, len(source))"),
]
OF_WEIGHT = [
    Fault("the dilation is no stride", lowering, "stride=p.dilation, dilation=p.stride",
          "stride=(1,) * p.ndim, dilation=p.stride"),
    Fault("images and groups change places", lowering,
          "np.moveaxis(grouped, 2, 0).swapaxes(1, 2)", "np.moveaxis(grouped, 2, 0)"),
    Fault("groups of gradients change places", lowering, "np.swapaxes(grouped.reshape(shape), 0, 1)",
          "np.swapaxes(grouped.reshape(shape), 0, 1)[::-1]"),
    Fault("input that nobody reads is read", lowering, "slice(size + min(0, high))", "slice(size)"),
    Fault("padding that repeats what nobody reads", lowering,
          'p.padding_mode != "zeros" and any(high < 0', "False and any(high < 0"),
    Fault("rows are not separated by zeros", weight_gradient, "made = np.zeros((*swapped", "made = np.ones((*swapped"),
    Fault("the last images are dropped", weight_gradient, "in itertools.product(range(0, p.batch, at_once), range",
          "in itertools.product(range(0, p.batch + 1 - at_once, at_once), range"),
    Fault("images replace those before", weight_gradient, "result if more else None", "None"),
    Fault("the last pixel is lost", weight_gradient, "for along in taps) + last + 1", "for along in taps) + last"),
    Fault("a phase's taps begin without the dilation", weight_gradient, "first * dilation, apart", "first, apart"),
    Fault("a phase's taps lie side by side", weight_gradient, "along.apart * pitch", "pitch"),
    Fault("all groups read the first one's gradient", weight_gradient, "g * outputs:(g + 1) * outputs]\n            weights",
          ":outputs]\n            weights"),
]
AT_ONCE = [
    Fault("no phase has an offset", phases_at_once, "begins.get(phase.begin, first) - first for", "0 for"),
    Fault("phases begin where the last one does", phases_at_once, "min(begins.values())", "max(begins.values())"),
    Fault("zeros in front of the shorter phases", phases_at_once,
          "*(slice(phase.number) for", "*(slice(-phase.number, None) for"),
    Fault("the bias goes from channel to channel", phases_at_once, "number, axis=1)", "number, axis=2)"),
    Fault("the phases are in another order", phases_at_once, "enumerate(itertools.product(*self.phases))",
          "enumerate(itertools.product(*self.phases[::-1]))"),
    Fault("all groups have the first one's weights", phases_at_once, "to[...] = taps", "to[...] = taps[:1]"),
    Fault("the padding in front is lost", phases_at_once, "(read.start - first, end", "(0, end"),
]


@pytest.fixture(scope="module", autouse=True)
def right() -> None:
    """What is right is known before anything is wrong."""
    for p in other_directions():
        trials(p)


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Says whether phases at once pay."""
    def pays(answer: bool) -> None:
        monkeypatch.setattr(lowering_costs, "joining_pays", lambda *_: answer)
        forget()

    yield pays
    forget()


def wrong(problems: Iterable[ConvProblem]) -> Failure | None:
    """What `check` says of the first problem that it finds wrong."""
    with fastconv.config(isa=cython_native.runnable_isas()[-1] if NATIVE else None):  # one is enough
        for backend, p in itertools.product(BACKENDS, problems):
            report = fastconv.check([p], backends=[backend])
            if report.failures:
                return report.failures[0]
    return None


@pytest.mark.parametrize("fault", [*OF_INPUT, *OF_WEIGHT, *AT_ONCE], ids=lambda fault: fault.name)
def test_a_fault_is_found(fault):
    if not (NATIVE or fault in OF_INPUT):
        pytest.skip("needs the native kernels")
    direction = "backward_weight" if fault in OF_WEIGHT else "backward_input"
    with planted(fault):
        found = wrong([p for p in other_directions() if p.direction == direction])
    assert found
    print(found)
    assert fastconv.check([found.problem], backends=[found.backend]).ok


@pytest.mark.skipif(not NATIVE, reason="needs the native kernels")
@pytest.mark.parametrize("pays", [True, False])
def test_what_costs_say_changes_no_result(pays, joining):
    joining(pays)
    problems = [p for p in other_directions() if p.direction == "backward_input" and max(p.stride) > 1]
    with fastconv.config(isa=cython_native.runnable_isas()[-1]):
        report = fastconv.check(problems, backends=["cython"])
        ways = {type(candidates.bind(p, "cython", each.candidate)) for p in problems
                for each in candidates.ranked(p, "cython")[0]}
    assert report.ok, str(report)
    assert (phases_at_once.JoinedKernel in ways) == pays


def weights_that_are_not_finite() -> None:
    test_directions.test_weights_that_are_not_finite("stride", "im2col")


def input_that_is_not_finite() -> None:
    test_directions.test_what_is_not_finite_in_the_input_stays_inside("winograd", "im2col")


def images_that_are_not_finite() -> None:
    import test_phases_at_once  # skips where there are no native kernels

    test_phases_at_once.test_what_is_not_finite_stays_where_its_phase_reads_it(np.nan)


def images_in_several_passes() -> None:
    import test_phases_at_once

    with pytest.MonkeyPatch.context() as patch:
        test_phases_at_once.test_same_bits_in_any_batch_for_any_threads_and_into_any_strides(patch)


BEYOND = [  # and the test that finds it
    (Fault("zeros meet weights that are not finite", lowering, "not np.isfinite(second).all()", "False"),
     weights_that_are_not_finite),
    (Fault("a tap's outputs begin one late", lowering, "max(0, -(place // stride))", "max(0, 1 - place // stride)"),
     weights_that_are_not_finite),
    (Fault("zeros between rows meet input that is not finite", weight_gradient, "not np.isfinite(out).all()", "False"),
     input_that_is_not_finite),
    (Fault("images that are not finite stay as they are", phases_at_once, "if spoiled:", "if False:"),
     images_that_are_not_finite),
    (Fault("images beyond those of one pass are lost", phases_at_once, "range(0, self.problem.batch, self._images)", "(0,)"),
     images_in_several_passes),
]


@pytest.mark.parametrize(("fault", "test"), BEYOND, ids=[fault.name for fault, _ in BEYOND])
def test_a_fault_beyond_the_matrix_is_found(fault, test, joining):
    joining(True)
    test()
    with planted(fault), pytest.raises(AssertionError):
        test()
