"""Stand-ins for CUDA's libraries: torch's arm64 wheel does not load without them, and a CPU computes nothing with them.

ExecuTorch's Python binding takes torch's tensors, and torch's only wheel for Linux on arm64 is linked with CUDA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from phones.cache import run

_CROSS = "aarch64-linux-gnu-"
_CUDA = re.compile(r"(__)?(cu|nccl|nvrtc|nvshmem)")


def add_stand_ins(torch: Path) -> None:
    """Put libraries whose every function returns 0 beside the package's own, where CUDA's are missing."""
    folder = torch / "lib"
    libraries = [path for path in folder.iterdir() if ".so" in path.suffixes]
    missing = _symbols(libraries, "--undefined-only") - _symbols(libraries, "--defined-only")
    with TemporaryDirectory() as temporary:
        for name, tag in _missing_libraries(libraries).items():
            _build(folder / name, tag, filter(_CUDA.match, missing), Path(temporary))


def _symbols(libraries: Iterable[Path], kind: str) -> set[str]:
    listed = run(f"{_CROSS}nm", "--dynamic", kind, *libraries)
    # A line's last word is name@version.
    return {line.split()[-1].partition("@")[0] for line in listed.splitlines() if line}


def _missing_libraries(libraries: list[Path]) -> dict[str, str]:
    """CUDA's libraries by name, with the version their symbols shall have: the library's name, where none is asked."""
    said = run(f"{_CROSS}readelf", "--wide", "--dynamic", "--version-info", *libraries)
    needed = set(re.findall(r"Shared library: \[(.*)\]", said))
    tags = dict(re.findall(r"File: (\S+)  Cnt: 1\n.*Name: (\S+)", said))
    there = {path.name for path in libraries}
    return {name: tags.get(name, name) for name in needed - there if _CUDA.match(name.removeprefix("lib"))}


def _build(target: Path, tag: str, functions: Iterable[str], folder: Path) -> None:
    labels = "".join(f".globl {name}\n.type {name}, %function\n{name}:\n" for name in functions)
    (folder / "functions.s").write_text(f".text\n{labels}mov x0, #0\nret\n")
    (folder / "version").write_text(f"{tag} {{ *; }};\n")
    options = ["-shared", "-nostdlib", f"-Wl,-soname,{target.name}", f"-Wl,--version-script,{folder / 'version'}"]
    run(f"{_CROSS}gcc", *options, "-o", target, folder / "functions.s")
