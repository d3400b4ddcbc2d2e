"""The command line: info, check, explain, bench.

Wrong input ends with one line and exit code 2; wrong results with 1; Ctrl-C with 130.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__, settings
from .errors import Unavailable, Unsupported

if TYPE_CHECKING:
    from .bench.results import Results
    from .problem import ConvProblem

_CHART_SUFFIXES = (".png", ".svg", ".pdf")
_RESULTS = Path("fastconv-results")
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.command(parsed)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `fastconv info | head`: nobody reads on, and that is fine
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, Unsupported, Unavailable) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _failed(message: str) -> int:
    print("fastconv:", message, file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastconv", description="Convolution for NumPy arrays, as fast as the machine allows.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        # no abbreviations: a problem text may start with knobs such as --dt=f64
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    info = add("info", _info, "what this machine is, and which backends run on it")
    info.add_argument("--json", action="store_true", help="as JSON")
    check = add("check", _check, "compare every available backend with the float64 oracle")
    check.add_argument("--backend", metavar="A,B", type=_names, help="only these")
    check.add_argument("--quick", action="store_true", help="a part of the problems")
    explain = add("explain", _explain, "who would compute a problem, and why not the others")
    explain.add_argument("problem", metavar="PROBLEM", help='such as mb1_ic64ih56_oc64oh56_kh3ph1, or "--dt=f64 mb1_..."')
    explain.add_argument("--backend", default="auto", help="only this one")
    explain.add_argument("--algorithm", help="only this one")
    _add_bench(add("bench", _bench, "time the backends against each other, in turns, after checking their results"))
    return parser


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("what", nargs="*", metavar="SUITE|FILE|PROBLEM",
                       help="a suite (quick, the default; resnet50; layers), a file of problems, or a problem")
    bench.add_argument("--backend", metavar="A,B", type=_names, help="only these; cython:gemm names an algorithm as well")
    bench.add_argument("--threads", type=int, metavar="N",
                       help="threads per call (default: FASTCONV_NUM_THREADS, or all physical cores)")
    bench.add_argument("--seconds", type=float, default=3.0, metavar="S", help="timing per problem (default: 3)")
    bench.add_argument("--all", action="store_true", help="run also what takes longer than that in one call, instead of "
                       "showing an estimate")
    bench.add_argument("--json", type=Path, metavar="FILE", help=f"the record (default: {_RESULTS}/<date>.json)")
    bench.add_argument("--chart", type=Path, metavar="FILE", help="the chart (default: beside the record, .png)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _info(arguments: argparse.Namespace) -> int:
    from .bench import machine

    facts = machine.describe()
    print(json.dumps(facts, indent=1) if arguments.json else machine.as_text(facts))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from .checks import check

    report = check(backends=arguments.backend, quick=arguments.quick)
    print(report)
    return 0 if report.ok else 1


def _explain(arguments: argparse.Namespace) -> int:
    from .ops import explain

    print(explain(arguments.problem, backend=arguments.backend, algorithm=arguments.algorithm))
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from .bench import contenders, machine, record, runner, suites

    problems = suites.load(arguments.what or [suites.DEFAULT])
    chosen = contenders.chosen(arguments.backend)
    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be positive, got {arguments.seconds:g}")
    threads = settings.get_num_threads() if arguments.threads is None else arguments.threads
    options = runner.Options(threads, arguments.seconds, arguments.all)
    try:
        from .bench import table
    except ImportError:
        raise Unavailable("fastconv bench needs rich: pip install 'fastconv[bench]'") from None
    record_path, chart_path = _outputs(arguments)
    facts = machine.describe()
    with settings.config(num_threads=threads), _progress(len(problems)) as progress:
        results = runner.run(problems, chosen, options, progress)
    if results.problems:
        record.write(record_path, results, facts)
        table.show(results, table.console())
        print(f"record: {record_path}")
        _draw(chart_path, results, facts)
    if results.interrupted:
        print(f"interrupted after {len(results.problems)} of {len(problems)} problems", file=sys.stderr)
        return _INTERRUPTED
    return 1 if any(not out.reason.startswith("refuses") for out in results.left_out) else 0


def _outputs(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Where record and chart go. Fails now, not after minutes of measuring, if they cannot be written there."""
    record = arguments.json or _RESULTS / f"{datetime.now():%Y-%m-%d-%H%M%S}.json"
    chart = arguments.chart or record.with_suffix(".png")
    if chart.suffix not in _CHART_SUFFIXES:
        raise ValueError(f"--chart must end in {', '.join(_CHART_SUFFIXES)}, got {chart}")
    for path in (record, chart):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError(f"cannot write {path}")
    return record, chart


def _draw(path: Path, results: Results, facts: dict[str, object]) -> None:
    from .bench import chart

    if not results.rows:
        return
    try:
        chart.write(path, results, facts)
    except ImportError:
        print("no chart: matplotlib is not installed (pip install 'fastconv[bench]')")
    else:
        print(f"chart:  {path}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[ConvProblem], None]]:
    """A bar with the time left, on a terminal's stderr; what is yielded is called before each problem."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        done = -1

        def step(problem: ConvProblem) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=problem.name or problem.text)

        yield step
