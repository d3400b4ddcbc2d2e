"""Why somebody has no figure: as objects, as the text of records, and back."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from fastconv import Unavailable, Unsupported, reasons
from fastconv.bench.admission import Admission
from fastconv.reasons import Absent, Failed, Reason, Refused, TimedOut, Wrong

WRITTEN = {
    "refuses: dilation": Refused("dilation"),
    "unavailable: no numba: pip install numba": Absent("no numba: pip install numba"),
    "failed: MemoryError: no room": Failed.by(MemoryError("no room")),
    "timed out: no answer within 2 s": TimedOut("no answer within 2 s"),
    "wrong result: 3 of 4 values are NaN": Wrong("3 of 4 values are NaN"),
    "took 4.0 times the best run": Reason("took 4.0 times the best run"),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_was_written_is_read(text):
    assert str(WRITTEN[text]) == text
    read = reasons.read(text)
    assert read == WRITTEN[text] and type(read) is type(WRITTEN[text])


@pytest.mark.parametrize("text", ["", "refuses", "refuses:", "a reason: of another version", "Failed: to shout", ": x"])
def test_whatever_else_was_written_is_a_reason_too(text):
    assert reasons.read(text) == Reason(text) and type(reasons.read(text)) is Reason and str(reasons.read(text)) == text


def test_kinds_are_not_equal():
    assert len({kind("x") for kind in (Reason, Refused, Absent, Failed, TimedOut, Wrong)}) == 6


def test_an_admission_crosses_to_another_process():
    for reason in (None, Refused("dilation"), Reason("slow")):
        admission = Admission(reason, "gemm", "avx2", seconds=0.5)
        crossed = Admission.of(json.loads(json.dumps(admission.message())))
        assert crossed == admission and type(crossed.reason) is type(reason)
        assert set(admission.message()) == {each.name for each in dataclasses.fields(Admission)}


@pytest.mark.parametrize("kind", [Unsupported, Unavailable])
def test_errors_have_their_reason(kind):
    alone, within = kind("no such kernel"), kind("backend 'x' does not compute y: no such kernel", "no such kernel")
    assert alone.why == within.why == "no such kernel" and str(within).startswith("backend 'x'")
    assert pickle.loads(pickle.dumps(within)).why == "no such kernel"
