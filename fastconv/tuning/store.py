"""Writing wisdom: whoever writes reads what is there, merges, and replaces the file as a whole, while holding its lock.

So several processes may write at once and none loses what another found; readers take no lock, and see the file before or
after, never a part of it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from .. import files, machine, settings, wisdom, wisdom_file
from ..errors import Unavailable
from ..machine import Machine
from ..problem import ConvProblem
from ..wisdom import Entry
from ..wisdom_file import Document

PATIENCE = 30.0  # seconds for another process to finish writing
_INSTALL = "pip install 'fastconv[tune]'"


def place(asked: str | os.PathLike[str] | None = None) -> Path:
    """Where wisdom is kept: what is asked for, else FASTCONV_WISDOM, else in FASTCONV_CACHE_DIR or the user's cache folder.

    Raises:
        Unavailable: only platformdirs knows that folder, and it is not installed; or there is none.
    """
    now = settings.current()
    if asked or now.wisdom:
        return Path(os.path.realpath(asked or now.wisdom or ""))  # a link stays one: what it points to is replaced
    if now.cache_dir:
        return Path(os.path.realpath(now.cache_dir)) / "wisdom.json"
    try:
        import platformdirs
    except ImportError:
        raise Unavailable(f"platformdirs is needed to find the user's cache folder: {_INSTALL}, or name a file") from None
    with suppress(RuntimeError):  # of platformdirs: HOME is empty
        if settings.user_cache() is not None:
            return platformdirs.user_cache_path("fastconv", appauthor=False) / "wisdom.json"
    raise Unavailable("there is no home folder to keep wisdom in: name a file (--wisdom, FASTCONV_WISDOM), or set HOME")


def put(path: Path, found: Iterable[tuple[ConvProblem, bool, Entry]]) -> None:
    """Add what (problem, prepared) gave; earlier entries of the same give way.

    A file that cannot be read is moved aside, with a warning.

    Raises:
        wisdom_file.Newer: a later version of fastconv keeps its wisdom there.
        OSError, Unavailable: it cannot be written, or is no regular file.
    """
    def add(document: Document) -> None:
        for problem, prepared, entry in found:
            _section(document, wisdom_file.mode(prepared))[wisdom.key(problem)] = entry.stored()

    _change(path, add)


def put_machine(path: Path, measured: Machine) -> None:
    """The same of the machine's row."""
    _change(path, lambda document: _section(document, wisdom_file.MACHINE).update({wisdom_file.ROW: measured.stored()}))


def merge(path: Path, source: Path) -> tuple[int, int]:
    """Add all of another file; its entries win. (How many it has, how many of them this machine will use.)

    Raises:
        ValueError: the other file is no wisdom. Else as `put`.
    """
    try:
        other = wisdom_file.parse(files.read(source))
    except ValueError as error:
        raise ValueError(f"{source} is no wisdom: {error}") from None
    _change(path, lambda document: _merge(document["machines"], other["machines"]))
    return _count(other["machines"]), sum(len(wisdom_file.entries(other, kind)) for kind in wisdom_file.KINDS)


def export(path: Path, target: Path) -> int:
    """Write what this machine measured to a file of its own; how many entries.

    Raises:
        ValueError: there is nothing. OSError: it cannot be read or written.
    """
    document = _read(path)
    mine = {name: about for name, about in document["machines"].items() if name == wisdom_file.fingerprint()}
    if not _count(mine):
        raise ValueError(f"there is no wisdom of this machine in {path}")
    target = Path(os.path.realpath(target))
    if target == path:
        raise ValueError(f"--export must name another file than {path}, which other machines may share")
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, {**document, "machines": mine})
    return _count(mine)


def clear(path: Path) -> int:
    """Remove what this machine measured, with any version; how many entries."""
    removed: list[int] = []
    if path.exists():
        _change(path, lambda document: removed.append(_count({"": document["machines"].pop(wisdom_file.fingerprint(), {})})))
    return sum(removed)


def listed(path: Path) -> list[tuple[str, str, Entry]]:
    """(problem, mode, entry) of all that this machine and version use.

    Raises:
        ValueError, OSError: the file cannot be read.
    """
    document = _read(path)
    found = [(problem, kind, Entry.of(stored)) for kind in wisdom_file.MODES
             for problem, stored in wisdom_file.entries(document, kind).items()]
    return [(problem, kind, entry) for problem, kind, entry in sorted(found, key=lambda each: each[:2]) if entry is not None]


def listed_machine(path: Path) -> Machine | None:
    """The row that this machine and version use. Raises: as `listed`."""
    return machine.typical().measured(wisdom_file.entries(_read(path), wisdom_file.MACHINE).get(wisdom_file.ROW))


def _read(path: Path) -> Document:
    try:
        return wisdom_file.parse(files.read(path))
    except FileNotFoundError:
        raise ValueError(f"there is no wisdom in {path}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no wisdom: {error}") from None


def _section(document: Document, kind: str) -> Document:
    """This machine's and version's entries of a mode, to be changed."""
    about = document["machines"].setdefault(wisdom_file.fingerprint(), {**wisdom_file.machine(), "fastconv": {}})
    return about["fastconv"].setdefault(wisdom_file.release(), {}).setdefault(kind, {})


def _merge(mine: Document, theirs: Document) -> None:
    """Machines into machines."""
    for name, about in theirs.items():
        versions = mine.setdefault(name, {**about, "fastconv": {}})["fastconv"]
        for version, modes in about["fastconv"].items():
            for kind, found in modes.items():
                versions.setdefault(version, {}).setdefault(kind, {}).update(found)


def _count(machines: Document) -> int:
    return sum(len(found) for about in machines.values() for modes in about.get("fastconv", {}).values()
               for found in modes.values())


def _change(path: Path, change: Callable[[Document], None]) -> None:
    """Read, change, write, alone."""
    try:
        from filelock import FileLock
    except ImportError:
        raise Unavailable(f"writing wisdom needs filelock: {_INSTALL}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.realpath(path))  # the file that a link points to is replaced, and locked
    _only_regular(path)
    _only_regular(path.with_name(f"{path.name}.lock"))  # locking empties it
    with FileLock(f"{path}.lock", timeout=PATIENCE):
        document = _current(path)
        change(document)
        _write(path, document)


def _only_regular(path: Path) -> None:
    """Raises OSError: something else than a file, or nothing, is there."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def _current(path: Path) -> Document:
    """What is there; what cannot be read is set aside, so that nobody's bytes are lost."""
    try:
        return wisdom_file.parse(files.read(path))
    except FileNotFoundError:
        return wisdom_file.empty()
    except wisdom_file.Newer as error:
        raise ValueError(f"{path} was {error}") from None
    except ValueError as error:
        aside = _set_aside(path)
        warnings.warn(f"{path} was no wisdom ({error}); it is {aside} now", stacklevel=2)
        return wisdom_file.empty()


def _set_aside(path: Path) -> Path:
    """A second name for a file, which no other has. The first one stays until it is replaced, as do owner and mode."""
    names = (path.with_name(f"{path.name}.corrupt{number or ''}") for number in itertools.count())
    mine = os.lstat(path)
    aside = next(name for name in names if not os.path.lexists(name) or os.path.samestat(os.lstat(name), mine))
    if not os.path.lexists(aside):
        try:
            os.link(path, aside)
        except OSError:  # a file system without links
            os.replace(path, aside)
    return aside


def _write(path: Path, document: Document) -> None:
    """Replace the file as a whole, unless it could not be read again.

    Raises:
        OSError: it cannot be written.
    """
    content = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    if len(content) > files.LARGEST:
        raise OSError(errno.EFBIG, f"would be larger than {files.LARGEST >> 20} MiB", str(path))
    files.write(path, content)
