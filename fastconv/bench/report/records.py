"""Reading the records of `fastconv bench` (see `record.py`): what a file says, checked, as small frozen objects."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import files, reasons
from ...errors import printable
from ...problem import ConvProblem
from ..record import FORMAT
from ..results import LeftOut


@dataclass(frozen=True)
class Measurement:
    """One contender on one problem.

    Attributes:
        data: seconds per call, one per round, in the order of the rounds; element i of all that took turns is round i.
        placement: which memory placement each round belonged to, or None.
        import_seconds, prepare_seconds, first_seconds: one-time costs, where they are known.
        peak_bytes: resident memory above what was there before the contender was bound.
        of_peak: the share of the peak measured in the same rounds.
    """

    problem: ConvProblem
    contender: str
    kind: str  # "backend" | "peer"
    library: str
    algorithm: str
    isa: str | None
    prepared: bool
    flops: int
    bytes: int
    data: tuple[float, ...]
    placement: tuple[int, ...] | None = None
    estimate: bool = False
    noisy: bool = False
    with_copies: bool = False
    of_peak: float | None = None
    import_seconds: float | None = None
    prepare_seconds: float | None = None
    first_seconds: float | None = None
    peak_bytes: float | None = None

    @cached_property
    def seconds(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.data)

    @property
    def gflops(self) -> float:
        return self.flops / self.seconds / 1e9

    @property
    def paired(self) -> bool:
        """Whether it took turns with the others: only then do its rounds compare with theirs."""
        return not self.estimate and len(self.data) > 1


@dataclass(frozen=True)
class Peak:
    """What the machine could do beside one problem: per second, the median and every round."""

    flops: float
    bandwidth: float
    flops_method: str = ""
    bandwidth_method: str = ""
    flops_data: tuple[float, ...] = ()


@dataclass(frozen=True)
class Record:
    """One run. `label` names machine and threads; among the records of one report it is unique."""

    file: str  # the file's name, without folders
    label: str
    when: datetime
    version: str
    commit: str
    facts: dict[str, Any]  # what `fastconv info` says
    threads: int
    suites: tuple[str, ...]
    networks: dict[str, tuple[tuple[ConvProblem, int], ...]]  # layers and how often they occur, of each suite that is one
    asked: int
    interrupted: bool
    measurements: tuple[Measurement, ...]
    peaks: dict[ConvProblem, Peak]
    left_out: tuple[LeftOut, ...]

    @property
    def fingerprint(self) -> str:
        """The same for the same hardware."""
        return str(self.facts["fingerprint"])

    @property
    def isa(self) -> str | None:
        """The ISA that was forced, if any."""
        return self.facts.get("isa_forced")

    @property
    def machine(self) -> tuple[str, int, str | None]:
        """Runs with the same value may be expected to give the same figures."""
        return self.fingerprint, self.threads, self.isa

    @cached_property
    def problems(self) -> tuple[ConvProblem, ...]:
        found = dict.fromkeys(m.problem for m in self.measurements)
        return tuple(found | dict.fromkeys(out.problem for out in self.left_out))

    @cached_property
    def contenders(self) -> tuple[str, ...]:
        """Everyone who got a number, in order of appearance."""
        return tuple(dict.fromkeys(m.contender for m in self.measurements))

    @cached_property
    def _table(self) -> dict[tuple[ConvProblem, str], Measurement]:
        return {(m.problem, m.contender): m for m in self.measurements}

    def get(self, problem: ConvProblem, contender: str) -> Measurement | None:
        return self._table.get((problem, contender))

    def of(self, problem: ConvProblem, estimates: bool = False) -> list[Measurement]:
        """The measurements of one problem; estimates only if asked for."""
        found = (self.get(problem, name) for name in self.contenders)
        return [m for m in found if m is not None and (estimates or not m.estimate)]


def title(problem: ConvProblem) -> str:
    return problem.name or problem.text


def read_all(paths: Iterable[Path]) -> list[Record]:
    """The records in these files, oldest first, with labels made unique.

    Raises:
        ValueError: a file is not a complete record of this format; the message names the file and what is wrong.
        OSError: it cannot be read.
    """
    return _labelled(sorted((read(Path(path)) for path in paths), key=lambda record: record.when))


def read(path: Path) -> Record:
    """One record; see `read_all`."""
    try:
        data = _printable(json.loads(files.read(path).decode()))
    except RecursionError:
        raise ValueError(f"{path} is not a record: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a complete JSON record (line {error.lineno}, column {error.colno})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a JSON record: it is not text") from None
    if not isinstance(data, dict) or not {"benchmarks", "machine_info"} <= data.keys():
        raise ValueError(f"{path} is JSON, but not a record of `fastconv bench`")
    if "fastconv" not in str(data.get("version", "")) or "fastconv" not in _Fields(data, str(path)).dict("machine_info"):
        raise ValueError(f"{path} is a record of another program, not of `fastconv bench`")
    if data.get("format") != FORMAT:
        raise ValueError(f"{path} is a record of format {data.get('format', 1)}; this fastconv reads {FORMAT}: "
                         "run `fastconv bench` again")
    return parse(data, path)


def _printable(data: Any) -> Any:
    """Whatever a record's texts contain, none of it steers a terminal or spoils a page."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, list):
        return [_printable(value) for value in data]
    if isinstance(data, dict):
        return {printable(key): _printable(value) for key, value in data.items()}
    return data


class _Fields:
    """Typed access to a JSON object; a wrong or missing entry is a ValueError that says where."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise ValueError(f"{where} must be an object, got {data!r:.60}")
        self.data, self.where = data, where

    def _typed(self, key: str, types: tuple[type, ...], what: str) -> Any:
        value = self.data.get(key)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            got = f"got {value!r:.60}" if key in self.data else "it is missing"
            raise ValueError(f"{self.where}: {key} must be {what}, {got}")
        return value

    def dict(self, key: str) -> dict[str, Any]:
        return self._typed(key, (dict,), "an object")

    def list(self, key: str) -> list[Any]:
        return self._typed(key, (list,), "a list")

    def text(self, key: str) -> str:
        return self._typed(key, (str,), "a text")

    def integer(self, key: str) -> int:
        return self._typed(key, (int,), "an integer")

    def flag(self, key: str) -> bool:
        return self._typed(key, (bool,), "true or false")

    def positive(self, key: str) -> float:
        return self._positives([self.data.get(key)], key)[0]

    def positives(self, key: str) -> tuple[float, ...]:
        return self._positives(self.list(key), key)

    def amount(self, key: str) -> float | None:
        """A number that is not negative, or null."""
        value = self._typed(key, (int, float, type(None)), "a number or null") if key in self.data else None
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{self.where}: {key} must not be negative, got {value!r}")
        return value

    def problem(self) -> ConvProblem:
        try:
            return ConvProblem.from_text(self.text("problem"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.where}: {error}") from None

    def _positives(self, values: Sequence[Any], key: str) -> tuple[float, ...]:
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self.where}: {key} must be positive, got {value!r:.60}")
        return tuple(map(float, values))


def parse(data: dict[str, Any], path: Path) -> Record:
    """The record in JSON's data; `path` is for messages, and its name the record's.

    Raises:
        ValueError: something is missing or wrong.
    """
    top = _Fields(data, str(path))
    facts = _Fields(top.dict("machine_info")["fastconv"], f"{path}: machine_info.fastconv")
    facts.text("fingerprint")
    known = facts.text("microarchitecture") if facts.data.get("microarchitecture") else ""  # records of before have none
    label = _label(facts.text("cpu"), known, top.integer("threads"))
    parsed = [_measurement(entry, f"{path}: benchmark {i + 1}") for i, entry in enumerate(top.list("benchmarks"))]
    first = {(m.problem, m.contender): m for m in reversed(parsed)}  # two suites may hold one problem: the first counts
    return Record(
        printable(path.name), label, _when(top),
        top.text("version"), str(top.data.get("commit_info", {}).get("id") or ""), facts.data,
        top.integer("threads"), tuple(map(str, top.list("suites"))), _networks(top), top.integer("asked"),
        top.flag("interrupted"),
        tuple(m for m in parsed if first[m.problem, m.contender] is m),
        dict(_peak(entry, f"{path}: peak {i + 1}") for i, entry in enumerate(top.list("peaks"))),
        tuple(_left_out(entry, f"{path}: left_out {i + 1}") for i, entry in enumerate(top.list("left_out"))))


def _networks(top: _Fields) -> dict[str, tuple[tuple[ConvProblem, int], ...]]:
    networks = _Fields(top.dict("networks"), f"{top.where}: networks")
    found = {}
    for name in networks.data:
        layers = [_Fields({"problem": text, "count": count}, networks.where) for text, count in networks.list(name)]
        found[name] = tuple((layer.problem(), layer.integer("count")) for layer in layers)
    return found


def _when(top: _Fields) -> datetime:
    try:
        found = datetime.fromisoformat(top.text("datetime"))
    except ValueError as error:
        raise ValueError(f"{top.where}: datetime: {error}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _measurement(entry: Any, where: str) -> Measurement:
    fields = _Fields(entry, where)
    extra, stats = _Fields(fields.dict("extra_info"), where), _Fields(fields.dict("stats"), where)
    data = stats.positives("data")
    if not data:
        raise ValueError(f"{where}: data is empty")
    placement = extra.list("placement") if extra.data.get("placement") else None  # [] of what took no turns
    if placement is not None and len(placement) != len(data):
        raise ValueError(f"{where}: placement has {len(placement)} entries for {len(data)} rounds")
    return Measurement(
        extra.problem(), extra.text("contender"), extra.text("kind"),
        extra.text("library") if extra.data.get("library") else extra.text("contender"), extra.text("algorithm"),
        extra.data.get("isa"), extra.flag("prepared"), extra.integer("flops"), extra.integer("bytes"), data,
        None if placement is None else tuple(placement), extra.flag("estimate"), extra.flag("noisy"),
        extra.flag("with_copies"), extra.amount("of_peak"), extra.amount("import_seconds"),
        extra.amount("prepare_seconds"), extra.amount("first_seconds"), extra.amount("peak_bytes"))


def _peak(entry: Any, where: str) -> tuple[ConvProblem, Peak]:
    fields = _Fields(entry, where)
    data = fields.positives("flops_data") if "flops_data" in fields.data else ()
    return fields.problem(), Peak(fields.positive("flops"), fields.positive("bandwidth"), fields.text("flops_method"),
                                  fields.text("bandwidth_method"), data)


def _left_out(entry: Any, where: str) -> LeftOut:
    fields = _Fields(entry, where)
    return LeftOut(fields.problem(), fields.text("contender"), reasons.read(fields.text("reason")))


def _label(cpu: str, microarchitecture: str, threads: int) -> str:
    """The CPU's name without legal decoration, its microarchitecture, which the name may leave open, and the threads."""
    cpu = re.sub(r"\((?:R|TM|tm)\)| CPU\b| Processor\b| @ .*", "", cpu)
    known = f" ({microarchitecture})" if microarchitecture else ""
    return f"{' '.join(cpu.split())}{known}, {threads} thread" + ("" if threads == 1 else "s")


def _labelled(records: list[Record]) -> list[Record]:
    """Labels with the ISA where several were forced, and with a number where that is not enough."""
    if len({record.isa for record in records}) > 1:
        records = [replace(r, label=f"{r.label}, {r.isa or 'best ISA'}") for r in records]
    total, seen = Counter(record.label for record in records), Counter[str]()
    result = []
    for record in records:
        seen[record.label] += 1
        suffix = f" #{seen[record.label]}" if total[record.label] > 1 else ""
        result.append(replace(record, label=record.label + suffix))
    return result
