"""Debian packages for another purpose than installing them: apt with lists, status and cache of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from phones.cache import run

_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


class Apt:
    """An apt that knows the machine's sources and keys, and touches nothing of the machine's."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self._folder = folder
        for part in ("lists/partial", "cache/archives/partial", "sources"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        types = "Types: deb deb-src"
        (folder / "sources" / "debian.sources").write_text(_SOURCES.read_text().replace("Types: deb\n", f"{types}\n"))
        self._settings = folder / "apt.conf"
        self._settings.write_text(
            f'APT::Architecture "{architecture}";\n'
            f'APT::Architectures {{ "{architecture}"; }};\n'
            f'APT::Sandbox::User "root";\n'
            f'APT::Install-Recommends "false";\n'
            f'Dir::State::lists "{folder}/lists";\n'
            f'Dir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{folder}/sources";\n'
        )
        self._get("update")

    def packages(self, names: Sequence[str]) -> list[Path]:
        """Download packages with all they depend on; nothing counts as installed."""
        self._get("install", "--yes", "--download-only", *names)
        return sorted((self._folder / "cache" / "archives").glob("*.deb"))

    def source(self, package: str, version: str) -> Path:
        """Download and unpack a source package; returns its folder."""
        target = self._folder / "source"
        target.mkdir()
        self._get("source", f"{package}={version}", cwd=target)
        return next(path for path in target.iterdir() if path.is_dir())

    def _get(self, *command: str, cwd: Path | None = None) -> None:
        run("apt-get", "--quiet", *command, env={**os.environ, "APT_CONFIG": str(self._settings)}, cwd=cwd)
