"""Options of the pytest-benchmark suite (`test_suites.py`), who takes part, and what its records say of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastconv import settings
from fastconv.bench import contenders, machine, record, suites
from fastconv.bench.admission import Limits
from fastconv.bench.local import Local
from fastconv.errors import Unavailable

LIMITS = Limits(call=0.5, estimate=0.5)  # seconds of a call: pytest-benchmark makes five of the slowest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastconv")
    group.addoption("--suite", action="append", metavar="SUITE|FILE|PROBLEM",
                    help=f"what to run; may be repeated (default: {suites.DEFAULT}; others: {', '.join(suites.names())})")
    group.addoption("--fastconv-backend", metavar="A,B", help="only these, such as cython,numba (default: all that run here)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each problem with each contender; those of one problem follow each other."""
    suite, backends = (metafunc.config.getoption(name) for name in ("--suite", "--fastconv-backend"))
    try:
        problems = suites.load(suite or [suites.DEFAULT])
        chosen = contenders.chosen(backends.split(",") if backends else None)
    except (ValueError, OSError, Unavailable) as error:
        raise pytest.Collector.CollectError(str(error)) from None
    metafunc.parametrize("problem", problems, ids=[problem.name or problem.text for problem in problems])
    # one for all problems: it learns how fast its contender is, and so when a call needs no estimate
    metafunc.parametrize("local", [Local(contender, LIMITS) for contender in chosen], ids=lambda local: local.name)


@pytest.fixture(scope="session")
def threads() -> Iterator[int]:
    """Threads per call, those of NumPy's BLAS as well."""
    from threadpoolctl import threadpool_limits

    number = settings.get_num_threads()
    with threadpool_limits(number, user_api="blas"):
        yield number


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """As in the records of `fastconv bench`: the hardware, not the host's name."""
    machine_info.clear()
    machine_info.update(record._machine_info(machine.describe()))
