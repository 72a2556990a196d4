"""Scores of test sets, from files to table."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.evaluate import evaluate, find_sets, normalise, read_set, score, validation_bleu
from lite_export.loading import load_translator, shipped_model
from lite_runtime.translator import TranslateOptions
from lite_transformer.checkpoint import TOKENIZER, load_model
from lite_transformer.training.corpus import CorpusError

runner = CliRunner()
PAIRS = (
    ("Good morning.", "Bonjour à tous."),
    ("Where is the station?", "Où est la gare ?"),
    ("It is the cat's house.", "C’est la maison du chat."),
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two en-fr test sets."""
    folder = tmp_path / "data" / "mt" / "en-fr"
    folder.mkdir(parents=True)
    text = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    (folder / "test.plain.tsv").write_text(text, "utf8")
    with lzma.open(folder / "test.packed.tsv.xz", "wt", encoding="utf8") as file:
        file.write(text)
    (folder / "train.other.tsv").write_text("not\ta test set\n")
    return tmp_path / "data"


def test_finds_the_sets_of_a_direction(data: Path) -> None:
    packed, plain = find_sets(data, "en", "fr")
    assert (packed.name, plain.name) == ("packed", "plain")
    assert plain.sources == packed.sources == tuple(source for source, _ in PAIRS)


def test_the_opposite_direction_swaps_the_columns(data: Path) -> None:
    (first, _) = find_sets(data, "fr", "en", limit=1)
    assert (first.sources, first.references) == ((PAIRS[0][1],), (PAIRS[0][0],))


def test_says_where_it_looked(data: Path) -> None:
    with pytest.raises(CorpusError, match=r"mt/en-de/test\.\*"):
        find_sets(data, "en", "de")


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("")
    with pytest.raises(CorpusError, match="no sentence pairs"):
        read_set(tmp_path / "x.tsv", "x")


def test_normalises_typing_not_words() -> None:
    assert normalise("« L’été\u202f! »\u00a0“a” co\u00adop ") == '« L\'été ! » "a" coop'


def test_scores_are_sacrebleus() -> None:
    quality, signatures = score(["the cat sat on the mat"], ["the cat sat on a mat"])
    # 5/6, 3/5, 2/4, 1/3 matching n-grams, no brevity penalty.
    assert quality.bleu == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, abs=1e-6)
    assert "tok:13a" in signatures["bleu"]
    assert "nc:6" in signatures["chrf"]


def test_typing_differences_cost_only_the_raw_score() -> None:
    theirs, ours = "C’est la maison du chat\u00a0!", "C'est la maison du chat !"
    assert score([ours], [theirs])[0].bleu < 100
    assert score([normalise(ours)], [normalise(theirs)])[0].bleu == pytest.approx(100)


def test_evaluates_in_order_and_reports_progress(data: Path, tiny_folder: Path) -> None:
    translator = load_translator(tiny_folder)
    seen: list[int] = []
    result = evaluate(translator, find_sets(data, "en", "fr")[1], batch_size=2, on_progress=seen.append)
    assert seen[-1] == result.sentences == len(PAIRS)
    assert list(result.hypotheses) == [translator.translate([source])[0].text for source, _ in PAIRS]
    assert result.seconds > 0


def test_validation_bleu_is_greedy_bleu() -> None:
    # The shipped model: a random one makes no sentence of four words, and BLEU would be 0 whatever it does.
    folder = shipped_model()
    model, sources = load_model(folder), ["He reads a book in the garden every day.", "Where is the station?"]
    greedy = [t.text for t in load_translator(folder).translate(sources, TranslateOptions(beam=1))]
    assert validation_bleu(model, folder / TOKENIZER, sources, greedy) == pytest.approx(100)
    assert validation_bleu(model, folder / TOKENIZER, sources, greedy[::-1]) < 50


def test_pytorch_and_bundle_score_alike(data: Path, tiny_folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    report, saved = tmp_path / "scores.json", tmp_path / "hypotheses"
    arguments = ["evaluate", "--model", str(tiny_folder), "--model", str(tiny_bundle), "--data", str(data)]
    result = runner.invoke(app, [*arguments, "--beam", "2", "--json", str(report), "--save", str(saved)])
    assert result.exit_code == 0, result.stderr
    assert "model (PyTorch)" in result.stdout
    assert "tiny (ONNX Runtime)" in result.stdout
    assert "BLEU norm." in result.stdout
    assert "chrf: nrefs:1" in result.stdout
    records = json.loads(report.read_text())
    assert [r["set_name"] for r in records] == ["packed", "plain"] * 2
    for ours, exported in zip(records[:2], records[2:], strict=True):
        assert ours["raw"] == pytest.approx(exported["raw"], abs=0.1)
        assert set(ours["signatures"]) == {"bleu", "chrf"}
    files = sorted(path.name for path in saved.iterdir())
    assert files[0] == "model-PyTorch.packed.txt"
    assert len(files) == 4
    assert len((saved / files[0]).read_text("utf8").splitlines()) == len(PAIRS)


def test_named_sets_and_limit(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    named = f"mine={data}/mt/en-fr/test.plain.tsv"
    report = tmp_path / "scores.json"
    arguments = ["evaluate", "--model", str(tiny_folder), "--set", named, "--limit", "2", "--json", str(report)]
    assert runner.invoke(app, arguments).exit_code == 0
    (record,) = json.loads(report.read_text())
    assert (record["set_name"], record["sentences"]) == ("mine", 2)


def test_mistakes_say_what_to_change(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_folder, tmp_path / "bare"))
    (bare / "card.json").unlink()
    for arguments, code, words in (
        ([], 2, "--data"),
        (["--set", "nothing"], 1, "NAME=FILE"),
        (["--set", f"x={tmp_path}/no.tsv"], 1, "no data file"),
        (["--data", str(tmp_path)], 1, "mt/en-fr"),
        (["--data", str(data), "--model", str(bare)], 1, "card.json"),
    ):
        base = [] if "--model" in arguments else ["--model", str(tiny_folder)]
        result = runner.invoke(app, ["evaluate", *base, *arguments])
        assert result.exit_code == code, result.output
        assert words in result.stderr


def test_a_line_without_a_tab_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("fine\tgut\nbroken\n")
    result = runner.invoke(app, ["evaluate", "--model", str(tiny_folder), "--set", f"x={tmp_path}/x.tsv"])
    assert result.exit_code == 1
    assert "x.tsv:2: expected SOURCE<TAB>TARGET" in result.stderr
