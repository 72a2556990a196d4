"""What search promises whatever the model: on a tiny random one, with options drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite_export.torch_session import TorchSession
from lite_runtime.manifest import TokenIds
from lite_runtime.search import SearchError, SearchOptions, pad_sources, search
from lite_runtime.session import State

EOS = 2
words = st.integers(4, 23)
sources = st.lists(st.lists(words, max_size=5).map(lambda ids: (*ids, EOS)), min_size=1, max_size=3)
# A fixed example sequence: a random one may one day find two hypotheses that tie in the last bit.
steady = settings(max_examples=10, deadline=None, derandomize=True)


def greedy_by_hand(session: TorchSession, source: tuple[int, ...], tokens: TokenIds, longest: int) -> list[int]:
    state = session.encode(np.array([source]), np.ones((1, len(source)), bool))
    output = [tokens.start]
    while output[-1] != tokens.eos or len(output) == 1:
        logits, state = session.step(np.array(output[-1:]), len(output) - 1, state)
        logits[0, tokens.pad] = -np.inf
        if len(output) == 1:
            logits[0, tokens.eos] = -np.inf
        output.append(tokens.eos if len(output) > longest else int(logits[0].argmax()))
    return output[1:]


@steady
@given(batch=sources)
def test_a_beam_of_one_is_greedy(tiny_session: TorchSession, tokens: TokenIds, batch: list[tuple[int, ...]]) -> None:
    found = search(tiny_session, batch, tokens, SearchOptions(beam=1, max_length=8))
    assert [list(best.tokens) for (best,) in found] == [greedy_by_hand(tiny_session, s, tokens, 8) for s in batch]


@steady
@given(batch=sources, beam=st.integers(1, 5), left=st.booleans(), longest=st.lists(st.integers(1, 9), min_size=3))
def test_a_batch_gives_what_its_sentences_give_alone(
    tiny_session: TorchSession,
    tokens: TokenIds,
    batch: list[tuple[int, ...]],
    beam: int,
    left: bool,
    longest: list[int],
) -> None:
    options = SearchOptions(beam=beam, nbest=beam)
    limits = longest[: len(batch)]
    together = search(tiny_session, batch, tokens, options, max_lengths=limits, pad_left=left)
    for source, limit, found in zip(batch, limits, together, strict=True):
        (alone,) = search(tiny_session, [source], tokens, options, max_lengths=[limit])
        assert [h.tokens for h in found] == [h.tokens for h in alone]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in alone], atol=1e-4)


@steady
@given(
    batch=sources,
    beam=st.integers(1, 6),
    penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    normalize=st.booleans(),
    shortest=st.integers(0, 5),
    extra=st.integers(1, 5),
    ngram=st.integers(0, 3),
    prefix=st.lists(words, max_size=3),
)
def test_hypotheses_obey_their_options(
    tiny_session: TorchSession,
    tokens: TokenIds,
    batch: list[tuple[int, ...]],
    beam: int,
    penalty: float,
    normalize: bool,
    shortest: int,
    extra: int,
    ngram: int,
    prefix: list[int],
) -> None:
    longest = max(shortest, len(prefix)) + extra
    options = SearchOptions(beam, penalty, shortest, longest, beam, ngram, tuple(prefix), normalize)
    for found in search(tiny_session, batch, tokens, options):
        assert 1 <= len(found) <= beam
        assert len({h.tokens for h in found}) == len(found)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for hypothesis in found:
            words, last = hypothesis.tokens[:-1], hypothesis.tokens[-1]
            assert last == tokens.eos
            assert not {tokens.pad, tokens.eos} & set(words)
            assert shortest <= len(words) <= longest
            assert words[: len(prefix)] == tuple(prefix)
            assert len(hypothesis.token_scores) == len(hypothesis.tokens)
            total = sum(hypothesis.token_scores)
            assert hypothesis.score == pytest.approx(
                total / len(hypothesis.tokens) ** penalty if normalize else total, abs=1e-4
            )
            if ngram:
                assert_no_repeats((tokens.start, *words), ngram, len(prefix))


def assert_no_repeats(words: tuple[int, ...], size: int, forced: int) -> None:
    """No n-gram whose last word was chosen freely stands further left already."""
    for end in range(max(size, forced + 1), len(words)):
        earlier = {words[i : i + size] for i in range(end - size + 1)}
        assert words[end - size + 1 : end + 1] not in earlier


def test_forced_tokens_keep_the_score_the_model_gives_them(tiny_session: TorchSession, tokens: TokenIds) -> None:
    source = (5, 9, EOS)
    options = SearchOptions(beam=1, min_length=4, max_length=8)
    (free,) = search(tiny_session, [source], tokens, options)
    words = free[0].tokens[:-1]
    (forced,) = search(
        tiny_session, [source], tokens, SearchOptions(beam=1, min_length=4, max_length=8, prefix=words[:3])
    )
    assert forced[0].tokens == free[0].tokens
    np.testing.assert_allclose(forced[0].token_scores, free[0].token_scores, atol=1e-6)


def test_a_unigram_ban_still_lets_a_sentence_end(tiny_session: TorchSession, tokens: TokenIds) -> None:
    # 21 words may be used once each, then nothing is left but the end.
    (found,) = search(tiny_session, [(5, EOS)], tokens, SearchOptions(min_length=50, max_length=50, no_repeat_ngram=1))
    assert all(len(h.tokens) == 24 - 2 + 1 and np.isfinite(h.score) for h in found)


class Counting(TorchSession):
    """Records how many rows each step runs and which reorders are asked for."""

    def __init__(self, session: TorchSession) -> None:
        super().__init__(session.model)
        self.rows: list[int] = []
        self.orders: list[list[int]] = []

    def step(self, tokens: np.ndarray, position: int, state: State) -> tuple[np.ndarray, State]:
        self.rows.append(len(tokens))
        return super().step(tokens, position, state)

    def reorder(self, state: State, rows: np.ndarray) -> State:
        self.orders.append(rows.tolist())
        return super().reorder(state, rows)


def test_finished_sentences_leave_the_batch(tiny_session: TorchSession, tokens: TokenIds) -> None:
    session = Counting(tiny_session)
    batch = [(5, 9, EOS), (7, EOS), (11, 12, 13, EOS)]
    search(session, batch, tokens, SearchOptions(beam=2, min_length=3), max_lengths=[9, 3, 6])
    assert session.rows[:3] == [3, 6, 6]
    assert session.rows[4] <= 4, "the sentence limited to 3 tokens must be gone"
    assert session.rows == sorted(session.rows[:1]) + sorted(session.rows[1:], reverse=True)


def test_rows_that_stay_in_place_are_not_copied(tiny_session: TorchSession, tokens: TokenIds) -> None:
    session = Counting(tiny_session)
    search(session, [(5, 9, EOS)], tokens, SearchOptions(beam=1, min_length=8, max_length=8))
    assert len(session.rows) == 9
    assert session.orders == []


def test_more_beams_than_words_is_fine(tiny_session: TorchSession, tokens: TokenIds) -> None:
    (found,) = search(tiny_session, [(5, EOS)], tokens, SearchOptions(beam=40, nbest=40, max_length=3))
    assert len(found) == 40
    assert len({h.tokens for h in found}) == 40


def test_no_sources_give_no_hypotheses(tiny_session: TorchSession, tokens: TokenIds) -> None:
    assert search(tiny_session, [], tokens) == []


def test_sources_are_padded_on_either_side() -> None:
    padded, mask = pad_sources([(7, 2), (5, 6, 2)], 1)
    assert padded.tolist() == [[7, 2, 1], [5, 6, 2]]
    assert mask.tolist() == [[True, True, False], [True, True, True]]
    padded, mask = pad_sources([(7, 2), (5, 6, 2)], 1, left=True)
    assert padded.tolist() == [[1, 7, 2], [5, 6, 2]]
    assert mask.tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam": 0}, "beam is 0"),
        ({"nbest": 5}, "nbest is 5: a beam of 4"),
        ({"nbest": 0}, "nbest is 0"),
        ({"min_length": 9, "max_length": 8}, "lengths 9 to 8"),
        ({"min_length": 0, "max_length": 0}, "max_length is 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"prefix": (4, 5, 6), "max_length": 2}, "prefix has 3 tokens"),
    ],
)
def test_contradictory_options_are_refused(values: dict, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        SearchOptions(**values)


@pytest.mark.parametrize(
    ("batch", "options", "limits", "message"),
    [
        ([(5, EOS), ()], SearchOptions(), None, "source 1 is empty"),
        ([(5, EOS)], SearchOptions(prefix=(5, EOS)), None, "special token 2"),
        ([(5, EOS)], SearchOptions(prefix=(5, 24)), None, "prefix token 24 .* 24 tokens"),
        ([(5, EOS)], SearchOptions(), [4, 4], "2 max_lengths for 1 sentences"),
        ([(5, EOS)], SearchOptions(prefix=(5, 6)), [1], "no less than the prefix"),
    ],
)
def test_unusable_inputs_are_refused(
    tiny_session: TorchSession,
    tokens: TokenIds,
    batch: list[tuple[int, ...]],
    options: SearchOptions,
    limits: Sequence[int] | None,
    message: str,
) -> None:
    with pytest.raises(SearchError, match=message):
        search(tiny_session, batch, tokens, options, max_lengths=limits)


def test_a_model_of_nans_is_refused(tiny_session: TorchSession, tokens: TokenIds) -> None:
    class Broken(TorchSession):
        def step(self, tokens: np.ndarray, position: int, state: State) -> tuple[np.ndarray, State]:
            logits, state = super().step(tokens, position, state)
            return np.where(position == 2, np.nan, logits).astype(np.float32), state

    with pytest.raises(SearchError, match="not finite at position 2"):
        search(Broken(tiny_session.model), [(5, EOS)], tokens, SearchOptions(min_length=4))
