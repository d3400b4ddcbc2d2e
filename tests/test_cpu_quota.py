"""A container's CPU quota: read from control groups of both versions, nested and malformed; it bounds the default threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastconv import hardware, settings
from fastconv.bench import machine


class System:
    """A fake /proc/self and fake mounts."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.mounts = ["22 1 0:20 / /proc rw - proc proc rw", "malformed", ""]
        (root / "proc").mkdir()
        self.groups()
        monkeypatch.setattr(hardware, "_PROCESS", root / "proc")
        monkeypatch.setattr(hardware, "_USUAL_GROUPS", (root / "usual", root / "usual" / "cpu"))

    def groups(self, *lines: str) -> None:
        (self.root / "proc" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mount(self, version: int, where: str, root: str = "/", options: str = "rw,cpu,cpuacct") -> None:
        kind = "cgroup2 cgroup2 rw" if version == 2 else f"cgroup cgroup {options}"
        place = str(self.root / where).replace(" ", "\\040")
        self.mounts.append(f"30 22 0:26 {root} {place} rw,nosuid shared:9 - {kind}")
        (self.root / "proc" / "mountinfo").write_text("".join(f"{line}\n" for line in self.mounts))

    def v2(self, folder: str, text: str) -> None:
        self.write(f"{folder}/cpu.max", text)

    def v1(self, folder: str, quota: str, period: str = "100000") -> None:
        self.write(f"{folder}/cpu.cfs_quota_us", quota)
        self.write(f"{folder}/cpu.cfs_period_us", period)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(f"{text}\n")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def test_no_groups_no_quota(system: System) -> None:
    assert hardware.cpu_quota() is None
    (system.root / "proc" / "cgroup").unlink()
    assert hardware.cpu_quota() is None


@pytest.mark.parametrize("text, quota", [
    ("150000 100000", 1.5), ("50000 100000", 0.5), ("400000 50000", 8), ("max 100000", None), ("", None), ("max", None),
    ("-1 100000", None), ("0 100000", None), ("100000 0", None), ("1e5 1e5", None), ("100000", None), ("a b", None)])
def test_version_2(system: System, text: str, quota: float | None) -> None:
    system.mount(2, "group")
    system.groups("0::/")
    system.v2("group", text)
    assert hardware.cpu_quota() == quota


@pytest.mark.parametrize("numbers, quota", [
    (("150000", "100000"), 1.5), (("25000", "50000"), 0.5), (("-1", "100000"), None), (("0", "100000"), None),
    (("100000", "0"), None), (("", ""), None), (("max", "100000"), None), (("many", "few"), None)])
def test_version_1(system: System, numbers: tuple[str, str], quota: float | None) -> None:
    system.mount(1, "memory", options="rw,memory")
    system.mount(1, "group")
    system.groups("5:memory:/elsewhere", "4:cpu,cpuacct:/", "1:name=systemd:/", "0::/")
    system.v1("group", *numbers)
    system.v1("memory", "1", "100000")  # another controller's folder says nothing
    assert hardware.cpu_quota() == quota


@pytest.mark.parametrize("tightest", ["a/b/c", "a/b", "a", ""])
@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_above_counts(system: System, version: int, tightest: str) -> None:
    system.mount(version, "my groups")  # a space, which mountinfo escapes
    system.groups("0::/a/b/c" if version == 2 else "3:cpuset,cpu:/a/b/c")
    for folder in ("a/b/c", "a/b", "a", "", "a/other"):
        number = {tightest: "200000", "a/other": "10000"}.get(folder, "300000")
        if version == 2:
            system.v2(f"my groups/{folder}", f"{number} 100000")
        else:
            system.v1(f"my groups/{folder}", number)
    assert hardware.cpu_quota() == 2


@pytest.mark.parametrize("root, group", [
    ("/docker/abc", "/docker/abc/inner"),  # the host's paths, of which the container sees a part
    ("/", "/inner"),  # a namespace of its own
    ("/../..", "/inner"), ("/docker/abc", "/inner")])
@pytest.mark.parametrize("version", [1, 2])
def test_what_a_container_sees(system: System, version: int, root: str, group: str) -> None:
    system.mount(version, "group", root)
    system.groups(f"0::{group}" if version == 2 else f"4:cpu,cpuacct:{group}")
    (system.v2 if version == 2 else system.v1)("group", "300000 100000" if version == 2 else "300000")
    assert hardware.cpu_quota() == 3
    (system.v2 if version == 2 else system.v1)("group/inner", "100000 100000" if version == 2 else "100000")
    assert hardware.cpu_quota() == 1


def test_a_group_that_cannot_be_seen_leaves_the_mount(system: System) -> None:
    system.mount(2, "group")
    system.groups("0::/not/mounted/here")
    system.v2("group", "200000 100000")
    assert hardware.cpu_quota() == 2


def test_both_versions_at_once(system: System) -> None:
    system.mount(1, "v1")
    system.mount(2, "v2")
    system.groups("4:cpu,cpuacct:/a", "0::/b")
    system.v1("v1/a", "400000")
    system.v2("v2/b", "300000 100000")
    assert hardware.cpu_quota() == 3


def test_the_usual_places_where_proc_tells_nothing(system: System) -> None:
    system.v2("usual", "200000 100000")
    assert hardware.cpu_quota() == 2
    system.v1("usual/cpu", "150000")
    assert hardware.cpu_quota() == 1.5


@pytest.mark.parametrize("quota, threads",
                         [("100000", 1), ("10000", 1), ("150000", 2), ("200000", 2), ("900000", 4), ("max", 4)])
def test_the_default_threads(system: System, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int) -> None:
    system.mount(2, "group")
    system.groups("0::/")
    system.v2("group", f"{quota} 100000")
    monkeypatch.setattr(settings, "_physical_cores", lambda: 4)
    monkeypatch.delenv("FASTCONV_NUM_THREADS", raising=False)
    assert settings._from_environment().num_threads == threads
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "3")
    assert settings._from_environment().num_threads == 3


def test_info_tells_the_quota_and_the_fingerprint_does_not(system: System) -> None:
    before = machine.describe()
    system.mount(2, "group")
    system.groups("0::/")
    system.v2("group", "150000 100000")
    facts = machine.describe()
    assert facts["cpu_quota"] == 1.5 and "a quota of 1.5 CPUs" in machine.as_text(facts)
    assert before["cpu_quota"] is None and "quota" not in machine.as_text(before)
    assert facts["fingerprint"] == before["fingerprint"]


def test_the_pool_is_told() -> None:
    runtime = pytest.importorskip("fastconv._runtime")
    before = runtime.available_cpus()
    try:
        runtime.limit_cpus(1)
        assert runtime.available_cpus() == 1
        runtime.limit_cpus(10_000)
        assert runtime.available_cpus() >= before
    finally:
        runtime.limit_cpus(hardware.whole_cpus(hardware.cpu_quota()) or 0)
    assert runtime.available_cpus() == before


def test_the_pool_is_told_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv import native

    runtime = pytest.importorskip("fastconv._runtime")
    try:
        monkeypatch.setattr(hardware, "cpu_quota", lambda: 0.5)
        assert native._runtime.__wrapped__().module.available_cpus() == 1
    finally:
        monkeypatch.undo()
        runtime.limit_cpus(hardware.whole_cpus(hardware.cpu_quota()) or 0)
