"""What is read and written where a user says so: devices, pipes, sockets, links, folders, full disks, foreign owners.

All nodes are made in a folder of the test's own: where the code is broken, a test must not break the machine.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_records
import pytest
from test_cli import TINY, in_this_process
from tuning_cases import IM2COL, P, untuned

import fastconv
from fastconv import cli, files, wisdom_file
from fastconv.plan import plan
from fastconv.tuning import store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX nodes")
root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root makes devices and gives files away")

NULL, ZERO, FULL = (1, 3), (1, 5), (1, 7)  # Linux's numbers


def device(path: Path, numbers: tuple[int, int]) -> Path:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(*numbers))
        os.close(os.open(path, os.O_WRONLY))
    except OSError:  # a container or a mount that has no devices
        pytest.skip("no devices can be made here")
    return path


def disk(path: Path) -> Path:
    """Numbers that are no driver's, and never opened: a node of a loop device, say, would make one when opened."""
    try:
        os.mknod(path, 0o666 | stat.S_IFBLK, os.makedev(240, 255))
    except OSError:
        pytest.skip("no devices can be made here")
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as opened, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # a socket's path is short
        opened.bind(path.name)
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def looping(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


UNREADABLE: dict[str, Callable[[Path], Path]] = {"fifo": fifo, "socket": listening, "folder": folder, "loop": looping}
needs_root = {"zero": lambda path: device(path, ZERO), "disk": disk}
KINDS = [*UNREADABLE, *(pytest.param(name, marks=root) for name in needs_root)]


def node(kind: str, path: Path) -> Path:
    return {**UNREADABLE, **needs_root}[kind](path)


def state(path: Path) -> tuple[Any, ...]:
    found = os.lstat(path)
    return found.st_ino, found.st_mode, found.st_rdev, os.readlink(path) if path.is_symlink() else None


# ---- reading


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        files.read(node(kind, tmp_path / "node"))
    assert caught.value.filename == str(tmp_path / "node")


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file:
        file.truncate(files.LARGEST)
    assert len(files.read(tmp_path / "x")) == files.LARGEST
    os.truncate(tmp_path / "x", files.LARGEST + 1)
    with pytest.raises(OSError, match="larger than 64 MiB"):
        files.read(tmp_path / "x")


def test_a_pipe_of_the_shell_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"text")
    os.close(writing)
    try:
        assert files.read(f"/dev/fd/{reading}") == b"text"
    finally:
        os.close(reading)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_refuses_in_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = str(node(kind, tmp_path / "node"))
    before = state(Path(made))
    for arguments in (["compare", made], ["bench", made], ["tune", made], ["tune", "--import", made],
                      ["tune", "--list", "--wisdom", made], ["tune", TINY, "--wisdom", made],
                      ["tune", "--clear", "--wisdom", made]):
        if kind == "loop" and "--clear" in arguments:
            continue  # leads to nothing, which has nothing to clear
        where = [] if "--wisdom" in arguments else ["--wisdom", str(tmp_path / "other.json")]
        code = cli.main(arguments + (where if arguments[0] == "tune" else []))
        said = capsys.readouterr().err
        assert code == 2 and made in said and said.count("\n") == 1, (arguments, said)
    assert state(Path(made)) == before and os.listdir(tmp_path) == ["node"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("autotune", [False, True])
def test_plans_go_on_without_such_wisdom(kind: str, autotune: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = node(kind, tmp_path / "node")
    before = state(made)
    with untuned(monkeypatch), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fastconv.config(wisdom=str(made), autotune=autotune):
            assert plan(P).wisdom is autotune
            plan(P)
    said = [str(each.message) for each in caught]
    assert len(said) == 1 + autotune and str(made) in said[0] and "\n" not in said[0]
    assert state(made) == before and os.listdir(tmp_path) == ["node"]


# ---- writing


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind not in ("fifo",))])
def test_what_is_no_file_stays_what_it_is(kind: str, tmp_path: Path) -> None:
    made = node(kind, tmp_path / "node")
    before = state(made)
    if kind == "zero":
        files.write(made, b"text")  # swallowed
    else:
        assert files.refusal(made) is not None
        with pytest.raises(OSError) as caught:
            files.write(made, b"text")
        assert caught.value.filename == str(made)
    assert state(made) == before and os.listdir(tmp_path) == ["node"]


def test_a_pipe_that_is_read_gets_it_and_one_that_is_not_is_refused(tmp_path: Path) -> None:
    made = fifo(tmp_path / "node")
    with pytest.raises(OSError, match="nobody reads"):
        files.write(made, b"text")
    found: list[bytes] = []
    content = bytes(range(256)) * 1000  # more than a pipe holds
    opened = os.open(made, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)

    def reading() -> None:
        while block := os.read(opened, 1 << 16):
            found.append(block)

    reader = threading.Thread(target=reading)
    hold = os.open(made, os.O_WRONLY)  # no end of file before the thread reads
    reader.start()
    files.write(made, content)
    os.close(hold)
    reader.join()
    os.close(opened)
    assert b"".join(found) == content and stat.S_ISFIFO(os.lstat(made).st_mode)


@root
def test_a_full_device_says_so(tmp_path: Path) -> None:
    made = device(tmp_path / "node", FULL)
    before = state(made)
    with pytest.raises(OSError) as caught:
        files.write(made, b"text")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(made) and state(made) == before


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link, chain = tmp_path / "there" / "target", tmp_path / "link", tmp_path / "chain"
    link.symlink_to(Path("there") / "target")
    chain.symlink_to("link")
    for content in (b"made", b"replaced"):  # dangling at first
        files.write(chain, content)
        assert link.is_symlink() and chain.is_symlink() and target.read_bytes() == content
    assert os.listdir(tmp_path / "there") == ["target"] and sorted(os.listdir(tmp_path)) == ["chain", "link", "there"]
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "target")
    with pytest.raises(OSError, match="there is no folder"):
        files.write(link, b"text")
    assert link.is_symlink() and not (tmp_path / "nowhere").exists()


@root
def test_owner_and_mode_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    files.write(path, "new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640) and path.read_text() == "new"


def test_new_files_have_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    files.write(tmp_path / "x", "text")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "x").chmod(0o600)
    files.write(tmp_path / "x", "text")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


# as somebody else: what is write-protected stays; where the folder takes nothing, or the owner cannot be kept, in place
AS_NOBODY = """
import os, sys
from fastconv import files
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    files.write(sys.argv[1], "new")
except OSError as error:
    print(error.strerror)
"""


@root
@pytest.mark.parametrize("mode, folder_mode, said",
                         [(0o444, 0o777, "is write-protected"), (0o666, 0o755, ""), (0o666, 0o777, "")])
def test_the_rights_of_others(mode: int, folder_mode: int, said: str, tmp_path: Path) -> None:
    for above in itertools.takewhile(lambda folder: folder != Path(tempfile.gettempdir()), (tmp_path, *tmp_path.parents)):
        above.chmod(0o755)
    path = tmp_path / "shared" / "x"
    path.parent.mkdir()
    path.parent.chmod(folder_mode)
    path.write_text("old")
    path.chmod(mode)
    before = path.stat()
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said and path.read_text() == ("old" if said else "new")
    after = path.stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode) and os.listdir(path.parent) == ["x"]


def full(*arguments: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full)
        with pytest.raises(OSError) as caught:
            files.write(path, "new")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_in_place_a_full_disk_leaves_the_old_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old, and longer")

    def mounted(*arguments: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(files.os, "replace", mounted)
    for content in ("short", "longer than what was there before"):
        files.write(path, content)
        assert path.read_text() == content and os.listdir(tmp_path) == ["x"]
    if hasattr(os, "posix_fallocate"):
        monkeypatch.setattr(files.os, "posix_fallocate", full)
        with pytest.raises(OSError):
            files.write(path, "x" * 100)
        assert path.read_text() == "longer than what was there before"


# ---- the commands that write


def bench(*arguments: str) -> int:
    return cli.main(["bench", TINY, "--backend", "im2col", "--seconds", "0.02", *arguments])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    in_this_process(monkeypatch)


@root
@pytest.mark.parametrize("numbers, code", [(NULL, 0), (FULL, 2)], ids=["null", "full"])
def test_bench_into_a_device(numbers: tuple[int, int], code: int, here: None, tmp_path: Path,
                             capsys: pytest.CaptureFixture[str]) -> None:
    made = device(tmp_path / "node", numbers)
    before = state(made)
    assert bench("--json", str(made)) == code
    assert state(made) == before and os.listdir(tmp_path) == ["node"]  # and no chart beside it
    said = capsys.readouterr().out
    assert ("No space left on device" in said) is (code == 2)


def test_bench_through_links(here: None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "kept").mkdir()
    for name in ("x.json", "x.png"):
        (tmp_path / name).symlink_to(tmp_path / "kept" / name)
    assert bench("--json", str(tmp_path / "x.json")) == 0
    assert (tmp_path / "x.json").is_symlink() and (tmp_path / "x.png").is_symlink()
    assert json.loads((tmp_path / "kept" / "x.json").read_text())["benchmarks"]
    assert (tmp_path / "kept" / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fifo"])
def test_bench_refuses_before_it_measures(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "zero":
        return
    made = node(kind, tmp_path / "node.png")
    before = state(made)
    for arguments in (["--json", str(made)], ["--json", str(tmp_path / "x.json"), "--chart", str(made)]):
        assert bench(*arguments) == 2
        said = capsys.readouterr().err
        assert f"cannot write {made}" in said and said.count("\n") == 1
    assert state(made) == before and os.listdir(tmp_path) == ["node.png"]


def test_a_full_disk_ends_bench_with_2(here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "x.json"
    path.write_text("old")
    write = files.write

    def failing(where: files.Name, content: bytes | str) -> None:
        if Path(where).parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))
        write(where, content)

    monkeypatch.setattr(files, "write", failing)
    assert bench("--json", str(path)) == 2
    said = capsys.readouterr().out
    assert f"cannot write {path} (No space left" in said and f"cannot write {path.with_suffix('.png')} (No space" in said
    kept = Path(said.partition("the record is ")[2].splitlines()[0])
    assert json.loads(kept.read_text())["benchmarks"] and path.read_text() == "old"
    kept.unlink()
    kept.parent.rmdir()


@root
def test_a_report_into_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    record, made = tmp_path / "record.json", device(tmp_path / "node", NULL)
    fake_records.write(record, fake_records.Machine(), 1, fake_records.layers()[:2])
    before = state(made)
    assert cli.main(["compare", str(record), "--html", str(made)]) == 0
    assert state(made) == before and sorted(os.listdir(tmp_path)) == ["node", "record.json"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux's /proc")
def test_stdout_as_a_file_gets_the_record_where_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    (tmp_path / "link").symlink_to("/proc/self/fd/1")  # what /dev/stdout is, but the test's own
    program = "import sys; from fastconv import files; print(1); files.write(sys.argv[1], '2\\n'); print(3)"
    command = [sys.executable, "-c", program, str(tmp_path / "link")]
    with open(tmp_path / "out", "wb") as out:
        subprocess.run(command, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "1\n2\n3\n"
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout == "1\n2\n3\n"
    assert (tmp_path / "link").is_symlink()


# ---- wisdom


def test_wisdom_is_written_through_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store.put(tmp_path / "link", [(P, False, IM2COL)])
    assert (tmp_path / "link").is_symlink() and wisdom_file.parse((tmp_path / "target").read_bytes())["machines"]
    assert store.export(tmp_path / "link", tmp_path / "exported") == 1


def test_the_lock_empties_no_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "wisdom.lock").symlink_to("precious")
    with pytest.raises(OSError, match="not a regular file"):
        store.put(tmp_path / "wisdom", [(P, False, IM2COL)])
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_is_moved_aside_moves_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "wisdom"
    for content in ("one", "two", "three"):
        path.write_text(content)
        with pytest.warns(UserWarning, match="was no wisdom"):
            store.put(path, [])
    assert [(tmp_path / f"wisdom.corrupt{n}").read_text() for n in ("", 1, 2)] == ["one", "two", "three"]


def test_what_is_set_aside_keeps_its_mode_and_so_does_what_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wisdom"
    path.write_text("damaged")
    path.chmod(0o640)
    with monkeypatch.context() as patch, pytest.warns(UserWarning):
        patch.setattr(files.os, "write", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                store.put(path, [])
    assert path.read_text() == "damaged" and sorted(os.listdir(tmp_path)) == ["wisdom", "wisdom.corrupt", "wisdom.lock"]
    with pytest.warns(UserWarning):
        store.put(path, [])
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("wisdom", "wisdom.corrupt")] == [0o640] * 2
    assert store.listed(path) == []


def test_wisdom_never_grows_beyond_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(tmp_path / "wisdom", [])
    before = (tmp_path / "wisdom").read_bytes()
    monkeypatch.setattr(files, "LARGEST", 200)
    with pytest.raises(OSError, match="would be larger"):
        store.put(tmp_path / "wisdom", [(P, False, IM2COL)])
    assert (tmp_path / "wisdom").read_bytes() == before
