"""The command line: info, check, explain, tune, bench, compare.

Wrong input ends with one line and exit code 2, as does what cannot be written; wrong results with 1; Ctrl-C with 130; a reader
that leaves with 141.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .. import __version__, settings, streams, terminal
from ..errors import Unavailable, Unsupported, clipped, printable, shown
from ..reasons import Refused

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from ..bench.results import Results
    from ..bench.runner import Work

_DAY = 86400
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_NOT_WRITTEN = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    streams.prepare()
    try:
        try:
            parsed = _parser().parse_args(arguments)
            return parsed.command(parsed) or 0
        finally:
            streams.finish()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `fastconv info | head`: nobody reads on, and that is fine
        return streams.READER_LEFT
    except (ValueError, Unsupported, Unavailable) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    finally:
        streams.abandon()


def _failed(message: str) -> int:
    with suppress(OSError):  # nobody reads that either
        print("fastconv:", clipped(printable(" ".join(message.split())), 480), file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """Whose errors are like all others."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        print(self.format_help(), end="", file=file)  # argparse's own ignores that nobody reads


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastconv", description="Convolution for NumPy arrays, as fast as the machine allows.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    parser.set_defaults(command=lambda arguments: print(parser.format_help(), end=""))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

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
    _add_tune(add("tune", _tune, "measure who is the fastest for problems on this machine, and remember it (wisdom)"))
    _add_bench(add("bench", _bench, "time the backends against each other, in turns, after checking their results"))
    _add_compare(add("compare", _compare, "what records say: backends on one machine, machines, regressions"))
    _add_demo(add("demo", _demo, "what a convolutional network does and sees, as pictures"))
    return parser


def _add_tune(tune: argparse.ArgumentParser) -> None:
    tune.add_argument("what", nargs="*", metavar="SUITE|FILE|PROBLEM", help="what to tune, as fastconv bench takes it")
    tune.add_argument("--accuracy", metavar="A", help="strict, fast or loose (default: as the problems say)")
    tune.add_argument("--per-call", action="store_true", help="only for calls that pack the weights themselves")
    tune.add_argument("--prepared", action="store_true", help="only for weights packed beforehand (default: both)")
    tune.add_argument("--seconds", type=_seconds, default=1.0, metavar="S", help="of taking turns per problem (default: 1)")
    tune.add_argument("--verbose", action="store_true", help="tell of each candidate that was dropped early, and why")
    tune.add_argument("--wisdom", type=Path, metavar="FILE",
                      help="where it is kept (default: FASTCONV_WISDOM, or wisdom.json in the cache folder)")
    tune.add_argument("--export", type=Path, metavar="FILE", help="write this machine's wisdom for others with the same CPU")
    tune.add_argument("--import", dest="import_", type=Path, metavar="FILE", help="merge such a file")
    tune.add_argument("--clear", action="store_true", help="forget this machine's wisdom")
    tune.add_argument("--machine", action="store_true", help="measure and write down what estimates assume of a machine")
    tune.add_argument("--list", action="store_true", help="print this machine's wisdom")


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("what", metavar="edges|digits|maps|slide", choices=("edges", "digits", "maps", "slide"),
                      help="four filters over a photograph; a LeNet that learns to read; what its layers see; a filter at work")
    demo.add_argument("--output", type=Path, default=Path("fastconv-demo"), metavar="FOLDER",
                      help="where the pictures go (default: fastconv-demo)")
    demo.add_argument("--data", type=Path, metavar="FILE.npz",
                      help="other digits, such as MNIST: images and targets, or x_train, y_train, x_test and y_test")
    demo.add_argument("--epochs", type=_positive, default=60, metavar="N", help="passes over the digits (default: 60)")
    demo.add_argument("--seed", type=int, default=0, metavar="S", help="of the training (default: 0)")


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("what", nargs="*", metavar="SUITE|FILE|PROBLEM",
                       help="suites (quick, the default; all; networks such as resnet50), files of problems, problems")
    bench.add_argument("--generate", type=int, metavar="N", help="N random, realistic layers instead of, or after, these")
    bench.add_argument("--seed", type=int, default=0, metavar="S", help="of --generate (default: 0)")
    bench.add_argument("--backend", metavar="A,B", type=_names, help="only these; cython:gemm names an algorithm as well, "
                       "cython/prepared packs weights beforehand; peers can be named, too")
    bench.add_argument("--peers", action="store_true", help="against every other library that is installed")
    bench.add_argument("--threads", type=int, metavar="N",
                       help="threads per call (default: FASTCONV_NUM_THREADS, or all physical cores)")
    bench.add_argument("--seconds", type=_seconds, default=1.5, metavar="S", help="timing per problem, up to five times as "
                       "much where figures are noisy (default: 1.5)")
    bench.add_argument("--timeout", type=_seconds, default=120.0, metavar="S",
                       help="end a contender that gives no answer for so long (default: 120; ignored with --all)")
    bench.add_argument("--all", action="store_true", help="run also what takes longer than --seconds in one call, instead of "
                       "showing an estimate")
    bench.add_argument("--json", metavar="FILE",
                       help="the record (default: fastconv-results/<date>.json); - is stdout, the table goes to stderr then")
    bench.add_argument("--chart", type=Path, metavar="FILE", help="the chart (default: beside the record, .png)")


def _add_compare(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="records that fastconv bench wrote")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write a report: one page that opens offline, with pictures "
                         "beside it")
    compare.add_argument("--fail-on-regression", action="store_true",
                         help="end with 1 where a later record of a machine is slower than an earlier one")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seconds(text: str) -> float:
    """A duration that ends."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _DAY:
        raise argparse.ArgumentTypeError(f"must be positive, and at most a day ({_DAY} s), got {shown(text)}")
    return seconds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {shown(text)}")
    return int(text)


def _info(arguments: argparse.Namespace) -> int:
    from ..bench import machine

    facts = machine.describe()
    print(json.dumps(facts, indent=1) if arguments.json else machine.as_text(facts))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from ..verify.check import check

    report = check(backends=arguments.backend, quick=arguments.quick)
    print(report)
    return 0 if report.ok else 1


def _explain(arguments: argparse.Namespace) -> int:
    from ..ops import explain

    print(explain(arguments.problem, backend=arguments.backend, algorithm=arguments.algorithm))
    return 0


def _tune(arguments: argparse.Namespace) -> int:
    from . import tune

    return tune.main(arguments)


def _bench(arguments: argparse.Namespace) -> int:
    from ..bench import contenders, machine, runner
    from ..bench.output import Output

    work = _work(arguments)
    chosen = contenders.chosen(arguments.backend, arguments.peers)
    threads = settings.get_num_threads() if arguments.threads is None else arguments.threads
    options = runner.Options(threads, arguments.seconds, arguments.all, arguments.timeout)
    try:
        from ..bench import table
    except ImportError:
        raise Unavailable("fastconv bench needs rich: pip install 'fastconv[bench]'") from None
    output = Output(arguments.json, arguments.chart, machine.describe())
    with settings.config(num_threads=threads), terminal.progress() as progress:
        def step(results: Results, text: str) -> None:
            progress(results.share, text)
            output.keep(results)

        results = runner.run(work, chosen, options, step)
    if results.problems:
        written = output.write(results)
        table.show(results, table.console(output.text))
        print(*map(printable, written.splitlines()), sep="\n", file=output.text)
    if results.interrupted:
        measured = f"{len(results.problems)} of {len(work.problems)}"
        print(f"interrupted; {measured} problems have figures", file=sys.stderr)
        return _INTERRUPTED
    if output.failed:
        return _NOT_WRITTEN
    if not results.rows:
        print("fastconv: nobody has a figure for any of the problems", file=sys.stderr)
        return 1
    return 1 if any(not isinstance(out.reason, Refused) for out in results.left_out) else 0


def _work(arguments: argparse.Namespace) -> Work:
    from ..bench import generate, suites
    from ..bench.runner import Work

    asked = arguments.what or ([suites.DEFAULT] if arguments.generate is None else [])
    problems = suites.load(asked)
    generated = []
    if arguments.generate is not None:
        problems += generate.generate(arguments.generate, arguments.seed)
        generated = [f"generated {arguments.generate}, seed {arguments.seed}"]
    networks = {suites.title(source): layers for source, layers in suites.networks(asked).items()}
    return Work(problems, (*map(suites.title, asked), *generated), networks)


def _compare(arguments: argparse.Namespace) -> int:
    try:
        from ..bench import report
    except ImportError:
        raise Unavailable("fastconv compare needs rich and matplotlib: pip install 'fastconv[bench]'") from None
    return report.main(arguments.records, arguments.html, arguments.fail_on_regression)


def _demo(arguments: argparse.Namespace) -> int:
    from .. import demo

    demo.DEMOS[arguments.what](demo.Options(arguments.output, arguments.data, arguments.epochs, arguments.seed))
    return 0
