"""Running the native runner as a process, the way a device does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from lite_runtime.bundle import sha256_of
from lite_runtime.manifest import FormatEntry
from lite_runtime.runner_folder import RunnerFolder
from lite_runtime.runner_protocol import Decode, Measure, Replay, RunnerRequest, RunnerResult, Translate


class Run:
    """Starts a runner in a folder of its own."""

    def __init__(self, runner: RunnerFolder, folder: Path) -> None:
        self.runner, self.folder = runner, folder
        self.result = folder / "result.json"

    def __call__(self, bundle: Path, entry: FormatEntry, task: Decode | Translate | Measure | Replay) -> RunnerResult:
        """The result of one run, which must succeed."""
        request = RunnerRequest(
            bundle=str(bundle), format=entry.format, precision=entry.precision, cache=entry.cache, task=task
        )
        done = self.start(request.model_dump_json())
        assert done.returncode == 0, done.stderr
        assert done.stderr == done.stdout == ""
        return RunnerResult.model_validate_json(self.result.read_bytes())

    def start(self, request: str, result: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """One process over any request, whatever comes of it."""
        path = self.folder / "request.json"
        path.write_text(request, "utf8")
        return self.start_file(path, result, **options)

    def start_file(self, path: Path, result: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """One process over a request's file."""
        words = [*self.runner.command(str(self.runner.folder)), str(path), str(result or self.result)]
        # It quotes what it cannot read.
        how = {"capture_output": True, "text": True, "errors": "replace", "timeout": 60}
        return subprocess.run(words, cwd=self.folder, check=False, **how, **options)

    def refusal(self, request: str, result: Path | None = None) -> str:
        """What it says of a request it refuses, of which nothing is left."""
        before = sorted(self.folder.rglob("*"))
        done = self.start(request, result)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.startswith("lite_runner: ")
        assert sorted(self.folder.rglob("*")) in (before, sorted([*before, self.folder / "request.json"]))
        return done.stderr


def sign_again(bundle: Path, changed: Path) -> None:
    """The manifest as it would be had the exporter written these bytes."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf8"))
    relative = changed.relative_to(bundle).as_posix()
    for file in [*manifest["files"], *(file for entry in manifest["formats"] for file in entry["files"])]:
        if file["path"] == relative:
            file.update(sha256=sha256_of(changed), bytes=changed.stat().st_size)
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf8")
