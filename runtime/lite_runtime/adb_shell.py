"""Scripts and transfers on one phone, and proof that they ended: adb's exit code alone cannot tell 1 from loss."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Mapping

from lite_runtime.adb import Adb
from lite_runtime.device import Completed, DeviceError
from lite_runtime.interrupts import held_interrupts

# What the slowest cable carries in a second.
_BYTES_PER_SECOND = 1e6


class AdbShell:
    """One phone's shell. ``left`` is the folder there that an error names, should the phone go away."""

    def __init__(self, adb: Adb, serial: str, left: str) -> None:
        self.serial = serial
        self._adb = adb
        self._left = left

    def run(self, script: str, timeout: float, doing: str, stop: str | None = None) -> Completed:
        """Run a script to its end; its exit code is not interpreted.

        Args:
            doing: what an error says it was about.
            stop: a script that ends this one, run after ``timeout`` or Ctrl-C, before the connection is closed.

        Raises:
            subprocess.TimeoutExpired: it did not end by itself.
            DeviceError: the phone went away.
        """
        token = f"ended-{uuid.uuid4().hex}"
        # The last word of the script, whichever way it exits: without it the connection was cut.
        last = f"trap 'code=$?; {{ echo; echo {token} $code; }} >&2' EXIT"
        command = [str(self._adb.binary), "-s", self.serial, "shell", "-T", "-n", f"{last}\n{script}"]
        with (
            held_interrupts() as let_through,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            ) as process,
        ):
            try:
                let_through()
                stdout, said = process.communicate(timeout=timeout)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                if stop:
                    self.demand(stop, "a command was stopped")
                raise
            finally:
                process.kill()
        stderr, found, code = said.rpartition(f"\n{token} ")
        if not found:
            raise self.lost(doing, said)
        return Completed(int(code), stdout, stderr)

    def demand(self, script: str, doing: str, size: int = 0) -> str:
        """Standard output of a script that must succeed, and soon.

        Args:
            size: bytes it reads, which may take as long as a transfer.

        Raises:
            DeviceError: it did not, with what it said.
        """
        patience = self._adb.patience + size / _BYTES_PER_SECOND
        try:
            done = self.run(script, patience, doing)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self.serial} gave no answer within {patience:.0f} s while {doing}: plug it in again"
            ) from None
        if done.exit_code:
            raise self._refused(doing, done.stderr)
        return done.stdout

    def ask(self, commands: Mapping[str, str]) -> dict[str, str]:
        """What each command prints, by name, in one round trip; nothing for a command that fails."""
        mark = f"answer-{uuid.uuid4().hex}"
        script = "\n".join(f"echo; echo {mark} {name}; {command} 2>/dev/null" for name, command in commands.items())
        output = self.demand(f"{script}\ntrue", "it was asked what it is")
        answers = re.split(rf"\n{mark} (.+)\n", output.replace("\r\n", "\n"))[1:]
        return dict(zip(answers[::2], answers[1::2], strict=True))

    def transfer(self, verb: str, source: str, target: str, doing: str, size: int = 0) -> None:
        """``adb push`` or ``adb pull``.

        Args:
            size: bytes, which decide how long it may take.

        Raises:
            DeviceError: it failed: the disk is full, the phone went away.
        """
        done = self._adb("-s", self.serial, verb, source, target, longer=size / _BYTES_PER_SECOND)
        if done.returncode == 0:
            return
        said = "\n".join(line for line in done.stderr.splitlines() if "error" in line) or done.stderr
        # A phone that went away does not answer, and that is the better message.
        self.demand("true", doing)
        raise self._refused(doing, said)

    def lost(self, doing: str, said: str) -> DeviceError:
        """The error for a connection that was cut."""
        phone = next((phone for phone in self._adb.devices() if phone.serial == self.serial), None)
        if phone is None:
            now = "it is no longer listed: plug it in again"
        elif phone.ready:
            now = f"it is listed as ready; adb said: {said.strip() or 'nothing'}"
        else:
            now = f"it is {phone.state}: {phone.fix}"
        return DeviceError(
            f"{self.serial} went away while {doing}; {now}. What may be left on it goes with: "
            f"adb -s {self.serial} shell rm -rf {self._left}"
        )

    def _refused(self, doing: str, said: str) -> DeviceError:
        if "No space left" in said:
            return DeviceError(
                f"{self.serial} is full, while {doing}: free some space on it (adb -s {self.serial} shell df -h /data)"
            )
        return DeviceError(f"{self.serial} refused while {doing}: {said.strip() or 'it said nothing'}")
