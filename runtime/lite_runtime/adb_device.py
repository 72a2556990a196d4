"""An Android phone as a Device, over the real adb. Times on it are taken inside its processes, never around adb."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import TracebackType

from lite_runtime.adb import Adb
from lite_runtime.adb_shell import AdbShell
from lite_runtime.android_readings import CONDITION_ASKED, FACTS_ASKED, android_condition, android_facts
from lite_runtime.device import Completed, Condition, DeviceError, DeviceFacts, workspace_path
from lite_runtime.device_files import parcel, sha256

# The one folder of a phone where the shell may both write and execute.
ROOT = "/data/local/tmp/lite-export"

# The shell stays, to tell how the command ended. When the cable is pulled adbd sends it, and it alone, SIGHUP.
_SCRIPT = """mkdir -p {workspace} && cd {workspace} || exit 1
trap 'kill -KILL $child; wait $child; {{ {left}; }} >/dev/null 2>&1; exit 129' HUP
{command} & child=$!
echo $$ $child > .pids
wait $child; code=$?
rm -f .pids
exit $code"""
# adbd gives each shell a process group of its own: what the command started ends with it.
_STOP = """cd {workspace} && read group child < .pids || exit 0
kill -KILL -$group 2>/dev/null; kill -KILL $child $group 2>/dev/null
rm -f .pids"""


def find_phone(serial: str | None = None, keep: bool = False) -> AdbDevice:
    """The phone of that serial, or the only one. Raises DeviceError as ``Adb`` and ``Adb.choose`` do."""
    adb = Adb()
    return AdbDevice(adb, adb.choose(serial).serial, keep)


def all_phones(keep: bool = False) -> tuple[AdbDevice, ...]:
    """Every phone attached; one that is not ready is an error, for it would be missed."""
    adb = Adb()
    serials = [phone.serial for phone in adb.devices()] or [adb.choose().serial]
    return tuple(AdbDevice(adb, adb.choose(serial).serial, keep) for serial in serials)


class AdbDevice:
    """One phone, and a workspace on it. One command runs at a time.

    Args:
        keep: use a workspace that is still there the next time, so that only what changed is pushed.
    """

    def __init__(self, adb: Adb, serial: str, keep: bool = False) -> None:
        self.name = f"adb:{serial}"
        self.workspace = f"{ROOT}/{'kept' if keep else uuid.uuid4().hex[:12]}"
        self._shell = AdbShell(adb, serial, self.workspace)
        self._keep = keep

    def __enter__(self) -> AdbDevice:  # noqa: PYI034 - beartype cannot check Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep:
            return
        try:
            self.remove()
        except DeviceError:
            # The failure on its way out says already that the phone went away, and what is left there.
            if error is None:
                raise

    def facts(self) -> DeviceFacts:
        """See Device.facts."""
        return android_facts(self.name, self._shell.ask(FACTS_ASKED))

    def condition(self) -> Condition:
        """See Device.condition."""
        return android_condition(self._shell.ask(CONDITION_ASKED))

    def push(self, local: Path, remote: str) -> int:
        """See Device.push. Files arrive in a folder of their own, are hashed there, and moved into place."""
        packed = parcel(local, remote)
        base = self._path(str(packed.base))
        wanted = {name: sha256(path) for name, path in packed.files.items()}
        there = self._hashes(base, packed.only or ".", _size(packed.files))
        changed = {name: path for name, path in packed.files.items() if there.get(name) != wanted[name]}
        gone = sorted(set(there) - set(wanted))
        if changed or gone:
            self._deliver(changed, {name: wanted[name] for name in changed}, gone, base)
        return _size(changed)

    def run(self, command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> Completed:
        """See Device.run."""
        settings = " ".join(f"{key}={shlex.quote(value)}" for key, value in (environment or {}).items())
        try:
            done = self._shell.run(
                _SCRIPT.format(
                    workspace=self.workspace,
                    command=f"{settings} {shlex.join(command)}",
                    left="true" if self._keep else f"cd /; rm -rf {self.workspace}; rmdir {ROOT}",
                ),
                timeout,
                f"{command[0]} ran",
                stop=_STOP.format(workspace=self.workspace),
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{command[0]} did not end within {timeout:g} s on {self.name}; it was stopped") from None
        return Completed(_exit_code(done.exit_code), done.stdout, done.stderr)

    def pull(self, remote: str, local: Path) -> None:
        """See Device.pull."""
        path = workspace_path(remote)
        base, name = self._path(str(path.parent)), path.name
        wanted = self._hashes(base, name).get(name)
        if wanted is None:
            raise DeviceError(f"there is no {remote} on {self.name}: the command that writes it did not")
        local.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=local.parent, prefix=".lite-export-") as folder:
            staged = Path(folder) / name
            self._shell.transfer("pull", f"{base}/{name}", str(staged), f"{remote} was pulled")
            if sha256(staged) != wanted:
                raise DeviceError(f"{remote} arrived damaged from {self.name}: try again, with another cable")
            staged.replace(local)

    def remove(self, remote: str = "") -> None:
        """See Device.remove."""
        path = self._path(remote)
        # The folder of all workspaces goes with the last of them.
        parent = "" if remote else f"rmdir {ROOT} 2>/dev/null\n"
        self._shell.demand(f"rm -rf {shlex.quote(path)} || exit 1\n{parent}true", f"{path} was removed")

    def _path(self, remote: str) -> str:
        return f"{self.workspace}/{workspace_path(remote)}".removesuffix("/.")

    def _hashes(self, base: str, below: str = ".", size: int = 0) -> dict[str, str]:
        """SHA-256 of every file there (some ``size`` bytes), by its path below ``base``; none if nothing is there."""
        script = f"cd {shlex.quote(base)} 2>/dev/null || exit 0; [ -e {shlex.quote(below)} ] || exit 0"
        listing = f"find {shlex.quote(f'./{below}')} -type f -exec sha256sum {{}} +"
        lines = self._shell.demand(f"{script}\n{listing}", "its files were compared", size).splitlines()
        return {str(PurePosixPath(name)): digest for digest, _, name in (line.partition("  ") for line in lines)}

    def _deliver(self, files: Mapping[str, Path], wanted: Mapping[str, str], gone: Sequence[str], base: str) -> None:
        """Bring changed files there, prove them, move them into place, and delete those that are gone."""
        staged = f"{self.workspace}/.staged"
        try:
            self._shell.demand(f"rm -rf {staged} && mkdir -p {self.workspace}", "room was made")
            if files:
                self._stage(files, staged)
            self._check(self._hashes(staged, size=_size(files)), wanted)
            self._shell.demand(_into_place(staged, base, gone), "files were moved into place")
        except DeviceError:
            with contextlib.suppress(DeviceError):
                self._shell.demand(f"rm -rf {staged}", "what had arrived was removed")
            raise

    def _stage(self, files: Mapping[str, Path], staged: str) -> None:
        """All in one push, from a folder of hard links: adb would push symbolic ones as links."""
        with TemporaryDirectory(prefix="lite-export-") as folder:
            for name, path in files.items():
                _link(path.resolve(), Path(folder) / "files" / name)
            size = _size(files)
            self._shell.transfer("push", str(Path(folder) / "files"), staged, f"{size / 1e6:.1f} MB were pushed", size)

    def _check(self, arrived: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        if damaged := [name for name in wanted if arrived.get(name) != wanted[name]]:
            raise DeviceError(f"{damaged[0]} arrived damaged on {self.name}: try again, with another cable")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or another's file
        shutil.copy(source, target)


def _size(files: Mapping[str, Path]) -> int:
    return sum(path.stat().st_size for path in files.values())


def _into_place(staged: str, base: str, gone: Sequence[str]) -> str:
    quoted = shlex.quote(base)
    deletions = f"rm -f {shlex.join(gone)}" if gone else "true"
    return f"""mkdir -p {quoted} {staged} && cd {staged} || exit 1
find . -type f | while IFS= read -r file; do
mkdir -p {quoted}/"${{file%/*}}" && mv -f "$file" {quoted}/"$file" || exit 1
done || exit 1
cd {quoted} && {deletions} && rm -rf {staged}"""


def _exit_code(code: int) -> int:
    """A shell says 128 + n of a command that signal n ended; here that is -n."""
    return 128 - code if 128 < code <= 128 + max(signal.Signals) else code
