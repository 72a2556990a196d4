"""Recorded outputs of other systems, and outputs of ours that are kept."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.evaluate import EvaluationSet, find_sets
from lite_export.evaluate_outputs import find_peers, named_output, read_lines
from lite_export.evaluate_result import EvaluationError, read_evaluation

SOURCES = ("Good morning.", "Where is the station?", "It is the house of the cat.")
REFERENCES = ("Bonjour à tous.", "Où est la gare ?", "C'est la maison du chat.")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two test sets, one of them shorter."""
    folder = tmp_path / "data" / "mt" / "en-fr"
    folder.mkdir(parents=True)
    lines = [f"{source}\t{target}\n" for source, target in zip(SOURCES, REFERENCES, strict=True)]
    (folder / "test.long.tsv").write_text("".join(lines), "utf8")
    (folder / "test.short.tsv").write_text("".join(lines[:2]), "utf8")
    return tmp_path / "data"


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    """Translations of both sets by two systems, of one of them packed, and files that are none."""
    folder = tmp_path / "peers"
    folder.mkdir()
    write(folder / "en-fr.long.perfect-1.5.txt", REFERENCES)
    write(folder / "en-fr.short.perfect-1.5.txt", REFERENCES[:2])
    with lzma.open(folder / "en-fr.long.mute.txt.xz", "wt", encoding="utf8") as file:
        file.write("\n" * len(SOURCES))
    write(folder / "fr-en.long.other-direction.txt", SOURCES)
    write(folder / "en-fr.longer.other-set.txt", SOURCES)
    write(folder / "en-fr.long.scores.json", ("{}",))
    return folder


def write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf8")


def run(*arguments: object) -> Result:
    fixed = ["--beam", "1", "--resamples", "100"]
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), *fixed])


def sets(data: Path, limit: int | None = None) -> list[EvaluationSet]:
    return find_sets(data, "en", "fr", limit)


def test_peers_are_found_by_direction_and_set(data: Path, peers: Path) -> None:
    found = [(one.name, output.system, output.hypotheses) for one, output in find_peers(peers, sets(data))]
    assert found == [
        ("long", "mute", ("", "", "")),
        ("long", "perfect-1.5", REFERENCES),
        ("short", "perfect-1.5", REFERENCES[:2]),
    ]


def test_a_limit_cuts_them_too(data: Path, peers: Path) -> None:
    assert {output.hypotheses for _, output in find_peers(peers, sets(data, 1))} == {("",), REFERENCES[:1]}


def test_translations_of_a_cut_set_fit_it(data: Path, peers: Path) -> None:
    write(peers / "en-fr.long.cut.txt", REFERENCES[:1])
    assert ("cut", REFERENCES[:1]) in {(o.system, o.hypotheses) for _, o in find_peers(peers, sets(data, 1))}
    with pytest.raises(EvaluationError, match=r"long\.cut\.txt has 1 lines, but long en-fr has 3 sentences"):
        find_peers(peers, sets(data, 2))


def test_windows_line_ends_and_a_missing_last_one_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("a\r\nb\u2028\r\nc".encode())
    assert read_lines(tmp_path / "x.txt") == ["a", "b\u2028", "c"]


@pytest.mark.parametrize("content", [b"\xff\n", "ol\u00e9\n".encode("latin1")])
def test_what_is_not_utf8_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(EvaluationError, match="not UTF-8"):
        read_lines(tmp_path / "x.txt")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt.xz").write_bytes(lzma.compress(b"text\n" * 1000)[:-20])
    with pytest.raises(EvaluationError, match=r"x\.txt\.xz is damaged"):
        read_lines(tmp_path / "x.txt.xz")


def test_one_system_of_one_set(data: Path, peers: Path) -> None:
    file = peers / "en-fr.short.perfect-1.5.txt"
    one, output = named_output(f"them@short={file}", sets(data))
    assert (one.name, output.system) == ("short", "them")
    assert named_output(f"them={file}", sets(data)[1:])[1] == output


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("them", "write SYSTEM@SET=FILE"),
        ("=x", "write SYSTEM@SET=FILE"),
        ("them={file}", "fits several of the chosen sets: long en-fr, short en-fr"),
        ("them@news={file}", "names none of the chosen sets"),
        ("them@long=nowhere.txt", "there is no file nowhere.txt"),
        ("them@long={file}", "has 2 lines, but long en-fr has 3 sentences"),
    ],
)
def test_wrong_systems_say_what_to_write(data: Path, peers: Path, entry: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        named_output(entry.format(file=peers / "en-fr.short.perfect-1.5.txt"), sets(data))


def test_systems_are_compared_with_the_model(data: Path, peers: Path, tiny_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "scores.json"
    system = f"again@long={peers}/en-fr.long.perfect-1.5.txt"
    result = run("--model", tiny_folder, "--data", data, "--peers", peers, "--system", system, "--json", report)
    assert result.exit_code == 0, result.stderr
    evaluation = read_evaluation(report)
    assert [(s.name, s.form) for s in evaluation.systems[1:]] == [
        ("again", "recorded"),
        ("mute", "recorded"),
        ("perfect-1.5", "recorded"),
    ]
    model, again, mute, perfect = evaluation.by_set()["long en-fr"]
    assert model.raw.bleu.verdict is None
    assert again.raw == perfect.raw
    assert again.raw.bleu.value == pytest.approx(100)
    assert again.raw.bleu.verdict == again.raw.chrf.verdict == "better"
    assert {again.against, mute.against} == {"model (PyTorch)"}
    assert "▲" in result.stdout
    assert "mute on long en-fr: 3 of 3 translations are empty" in result.stdout


def test_mistakes_end_before_anything_is_translated(data: Path, peers: Path, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copy(peers / "en-fr.long.perfect-1.5.txt", peers / "en-fr.long.mute.txt")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["--peers", peers], "two systems are called mute on long en-fr"),
        (["--peers", tmp_path / "empty"], "has no SOURCE-TARGET.SET.SYSTEM.txt"),
        (["--peers", tmp_path / "nowhere"], "no folder"),
        (["--system", f"model (PyTorch)@long={peers}/en-fr.long.perfect-1.5.txt"], "two systems are called model"),
    ):
        result = run("--model", tiny_folder, "--data", data, *arguments)
        assert result.exit_code == 1, result.output
        assert words in result.stderr
        assert "BLEU" not in result.output


def test_two_sets_do_not_share_a_file(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    file = data / "mt" / "en-fr" / "test.short.tsv"
    result = run("--model", tiny_folder, "--set", f"a b={file}", "--set", f"a-b={file}", "--save", tmp_path / "kept")
    assert (result.exit_code, "a b and a-b would share files" in result.stderr) == (1, True), result.output


def test_two_models_do_not_share_a_file(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    models = [shutil.copytree(tiny_folder, tmp_path / name) for name in ("run.1", "run-1")]
    arguments = ["--model", models[0], "--model", models[1], "--data", data]
    result = run(*arguments, "--save", tmp_path / "kept")
    assert (result.exit_code, "would share files" in result.stderr) == (1, True), result.output
    assert run(*arguments).exit_code == 0


def test_kept_translations_are_not_made_again(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", tiny_folder, "--data", data, "--save", tmp_path / "kept"]
    first = run(*arguments)
    assert first.exit_code == 0, first.stderr
    assert "reused" not in first.stderr
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    assert sorted(before) == sorted(
        f"en-fr.{name}.model-PyTorch.{s}" for name in ("long", "short") for s in ("json", "txt")
    )
    again = run(*arguments)
    assert again.stderr.count("reused") == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before
    assert again.stdout == first.stdout


def test_only_what_is_the_same_is_reused(data: Path, tiny_folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Each change makes both sets, or one, again; what a kill between the two files leaves is made again, too."""
    model = Path(shutil.copytree(tiny_folder, tmp_path / "copy" / "model"))
    kept = tmp_path / "kept"

    def reused(*more: object) -> int:
        result = run("--model", model, "--data", data, "--save", kept, *more)
        assert result.exit_code == 0, result.stderr
        return result.stderr.count("reused")

    assert reused() == 0
    (model / "README.md").write_text("A card tells no model from another.")
    assert reused() == 2
    assert reused("--limit", 2) == 1, "the short set is whole"
    assert reused("--limit", 2) == 2
    assert reused() == 2, "the first sentences do not take the place of all"
    card = (model / "card.json").read_text("utf8")
    (model / "card.json").write_text(card.replace('"length_penalty":1.0', '"length_penalty":0.5'), "utf8")
    assert (model / "card.json").read_text("utf8") != card
    assert reused() == 0
    text = kept / "en-fr.long.model-PyTorch.txt"
    text.write_text(text.read_text("utf8") + "one more\n", "utf8")
    assert reused() == 1
    text.with_suffix(".json").write_text("{}")
    assert reused() == 1
    text.unlink()
    assert reused() == 1
    assert reused() == 2


def test_kept_translations_are_peers_of_the_next_model(
    data: Path, tiny_folder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run("--model", tiny_folder, "--data", data, "--save", tmp_path / "kept").exit_code == 0
    report = tmp_path / "scores.json"
    result = run("--model", tiny_bundle, "--data", data, "--peers", tmp_path / "kept", "--json", report)
    assert result.exit_code == 0, result.stderr
    for bundle, folder in read_evaluation(report).by_set().values():
        assert folder.system == "model-PyTorch"
        assert folder.raw.chrf.value == pytest.approx(bundle.raw.chrf.value, abs=0.1)
