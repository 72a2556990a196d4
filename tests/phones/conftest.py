"""The test phones; other folders' conftests import them too."""

from phones.fixtures import arm64_device, arm64_phone, arm64_runner, real_adbd

__all__ = ["arm64_device", "arm64_phone", "arm64_runner", "real_adbd"]
