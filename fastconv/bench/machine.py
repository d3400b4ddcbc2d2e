"""What this machine is: hardware, backends, libraries. Stable facts only: no host names, no paths."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib import metadata
from typing import Any

import numpy as np

from .. import __version__, backends, native, settings
from ..hardware import caches, cpu_id, cpu_model, cpu_quota
from ..hardware import microarchitecture as known_microarchitecture

_PACKAGES = ("numba", "llvmlite", "numba-cuda", "scipy", "torch", "rich", "matplotlib")
_FINGERPRINT = ("cpu", "cpu_id", "architecture", "system", "cores", "logical_cpus", "caches", "isas_supported")


def describe() -> dict[str, Any]:
    """Everything that `fastconv info` shows; JSON-ready."""
    now = settings.current()
    facts: dict[str, Any] = {
        "fastconv": __version__,
        "cpu": cpu_name(),
        "cpu_id": cpu_id(),
        "microarchitecture": microarchitecture(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": settings._physical_cores(),
        "logical_cpus": os.cpu_count(),
        "cpu_quota": cpu_quota(),
        "caches": caches(),
        "isas_supported": isas_supported(),
        "isas_built": list(native.built_isas()),
        "native_failed": native.failures(),
        "isa_forced": now.isa,
        "threads": now.num_threads,
        "backends": backends(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    facts["fingerprint"] = fingerprint(facts)
    return facts


def fingerprint(facts: dict[str, Any]) -> str:
    """The same for the same hardware, whatever is installed on it."""
    stable = json.dumps({key: facts[key] for key in _FINGERPRINT}, sort_keys=True)
    return hashlib.sha256(stable.encode()).hexdigest()[:12]


def cpu_name() -> str:
    """The processor's name: by py-cpuinfo where it is installed, else by what the system says at once."""
    try:
        from cpuinfo import get_cpu_info
    except ImportError:
        pass
    else:
        name = get_cpu_info().get("brand_raw")
        if name:
            return str(name)
    return cpu_model()


def microarchitecture() -> str:
    """The CPU's microarchitecture in a word: ours, archspec's where it is installed and we have none, else the CPU's numbers.

    Ours goes by the numbers; archspec goes by instructions, of which a virtual machine may hide some.
    """
    known = known_microarchitecture()
    if known is None:
        try:
            from archspec import cpu
        except ImportError:
            return cpu_id()
        found = cpu.host()
        known = cpu_id() if found.vendor == "generic" else str(found.name)
    return known


def name(facts: dict[str, Any]) -> str:
    """The CPU of a record, with its microarchitecture where that is known: records of before say none."""
    known = facts.get("microarchitecture")
    return f"{facts['cpu']} ({known})" if known else str(facts["cpu"])


def isas_supported() -> list[str] | None:
    """The builds that this CPU could run; None: nobody asked it, as no native module is loaded."""
    runtime = native.runtime()
    return None if runtime is None else list(runtime.supported_isas())


def blas() -> str:
    """NumPy's BLAS and its version."""
    try:
        found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index]
        return f"{found['name']} {found['version']}"
    except (KeyError, TypeError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def as_text(facts: dict[str, Any]) -> str:
    """For people."""
    supported = facts["isas_supported"]
    isas = "unknown: fastconv._runtime is not there to ask" if supported is None else ", ".join(supported)
    lines = [
        ("fastconv", facts["fastconv"]),
        ("CPU", f"{facts['cpu']} ({facts['architecture']}, {facts['system']})"),
        ("", f"{facts['microarchitecture']} ({facts['cpu_id']})"),
        ("cores", f"{facts['cores']} usable, {facts['logical_cpus']} logical"
         + ("" if facts["cpu_quota"] is None else f", a quota of {facts['cpu_quota']:.3g} CPUs")),
        ("caches", ", ".join(f"{level} {size}" for level, size in facts["caches"].items()) or "unknown"),
        ("ISAs", f"supported: {isas}"),
        ("", f"built: {', '.join(facts['isas_built']) or 'none'}"),
        *[("", f"does not load: {name}: {reason}") for name, reason in facts["native_failed"].items()],
        *([("", f"forced: {facts['isa_forced']}")] if facts["isa_forced"] else []),
        ("threads", facts["threads"]),
        *[("backends" if i == 0 else "", f"{name:<8} {reason or 'available'}")
          for i, (name, reason) in enumerate(facts["backends"].items())],
        ("Python", facts["python"]),
        ("NumPy", f"{facts['numpy']}, BLAS {facts['blas']}"),
        *[("packages" if i == 0 else "", f"{name} {version}") for i, (name, version) in enumerate(facts["packages"].items())],
        ("machine", f"fingerprint {facts['fingerprint']}"),
    ]
    return "\n".join(f"{label:<10} {value}" for label, value in lines)
