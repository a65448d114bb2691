"""Surprisals of a given text, against the textbook formulas."""

import math
from random import Random

import pytest
import torch

from tests.unit.data.support import char_tokenizer, small_model, tensor_of
from tests.unit.models.reference import ReferenceModel
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ScoreRequest, ScoreResponse
from trainer.models.base import LanguageModel
from trainer.scoring import score_lines, score_text, surprisals

TOKENIZER = char_tokenizer(["abcdéf ghij"])
TEXT = "abc de\u0301f\r\n\n   \nghxj\nzzz"
NORMALIZED = "abc déf\r\n\n   \nghxj\nzzz"


def model_of() -> LanguageModel:
    return small_model(TOKENIZER.vocab_size)


def score(text: str, top_k: int | None = None, *, brief: bool = False) -> ScoreResponse:
    request = ScoreRequest(text=text, detail_level="summary" if brief else "per_char", top_k=top_k)
    return score_text(model_of(), TOKENIZER, request, run_id="run", request_id="request")


def by_hand(lines: list[str]) -> list[float]:
    reference = ReferenceModel(model_of(), "lstm")
    values: list[float] = []
    for line in lines:
        ids = TOKENIZER.encode(line)
        answers = reference.log_probabilities([2, *ids[:-1]])
        values += [-p[i] for p, i in zip(answers, ids, strict=True)]
    return values


def test_score__is_the_brute_force_of_every_line_from_its_start() -> None:
    found = score(TEXT)

    expected = by_hand(["abc déf", "ghxj", "zzz"])
    assert found.surprisal is not None
    assert found.surprisal == pytest.approx(expected, abs=1e-5)
    assert found.n_tokens == found.n_scored == len(expected) == 14
    assert found.unk_count == 4
    assert min(found.surprisal) >= 0


def test_score__figures_fit_together() -> None:
    found = score(TEXT)

    assert found.surprisal is not None
    assert found.loss is not None
    assert math.isclose(found.loss, math.fsum(found.surprisal) / 14, rel_tol=1e-12)
    assert found.perplexity == math.exp(found.loss)
    assert found.bits_per_char == pytest.approx(math.fsum(found.surprisal) / math.log(2) / 14)


def test_score__spans_point_at_the_tokens_in_the_normalized_text() -> None:
    found = score(TEXT)

    assert found.tokens is not None
    assert found.char_spans is not None
    shown = [NORMALIZED[a:b] for a, b in found.char_spans]
    assert "".join(shown) == "abc défghxjzzz"
    assert found.tokens == tuple("[UNK]" if c in "xz" else c for c in shown)


def test_score__ranks_entropies_and_candidates_are_those_of_the_distribution() -> None:
    found = score("abc", top_k=3)

    reference = ReferenceModel(model_of(), "lstm").log_probabilities([2, *TOKENIZER.encode("ab")])
    assert found.rank is not None
    assert found.entropy is not None
    assert found.topk is not None
    for place, log_p in enumerate(reference):
        target = TOKENIZER.encode("abc")[place]
        order = [i for _, i in sorted(zip([-v for v in log_p], range(len(log_p)), strict=True))]
        assert found.rank[place] == order.index(target) + 1
        assert found.entropy[place] == pytest.approx(-sum(math.exp(v) * v for v in log_p), abs=1e-5)
        assert [name for name, _ in found.topk[place]] == TOKENIZER.tokens(order[:3])
        assert [p for _, p in found.topk[place]] == pytest.approx([math.exp(log_p[i]) for i in order[:3]], abs=1e-5)


def test_score__summary_has_the_figures_and_no_lists() -> None:
    detailed, brief = score(TEXT), score(TEXT, brief=True)

    assert brief.loss == detailed.loss
    lists = (brief.surprisal, brief.rank, brief.entropy, brief.tokens, brief.char_spans, brief.topk)
    assert lists == (None,) * 6
    assert detailed.topk is None


def test_score__one_character_has_its_surprisal() -> None:
    assert score("a").surprisal == pytest.approx(by_hand(["a"]), abs=1e-5)


@pytest.mark.parametrize("text", ["\n", " \r\n\t"])
def test_score__blank_text_is_refused(text: str) -> None:
    with pytest.raises(AppError, match="blank") as caught:
        score(text)

    assert caught.value.code == ErrorCode.INVALID_INPUT


def test_score__more_candidates_than_tokens_are_all_of_them() -> None:
    found = score("a", top_k=50)

    assert found.topk is not None
    assert len(found.topk[0]) == TOKENIZER.vocab_size
    assert sum(p for _, p in found.topk[0]) == pytest.approx(1)


def test_surprisals__long_lines_are_scored_to_the_last_token() -> None:
    random = Random(1)
    ids = [random.randrange(4, TOKENIZER.vocab_size) for _ in range(20_000)]
    model = model_of()

    found = surprisals(model, ids)

    assert len(found) == len(ids)
    assert torch.allclose(found[:16_000], surprisals(model, ids[:16_000]), atol=1e-5)
    assert torch.allclose(found[16_300:], surprisals_by_forward(model, ids)[16_300:], atol=1e-5)


def test_surprisals__do_not_depend_on_the_neighbours_in_a_batch() -> None:
    random = Random(2)
    lines = [[random.randrange(4, TOKENIZER.vocab_size) for _ in range(random.randrange(1, 40))] for _ in range(150)]
    model = model_of()

    together = score_lines(model, lines)

    for line, scores in zip(lines, together, strict=True):
        assert torch.allclose(scores.surprisal, surprisals(model, line), atol=1e-5)


def surprisals_by_forward(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """One forward pass over the whole line."""
    with torch.inference_mode():
        log_p = model.forward(tensor_of([[2, *ids[:-1]]]))[0].log_softmax(-1)
    return -log_p.gather(-1, tensor_of([ids]).T).squeeze(-1)
