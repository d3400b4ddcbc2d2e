"""How contenders come to take part: what may take how long, and what came of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .. import reasons
from ..reasons import Reason


@dataclass(frozen=True)
class Limits:
    """What may take how long, in seconds."""

    call: float = 1.0  # a call that takes longer takes no turns
    estimate: float | None = 3.0  # a call that seems to take longer is estimated, not run; None: run everything


@dataclass(frozen=True)
class Admission:
    """How a contender met a problem: refused or wrong (`reason`), estimated, or checked and ready to take turns."""

    reason: Reason | None = None
    algorithm: str = ""
    isa: str | None = None
    verified: int = 0  # output values compared with the reference
    seconds: float = math.nan  # of one call
    calls: int = 0  # per block; 0: takes no turns
    estimate: bool = False
    prepare_seconds: float | None = None  # binding: planning, compiling, packing
    first_seconds: float | None = None  # the first call
    peak_bytes: int | None = None  # by how much resident memory rose over both, the output included, the other arrays not

    def message(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "reason": self.reason and str(self.reason)}

    @classmethod
    def of(cls, message: dict[str, Any]) -> Admission:
        """What `message` gave."""
        reason = message["reason"]
        return cls(**{**message, "reason": None if reason is None else reasons.read(reason)})
