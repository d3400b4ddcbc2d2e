"""What a CPU is called: microarchitectures that share a name are told apart, in wisdom, records and the report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import fake_records
import pytest

from fastconv import hardware, wisdom_file
from fastconv.bench import machine

EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n"
GRAVITON = "processor : 0\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd40\n"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Lets a test say what Linux says."""
    def says(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text)
        forget()

    def forget() -> None:
        for function in (hardware._cpuinfo, hardware.cpu_model, hardware.cpu_id):
            function.cache_clear()

    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    yield says
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("text, number, word", [
    (EPYC.format(23, 49), "AuthenticAMD family 23 model 49", "zen2"),
    (EPYC.format(25, 1), "AuthenticAMD family 25 model 1", "zen3"),
    (EPYC.format(25, 17), "AuthenticAMD family 25 model 17", "zen4"),
    (EPYC.format(26, 2), "AuthenticAMD family 26 model 2", "zen5"),
    (EPYC.format(99, 2), "AuthenticAMD family 99 model 2", None), (GRAVITON, "implementer 0x41 part 0xd40", "neoverse_v1"),
    (EPYC.replace("AuthenticAMD", "GenuineIntel").format(6, 143), "GenuineIntel family 6 model 143", "sapphirerapids"),
    ("CPU implementer : 0x99\nCPU part : 0x1\n", "implementer 0x99 part 0x1", None)], ids=range(8))
def test_a_word_of_a_cpus_numbers(text: str, number: str, word: str | None, cpuinfo) -> None:
    cpuinfo(text)
    assert hardware.cpu_id() == number and hardware.microarchitecture() == word


def test_where_linux_says_nothing(cpuinfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "processor", lambda: "AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD")
    cpuinfo("")
    assert hardware.cpu_id() == "AuthenticAMD family 25 model 33" and hardware.microarchitecture() == "zen3"
    monkeypatch.setattr(hardware.platform, "processor", lambda: "")
    cpuinfo("nothing of use")
    assert hardware.cpu_id() and hardware.microarchitecture() is None


def test_no_model_stands_for_two() -> None:
    for known in hardware._X86.values():
        spans = sorted(span for several in known.values() for span in several)
        assert all(a[-1] < b[0] for a, b in itertools.pairwise(spans))


def test_the_words_are_archspecs() -> None:
    cpu = pytest.importorskip("archspec.cpu")
    ours = {word for known in hardware._X86.values() for word in known} | set(hardware._ARM.values())
    theirs = {name for name in cpu.TARGETS if name in ours}
    assert {"zen2", "zen3", "zen4", "haswell", "skylake_avx512", "icelake", "sapphirerapids", "neoverse_n1"} <= theirs
    spelled = {word.replace("_", "") for word in ours}
    assert not [name for name in cpu.TARGETS if name not in ours and name.replace("_", "") in spelled]


def test_what_nobody_knows_has_its_numbers(cpuinfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "archspec", None)
    cpuinfo(EPYC.format(99, 2))
    assert machine.microarchitecture() == "AuthenticAMD family 99 model 2"


def test_one_name_two_microarchitectures(cpuinfo) -> None:
    found = []
    for family, model in ((25, 1), (26, 2)):
        cpuinfo(EPYC.format(family, model))
        facts = {**machine.describe(), "cpu": "AMD EPYC"}
        found.append((wisdom_file.fingerprint(), machine.fingerprint(facts), machine.name(facts)))
    assert all(a != b for a, b in zip(*found)) and [each[2] for each in found] == ["AMD EPYC (zen3)", "AMD EPYC (zen5)"]
    assert "zen5 (AuthenticAMD family 26 model 2)" in machine.as_text(facts)


def test_the_report_tells_them_apart(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    from fastconv.bench.report import across, hardware, records

    layers = fake_records.layers()[:2]
    paths = [fake_records.write(tmp_path / "old.json", fake_records.Machine("AMD EPYC"), 1, layers)]
    for word in ("zen3", "zen5"):
        record = fake_records.record(fake_records.Machine("AMD EPYC", fingerprint=word * 3), 2, layers)
        record["machine_info"]["fastconv"] |= {"microarchitecture": word, "cpu_id": f"numbers of {word}"}
        paths.append(tmp_path / f"{word}.json")
        paths[-1].write_text(json.dumps(record))
    read = records.read_all(paths)
    assert sorted(record.label for record in read) == [
        "AMD EPYC (zen3), 2 threads", "AMD EPYC (zen5), 2 threads", "AMD EPYC, 2 threads"]
    assert len(across.newest(read)) == 3
    assert any("AMD EPYC, zen5, numbers of zen5" in dict(hardware.facts(record))["processor"] for record in read)
