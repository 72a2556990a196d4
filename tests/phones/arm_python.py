"""Python itself as arm64 code: Debian's interpreter and the wheels pip would install there, run by qemu-user.

What Python computes on this machine is no measure for a phone at int8: other kernels round other sums.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import lite_runtime
from phones.apt import Apt
from phones.cache import built, run
from phones.cuda_stand_ins import add_stand_ins
from phones.kernel_files import arm_cpuinfo, write_kernel_files

_INTERPRETER = ["python3.11-minimal", "libpython3.11-stdlib", "libstdc++6"]
_PYTHON = "3.11"
# What lite_runtime imports, and what that needs.
_OURS = ["jaxtyping", "numpy", "pydantic", "safetensors", "sentencepiece", "wadler_lindig"]
_PYDANTIC = ["annotated_types", "pydantic_core", "typing_extensions", "typing_inspection"]
_RUNTIMES = ["executorch", "flatbuffers", "onnxruntime", "protobuf"]
_TORCH = ["filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy", "torch"]
_PLATFORMS = [f"--platform=manylinux_{glibc}_aarch64" for glibc in ("2_28", "2_27", "2_17")]


def run_python(cpu: str, script: Path, *arguments: object) -> str:
    """What a Python script prints on one of ``kernel_files.ARM_CPUS``; it may import ``lite_runtime``.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    python = _arm_python()
    with TemporaryDirectory() as temporary:
        root = _root(Path(temporary), python / "debian", cpu)
        ours = Path(lite_runtime.__path__[0]).parent
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{python / 'packages'}:{ours}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = ["qemu-aarch64-static", "-cpu", cpu, "-L", root, python / f"debian/usr/bin/python{_PYTHON}"]
        return run(*command, script, *arguments, env=environment)


def _root(folder: Path, debian: Path, cpu: str) -> Path:
    """Where qemu looks first for what a program opens: Debian's libraries, and files on the processor."""
    cores = os.cpu_count() or 1
    kernel = write_kernel_files(folder / "kernel", arm_cpuinfo(cpu, cores), cores)
    root = folder / "root"
    root.mkdir()
    for name, target in {"lib": debian / "lib", "usr": debian / "usr", "proc": kernel, "sys": kernel / "sys"}.items():
        (root / name).symlink_to(target)
    return root


def _arm_python() -> Path:
    """A folder with ``debian``, the interpreter's root, and ``packages``, of this environment's versions."""
    # A local version, torch's +cpu, is of this machine's build alone.
    wheels = [f"{name}=={version(name).partition('+')[0]}" for name in (*_OURS, *_PYDANTIC, *_RUNTIMES, *_TORCH)]
    here = [Path(__file__).read_bytes(), Path(__file__).with_name("cuda_stand_ins.py").read_bytes()]
    return built("arm64-python", [*here, *wheels], lambda target: _build(target, wheels))


def _build(target: Path, wheels: list[str]) -> None:
    debian, packages = target / "debian", target / "packages"
    with TemporaryDirectory() as temporary:
        for package in Apt(Path(temporary), "arm64").packages(_INTERPRETER):
            run("dpkg", "-x", package, debian)
    # Without dependencies: pip would take those of this machine, gigabytes of CUDA among them.
    options = ["--quiet", "--no-deps", "--only-binary=:all:", *_PLATFORMS, "--python-version", _PYTHON]
    run(sys.executable, "-m", "pip", "install", *options, "--target", packages, *wheels)
    add_stand_ins(packages / "torch")
