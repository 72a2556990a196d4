"""The shipped model's parity on an ARM processor, as commands print it; the latency it prints is qemu's, no phone's.

    sudo python benchmarks/emulated_phone.py [--cpu cortex-a76] [--precision int8] [--sentences 50]

Starts the test phone of tests/phones (AOSP's adbd over an arm64 userland under qemu-user; Debian 12, root, and the
packages that .ci/run lists), and runs ``lite-export parity`` and ``lite-export bench`` on it through adb. ``--cpu`` is
one that qemu plays: cortex-a53 has no int8 dot product, cortex-a76 has, ``max,sme=off`` has matrix products too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lite_export.loading import shipped_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from phones.kernel_files import ARM_CPUS
from phones.machine import lacking_arm64
from phones.phone import running_phone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=ARM_CPUS, default="cortex-a76")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--sentences", type=int, default=50)
    args = parser.parse_args()
    if reason := lacking_arm64():
        sys.exit(reason)
    with TemporaryDirectory() as temporary, running_phone("arm64", args.cpu) as phone:
        bundle = str(Path(temporary) / "bundle")
        formats = ["--to", "onnx,executorch", "--precision", args.precision]
        sentences = ["--sentences", str(args.sentences)]
        quick = ["--blocks", "6", "--sentences", "2", "--tokens", "10", "--output", str(Path(temporary) / "bench.json")]
        for command in (
            ["export", str(shipped_model()), *formats, "--output", bundle],
            ["parity", bundle, "--device", "adb", *sentences],
            ["bench", bundle, "--device", "adb", *quick],
        ):
            environment = {**os.environ, **phone.environment}
            done = subprocess.run([sys.executable, "-m", "lite_export.cli", *command], env=environment, check=False)
            if done.returncode:
                sys.exit(done.returncode)


if __name__ == "__main__":
    main()
