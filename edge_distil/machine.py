"""What a measurement ran on. Every result file carries it, because a time without its machine says nothing."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

# What decides how fast fp32, bf16 and int8 matrix products run: x86-64 by Linux's names, then 64-bit Arm.
_INSTRUCTION_SETS = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
_CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> dict[str, Any]:
    """The machine as this process sees it, ready for JSON.

    `system` and `architecture` as the operating system names them; `processor`, the maker's name; `cores` that the
    process may be scheduled on; `memory_bytes` of physical memory; `instruction_sets`, those that matter for inference,
    empty where the system does not list them (macOS); `gpu`, the CUDA device's name, None without one or where torch
    has not been imported, since importing it only for a name would take seconds.
    """
    cpuinfo = _read_cpuinfo(_CPUINFO)
    # Linux calls the list "flags" on x86-64 and "Features" on Arm.
    flags = set(cpuinfo.get("flags", cpuinfo.get("Features", "")).split())
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": cpuinfo.get("model name") or _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "gpu": _gpu(),
    }


def _read_cpuinfo(path: Path) -> dict[str, str]:
    """The fields of the first core in a `/proc/cpuinfo`; empty where the system has no such file."""
    if not path.is_file():
        return {}
    first_core = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    fields = (line.partition(":") for line in first_core.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def _processor() -> str:
    """The processor's name where `/proc/cpuinfo` has none: from sysctl on macOS, else as Python knows it."""
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
