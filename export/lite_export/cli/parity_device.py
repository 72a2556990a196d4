"""``lite-export parity --device``."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from lite_export.cli.console import bar, stage, table_console
from lite_export.cli.errors import InputError

if TYPE_CHECKING:
    from lite_runtime.bundle import Bundle
    from lite_runtime.ladder import ParityReport
    from lite_runtime.manifest import FormatEntry


def climb_on_device(
    bundle: Bundle,
    entries: tuple[FormatEntry, ...],
    spec: str,
    runner: Path | None,
    sentences: int | None,
    timeout: float,
) -> ParityReport:
    """Push bundle and native runner to the device that ``spec`` means, and climb there.

    Raises:
        InputError: none of the formats runs in the native runner.
        DeviceError: see ``find_device``, ``runner_for`` and ``DeviceClimb``.
    """
    from lite_runtime.device_parity import DeviceClimb, runnable
    from lite_runtime.devices import find_device
    from lite_runtime.native_runner import NativeRunner
    from lite_runtime.runner_choice import runner_for

    chosen = runnable(entries)
    if not chosen:
        raise InputError("Core ML runs on Apple's devices: --device needs a bundle with onnx or executorch")
    with find_device(spec) as device:
        with stage("looking for the native runner") as report:
            folder = runner or runner_for(device.facts(), report).folder
        with stage(f"pushing the native runner to {device.name}"):
            native = NativeRunner(device, folder)
        climb = DeviceClimb(bundle, native, chosen, sentences, timeout=timeout)
        done = count(1)
        with bar(f"comparing on {device.name}", climb.pieces()) as show:
            found = climb.run(lambda: show(next(done)))
    for entry in entries:
        if entry not in chosen:
            table_console().print(f"{entry.name} is left out: it runs on Apple's devices", soft_wrap=True)
    return found
