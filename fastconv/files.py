"""Reading and writing files that a user names, whatever stands there.

What is read is a regular file (or a pipe that the shell made, as `<(...)` does) of at most `LARGEST` bytes: a device or a
named pipe would give bytes for ever, or none. What is written is replaced as a whole, with owner and mode kept, where a regular
file stands, or a link to one; a device or a pipe that is read gets the bytes; all else is refused.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

LARGEST = 64 << 20  # bytes; a thousand times what a long benchmark's record has
Name = str | os.PathLike[str]

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a block device",
          stat.S_IFSOCK: "a socket", stat.S_IFREG: "a file"}
# the folder takes no other file, or the file is a mount of its own: then it is written in place
_IN_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)


def read(path: Name) -> bytes:
    """All of a file.

    Raises:
        OSError: it is not there, not a regular file, too large, or cannot be read.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) and not _unnamed_pipe(path, found):
        raise OSError(errno.EINVAL, f"is {_kind(found)}, not a regular file", os.fspath(path))
    content = b""
    if found.st_size <= LARGEST:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    if max(found.st_size, len(content)) > LARGEST:
        raise OSError(errno.EFBIG, f"is larger than {LARGEST >> 20} MiB", os.fspath(path))
    return content


def refusal(path: Name) -> str | None:
    """Why `write` would not write there, as far as that can be told beforehand; None if it would."""
    target = Path(os.path.realpath(path))
    try:
        found = _stat(path)
    except OSError as error:
        return error.strerror
    if found is None:
        if not target.parent.is_dir():
            return f"there is no folder {target.parent}"
        return None if os.access(target.parent, os.W_OK) else f"the folder {target.parent} is write-protected"
    if not (stat.S_ISREG(found.st_mode) or streams(path)):
        return f"is {_kind(found)}"
    return None if os.access(path, os.W_OK) else "is write-protected"


def streams(path: Name) -> bool:
    """Whether it is a device or a pipe: what is written goes somewhere, and nothing can be kept beside it."""
    found = _stat(path)
    return found is not None and (stat.S_ISCHR(found.st_mode) or stat.S_ISFIFO(found.st_mode) or _stream(found) is not None)


def write(path: Name, content: bytes | str) -> None:
    """Replace the file as a whole, in one step: what was there stays whole until all is written, and if anything fails.

    Raises:
        OSError: it cannot be written, or must not: see `refusal`.
    """
    data = content.encode() if isinstance(content, str) else content
    reason = refusal(path)
    if reason is not None:
        raise OSError(errno.EINVAL, reason, os.fspath(path))
    found = _stat(path)
    if streams(path):
        _pour(path, found, data)
        return
    target = os.path.realpath(path)
    try:
        _replace(target, found, data)
    except OSError as error:
        if found is None or error.errno not in _IN_PLACE:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        _overwrite(target, data)


def _stat(path: Name) -> os.stat_result | None:
    """Of what a path leads to; None: of nothing yet."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _kind(found: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")


def _unnamed_pipe(path: Name, found: os.stat_result) -> bool:
    return stat.S_ISFIFO(found.st_mode) and not os.path.exists(os.path.realpath(path))


def _stream(found: os.stat_result) -> int | None:
    """The descriptor of stdout or stderr where that is what was found (/dev/stdout): a file beneath it is still written to."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _pour(path: Name, found: os.stat_result | None, data: bytes) -> None:
    """Into a device or pipe, as it stands."""
    descriptor = None if found is None else _stream(found)
    if descriptor is not None:
        sys.stdout.flush()
        opened = os.dup(descriptor)
    else:
        try:
            opened = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)  # nobody would wait for a reader
        except OSError as error:
            reason = "is a pipe that nobody reads" if error.errno == errno.ENXIO else error.strerror
            raise OSError(error.errno, reason, os.fspath(path)) from None
        os.set_blocking(opened, True)
    try:
        _send(opened, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        os.close(opened)


def _send(opened: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(opened, rest):]


def _replace(target: str, found: os.stat_result | None, data: bytes) -> None:
    """By a file written beside it."""
    made = os.path.join(os.path.dirname(target), f".fastconv-{secrets.token_hex(8)}.part")
    opened = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            if found is not None:
                _keep_owner(opened, found)
            _send(opened, data)
            _settle(opened)
        finally:
            os.close(opened)
        os.replace(made, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise


def _settle(opened: int) -> None:
    """On the disk, so that a power cut leaves the old file or the new one; some disks find out here that they are full."""
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # what cannot be settled there
            raise


def _keep_owner(opened: int, found: os.stat_result) -> None:
    if hasattr(os, "fchown"):
        mine = os.fstat(opened)
        if (mine.st_uid, mine.st_gid) != (found.st_uid, found.st_gid):
            os.fchown(opened, found.st_uid, found.st_gid)
        os.fchmod(opened, stat.S_IMODE(found.st_mode))


def _overwrite(target: str, data: bytes) -> None:
    """In place. Room is asked for first, so that a full disk leaves the file as it was."""
    opened = os.open(target, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        before = os.fstat(opened).st_size
        if len(data) > before and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(opened, 0, len(data))
            except OSError:
                os.ftruncate(opened, before)
                raise
        _send(opened, data)
        os.ftruncate(opened, len(data))
    finally:
        os.close(opened)
