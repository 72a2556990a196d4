"""The results page: real evaluations of a tiny model, its curve and its measurement, drawn by a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.evaluate_result import Evaluation, read_evaluation
from lite_export.report.errors import ReportError
from lite_export.report.results_inputs import read_log, read_results
from lite_export.report.results_page import render
from lite_runtime.bench_result import BenchResult
from lite_transformer.training.store import RunStore
from web_pages import Loads, opened, rows

CHARTS = ["scores", "mult-adds", "megabytes", "speed", "perplexity", "validation-bleu"]
PAIRS = (
    ("Good morning.", "Bonjour à tous."),
    ("Where is the station?", "Où est la gare ?"),
    ("It is the house of the cat.", "C'est la maison du chat."),
)


@pytest.fixture(scope="session")
def evaluation_file(tiny_folder: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in both runtimes beside a recorded system that knows the references, on two sets."""
    folder = tmp_path_factory.mktemp("evaluation")
    for name in ("first", "second"):
        (folder / f"{name}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), "utf8")
    (folder / "known.txt").write_text("".join(f"{target}\n" for _, target in PAIRS), "utf8")
    arguments = [
        *("--model", tiny_folder, "--model", tiny_bundle, "--beam", 1, "--resamples", 100),
        *("--set", f"first={folder}/first.tsv", "--set", f"second={folder}/second.tsv"),
        *("--system", f"known@first={folder}/known.txt", "--json", folder / "scores.json"),
    ]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return folder / "scores.json"


@pytest.fixture
def evaluation(evaluation_file: Path) -> Evaluation:
    return read_evaluation(evaluation_file)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run's folder, with a log as training writes it."""
    folder = tmp_path / "phone"
    folder.mkdir()
    for step, perplexity, bleu in ((100, 40.0, 3.0), (200, 9.0, 12.0), (300, 5.0, 17.5)):
        RunStore(folder).append_log({"step": step, "epoch": 0, "perplexity": perplexity, "bleu": bleu})
    return folder


@pytest.fixture
def page(evaluation_file: Path, run: Path, result_file: Path) -> str:
    return render(read_results([evaluation_file], [run], [result_file]))


def test_every_chart_holds_its_data(page: str, evaluation: Evaluation, result: BenchResult) -> None:
    specs = Loads(page).specs
    assert list(specs) == CHARTS
    folder, bundle, _ = evaluation.systems
    assert {(row["set"], row["system"], row["BLEU"]) for row in rows(specs["scores"])} == {
        (scores.title, scores.system, scores.raw.bleu.value) for scores in evaluation.scores
    }
    # The bundle has no config: its Mult-Adds are those of the checkpoint it was made from.
    assert costs(specs["mult-adds"]) == {(name, folder.mult_adds / 1e6) for name in (folder.name, bundle.name)}
    assert costs(specs["megabytes"]) == {(system.name, system.bytes / 1e6) for system in (folder, bundle)}
    names = {"tiny: onnx fp32, 1 thread": 0, "tiny #2: onnx fp32, 1 thread": 1}
    medians = [summary.per_token.p50.value for summary in result.summaries]
    assert costs(specs["speed"]) == {(name, medians[number]) for name, number in names.items()}
    assert [(row["update"], row["value"]) for row in rows(specs["perplexity"])] == [(100, 40.0), (200, 9.0), (300, 5.0)]
    assert {row["run"] for row in rows(specs["validation-bleu"])} == {"phone"}


def costs(spec: dict) -> set[tuple[str, float]]:
    return {(row["system"], row["cost"]) for row in rows(spec) if "cost" in row}


def test_a_measured_form_that_was_not_evaluated_has_the_bleu_of_its_weights(
    evaluation: Evaluation, result_file: Path, tmp_path: Path
) -> None:
    """Without the bundle's own evaluation, the checkpoint's counts, and the measured file is a size of its own."""
    name = evaluation.systems[1].name
    content = json.loads(evaluation.model_dump_json())
    content["systems"] = [system for system in content["systems"] if system["name"] != name]
    content["scores"] = [scores for scores in content["scores"] if scores["system"] != name]
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(content), "utf8")
    specs = Loads(render(read_results([path], [], [result_file]))).specs
    assert list(specs) == CHARTS[:4]
    assert {name for name, _ in costs(specs["megabytes"])} == {
        evaluation.systems[0].name,
        "tiny: onnx fp32, 1 thread",
        "tiny #2: onnx fp32, 1 thread",
    }
    bleu = {scores.title: scores.raw.bleu.value for scores in evaluation.scores if scores.system != name}
    assert {row["set"] for row in rows(specs["speed"]) if "cost" in row} == set(bleu)


def test_tables_have_every_score_with_its_mark(page: str, evaluation: Evaluation) -> None:
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for scores in evaluation.scores:
        for score in (scores.raw.bleu, scores.raw.chrf, scores.normalised.bleu):
            assert f"{score.value:.2f} <span" in text
    assert "3 sentences, compared with model (PyTorch)" in text
    assert '<span class="good whole">▲ +' in text
    assert "p 0.010" in text, "the least that 100 resamples can show"
    for signature in evaluation.signatures.values():
        assert signature in text
    for system in evaluation.systems:
        assert f"<td>{system.name}</td>" in text


def test_a_browser_draws_every_chart_and_asks_for_nothing(browser: str, page: str, tmp_path: Path) -> None:
    path = tmp_path / "results.html"
    path.write_text(page, "utf8")
    loads = Loads(page)
    assert loads.addresses == []
    assert loads.policy.startswith("default-src 'none';")
    elements, asked = opened(browser, path, tmp_path)
    assert asked == []
    assert f'data-drawn="{len(CHARTS)}"' in elements
    for chart in CHARTS:
        frontier = chart in CHARTS[1:4]
        assert "NaN" not in drawn(elements, chart), chart
        assert marks(drawn(elements, chart), "symbol") >= (2 if frontier else 3), chart
        assert drawn(elements, chart).count("<option") == (2 if frontier else 0), "sets to choose from"
        if frontier:
            assert marks(drawn(elements, chart), "rule") >= 3, "two intervals, and the recorded system's line"
            assert ">known</text>" in drawn(elements, chart)


def drawn(elements: str, chart: str) -> str:
    """What the browser made of one chart."""
    return elements.partition(f'id="{chart}"')[2].partition("</section>")[0]


def marks(chart: str, kind: str) -> int:
    """How many marks of one kind a drawn chart has."""
    groups = re.findall(rf'<g class="mark-{kind} role-mark[^"]*"[^>]*>(.*?)</g>', chart, flags=re.DOTALL)
    return sum(group.count("<path") + group.count("<line") for group in groups)


def test_one_system_alone_is_drawn(browser: str, evaluation_file: Path, tmp_path: Path) -> None:
    """One point has no extent in any direction: scales must bear it."""
    content = json.loads(evaluation_file.read_text("utf8"))
    content["systems"], content["scores"] = content["systems"][:1], content["scores"][:1]
    (tmp_path / "scores.json").write_text(json.dumps(content), "utf8")
    path = tmp_path / "results.html"
    path.write_text(render(read_results([tmp_path / "scores.json"])), "utf8")
    elements, _ = opened(browser, path, tmp_path)
    assert 'data-drawn="3"' in elements
    for chart in CHARTS[:3]:
        assert "NaN" not in drawn(elements, chart), chart
        assert marks(drawn(elements, chart), "symbol") == 1, chart


def test_systems_and_sets_of_one_name_are_told_apart(evaluation_file: Path, tmp_path: Path) -> None:
    """Another model under the same name, on a set of the same name that was cut short; the peer is the same."""
    content = json.loads(evaluation_file.read_text("utf8"))
    content["systems"][0]["weights_sha256"] = "0" * 64
    for scores in content["scores"]:
        if scores["set_name"] == "second":
            scores.update(set_sha256="1" * 64, sentences=2)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content), "utf8")
    results = read_results([evaluation_file, other])
    assert set(results.systems()) == {
        "model (PyTorch), scores",
        "model (PyTorch), other",
        "tiny (ONNX Runtime)",
        "known",
    }
    sets = results.sets()
    assert set(sets) == {"first en-fr", "second en-fr, 3 sentences", "second en-fr, 2 sentences"}
    assert [one.name for one in sets["first en-fr"]].count("known") == 1
    assert {one.against for one in sets["second en-fr, 2 sentences"]} == {None, "model (PyTorch), other"}


def test_runs_of_one_name_are_told_apart(evaluation_file: Path, run: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(run, tmp_path / "elsewhere" / "phone"))
    results = read_results([evaluation_file], [run, again / "log.jsonl"])
    assert [curve.name for curve in results.curves] == [f"phone, {run}/log.jsonl", f"phone, {again}/log.jsonl"]


def test_a_line_that_is_being_written_is_left_out(run: Path) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 400, "perpl')
    assert [point.step for point in read_log(run / "log.jsonl")] == [100, 200, 300]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no validation yet"),
        (b"no json\n", "is no log of lite-export train"),
        (b'{"epoch": 1}\n', "is no log of lite-export train"),
        (b"\xff\n", "is not UTF-8 text"),
    ],
)
def test_files_that_are_no_logs(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=message):
        read_log(path)


def test_the_command_writes_the_page_whole_or_not_at_all(
    evaluation_file: Path, run: Path, result_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results.html"

    def results(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["results", *map(str, arguments), "--output", str(output)])

    done = results(evaluation_file, "--curve", run, "--bench", result_file)
    assert done.exit_code == 0, done.output
    assert "</html>" in output.read_text("utf8")
    before = output.read_bytes()
    for arguments, words in (
        ([result_file], "is no result of lite-export evaluate --json"),
        ([evaluation_file, "--bench", evaluation_file], "neither a result of lite-export bench nor"),
        ([evaluation_file, "--curve", tmp_path / "nowhere"], "nowhere: no such file"),
        ([evaluation_file, "--curve", tmp_path], "log.jsonl: no such file"),
        ([tmp_path / "nowhere.json"], "nowhere.json: no such file"),
    ):
        done = results(*arguments)
        assert done.exit_code == 1, done.output
        assert words in done.stderr
        assert output.read_bytes() == before


def test_what_ends_a_script_cannot_come_from_a_name(evaluation_file: Path, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    path = tmp_path / "hostile.json"
    path.write_text(evaluation_file.read_text("utf8").replace('"known"', json.dumps(hostile)), "utf8")
    text = render(read_results([path]))
    assert hostile not in text
    assert any(hostile == row["system"] for row in rows(Loads(text).specs["scores"]))
