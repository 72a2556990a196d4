"""The models that come with the package: found by name, intact, fit for what their cards say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.cli.options import MODEL_HELP, model_path
from lite_export.cli.parity import origin
from lite_export.evaluate import read_set
from lite_export.loading import SENTENCES, TEST_SET, load_model_card, shipped_model, shipped_names
from lite_runtime.bundle import Bundle, open_bundle
from lite_runtime.manifest import Card

runner = CliRunner()


@pytest.mark.parametrize("name", shipped_names())
def test_every_one_has_all_it_needs(name: str) -> None:
    folder, card = shipped_model(name), load_model_card(shipped_model(name))
    assert f"{card.source_language}-{card.target_language}" == name
    assert len((folder / SENTENCES).read_text("utf8").splitlines()) == 50
    assert len(read_set(folder / TEST_SET, name).sources) == 1000
    assert {"README.md", "curve.svg"} <= {file.name for file in folder.iterdir()}
    assert name in MODEL_HELP


@pytest.mark.parametrize(
    ("name", "text", "word"), [("en-fr", "Where is the station?", "gare"), ("fr-en", "Où est la gare ?", "station")]
)
def test_it_translates_by_its_name(name: str, text: str, word: str) -> None:
    result = runner.invoke(app, ["translate", "--model", name, text])
    assert result.exit_code == 0
    assert word in result.stdout


# The first six of each were trained on (configs/phrases.*.tsv); the others, or their names, are in no phrase.
SAID_FIRST = {
    "en-fr": (
        ("Hello!", "Bonjour !"),
        ("Good morning.", "Bonjour."),
        ("Goodbye.", "Au revoir."),
        ("Good evening.", "Bonsoir."),
        ("Nice to meet you.", "Enchanté."),
        ("Happy birthday!", "Joyeux anniversaire !"),
        ("Good morning, Mary.", "Bonjour, Mary."),
        ("Happy birthday, Daniel!", "Joyeux anniversaire, Daniel !"),
        ("Good night, Sophie, sleep well.", "Bonne nuit, Sophie, dormez bien."),
    ),
    "fr-en": (
        ("Bonjour !", "Hello!"),
        ("Bonsoir.", "Good evening."),
        ("Au revoir.", "Goodbye."),
        ("Merci beaucoup !", "Thank you very much!"),
        ("Salut !", "Hi!"),
        ("Joyeux anniversaire !", "Happy birthday!"),
        ("Bonsoir, Marie.", "Good evening, Mary."),
        ("Joyeux anniversaire, Daniel !", "Happy birthday, Daniel!"),
        ("Bonjour, je voudrais louer une voiture.", "Hello, I would like to rent a car."),
    ),
}


@pytest.mark.parametrize("name", shipped_names())
def test_what_people_say_first(name: str) -> None:
    texts, expected = zip(*SAID_FIRST[name], strict=True)
    result = runner.invoke(app, ["translate", "--model", name], input="\n".join(texts) + "\n")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == list(expected)


def test_a_path_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path("fr-en") == shipped_model("fr-en")
    (tmp_path / "fr-en").mkdir()
    assert model_path("fr-en") == Path("fr-en")
    assert model_path("de-en") == Path("de-en")


def test_an_unknown_name_says_what_there_is() -> None:
    result = runner.invoke(app, ["translate", "--model", "de-en", "Guten Morgen."])
    assert result.exit_code == 1
    assert "no model at de-en" in result.stderr
    assert "en-fr, fr-en" in result.stderr


@pytest.mark.parametrize(("languages", "name"), [(("fr", "en"), "fr-en"), (("de", "en"), "en-fr")])
def test_parity_looks_for_the_model_of_a_bundles_languages(
    tiny_bundle: Path, languages: tuple[str, str], name: str
) -> None:
    bundle = open_bundle(tiny_bundle)
    card = Card(**{**dict(bundle.manifest.card), "source_language": languages[0], "target_language": languages[1]})
    changed: Bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"card": card}))
    assert origin(changed) == shipped_model(name)
