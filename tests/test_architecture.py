"""The arrows between the packages, checked by importing every module in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

_IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, {package!r} + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & set({forbidden!r})))
"""


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("lite_runtime", ["torch", "lite_transformer", "lite_export", "onnx", "accelerate"]),
        ("lite_transformer", ["lite_runtime", "lite_export", "onnx", "onnxruntime"]),
    ],
)
def test_arrows_run_one_way(package: str, forbidden: list[str]) -> None:
    script = _IMPORT_ALL.format(package=package, forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
