"""The native runner on a device: put it and bundles there, ask it for one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from lite_runtime.bundle import MANIFEST, Bundle
from lite_runtime.device import Device, DeviceError, check_abi
from lite_runtime.manifest import FormatEntry
from lite_runtime.runner_folder import open_runner
from lite_runtime.runner_protocol import RunnerRequest, RunnerResult

_PLACE = "runner"
_REFUSED = 2


class NativeRunner:
    """A runner's folder (executable and libraries), pushed to a device when constructed.

    Raises:
        DeviceError: from every method, if the device is gone or the runner fails; the message has its last words.
    """

    def __init__(self, device: Device, folder: Path) -> None:
        runner = open_runner(folder)
        check_abi(device.facts(), runner.abi)
        self.device = device
        self._command = runner.command(_PLACE)
        device.push(folder, _PLACE)

    def push_bundle(self, bundle: Bundle, entries: Sequence[FormatEntry], place: str) -> None:
        """Make a folder on the device hold what these forms of a bundle need, and nothing else."""
        needed = [*bundle.manifest.files, *(file for entry in entries for file in entry.files)]
        # In one push: round trips to a phone add up.
        with TemporaryDirectory() as temporary:
            for path in dict.fromkeys([MANIFEST, *(file.path for file in needed)]):
                link = Path(temporary) / path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((bundle.folder / path).resolve())
            self.device.push(Path(temporary), place)

    def run(self, request: RunnerRequest, timeout: float, environment: Mapping[str, str] | None = None) -> RunnerResult:
        """One process over one request, with these variables; it is killed after ``timeout`` seconds."""
        with TemporaryDirectory() as temporary:
            local, answer = Path(temporary) / "request.json", Path(temporary) / "result.json"
            local.write_text(request.model_dump_json(), "utf8")
            self.device.remove("result.json")
            self.device.push(local, "request.json")
            done = self.device.run([*self._command, "request.json", "result.json"], timeout, environment)
            if failure := done.failure():
                what = "refuses" if done.exit_code == _REFUSED else "failed on"
                form = f"{request.format} {request.precision} {request.cache}"
                raise DeviceError(f"{self.device.name}: the native runner {what} {form}: {failure}")
            self.device.pull("result.json", answer)
            return _read(answer, self.device.name)


def _read(path: Path, device: str) -> RunnerResult:
    try:
        return RunnerResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DeviceError(
            f"{device}: the runner's result is damaged or of another version ({where}: {first['msg']}): run it again, "
            "with a runner built from this version"
        ) from None
