"""The report: everything is in it, it asks nobody for anything, and a real browser draws every chart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.report.errors import ReportError
from lite_export.report.inputs import read_inputs
from lite_export.report.page import render
from lite_runtime.bench_result import BenchResult
from lite_runtime.bundle import open_bundle
from lite_runtime.ladder import climb
from web_pages import Loads, opened, rows

CHARTS = ["latency", "distribution", "position", "frontier", "repeatability", "ratios"]


@pytest.fixture
def parity_file(tiny_bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "parity.json"
    path.write_text(climb(open_bundle(tiny_bundle)).model_dump_json(), "utf8")
    return path


@pytest.fixture
def page(result_file: Path, parity_file: Path) -> str:
    return render(read_inputs([result_file, parity_file]))


def test_the_data_of_every_chart_is_in_the_page(page: str, result: BenchResult) -> None:
    specs = Loads(page).specs
    assert list(specs) == CHARTS
    names = {"tiny: onnx fp32, 1 thread", "tiny #2: onnx fp32, 1 thread"}
    for chart in CHARTS[:-1]:
        assert {row["series"] for row in rows(specs[chart])} == names, chart
    latency = {(row["series"], row["percentile"]): row["value"] for row in rows(specs["latency"])}
    for summary in result.summaries:
        assert latency[summary.candidate, "p99"] == summary.per_token.p99.value
    assert {row["position"] for row in rows(specs["position"])} == set(range(1, 13))
    assert len(rows(specs["repeatability"])) == 2 * 8
    assert {row["label"] for row in rows(specs["frontier"])} == {""}, "the tiny model has no BLEU, so none is shown"
    assert {row["comparison"].rpartition(": ")[2] for row in rows(specs["ratios"])} == {"encode", "token"}


def test_figures_and_parity_are_there(page: str, result: BenchResult) -> None:
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for summary in result.summaries:
        assert f"<td>{summary.per_token.p50.value:.2f} " in text
    assert result.device.system in text
    for rung in ("outputs", "steps", "layers", "tokens", "hypotheses"):
        assert f"<td>{rung}</td>" in text
    assert ">breach<" not in text


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    loads = Loads(page)
    assert loads.addresses == []
    assert loads.policy.startswith("default-src 'none';")
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles


def test_a_browser_draws_every_chart_and_asks_for_nothing(browser: str, page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, "utf8")
    elements, asked = opened(browser, path, tmp_path)
    assert f'data-drawn="{len(CHARTS)}"' in elements
    assert len(re.findall(r'<svg[^>]*class="marks"', elements)) == len(CHARTS)
    # The smallest chart, two points and two intervals, has this many marks.
    for chart in CHARTS:
        drawn = elements.partition(f'id="{chart}"')[2].partition("</section>")[0]
        assert drawn.count("<path") >= 4, chart
    assert asked == []


def test_a_request_would_be_seen_and_is_forbidden(browser: str, page: str, tmp_path: Path) -> None:
    """The same page with a picture from elsewhere: its policy stops it; without the policy it is asked for."""
    path = tmp_path / "report.html"
    address = "http://127.0.0.1:9/picture.png"
    loading = page.replace("<h1>", f'<img src="{address}"><h1>')
    path.write_text(loading, "utf8")
    assert opened(browser, path, tmp_path)[1] == []
    path.write_text(loading.replace("Content-Security-Policy", "X-Nothing"), "utf8")
    assert opened(browser, path, tmp_path)[1] == [address]


def test_emulated_figures_are_red_and_called_so(emulated_file: Path, result_file: Path) -> None:
    text = render(read_inputs([emulated_file, result_file]))
    assert text.count('<tr class="emulated">') == 2
    assert "emulated, not a measurement: runs under qemu-user" in text
    specs = Loads(text).specs
    assert sum("(emulated)" in name for name in {row["series"] for row in rows(specs["latency"])}) == 2
    assert "Not compared: the baseline is of another device" in text


def test_two_runs_of_one_device_are_compared(result: BenchResult, tmp_path: Path) -> None:
    paths = [tmp_path / "before.json", tmp_path / "after.json"]
    for path in paths:
        path.write_text(result.model_dump_json(), "utf8")
    text = render(read_inputs(paths))
    assert "before to after" in text
    assert text.count('<td class="soft">no difference</td>') == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is no JSON"),
        ("[]", "neither a result of lite-export bench nor"),
        ('{"formats": [], "reference": "nobody"}', "damaged report of parity: bundle"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ReportError, match=message):
        read_inputs([path])


def test_the_command_writes_the_page_whole_or_not_at_all(result_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    arguments = ["report", str(result_file), "--output", str(output)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "</html>" in output.read_text("utf8")
    before = output.read_bytes()
    result_file.write_text("{}")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {result_file} is neither")
    assert output.read_bytes() == before


def test_what_ends_a_script_cannot_come_from_a_name(result: BenchResult, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    content = result.model_dump_json().replace("tiny: onnx", f"{hostile}: onnx")
    path = tmp_path / "hostile.json"
    path.write_text(content, "utf8")
    text = render(read_inputs([path]))
    assert hostile not in text
    assert any(hostile in row["series"] for row in rows(Loads(text).specs["latency"]))
