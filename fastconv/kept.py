"""What is kept to be used again, within a number of bytes: the least recently used goes first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class Kept:
    """Values of known size, by key. May be used by several threads at once, by signal handlers and finalizers in between, and
    after a fork."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.nbytes = most_bytes, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """One that alone is larger than all may be is not kept."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self.nbytes -= before
            if nbytes > self.most_bytes:
                return
            self._values[key] = value, nbytes
            self.nbytes += nbytes
            while self.nbytes > self.most_bytes:
                _, (_, freed) = self._values.popitem(last=False)
                self.nbytes -= freed
