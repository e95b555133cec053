"""Versions beneath a build that change what it computes: the system's, and its GPU driver's.

The files of a build stay as they are while the C library's ``expf`` or the driver's compiler is
replaced under them; what was computed before is then not what would be computed now.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

MODULES = ("amdgpu", "nvidia", "i915", "xe", "panthor", "panfrost", "msm")
"""Kernel modules of GPUs."""


def os_version(root: Path = Path("/")) -> str:
    """Distribution and C library, or macOS with its version and build (which brings Metal's
    compiler and driver).

    Args:
        root: of the file system (tests pretend).
    """
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]} {_mac_build(root)}".strip()
    release = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release")
    fields = dict(re.findall(r"""^(\w+)=["']?([^"'\n]*)["']?$""", release, re.MULTILINE))
    name = " ".join(filter(None, (fields.get("ID"), fields.get("VERSION_ID"))))
    library = " ".join(filter(None, platform.libc_ver()))
    return ", ".join(filter(None, (name or platform.system(), library)))


def driver_version(*, gpu: bool, root: Path = Path("/")) -> str:
    """The GPU's driver in words: every loaded one, for which of them computes is the library's
    choice. A driver of the kernel's own has the kernel's version; macOS's has the system's.

    Args:
        gpu: whether a GPU computes at all; without one nothing of it counts.
        root: of the file system (tests pretend).
    """
    if not gpu or platform.system() == "Darwin":
        return ""
    found = []
    if told := re.search(
        r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", _text(root / "proc/driver/nvidia/version")
    ):
        found.append(f"nvidia {told[1]}")
    for name in MODULES:
        if name == "nvidia" and found:
            continue
        folder = root / "sys/module" / name
        if folder.is_dir():
            found.append(f"{name} {_text(folder / 'version').strip() or platform.release()}")
    return ", ".join(found)


def _mac_build(root: Path) -> str:
    text = _text(root / "System/Library/CoreServices/SystemVersion.plist")
    told = re.search(r"<key>ProductBuildVersion</key>\s*<string>(\w+)</string>", text)
    return told[1] if told else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
