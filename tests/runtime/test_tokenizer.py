"""Text survives the way to token ids and back, unknown characters included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lite_runtime.manifest import TokenIds
from lite_runtime.tokenizer import SentencePieceTokenizer, TokenizerError

EOS, UNK = 2, 3


def decode(tokenizer: SentencePieceTokenizer, text: str) -> str:
    encoded = tokenizer.encode(text)
    return tokenizer.decode(encoded.ids, encoded.unknowns, encoded.trailing)


@pytest.mark.parametrize(
    "text",
    ["Hello world.", "I ☃ like 😀😀 you.", "😀", "hi😀", "One 😀 two 漢字 three ☃", "Don't <unk> me </s>.", "3.14 €"],
)
def test_text_comes_back_from_its_own_ids(tokenizer: SentencePieceTokenizer, text: str) -> None:
    assert decode(tokenizer, text) == text


def test_ids_end_in_eos_and_unknowns_are_listed_in_order(tokenizer: SentencePieceTokenizer) -> None:
    encoded = tokenizer.encode("One 😀😀 two 漢字 three")
    assert encoded.ids[-1] == EOS
    assert encoded.ids.count(EOS) == 1
    assert encoded.ids.count(UNK) == 2
    assert encoded.unknowns == ("😀😀", "漢字")
    assert encoded.trailing == 0


def test_an_empty_sentence_is_its_eos(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("").ids == (EOS,)
    assert tokenizer.decode((EOS,), ()) == ""


def test_replacements_reach_the_vocabulary(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("“It’s”") == tokenizer.encode('"It\'s"')
    assert UNK not in tokenizer.encode("“It’s”").ids


def test_control_characters_are_dropped(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("He\x00llo\x07 wor\ud800ld\x7f") == tokenizer.encode("Hello world")
    assert tokenizer.encode("Hello\n\tworld") == tokenizer.encode("Hello world")


def test_unknowns_the_source_did_not_have_become_nothing(tokenizer: SentencePieceTokenizer) -> None:
    hello = tokenizer.encode("Hello world").ids[:-1]
    ids = (UNK, *hello[:3], UNK, *hello[3:], UNK, EOS)
    assert tokenizer.decode(ids, ()) == "Hello world"
    assert tokenizer.decode((*hello, UNK, UNK), ("☃",)) == "Hello world☃"


def test_special_tokens_leave_no_trace(tokenizer: SentencePieceTokenizer) -> None:
    hello = tokenizer.encode("Hello").ids
    assert tokenizer.decode((0, 1, *hello, EOS, 1, 1), ()) == "Hello"


def test_an_emoji_at_the_end_is_kept_though_the_model_dropped_it(tokenizer: SentencePieceTokenizer) -> None:
    bonjour = tokenizer.encode("Bonjour").ids
    source = tokenizer.encode("漢 Hello ☃ 😀")
    assert source.trailing == 2
    assert tokenizer.decode(bonjour, source.unknowns, source.trailing) == "Bonjour ☃ 😀"
    one = (*bonjour[:-1], UNK, EOS)
    assert tokenizer.decode(one, source.unknowns, source.trailing) == "Bonjour漢 ☃ 😀"
    three = (*bonjour[:-1], UNK, UNK, UNK, EOS)
    assert tokenizer.decode(three, source.unknowns, source.trailing) == "Bonjour漢☃😀"


@settings(deadline=None, max_examples=60)
@given(
    text=st.text(max_size=30),
    target=st.lists(st.integers(0, 7999), max_size=12),
)
@example(text="⁇ \u2047", target=[UNK, UNK])
@example(text="\ud800", target=[])
def test_any_text_and_any_ids_decode_without_a_marker(
    tokenizer: SentencePieceTokenizer, text: str, target: list[int]
) -> None:
    source = tokenizer.encode(text)
    assert source.ids.count(UNK) == len(source.unknowns) >= source.trailing
    decoded = tokenizer.decode(tuple(target), source.unknowns, source.trailing)
    assert "⁇" not in decoded
    assert decoded == decoded.strip()
    for surface in source.unknowns[len(source.unknowns) - source.trailing :]:
        assert surface in decoded


def test_a_missing_file_is_named(tmp_path: Path, tokens: TokenIds) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer at .*gone\.model"):
        SentencePieceTokenizer(tmp_path / "gone.model", tokens, {})


@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_a_damaged_file_is_named(
    tmp_path: Path, tokenizer: SentencePieceTokenizer, tokens: TokenIds, size: int
) -> None:
    path = tmp_path / "cut.model"
    path.write_bytes(tokenizer.path.read_bytes()[:size])
    with pytest.raises(TokenizerError, match=r"cut\.model is damaged"):
        SentencePieceTokenizer(path, tokens, {})


def test_another_models_tokenizer_is_refused(tokenizer: SentencePieceTokenizer) -> None:
    with pytest.raises(TokenizerError, match="has unk 3, the model 0: it belongs to another model"):
        SentencePieceTokenizer(tokenizer.path, TokenIds(pad=1, eos=2, unk=0, start=2), {})
    with pytest.raises(TokenizerError, match="no token 8000"):
        tokenizer.decode((8000,), ())
