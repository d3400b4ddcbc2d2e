"""Shared by all tests: which backends to go through, a hypothesis profile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
from helpers import Guarded

from fastconv import backends as registered
from fastconv import settings
from fastconv.backends import registry

hypothesis.settings.register_profile("fastconv", max_examples=40, deadline=None, print_blob=True,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("fastconv")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backends", default="", help="comma-separated backends to test (default: all available)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error::RuntimeWarning")  # NaN in the data is no reason to warn
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs, which Ctrl-C must not reach
        signal.signal(signal.SIGINT, signal.default_int_handler)


def backends_under_test(config: pytest.Config) -> list[str]:
    """Names of the CPU backends that can run here (or of those among them that --backends names)."""
    wanted = [name for name in config.getoption("--backends").split(",") if name]
    return [name for name, reason in registered().items()
            if reason is None and registry()[name].device == "cpu" and (not wanted or name in wanted)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `backend` runs once for each of them."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", backends_under_test(metafunc.config))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def toy_registry() -> Iterator[Any]:
    """Lets a test register backends of its own; afterwards they are gone."""
    before = dict(registry())
    yield registry
    found = registry()
    found.clear()
    found.update(before)
    settings.update()


@pytest.fixture(params=["end", "start"])
def guarded(request: pytest.FixtureRequest) -> Guarded:
    return Guarded(request.param)
