"""The table of machines: a row for every microarchitecture that has a word, sane figures, the same ones every time."""

from __future__ import annotations

import math

import pytest

from fastconv import hardware, machine
from fastconv.machine import CORES, ISAS, UNKNOWN, of_core

WORDS = {word for models in hardware._X86.values() for word in models} | set(hardware._ARM.values())


def test_every_word_has_a_row():
    assert set(CORES) == WORDS


@pytest.mark.parametrize("name", [*CORES, "unknown"])
def test_figures_are_sane(name):
    core = CORES.get(name, UNKNOWN)
    found = of_core(core)
    assert list(found.multiply_adds) == list(ISAS)
    for isa, starts in zip(ISAS, core.starts, strict=True):
        assert (1e9 if starts else 3e8) < found.multiply_adds[isa] < 12e9
    sizes, speeds = [level.size for level in found.levels], [level.speed for level in found.levels]
    assert sizes == sorted(sizes) and sizes[-1] == math.inf
    assert speeds[0] >= speeds[-1] and 5e9 < min(speeds) and max(speeds) < 100e9


def test_levels_are_those_of_the_cache():
    small, large = of_core(CORES["zen4"], 8 << 20), of_core(CORES["zen4"], 512 << 20)
    assert small.level(5e6).name == "L3" and small.level(7e6).name == "memory"
    assert large == of_core(CORES["zen4"]) and large.level(20e6).name == "L3" and large.level(30e6).name == "memory"


@pytest.mark.parametrize("told, size", [("32768K", 32 << 20), ("8M", 8 << 20), ("1G", 1 << 30), ("512", 512), ("0K", None),
                                        ("large", None), ("-1K", None)])
def test_sizes_of_caches(monkeypatch, told, size):
    monkeypatch.setattr(hardware, "caches", lambda: {"L3": told})
    assert hardware.cache_bytes("L3") == size and hardware.cache_bytes("L2") is None


def test_an_unknown_machine_has_a_row(monkeypatch):
    monkeypatch.setattr(hardware, "microarchitecture", lambda: None)
    monkeypatch.setattr(hardware, "caches", dict)
    machine.typical.cache_clear()
    try:
        assert machine.this() == of_core(UNKNOWN)
    finally:
        machine.typical.cache_clear()
