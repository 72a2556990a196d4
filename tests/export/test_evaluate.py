"""Scores of test sets, from files to table: sets, scores, the command."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.evaluate import (
    Output,
    find_sets,
    normalise,
    read_set,
    score_outputs,
    translate_set,
    validation_bleu,
)
from lite_export.evaluate_result import read_evaluation
from lite_export.loading import load_model_card, load_translator, shipped_model, write_card
from lite_runtime.quality import score
from lite_runtime.translator import TranslateOptions
from lite_transformer.checkpoint import TOKENIZER, WEIGHTS, load_config, load_model
from lite_transformer.profile import profile
from lite_transformer.training.corpus import CorpusError

runner = CliRunner()
QUICK = ["--resamples", "100"]
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
    for name in ("plain", "only"):
        (folder / f"dev.{name}.tsv").write_text(text.partition("\n")[2], "utf8")
    return tmp_path / "data"


def test_finds_the_sets_of_a_direction(data: Path) -> None:
    packed, plain = find_sets(data, "en", "fr")
    assert (packed.name, plain.name) == ("packed", "plain")
    assert plain.sources == packed.sources == tuple(source for source, _ in PAIRS)
    assert plain.title == "plain en-fr"
    assert plain.sha256 == packed.sha256


def test_finds_development_sets_and_tells_them_from_test_sets_of_the_same_name(data: Path) -> None:
    assert [one.name for one in find_sets(data, "en", "fr", splits=("dev",))] == ["only", "plain-dev"]
    both = find_sets(data, "en", "fr", splits=("test", "dev"))
    assert [one.name for one in both] == ["packed", "plain", "only", "plain-dev"]
    assert both[1].sha256 != both[3].sha256


def test_backups_and_cards_are_no_sets(data: Path) -> None:
    names = [one.name for one in find_sets(data, "en", "fr")]
    folder = data / "mt" / "en-fr"
    for name in ("test.old.tsv.bak", "test.new.tsv.xz.json", "test.part.tsv.xz.1.partial"):
        (folder / name).write_text("no pairs")
    assert [one.name for one in find_sets(data, "en", "fr")] == names


def test_the_opposite_direction_swaps_the_columns(data: Path) -> None:
    (first, _) = find_sets(data, "fr", "en", limit=1)
    assert (first.sources, first.references) == ((PAIRS[0][1],), (PAIRS[0][0],))
    assert (first.direction, first.total) == ("fr-en", len(PAIRS))


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


def test_translates_in_order_and_reports_progress(data: Path, tiny_folder: Path) -> None:
    translator = load_translator(tiny_folder)
    seen: list[int] = []
    plain = find_sets(data, "en", "fr")[1]
    output = translate_set(translator, "tiny", plain, batch_size=2, on_progress=seen.append)
    assert seen[-1] == len(output.hypotheses) == len(PAIRS)
    assert list(output.hypotheses) == [translator.translate([source])[0].text for source, _ in PAIRS]
    assert output.seconds is not None
    assert output.seconds > 0


def test_scores_raw_and_normalised_against_the_first(data: Path) -> None:
    plain = find_sets(data, "en", "fr")[1]
    straight = tuple(normalise(reference) for reference in plain.references)
    outputs = [Output("ours", straight, 2.0), Output("theirs", plain.references), Output("silent", ("", "", ""))]
    scores, signatures = score_outputs(plain, outputs, resamples=100)
    ours, theirs, silent = scores
    assert ours.raw.bleu.value < ours.normalised.bleu.value == pytest.approx(100)
    assert (ours.against, theirs.against, silent.against) == (None, "ours", "ours")
    assert theirs.raw.bleu.difference == pytest.approx(100 - ours.raw.bleu.value)
    assert theirs.normalised.bleu.difference == pytest.approx(0)
    assert (ours.empty, silent.empty) == (0, 3)
    assert (ours.sentences_per_second, theirs.sentences_per_second) == (1.5, None)
    assert "bs:100|seed:12345" in signatures["bleu"]


def test_validation_bleu_is_greedy_bleu() -> None:
    # The shipped model: a random one makes no sentence of four words, and BLEU would be 0 whatever it does.
    folder = shipped_model()
    model, sources = load_model(folder), ["He reads a book in the garden every day.", "Where is the station?"]
    greedy = [t.text for t in load_translator(folder).translate(sources, TranslateOptions(beam=1))]
    assert validation_bleu(model, folder / TOKENIZER, sources, greedy) == pytest.approx(100)
    assert validation_bleu(model, folder / TOKENIZER, sources, greedy[::-1]) < 50


def test_pytorch_and_bundle_score_alike(data: Path, tiny_folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    report, saved = tmp_path / "scores.json", tmp_path / "hypotheses"
    arguments = ["evaluate", "--model", str(tiny_folder), "--model", str(tiny_bundle), "--data", str(data), *QUICK]
    result = runner.invoke(app, [*arguments, "--beam", "2", "--json", str(report), "--save", str(saved)])
    assert result.exit_code == 0, result.stderr
    assert "model (PyTorch)" in result.stdout
    assert "tiny (ONNX Runtime)" in result.stdout
    assert "BLEU norm." in result.stdout
    assert "chrf: nrefs:1|bs:100" in result.stdout
    evaluation = read_evaluation(report)
    assert [(s.set_name, s.system) for s in evaluation.scores] == [
        (name, system) for name in ("packed", "plain") for system in ("model (PyTorch)", "tiny (ONNX Runtime)")
    ]
    for ours, exported in zip(evaluation.scores[::2], evaluation.scores[1::2], strict=True):
        assert ours.raw.bleu.value == pytest.approx(exported.raw.bleu.value, abs=0.1)
        assert ours.raw.chrf.value == pytest.approx(exported.raw.chrf.value, abs=0.1)
        assert exported.against == "model (PyTorch)"
    folder, bundle = evaluation.systems
    assert folder.weights_sha256 == bundle.weights_sha256
    assert (folder.form, bundle.form) == ("pytorch", "onnx fp32")
    assert (folder.beam, bundle.beam) == (2, 2)
    assert (folder.architecture, bundle.architecture) == ("lite", None)
    counted = profile(load_config(tiny_folder), 30, 30)
    assert (folder.mult_adds, folder.parameters) == (counted.mult_adds, counted.parameters)
    assert folder.bytes == (tiny_folder / WEIGHTS).stat().st_size
    lines = (saved / "en-fr.packed.model-PyTorch.txt").read_text("utf8").splitlines()
    assert len(lines) == len(PAIRS)
    assert len(list(saved.glob("*.txt"))) == 4


def test_every_beam_is_a_system(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    report, saved = tmp_path / "scores.json", tmp_path / "hypotheses"
    named = f"mine={data}/mt/en-fr/test.plain.tsv"
    arguments = ["evaluate", "--model", str(tiny_folder), "--set", named, *QUICK, "--json", str(report)]
    result = runner.invoke(app, [*arguments, "--beam", "3", "--beam", "1", "--beam", "3", "--save", str(saved)])
    assert result.exit_code == 0, result.stderr
    evaluation = read_evaluation(report)
    assert [(s.name, s.beam) for s in evaluation.systems] == [
        ("model (PyTorch), beam 3", 3),
        ("model (PyTorch), greedy", 1),
    ]
    assert [s.against for s in evaluation.scores] == [None, "model (PyTorch), beam 3"]
    translator, sources = load_translator(tiny_folder), [source for source, _ in PAIRS]
    for width, name in ((3, "beam-3"), (1, "greedy")):
        found = translator.translate(sources, TranslateOptions(beam=width))
        lines = (saved / f"en-fr.mine.model-PyTorch-{name}.txt").read_text("utf8").splitlines()
        assert lines == [t.text for t in found]


def test_named_sets_and_limit(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    named = f"mine={data}/mt/en-fr/test.plain.tsv"
    report = tmp_path / "scores.json"
    arguments = ["evaluate", "--model", str(tiny_folder), "--set", named, "--limit", "2", *QUICK]
    assert runner.invoke(app, [*arguments, "--json", str(report)]).exit_code == 0
    (scores,) = read_evaluation(report).scores
    assert (scores.set_name, scores.direction, scores.sentences) == ("mine", "en-fr", 2)


def test_a_model_without_a_card_is_evaluated_on_named_sets(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_folder, tmp_path / "run" / "final"))
    (bare / "card.json").unlink()
    report, named = tmp_path / "scores.json", f"mine={data}/mt/en-fr/test.plain.tsv"
    models = ["--model", str(tiny_folder), "--model", str(bare)]
    arguments = ["evaluate", *models, "--set", named, "--beam", "1", "--json", str(report), *QUICK]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    # Training calls every folder "final": the run's own name is shown.
    assert [(s.system, s.against) for s in read_evaluation(report).scores] == [
        ("model (PyTorch)", None),
        ("run (PyTorch)", "model (PyTorch)"),
    ]


def test_mistakes_say_what_to_change(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_folder, tmp_path / "bare"))
    (bare / "card.json").unlink()
    turned, plain = Path(shutil.copytree(tiny_folder, tmp_path / "turned")), f"x={data}/mt/en-fr/test.plain.tsv"
    card = {"source_language": "fr", "target_language": "en"}
    write_card(turned, load_model_card(turned).model_copy(update=card))
    for arguments, code, words in (
        ([], 2, "--data"),
        (["--set", "nothing"], 1, "NAME=FILE"),
        (["--set", f"x={tmp_path}/no.tsv"], 1, "no data file"),
        (["--data", str(tmp_path)], 1, "mt/en-fr"),
        (["--data", str(data), "--model", str(bare)], 1, "card.json"),
        (["--data", str(data), "--split", "train"], 2, "--split"),
        (["--data", str(data), "--set", f"plain={data}/mt/en-fr/test.plain.tsv"], 1, "two sets are called plain"),
        (["--data", str(data), "--save", str(bare / "config.json")], 1, "is a file"),
        (["--data", str(data), "--json", str(tmp_path)], 1, "is a folder: name a file to write"),
        (["--data", str(data), "--json", str(bare / "config.json" / "x.json")], 1, "is a file, a folder is needed"),
        (["--set", plain, "--model", str(tiny_folder), "--model", str(turned)], 1, "have en-fr and fr-en"),
    ):
        base = [] if "--model" in arguments else ["--model", str(tiny_folder)]
        result = runner.invoke(app, ["evaluate", *base, *arguments])
        assert result.exit_code == code, result.output
        assert words in result.stderr
        assert "BLEU" not in result.stderr, "nothing is translated first"


def test_a_seed_that_is_no_number_is_refused_first(
    data: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "twelve")
    result = runner.invoke(app, ["evaluate", "--model", str(tiny_folder), "--data", str(data)])
    assert result.exit_code == 1
    assert "SACREBLEU_SEED" in result.stderr


def test_a_line_without_a_tab_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("fine\tgut\nbroken\n")
    result = runner.invoke(app, ["evaluate", "--model", str(tiny_folder), "--set", f"x={tmp_path}/x.tsv"])
    assert result.exit_code == 1
    assert "x.tsv:2: expected SOURCE<TAB>TARGET" in result.stderr
