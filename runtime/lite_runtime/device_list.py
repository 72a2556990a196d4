"""Every device there is, ready or not: this machine, and what adb lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict

from lite_runtime.adb import Adb, Attached
from lite_runtime.adb_device import AdbDevice
from lite_runtime.device import Condition, Device, DeviceError, DeviceFacts
from lite_runtime.host_device import HostDevice


class ListedDevice(BaseModel):
    """One device.

    Attributes:
        name: as ``find_device`` takes it.
        state: ``ready``, or what adb calls it: offline, unauthorized, ...
        fix: what to do about one that is not ready.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    state: str
    fix: str | None = None
    facts: DeviceFacts | None = None
    condition: Condition | None = None


class DeviceList(BaseModel):
    """All devices. ``adb_problem`` says why no phone could be looked for, and what to do; None where adb works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: tuple[ListedDevice, ...]
    adb_problem: str | None = None


def list_devices() -> DeviceList:
    """The host first, then the phones in adb's order, all asked at the same time. Raises nothing."""
    host = _listed(HostDevice())
    try:
        adb = Adb()
        phones = adb.devices()
    except DeviceError as error:
        return DeviceList(devices=(host,), adb_problem=str(error))
    with ThreadPoolExecutor(max_workers=max(1, len(phones))) as pool:
        return DeviceList(devices=(host, *pool.map(lambda phone: _phone(adb, phone), phones)))


def _phone(adb: Adb, phone: Attached) -> ListedDevice:
    if phone.ready:
        return _listed(AdbDevice(adb, phone.serial))
    return ListedDevice(name=f"adb:{phone.serial}", state=phone.state, fix=phone.fix)


def _listed(device: Device) -> ListedDevice:
    try:
        return ListedDevice(name=device.name, state="ready", facts=device.facts(), condition=device.condition())
    except DeviceError as error:
        return ListedDevice(name=device.name, state="not answering", fix=str(error))
