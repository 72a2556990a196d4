"""Is this installation fit for use? Facts about the machine, and checks that say what to do when one fails."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal

from lite_runtime.adb import find_adb
from lite_runtime.device import DeviceError

Status = Literal["ok", "absent", "broken"]
DISTRIBUTION = "lite-export"
_PURPOSE = {
    "torch": "run model folders, the shipped one among them",
    "onnx": "run bundles",
    "export": "export to ONNX and check parity",
    "executorch": "export and run ExecuTorch programs",
    "coreml": "export Core ML packages, and run them without a Mac",
    "train": "train models",
    "fairseq": "translate with imported models",
    "android": "reach Android phones",
    "report": "draw training curves and reports",
    "dev": "develop and test this project",
}
# Where a module is not called as its distribution.
_MODULES = {"pyyaml": "yaml", "vl-convert-python": "vl_convert"}
_SENTENCE = "The cat sleeps on the sofa."


@dataclass(frozen=True)
class Check:
    """One line of the report. Only a required check that is not "ok" makes the installation unfit."""

    name: str
    status: Status
    detail: str
    required: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """Everything ``lite-export doctor`` prints."""

    machine: dict[str, str]
    packages: dict[str, str | None]
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        return all(check.status == "ok" for check in self.checks if check.required)


def diagnose() -> Diagnosis:
    """Look at the machine, the packages, the extras, the shipped models and adb."""
    from lite_export.loading import shipped_model, shipped_names

    models = (model_works(f"shipped {name}", shipped_model(name)) for name in shipped_names())
    names = sorted(set(chain.from_iterable(extras().values())))
    extra_checks = (_extra(name, needed) for name, needed in extras().items() if name)
    return Diagnosis(
        machine=machine(),
        packages={name: version(name) for name in names},
        checks=(required_packages(), *models, *extra_checks, adb()),
    )


def machine() -> dict[str, str]:
    """Interpreter, platform, cores this process may use, and memory in GB where the system tells."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = {
        "lite-export": version(DISTRIBUTION) or "not installed",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "cores": str(cores),
    }
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    return facts


def version(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _declared() -> dict[str, tuple[str, ...]]:
    """Requirements of each extra as written in the installed metadata; "" is what is always needed."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+(\[[\w,-]+\])?", requirement)
        if name:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return {extra: tuple(names) for extra, names in found.items()}


def extras() -> dict[str, tuple[str, ...]]:
    """Distributions each of our extras needs, those of the extras it includes too; "" is what is always needed."""
    return {extra: tuple(dict.fromkeys(_expanded(extra))) for extra in _declared()}


def _expanded(extra: str) -> Iterator[str]:
    for name in _declared()[extra]:
        distribution, _, included = name.rstrip("]").partition("[")
        if distribution != DISTRIBUTION:
            yield distribution
            continue
        for other in included.split(","):
            yield from _expanded(other)


def extra_of(module: str) -> str | None:
    """The smallest extra that installs ``module`` (a dotted import name), or None."""
    wanted = module.partition(".")[0]
    for extra, names in _declared().items():
        if extra and wanted in (_MODULES.get(name.lower(), name.replace("-", "_")) for name in names):
            return extra
    return None


def required_packages() -> Check:
    """Whether everything the base installation needs is there."""
    missing = [name for name in extras().get("", ()) if version(name) is None]
    if not extras():
        return Check("packages", "broken", f"{DISTRIBUTION} is not installed: pip install {DISTRIBUTION}", True)
    if missing:
        return Check("packages", "broken", f"missing {', '.join(missing)}: pip install {DISTRIBUTION}", True)
    return Check("packages", "ok", "all required packages are installed", True)


def model_works(name: str, folder: Path) -> Check:
    """Whether a model is intact: it loads, and translates a sentence to something."""
    from lite_export.loading import load_translator

    if version("torch") is None:
        fix = f"pip install '{DISTRIBUTION}[torch]'"
        return Check(name, "absent", f"not checked: it needs PyTorch ({fix})")
    try:
        output = load_translator(folder).translate([_SENTENCE])[0].text
    except (ValueError, OSError, RuntimeError) as error:
        return Check(name, "broken", f"{error}; reinstall {DISTRIBUTION}", True)
    if not output.strip():
        return Check(name, "broken", f"translates to nothing; reinstall {DISTRIBUTION}", True)
    return Check(name, "ok", f"{_SENTENCE} -> {output}", True)


def _extra(name: str, needed: tuple[str, ...]) -> Check:
    missing = [package for package in needed if version(package) is None]
    purpose = _PURPOSE.get(name, "")
    if missing:
        fix = f"pip install '{DISTRIBUTION}[{name}]'"
        return Check(f"extra {name}", "absent", f"{purpose}; missing {', '.join(missing)}: {fix}")
    return Check(f"extra {name}", "ok", purpose)


def adb() -> Check:
    """Whether there is a bridge to Android phones."""
    try:
        return Check("adb", "ok", str(find_adb()))
    except DeviceError as error:
        return Check("adb", "absent", f"needed for Android phones only; {error}")
