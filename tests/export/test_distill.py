"""``lite-export distill``: a teacher's translations as a training file, whatever interrupts it."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lite_export.cli import app
from lite_export.distill import (
    DistillError,
    DistillOptions,
    Teacher,
    Work,
    _finished,
    candidates,
    chosen,
    count_pairs,
    distill,
)
from lite_export.loading import load_translator
from lite_runtime.translator import TranslateOptions
from lite_transformer.training.corpus import CorpusError, read_pairs
from tiny_models import plain_config, write_tiny_folder

runner = CliRunner()
CHUNK = 4
OPTIONS = DistillOptions(beam=3, chunk=CHUNK, batch_size=3)


@pytest.fixture(scope="module")
def corpus(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pairs, whose reference is the source in capitals."""
    sources = (tiny_folder / "sentences.txt").read_text("utf8").splitlines()[:10]
    path = tmp_path_factory.mktemp("corpus") / "train.tsv.xz"
    path.write_bytes(lzma.compress("".join(f"{s}\t{s.upper()}\n" for s in sources).encode()))
    return path


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes."""
    output = tmp_path_factory.mktemp("whole") / "out.tsv.xz"
    assert distill(Teacher(tiny_folder), corpus, output, OPTIONS) == 10
    return output


def test_targets_are_the_teachers_best(whole: Path, tiny_folder: Path, corpus: Path) -> None:
    sources = [source for source, _ in read_pairs(corpus)]
    teacher = load_translator(tiny_folder).translate(sources, TranslateOptions(beam=3))
    expected = [(s, " ".join(t.text.split())) for s, t in zip(sources, teacher, strict=True)]
    assert list(read_pairs(whole)) == [pair for pair in expected if pair[1]]
    card = json.loads(whole.with_name("out.tsv.xz.json").read_text())
    assert (card["pairs"], card["beam"], card["pick"], card["corpus"]) == (10, 3, "best", "train.tsv.xz")
    assert sorted(p.name for p in whole.parent.iterdir()) == ["out.tsv.xz", "out.tsv.xz.json"]


def test_an_interrupted_run_keeps_finished_chunks(whole: Path, tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tsv.xz"
    seen: list[int] = []

    def stop(done: int) -> None:
        seen.append(done)
        if done == 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(Teacher(tiny_folder), corpus, output, OPTIONS, on_progress=stop)
    chunks = sorted((tmp_path / ".out.tsv.xz.chunks").glob("*.xz"))
    assert [c.name for c in chunks] == ["000000.xz", "000001.xz"]
    assert not output.exists()
    # A finished chunk is not made again: this one, changed, shows that it was taken as it is.
    chunks[0].write_bytes(lzma.compress(b"kept\tgard\xc3\xa9\n"))
    with pytest.raises(DistillError, match=r"was begun with another beam: repeat that command, name another output"):
        distill(Teacher(tiny_folder), corpus, output, DistillOptions(beam=2, chunk=CHUNK))
    distill(Teacher(tiny_folder), corpus, output, OPTIONS)
    wanted = list(read_pairs(whole))
    rest = list(read_pairs(output))
    assert rest[0] == ("kept", "gardé")
    assert wanted[-len(rest) + 1 :] == rest[1:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tsv.xz", "out.tsv.xz.json"]


def test_a_finished_run_is_not_repeated_but_another_replaces_it(
    whole: Path, tiny_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.tsv.xz"
    distill(Teacher(tiny_folder), corpus, output, OPTIONS)
    before = output.stat().st_mtime_ns
    assert distill(Teacher(tiny_folder), corpus, output, OPTIONS) == 10
    assert output.stat().st_mtime_ns == before
    assert distill(Teacher(tiny_folder), corpus, output, OPTIONS, limit=3) == 3
    assert list(read_pairs(output)) == list(read_pairs(whole))[: len(list(read_pairs(output)))]


def test_two_processes_write_the_same(whole: Path, tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    distill(Teacher(tiny_folder, threads=1), corpus, tmp_path / "out.tsv.xz", OPTIONS, jobs=2)
    assert list(read_pairs(tmp_path / "out.tsv.xz")) == list(read_pairs(whole))


def test_two_runs_of_one_output_do_not_meet(tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tsv.xz"
    refused: list[str] = []

    def start_another(done: int) -> None:
        arguments = ["distill", "--model", str(tiny_folder), "--corpus", str(corpus), "-o", str(output)]
        if done == CHUNK:
            second = subprocess.run(
                [sys.executable, "-m", "lite_export.cli", *arguments], capture_output=True, text=True
            )
            assert second.returncode == 1
            refused.append(second.stderr)

    distill(Teacher(tiny_folder), corpus, output, OPTIONS, on_progress=start_another)
    assert len(refused) == 1
    assert "another process is at work" in refused[0]
    assert "Traceback" not in refused[0]
    assert len(list(read_pairs(output))) == len(list(read_pairs(corpus)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tsv.xz", "out.tsv.xz.json"]


def test_a_corpus_the_other_way_round(whole: Path, tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "swapped.tsv").write_text("".join(f"{t}\t{s}\n" for s, t in read_pairs(corpus)), "utf8")
    distill(Teacher(tiny_folder), tmp_path / "swapped.tsv", tmp_path / "out.tsv.xz", OPTIONS, reverse=True)
    assert list(read_pairs(tmp_path / "out.tsv.xz")) == list(read_pairs(whole))


def test_a_bundle_teaches_what_its_model_teaches(whole: Path, tiny_bundle: Path, corpus: Path, tmp_path: Path) -> None:
    distill(Teacher(tiny_bundle), corpus, tmp_path / "out.tsv.xz", OPTIONS)
    assert list(read_pairs(tmp_path / "out.tsv.xz")) == list(read_pairs(whole))


def test_what_a_student_learns_from() -> None:
    found = ["le  chat dort", "un chat", "le chat dort", "", "le chat dormait"]
    assert chosen(found, "un chat", DistillOptions()) == ["le chat dort"]
    assert chosen(found, "un chat", DistillOptions(n_best=4)) == ["le chat dort", "un chat", "le chat dormait"]
    assert chosen(found, "il dormait, le chat", DistillOptions(pick="nearest")) == ["le chat dormait"]
    assert chosen(["", " "], "un chat", DistillOptions(pick="nearest")) == []


def test_the_nearest_hypothesis_is_found(tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    """References that are the teacher's own last choice come back."""
    sources = [source for source, _ in read_pairs(corpus)]
    found = load_translator(tiny_folder).translate(sources, TranslateOptions(beam=4, nbest=4))
    wanted = [(s, " ".join(candidates(t)[-1].split())) for s, t in zip(sources, found, strict=True)]
    assert wanted != [(s, t.text) for s, t in zip(sources, found, strict=True)]
    (tmp_path / "corpus.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in wanted), "utf8")
    options = DistillOptions(beam=4, pick="nearest")
    distill(Teacher(tiny_folder), tmp_path / "corpus.tsv", tmp_path / "out.tsv.xz", options)
    assert list(read_pairs(tmp_path / "out.tsv.xz")) == wanted


def test_the_command(whole: Path, corpus: Path, tmp_path: Path) -> None:
    teacher = write_tiny_folder(tmp_path / "plain", plain_config())
    output = tmp_path / "out.tsv.xz"
    command = ["distill", "--model", str(teacher), "--corpus", str(corpus), "-o", str(output), "--device", "cpu"]
    result = runner.invoke(app, [*command, "--beam", "3", "--n-best", "2", "--limit", "5"])
    assert result.exit_code == 0, result.output
    assert f"{output}: 5 pairs of {corpus} translated by {teacher}" in result.stdout
    pairs = list(read_pairs(output))
    assert len(pairs) > 5
    assert {source for source, _ in pairs} <= {source for source, _ in read_pairs(corpus)}


@pytest.mark.parametrize("name", ["text.txt", "text.txt.xz"])
def test_text_of_one_language(whole: Path, tiny_folder: Path, tmp_path: Path, corpus: Path, name: str) -> None:
    """Sentences alone become the pairs that they become beside references; empty lines are no sentences."""
    text = "\n\n".join(source for source, _ in read_pairs(corpus)).encode()
    (tmp_path / name).write_bytes(lzma.compress(text) if name.endswith("xz") else text)
    assert count_pairs(tmp_path / name) == 10
    assert distill(Teacher(tiny_folder), tmp_path / name, tmp_path / "out.tsv.xz", OPTIONS) == 10
    assert list(read_pairs(tmp_path / "out.tsv.xz")) == list(read_pairs(whole))


@pytest.mark.parametrize("arguments", [["--reverse"], ["--pick", "nearest"]])
def test_text_of_one_language_has_no_references(tiny_folder: Path, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "text.txt").write_text("One sentence.\n")
    base = ["--model", str(tiny_folder), "--corpus", str(tmp_path / "text.txt"), "-o", str(tmp_path / "out.tsv.xz")]
    result = runner.invoke(app, ["distill", *base, *arguments])
    assert (result.exit_code, "has one language, no references" in result.stderr) == (1, True), result.stderr


def test_pairs_are_not_taken_for_sentences(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("Go.\tVa !\n")
    with pytest.raises(CorpusError, match=r"pairs\.txt:1: a tab in a \.txt file.*name pairs \.tsv"):
        distill(Teacher(tiny_folder), tmp_path / "pairs.txt", tmp_path / "out.tsv.xz", OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n-best", "9"], "n-best is 9: a beam of 4 gives 1 to 4"),
        (["--n-best", "2", "--pick", "nearest"], "the nearest hypothesis is one"),
        (["-o", "out.txt"], "must end in .tsv.xz"),
        (["--corpus", "none.tsv"], "no data file none.tsv"),
        (["--model", "nowhere"], "no model at nowhere"),
        (["--device", "abacus"], "the teacher cannot run on 'abacus'"),
    ],
)
def test_mistakes(tiny_folder: Path, corpus: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    base = ["--model", str(tiny_folder), "--corpus", str(corpus), "-o", str(tmp_path / "out.tsv.xz")]
    result = runner.invoke(app, ["distill", *base, *arguments])
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert not (tmp_path / "out.tsv.xz").exists()


def test_what_distill_did_not_make_is_not_replaced(tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    own = Path(shutil.copy(corpus, tmp_path / "own.tsv.xz"))
    (tmp_path / "link.tsv.xz").symlink_to(own)
    (tmp_path / "folder.tsv.xz").mkdir()
    before = own.read_bytes()
    for output, source, message in (
        (own, own, "is the corpus itself"),
        (tmp_path / "link.tsv.xz", own, "is the corpus itself"),
        (own, corpus, "exists, and distill did not make it"),
        (tmp_path / "folder.tsv.xz", corpus, "exists, and distill did not make it"),
    ):
        with pytest.raises(DistillError, match=message):
            distill(Teacher(tiny_folder), source, output, OPTIONS)
    assert own.read_bytes() == before


def test_a_kill_before_the_card_is_no_obstacle(whole: Path, tiny_folder: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tsv.xz"

    def stop(_done: int) -> None:
        output.write_bytes(b"joined, but not yet described")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(Teacher(tiny_folder), corpus, output, OPTIONS, on_progress=stop)
    distill(Teacher(tiny_folder), corpus, output, OPTIONS)
    assert list(read_pairs(output)) == list(read_pairs(whole))


def test_a_process_that_is_killed() -> None:
    works = [Work(1, [], Path()), Work(2, [], Path())]
    with pytest.raises(DistillError, match=r"one of the processes was killed, .* fewer --jobs"):
        list(_finished(_die, works, 2))


def _die(_work: Work) -> int:
    os._exit(9)


def test_an_empty_corpus(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(CorpusError, match="has no sentence pairs"):
        distill(Teacher(tiny_folder), tmp_path / "empty.tsv", tmp_path / "out.tsv.xz", OPTIONS)
