"""``lite-export bench`` as typed: on this machine and on test phones, with the real runner."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from devices.adb_daemon import Faults
from devices.daemon_phone import DaemonPhone, PrivateAdb
from devices.phone_fixtures import PhoneMaker
from lite_export.cli import app
from lite_runtime.bench_result import read_result

pytestmark = pytest.mark.measures
QUICK = ["--tokens", "12", "--sentences", "3", "--blocks", "8"]
ROOT = Path(__file__).parents[2]


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def words(result: Result) -> str:
    return " ".join(re.sub(r"[│┃]", " ", result.output).split())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "results" / "bench.json"


@pytest.fixture
def slow_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle slowed down by far, by the benchmark's own means."""
    spec = importlib.util.spec_from_file_location("regressions", ROOT / "benchmarks" / "regressions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.OPERATIONS = 1000
    return module.slow_down(tiny_bundle, tmp_path / "slow", 160)


def test_a_bundle_against_itself(tiny_bundle: Path, runner: Path, output: Path) -> None:
    done = bench(
        tiny_bundle, "--against", tiny_bundle, "--max-regression", "300%", "--runner", runner, "-o", output, *QUICK
    )
    assert done.exit_code == 0, done.output
    result = read_result(output)
    assert len(result.blocks) == 16
    assert [(ratio.metric, ratio.limit) for ratio in result.ratios] == [("encode", 3.0), ("per_token", 3.0)]
    assert "medians with 95% intervals over 8 blocks of 3 sentences, 12 tokens each" in words(done)
    assert sorted(path.name for path in output.parent.iterdir()) == ["bench.json"], "the journal is gone"


def test_a_slowed_bundle_is_a_regression(tiny_bundle: Path, slow_bundle: Path, runner: Path, output: Path) -> None:
    done = bench(
        slow_bundle, "--against", tiny_bundle, "--max-regression", "5%", "--runner", runner, "-o", output, *QUICK
    )
    assert done.exit_code == 1
    assert "REGRESSION beyond 5%" in words(done)
    assert {ratio.metric for ratio in read_result(output).regressions} >= {"per_token"}


def test_too_few_blocks_are_no_verdict(tiny_bundle: Path, runner: Path, output: Path) -> None:
    few = [*QUICK[:-1], "3"]
    done = bench(
        tiny_bundle, "--against", tiny_bundle, "--max-regression", "5%", "--runner", runner, "-o", output, *few
    )
    assert done.exit_code == 1
    assert "too few blocks to compare: --max-regression needs --blocks 6 or more" in done.stderr


def test_a_stored_baseline(tiny_bundle: Path, slow_bundle: Path, runner: Path, output: Path) -> None:
    """Each result is of one bundle, so its folder's name does not matter."""
    stored = output.with_name("stored.json")
    assert bench(tiny_bundle, "--runner", runner, "-o", stored, *QUICK).exit_code == 0
    compared = ["--baseline", stored, "--max-regression", "5%", "--runner", runner, "-o", output]
    done = bench(slow_bundle, *compared, *QUICK)
    assert done.exit_code == 1, done.output
    assert {ratio.kind for ratio in read_result(output).ratios} == {"stored"}
    done = bench(slow_bundle, *compared, "--tokens", "13", "--sentences", "3", "--blocks", "8")
    assert done.exit_code == 1
    assert "the baseline was measured with --tokens 12, not 13: use the same" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-regression", "5%"], "needs something to compare with: --against BUNDLE or --baseline FILE"),
        (["--max-regression", "5", "--against", "."], "write per cent, such as 5%"),
        (["--threads", "1,two"], "write numbers with commas, such as 1,2,4"),
        (["--threads", "0"], "write numbers with commas"),
        (["--device", "toaster"], "unknown device 'toaster'"),
        (["--precision", "int4"], "has no int4; it has: onnx fp32 explicit"),
        (["--tokens", "1000"], "ask for --tokens 48 or fewer"),
        (["--resume", "--output", "nowhere.json"], "nothing to resume: there is no nowhere.journal.jsonl"),
        (["--baseline", __file__], "is no JSON"),
        (["--runner", "."], "holds no native runner"),
        (["--output", "."], ". is a folder: name a file to write"),
    ],
)
def test_what_makes_no_sense(
    tiny_bundle: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bench(tiny_bundle, *options)
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_finished_blocks_and_resume_goes_on(tiny_bundle: Path, runner: Path, output: Path) -> None:
    command = [str(tiny_bundle), "--runner", str(runner), "--output", str(output), *QUICK[:-1], "12"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lite_export.cli", "bench", *command], stderr=subprocess.PIPE, text=True
    )
    journal = output.with_name("bench.journal.jsonl")
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_bytes().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "finished results are kept" in stderr
    assert not output.exists()
    again = bench(*command)
    assert again.exit_code == 1
    assert "holds an unfinished measurement: go on with --resume" in again.stderr
    assert bench(*command, "--resume").exit_code == 0
    assert len(read_result(output).blocks) == 12
    assert not journal.exists()


def test_a_phone_unplugged_while_it_measures(
    adb: PrivateAdb, phone: DaemonPhone, tiny_bundle: Path, runner: Path, output: Path
) -> None:
    command = ["--device", f"adb:{phone.serial}", "--runner", runner, "--output", output, *QUICK]
    process = subprocess.Popen(
        [sys.executable, "-m", "lite_export.cli", "bench", str(tiny_bundle), *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = output.with_name("bench.journal.jsonl")
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_bytes().splitlines()) > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    phone.unplug()
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert phone.serial in stderr
    kept = len(journal.read_bytes().splitlines()) - 1
    assert 2 <= kept < 8
    phone.plug_in()
    with adb.attached(phone):
        done = bench(tiny_bundle, *command, "--resume")
    assert done.exit_code == 0, done.output
    result = read_result(output)
    assert sum(block.session == 0 for block in result.blocks) == kept
    assert len(result.blocks) == 8
    assert phone.files == []


def test_five_phones_at_once(attach: PhoneMaker, tiny_bundle: Path, runner: Path, output: Path) -> None:
    """Phones work by themselves: here each answers late, as the processors of this machine are not five phones'."""
    phones = [
        attach(properties={"ro.product.model": f"Phone_{number}"}, faults=Faults(delay=0.1)) for number in range(5)
    ]
    specs = [part for phone in phones for part in ("--device", f"adb:{phone.serial}")]
    options = ["--runner", runner, "-o", output, *QUICK]
    started = time.monotonic()
    done = bench(tiny_bundle, *specs[:2], *options)
    assert done.exit_code == 0, done.output
    alone, started = time.monotonic() - started, time.monotonic()
    done = bench(tiny_bundle, *specs, *options)
    assert done.exit_code == 0, done.output
    together = time.monotonic() - started
    results = [read_result(path) for path in output.parent.glob("bench.adb*.json")]
    assert sorted(result.device.model or "" for result in results) == [f"Lite Phone_{number}" for number in range(5)]
    assert all(len(result.blocks) == 8 for result in results)
    assert together < 2 * alone, f"{together:.2f} s for five, {alone:.2f} s for one"


def test_a_phone_that_fails_leaves_the_others_alone(
    attach: PhoneMaker, tiny_bundle: Path, runner: Path, output: Path
) -> None:
    good, bad = attach(), attach(faults=Faults(vanish_after_pushed=1_000_000))
    specs = [part for phone in (good, bad) for part in ("--device", f"adb:{phone.serial}")]
    done = bench(tiny_bundle, *specs, "--runner", runner, "-o", output, *QUICK)
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == 1
    assert f"error: adb:{bad.serial}: " in done.stderr
    (written,) = output.parent.glob("*.json")
    assert len(read_result(written).blocks) == 8
    assert good.files == []
