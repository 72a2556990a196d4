"""``lite-export translate``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from lite_export.cli.console import bar
from lite_export.cli.errors import InputError
from lite_export.cli.lines import chunks, output_stream
from lite_export.cli.options import BatchSize, Beam, Model, Threads, examples

if TYPE_CHECKING:
    from lite_runtime.translator import Translation

    # Number of the text from 0, the text, its translation -> what is printed.
    Form = Callable[[int, str, Translation], str]

EXAMPLES = examples(
    'lite-export translate "Where is the station?"',
    'lite-export translate --model fr-en "Où est la gare ?"',
    "lite-export translate --input article.en --output article.fr",
    "cat article.en | lite-export translate --beam 1 > article.fr",
    'lite-export translate "Good morning." --nbest 3 --json',
)
# Lines translated together are this many batches: enough to sort by length, few enough to be seen soon.
_BATCHES_PER_CHUNK = 8


def translate(
    text: Annotated[str | None, typer.Argument(help="Text to translate; else --input, else standard input.")] = None,
    model: Model = None,
    source: Annotated[Path | None, typer.Option("--input", "-i", help="File to translate, line by line.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write when all is done.")] = None,
    beam: Beam = None,
    nbest: Annotated[int, typer.Option(min=1, help="Hypotheses a sentence, as LINE ||| TEXT ||| SCORE.")] = 1,
    length_penalty: Annotated[float | None, typer.Option(help="Above 1 favours longer output.")] = None,
    min_length: Annotated[int, typer.Option(min=0, help="Fewest tokens a sentence.")] = 1,
    max_length: Annotated[int | None, typer.Option(min=1, help="Most tokens a sentence.")] = None,
    no_repeat_ngram: Annotated[int | None, typer.Option(min=0, help="Forbid repeated n-grams; 0: allow.")] = None,
    prefix: Annotated[str, typer.Option(help="Text every translation must begin with.")] = "",
    batch_size: BatchSize = 16,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with scores.")] = False,
) -> None:
    """Translate a text, a file or standard input: one line in, one line out.

    Lines from a pipe are answered as they come; an empty line stays empty.
    """
    if text is not None and source is not None:
        raise typer.BadParameter("give either TEXT or --input, not both")
    from lite_export.loading import load_translator
    from lite_runtime.translator import TranslateOptions

    options = TranslateOptions(beam, length_penalty, nbest, min_length, max_length, no_repeat_ngram, prefix)
    translator = load_translator(model, threads)

    def run(texts: list[str], on_progress: Callable[[int], None]) -> list[Translation]:
        return translator.translate(texts, options, batch_size, on_progress)

    form = _as_json if as_json else _as_nbest if nbest > 1 else _as_text
    with _input(text, source, batch_size * _BATCHES_PER_CHUNK) as (texts, total), output_stream(output) as stream:
        _translate_all(run, texts, stream, form, _visible_total(total, output))


def _translate_all(
    run: Callable[[list[str], Callable[[int], None]], list[Translation]],
    texts: Iterator[list[str]],
    stream: TextIO,
    form: Form,
    total: int | None,
) -> None:
    """Translate chunk after chunk, writing each at once. ``run`` reports how many of its texts are done."""
    done = 0
    with bar("translating", total) as advance:
        for chunk in texts:
            for source, translation in zip(chunk, run(chunk, partial(_add, advance, done)), strict=True):
                print(form(done, source, translation), file=stream)
                done += 1
            stream.flush()


def _add(advance: Callable[[int], None], before: int, done: int) -> None:
    advance(before + done)


@contextmanager
def _input(text: str | None, path: Path | None, size: int) -> Iterator[tuple[Iterator[list[str]], int | None]]:
    """Chunks of texts, and how many texts there are where that is known."""
    if text is not None:
        yield iter([[_checked(text)]]), None
    elif path is None or str(path) == "-":
        if sys.stdin.isatty():
            print("reading standard input; end with Ctrl-D", file=sys.stderr)
        assert isinstance(sys.stdin.buffer, BufferedIOBase)
        yield chunks(sys.stdin.buffer, "standard input", size), None
    else:
        with path.open("rb") as stream:
            yield chunks(stream, str(path), size), _count_lines(stream) if path.is_file() else None


def _checked(text: str) -> str:
    """``text``, where the command line's bytes were UTF-8."""
    try:
        text.encode("utf8")
    except UnicodeEncodeError:
        raise InputError("TEXT is not UTF-8; set a UTF-8 locale or pass the text through --input") from None
    return text


def _count_lines(stream: BufferedIOBase) -> int:
    lines = sum(1 for _ in stream)
    stream.seek(0)
    return lines


def _visible_total(total: int | None, output: Path | None) -> int | None:
    """A bar would be drawn over results that go to the same terminal: no total, no bar."""
    return total if output or not sys.stdout.isatty() else None


def _as_text(_number: int, _source: str, translation: Translation) -> str:
    return translation.text


def _as_nbest(number: int, _source: str, translation: Translation) -> str:
    hypotheses = [h for sentence in translation.sentences for h in sentence.hypotheses]
    return "\n".join(f"{number} ||| {h.text} ||| {h.score:.4f}" for h in hypotheses) or f"{number} |||  ||| 0.0000"


def _as_json(_number: int, source: str, translation: Translation) -> str:
    record = {
        "source": source,
        "translation": translation.text,
        "score": translation.score,
        "sentences": [dataclasses.asdict(sentence) for sentence in translation.sentences],
    }
    return json.dumps(record, ensure_ascii=False)
