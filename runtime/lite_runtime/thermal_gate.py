"""Nothing is measured on a hot device: wait until it is cool, or give up and say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lite_runtime.device import Condition, Device, DeviceError

# Android's "moderate": from here on it slows the processor down.
HOT_STATUS = 2


@dataclass(frozen=True)
class ThermalGate:
    """When a device may work.

    Attributes:
        hottest: degrees Celsius above which to wait; None asks for the thermal status only, since what is hot
            differs from device to device.
        patience: seconds to wait before giving up.
        poll: seconds between looks.
    """

    hottest: float | None = None
    patience: float = 600.0
    poll: float = 5.0

    def wait(
        self, device: Device, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
    ) -> Condition:
        """The device's condition when it is cool; one that tells nothing is taken for cool.

        Raises:
            DeviceError: it is still hot after ``patience`` seconds.
        """
        waited = 0.0
        while (heat := self.heat(condition := device.condition())) is not None:
            if waited >= self.patience:
                raise DeviceError(
                    f"{device.name} is still hot after {waited:.0f} s ({heat}): unplug the charger, take it out of its "
                    "case or the sun, and go on with --resume; finished blocks are kept"
                )
            say(f"waiting until it is cool ({heat}, {waited:.0f} s)")
            time.sleep(self.poll)
            waited += self.poll
        return condition

    def heat(self, condition: Condition) -> str | None:
        """Why the device is too hot; None where it is not."""
        if condition.thermal_status is not None and condition.thermal_status >= HOT_STATUS:
            return f"thermal status {condition.thermal_status}"
        if self.hottest is not None and condition.temperature is not None and condition.temperature > self.hottest:
            return f"{condition.temperature:.1f} of at most {self.hottest:.1f} degrees"
        return None
