"""From text to text over a tiny random model: what it says is noise, how it is handled is not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from random_models import tiny_model

from lite_export.torch_session import TorchSession
from lite_runtime.manifest import Decoding, Limits, TokenIds
from lite_runtime.search import SearchError
from lite_runtime.tokenizer import SentencePieceTokenizer
from lite_runtime.translator import TranslateError, TranslateOptions, Translator

LIMITS = Limits(max_source=12, max_target=20)
DECODING = Decoding(beam=2, length_penalty=1.0, max_length_ratio=1.0, max_length_extra=4, no_repeat_ngram=0)


class Watched(TorchSession):
    """Records the batches that are encoded."""

    def __init__(self) -> None:
        super().__init__(tiny_model(vocab=8000, max_length=20))
        self.batches: list[tuple[int, int]] = []

    def encode(self, source: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append(source.shape)
        return super().encode(source, mask)


@pytest.fixture
def session() -> Watched:
    return Watched()


@pytest.fixture
def translator(session: Watched, tokenizer: SentencePieceTokenizer, tokens: TokenIds) -> Translator:
    return Translator(session, tokenizer, tokens, LIMITS, DECODING)


@pytest.mark.parametrize("text", ["", " ", "\n\t \n", "...", "😀", "- ! -"])
def test_text_without_words_is_its_own_translation(translator: Translator, session: Watched, text: str) -> None:
    (translation,) = translator.translate([text])
    assert translation.text == text
    assert translation.score == 0.0
    assert session.batches == []


def test_control_characters_vanish(translator: Translator) -> None:
    (clean, dirty, nothing) = translator.translate(["One two.", "O\x00ne\x07 two.\x00", "\x00"])
    assert dirty == clean
    assert nothing.text == ""


def test_white_space_and_line_breaks_stay(translator: Translator) -> None:
    text = "  First one.  Second one!\n\n- \nThird line\r\n"
    (translation,) = translator.translate([text])
    assert [s.source for s in translation.sentences] == ["First one.", "Second one!", "-", "Third line"]
    best = [s.hypotheses[0].text for s in translation.sentences]
    assert best[2] == "-"
    assert translation.text == f"  {best[0]}  {best[1]}\n\n{best[2]} \n{best[3]}\r\n"


def test_texts_come_back_in_order_whatever_the_batches(translator: Translator, session: Watched) -> None:
    texts = ["One two three four five.", "Six.", "", "Seven eight. Nine ten eleven twelve."]
    alone = [translator.translate([text])[0].text for text in texts]
    session.batches.clear()
    assert [t.text for t in translator.translate(texts, batch_size=2)] == alone
    assert [rows for rows, _ in session.batches] == [2, 2]
    lengths = [length for _, length in session.batches]
    assert lengths == sorted(lengths, reverse=True)


def test_scores_are_means_over_sentences(translator: Translator) -> None:
    one, both = translator.translate(["One two.", "One two. Three four five. 😀"])
    assert one.score == one.sentences[0].hypotheses[0].score < 0
    assert both.score == pytest.approx(np.mean([s.hypotheses[0].score for s in both.sentences[:2]]))


def test_long_sentences_are_cut_to_the_models_limit(translator: Translator, session: Watched) -> None:
    (translation,) = translator.translate([" ".join(["word"] * 60) + ", " + "x" * 200])
    assert len(translation.sentences) > 5
    assert max(length for _, length in session.batches) <= LIMITS.max_source
    assert "".join(s.source for s in translation.sentences).replace(" ", "") == "word" * 60 + "," + "x" * 200


def test_ten_thousand_characters_pass(translator: Translator) -> None:
    options = TranslateOptions(beam=1, max_length=1)
    for text in ("a" * 10_000, "漢" * 10_000, "word " * 2_000):
        (translation,) = translator.translate([text], options, batch_size=512)
        assert re.sub(r"\s", "", "".join(s.source for s in translation.sentences)) == text.replace(" ", "")


def test_lengths_follow_the_decoding_defaults_and_the_limit(translator: Translator) -> None:
    for source in ("One.", "One two three four five six."):
        (translation,) = translator.translate([source])
        ((result,), count) = translation.sentences, len(translator.tokenizer.encode(source).ids)
        assert len(result.hypotheses[0].tokens) - 1 <= min(count + 4, 19)


def test_options_override_the_defaults(translator: Translator) -> None:
    options = TranslateOptions(beam=3, nbest=3, min_length=5, max_length=5)
    ((result,),) = [t.sentences for t in translator.translate(["One two."], options)]
    assert len(result.hypotheses) == 3
    assert all(len(h.tokens) == 6 for h in result.hypotheses)
    assert [h.score for h in result.hypotheses] == sorted((h.score for h in result.hypotheses), reverse=True)
    summed = translator.translate(
        ["One two."], TranslateOptions(beam=3, length_penalty=0.0, min_length=5, max_length=5)
    )
    assert summed[0].score == pytest.approx(6 * result.hypotheses[0].score, rel=1e-4)


def test_the_longest_output_the_graphs_accept_is_reachable(translator: Translator) -> None:
    options = TranslateOptions(min_length=19)
    (translation,) = translator.translate(["One two."], options)
    assert len(translation.sentences[0].hypotheses[0].tokens) == LIMITS.max_target


def test_a_prefix_begins_the_output(translator: Translator, tokenizer: SentencePieceTokenizer) -> None:
    (translation,) = translator.translate(["I see 漢字."], TranslateOptions(prefix="Je 😀 vois"))
    assert translation.text.startswith("Je 😀 vois")


@pytest.mark.parametrize("text", ["One. Two.", "", "😀"])
def test_a_prefix_needs_one_sentence(translator: Translator, text: str) -> None:
    with pytest.raises(TranslateError, match="a prefix needs texts of one sentence; text 2 has"):
        translator.translate(["Fine.", text], TranslateOptions(prefix="Je"))


def test_contradictory_options_are_refused(translator: Translator) -> None:
    with pytest.raises(SearchError, match="nbest is 3"):
        translator.translate(["One."], TranslateOptions(nbest=3))
    with pytest.raises(SearchError, match="lengths 20 to 19"):
        translator.translate(["One."], TranslateOptions(min_length=20))
    with pytest.raises(SearchError, match="max_length is 0"):
        translator.translate(["One."], TranslateOptions(min_length=0, max_length=0))
    with pytest.raises(TranslateError, match="batch_size is 0"):
        translator.translate(["One."], batch_size=0)


def test_progress_counts_finished_texts(translator: Translator) -> None:
    seen: list[int] = []
    texts = ["One two three. Four.", "", "Five.", "Six seven eight nine."]
    translator.translate(texts, TranslateOptions(beam=1), batch_size=1, on_progress=seen.append)
    assert seen == [1, 2, 4] or seen == [1, 2, 3, 4]
    assert seen[-1] == len(texts)


def test_no_texts_give_no_translations(translator: Translator) -> None:
    assert translator.translate([]) == []
