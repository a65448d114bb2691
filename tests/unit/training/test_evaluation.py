"""Loss, accuracy and statistics of a split, against sums made by hand."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.support.answers import surprisals
from tests.support.families import CONTINUING, FAMILIES, MASKED, effective_of, model_of, slow_unless_quick
from tests.support.properties import for_all_pairs
from tests.support.reference import windows_by_hand
from tests.support.refusals import refused
from tests.support.tiny_models import POEM, Run, char_tokenizer, integers, make_run, small_model
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.units import perplexity
from trainer.inference.windows import windows
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.batches import Masking, masking
from trainer.training.device import resolve as resolve_compute
from trainer.training.documents import Documents, line_ends
from trainer.training.evaluation import (
    Evaluation,
    KnownTokens,
    Measured,
    distinct,
    draw_samples,
    evaluate,
    measure,
    repetition_rate,
    sample_prompts,
)

COMPUTE = resolve_compute(effective_of("lstm"))


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    return make_run(tmp_path, test_fraction=0.3, holdout_fraction=0.2)


def evaluated(model: LanguageModel, run: Run) -> Evaluation:
    return evaluate(model, run.corpus.documents("test"), run.compute)


def of_texts(
    model: LanguageModel, tokenizer: Tokenizer, lines: Sequence[str], masks: Masking | None = None
) -> Evaluation:
    ids = tokenizer.encode_documents("\n".join(lines))
    return evaluate(model, Documents(ids, tokenizer.special_ids, masks), COMPUTE)


def measured(run: Run, model: LanguageModel, effective: EffectiveRequest | None = None) -> Measured:
    request = effective or run.effective
    return measure(model, run.tokenizer, run.corpus, "test", request, resolve_compute(request), run_id="r")


@pytest.mark.parametrize("family", ["char_lstm", "gpt2", "lstm both", "bert"])
def test_loss__is_the_same_whatever_the_rows_and_batches_of_the_training(tmp_path: Path, family: str) -> None:
    fields: dict[str, object] = {"tokenizer": {"method": "char"}, **FAMILIES[family], "max_seq_len": 64}
    run = make_run(tmp_path, POEM, test_fraction=0.3, holdout_fraction=0.2, **fields)
    model = run.fresh_model().eval()
    found: set[tuple[float, float, int]] = set()
    for length, batch_size in ((16, 1), (16, 64), (30, 3), (64, 1), (64, 64)):
        metrics, _ = measured(run, model, changed(run.effective, max_seq_len=length, batch_size=batch_size))
        found.add((metrics.loss, metrics.top1_accuracy, metrics.n_tokens))
    assert len(found) == 1


@pytest.mark.parametrize("family", ["lstm", "gpt2", "bert"])
def test_losses_of_lines__are_sums_over_groups_of_a_long_text(tmp_path: Path, family: str) -> None:
    text = [f"{'ab ' * (i % 9)}{i}" for i in range(1000)]
    fields: dict[str, object] = {"tokenizer": {"method": "char"}, **FAMILIES[family], "max_seq_len": 16}
    run = make_run(tmp_path, text, test_fraction=0.45, holdout_fraction=0.1, **fields)
    metrics, _ = measured(run, run.fresh_model())
    lines = run.lines("test")
    bounds = [number * len(lines) // 200 for number in range(201)]
    groups = [lines[first:last] for first, last in pairwise(bounds)]
    found = metrics.lines
    assert len(lines) > 400
    assert found.chars == tuple(sum(map(len, group)) for group in groups)
    assert (sum(found.chars), sum(found.tokens)) == (metrics.n_chars, metrics.n_tokens)
    assert sum(found.nats) == pytest.approx(metrics.loss * metrics.n_tokens, rel=1e-12)
    if metrics.objective == "causal_lm":
        assert found.tokens == tuple(sum(len(line) + 1 for line in group) for group in groups)
        first = run.corpus.ids["test"][: sum(found.tokens[:1]) + len(groups[0])]
        alone = evaluate(run.fresh_model(), Documents(first, run.tokenizer.special_ids), run.compute)
        assert found.nats[0] == pytest.approx(alone.loss_sum_nats, abs=1e-4)


@for_all_pairs(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.tuples(st.integers(1, 40), st.booleans()))
def test_windows__score_every_position_once_with_a_quarter_of_context(
    lengths: list[int], cut: tuple[int, bool]
) -> None:
    most, both_sides = cut
    found = windows(np.array(lengths, dtype=np.int64), most, both_sides=both_sides)
    expected = [
        (number, begin, end - begin, scored[0] - begin, scored[-1] + 1 - begin)
        for number, length in enumerate(lengths)
        for begin, end, scored in windows_by_hand(length, most, both_sides=both_sides)
    ]
    parts: list[NDArray[np.int64]] = [found.document, found.begin, found.length, found.first, found.end]
    columns = [integers(column) for column in parts]
    assert [tuple(column[row] for column in columns) for row in range(len(expected))] == expected
    assert len(columns[0]) == len(expected)


def test_line_ends__are_found_behind_a_line_that_is_longer_than_a_portion() -> None:
    ids = np.zeros((1 << 20) + 3, dtype=np.uint16)
    ids[-2:] = 3
    assert [integers(ends) for ends in line_ends(ids, 3)] == [[-1, (1 << 20) + 1, (1 << 20) + 2]]


@pytest.mark.parametrize("family", slow_unless_quick([*CONTINUING, *MASKED]))
def test_loss__of_every_family_is_brute_force_over_lines_and_windows(family: str) -> None:
    lines = [*POEM, " ".join(POEM[:4]), "of"]
    tokenizer = char_tokenizer(lines, mask_token=family in MASKED)
    model = model_of(family, vocabulary_of(tokenizer))
    masks = Masking(model.vocabulary, 4, 0.15, 1) if family in MASKED else None
    losses: list[float] = []
    for number, line in enumerate(lines):  # a window at a time, without padding
        ids: NDArray[np.int64] = tokenizer.encode_documents(line).astype(np.int64)[np.newaxis]
        size = ids.size - (masks is None)
        for begin, end, scored in windows_by_hand(size, model.context_tokens or size, both_sides=masks is not None):
            batch = torch.from_numpy(ids[:, begin:end]), torch.from_numpy(ids[:, begin + 1 : end + 1])
            if masks is not None:
                positions: NDArray[np.int64] = np.arange(begin, end)
                is_scored: NDArray[np.bool_] = (positions >= scored[0]) & (positions <= scored[-1])
                numbers: list[NDArray[np.int64]] = [np.full(1, n, dtype=np.int64) for n in (number, begin)]
                candidates = is_scored[np.newaxis]
                batch = masks.apply(ids[:, begin:end], numbers[0], 0, begins=numbers[1], candidates=candidates)
            inputs, targets = batch
            expected = integers(targets)
            with torch.inference_mode():
                log_p: list[list[float]] = model.forward(inputs)[0].double().log_softmax(-1).tolist()
            losses += [
                -log_p[place - begin][expected[place - begin]] for place in scored if expected[place - begin] >= 0
            ]
    found = of_texts(model.train(), tokenizer, lines, masks)
    assert model.training, "the mode of the model stays"
    assert model.context_tokens in (None, 24)
    assert found.tokens == len(losses)
    assert found.loss_nats == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_long_lines__are_read_in_chunks_beside_short_ones() -> None:
    lines = ["ab" * 6000, "b", "abba" * 40, *["aab"] * 200]
    tokenizer = char_tokenizer(lines)
    model = small_model(tokenizer.vocab_size)
    expected = [nats for line in lines for nats in surprisals(model, [2, *tokenizer.encode(line), 3])]
    found = of_texts(model, tokenizer, lines)
    assert found.tokens == len(expected)
    assert found.loss_nats == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_masked_window__has_a_target_where_it_scores_ordinary_tokens() -> None:
    """With a probability of 0 each window, and each line that fits into one, has one target."""
    lines = ["abcd" * 25, "a", "bad"]
    tokenizer = char_tokenizer(lines, mask_token=True)
    model = model_of("bert", vocabulary_of(tokenizer))
    masks = Masking(model.vocabulary, 4, 0.0, 1)
    found = of_texts(model, tokenizer, lines, masks)
    assert model.context_tokens == 24
    assert found.tokens == len(windows_by_hand(102, 24, both_sides=True)) + 2


def test_accuracy__of_three_lines_is_counted_by_hand() -> None:
    tokenizer = char_tokenizer(["abcde"])  # ids: four special ones, then a to e
    assert tokenizer.encode("abcde") == [4, 5, 6, 7, 8]
    model = small_model(tokenizer.vocab_size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        weights: dict[str, Tensor] = model.state_dict()
        for place, token in enumerate([8, 7, 4, 3, 5, 6]):  # it answers everything alike: e, d, a, the end, b; then c
            weights["head_bias"][token] = 10.0 - place
    found = of_texts(model, tokenizer, ["ede", "abc", "cc"])
    assert found.tokens == 3 + 3 + 2 + 3
    assert found.top1_hits == 2  # both e of the first line
    assert found.top5_hits == 11 - 3  # all but the three c
    known = of_texts(model, tokenizer, ["edx", "xx"]).known
    assert (known.tokens, known.top1_hits, known.top5_hits) == (4, 1, 4), "e, d and two ends"
    assert known.loss_sum_nats == pytest.approx(of_texts(model, tokenizer, ["ed", ""]).loss_sum_nats)
    five = char_tokenizer(["aa"])
    full = of_texts(small_model(five.vocab_size), five, ["aaa", "a"])
    assert (five.vocab_size, full.top5_hits, full.tokens) == (5, 6, 6), "any of five tokens is among the first five"


def test_uniform_model__has_the_vocabulary_as_perplexity(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)
    for weight in model.parameters():
        weight.detach().zero_()
    assert math.isclose(perplexity(evaluated(model, run).loss_nats), run.tokenizer.vocab_size, rel_tol=1e-5)
    assert math.isfinite(perplexity(1e6)), "that of an absurd loss"


def test_measure__names_what_the_lines_are(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)
    texts = run.lines("test")
    lines = [run.tokenizer.encode(text) for text in texts]
    metrics, samples = measured(run, model)
    first, again, other = (draw_samples(model, run.tokenizer, ["", "sea"], seed, "r") for seed in (1, 1, 2))
    assert first == again
    assert [(sample.prompt, sample.seed) for sample in first] == [("", 1)] * 4 + [("sea", 2)] * 4, (
        "another seed for each prompt"
    )
    last = draw_samples(model, run.tokenizer, ["", "sea"], 2**32 - 1, "r")
    assert [sample.seed for sample in last] == [2**32 - 1] * 4 + [0] * 4
    assert [sample.text for sample in first] != [sample.text for sample in other]
    lengths = sorted(len(line) for line in lines)
    assert metrics.loss == evaluated(model, run).loss_nats
    assert metrics.n_chars == sum(len(text) for text in texts)
    assert metrics.bits_per_char == pytest.approx(metrics.loss * metrics.n_tokens / metrics.n_chars / math.log(2))
    assert metrics.seq_len.p50 == lengths[1]
    assert math.isclose(metrics.seq_len.p95, lengths[1] + 0.9 * (lengths[2] - lengths[1]))
    assert metrics.dataset == "corpus.txt"
    unknown = sum(line.count(run.tokenizer.special_ids.unk) for line in lines)
    assert (metrics.unit, metrics.unknown_share) == ("nats", unknown / sum(lengths))
    assert Counter(sample.prompt for sample in samples) == {"": 4, "the": 4}


def test_measure__counts_bytes_and_unknown_characters(tmp_path: Path) -> None:
    lines = [f"{line} é" for line in POEM[:-1]] + ["öö €"]
    run = make_run(tmp_path, lines, test_fraction=0.3, split_by="position", tokenizer={"method": "char"})
    texts = lines[-3:]
    assert run.corpus.sizes["test"].lines == len(texts)
    metrics, _ = measured(run, small_model(run.tokenizer.vocab_size))
    characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    assert size == characters + 2 + 1 + 1 + 2  # é twice, ö twice; € takes three
    assert (metrics.n_chars, metrics.n_bytes) == (characters, size)
    assert metrics.unknown_share == 3 / characters
    assert metrics.known is not None and metrics.known.n_tokens == metrics.n_tokens - 3
    assert metrics.known.loss != metrics.loss
    assert metrics.bits_per_byte == pytest.approx(metrics.loss * metrics.n_tokens / size / math.log(2))


def test_measure__has_no_figures_of_known_tokens_where_there_are_none(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)
    unknown = evaluated(model, run)._replace(known=KnownTokens(0.0, 0, 0, 0))
    metrics, _ = measure(
        model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r", evaluation=unknown
    )
    assert metrics.known is None


def test_measure__refuses_a_split_that_the_run_does_not_have(tmp_path: Path) -> None:
    run = make_run(tmp_path, POEM, test_fraction=0.0)
    with pytest.raises(AppError, match="no test split"):
        measured(run, small_model(run.tokenizer.vocab_size))


CYRILLIC = [f"{word} және {number} сөз" for number in range(9) for word in ("қала", "тау", "өзен", "аспан", "жұлдыз")]


@pytest.mark.parametrize("method", ["char", "word", "bpe", "sentencepiece"])
def test_prompts__are_empty_or_first_words_of_the_validation_split(tmp_path: Path, method: str) -> None:
    tokenizer: dict[str, object] = {"method": method, **({} if method in ("char", "word") else {"vocab_size": 60})}
    fields: dict[str, object] = {"model_family": "lstm", "tokenizer": tokenizer, "holdout_fraction": 0.3}
    run = make_run(tmp_path, CYRILLIC, **fields)
    known = {line.split()[0] for line in run.lines("validation")}
    prompts = sample_prompts(run.corpus, run.tokenizer, run.effective)
    assert prompts == sample_prompts(run.corpus, run.tokenizer, run.effective)
    assert prompts[0] == "" and len(set(prompts)) == 3
    assert set(prompts[1:]) <= known
    seeds = (changed(run.effective, split_seed=seed) for seed in range(9))
    assert len({sample_prompts(run.corpus, run.tokenizer, effective) for effective in seeds}) > 1
    without = changed(run.effective, sample_prompts="none")
    assert sample_prompts(run.corpus, run.tokenizer, without) == ("",), "the lines are somebody else's"
    alone = run.corpus._replace(ids={"train": run.corpus.ids["train"]})
    assert len(sample_prompts(alone, run.tokenizer, run.effective)) == 3


def test_prompts__end_before_what_is_not_known_and_with_their_text(tmp_path: Path) -> None:
    run = make_run(tmp_path, POEM)
    tokenizer = run.tokenizer

    def prompts(*lines: str) -> tuple[str, ...]:
        ids = tokenizer.encode_documents("\n".join(lines))
        effective = changed(run.effective, split_seed=1)
        return sample_prompts(run.corpus._replace(ids={"validation": ids}), tokenizer, effective)

    assert prompts("sea") == ("", "sea")
    assert set(prompts("sea and sun", "seЖn", "Жsun")) == {"", "sea", "se"}
    assert prompts("Ж") == ("",)
    assert prompts("s" * 5000) == ("", "s" * 20)


def test_distinct_and_repetition__are_shares_counted_by_hand() -> None:
    texts = ["a b a b".split(), ["a"]]
    assert (distinct(texts, 1), distinct(texts, 2)) == (2 / 5, 2 / 3)
    assert distinct([["a"], []], 2) == 1
    assert repetition_rate(["a b a b".split(), "a b".split()]) == 1 / 4
    assert repetition_rate([[], ["a"]]) == 0


def test_masked_model__is_measured_on_the_same_masked_tokens_each_time(tmp_path: Path) -> None:
    run = make_run(tmp_path, test_fraction=0.3, holdout_fraction=0.2, objective="masked_lm")
    model = run.fresh_model().eval()
    masks = masking(run.effective, model.vocabulary, run.effective.split_seed)
    first, second = (measured(run, model) for _ in range(2))
    found = evaluate(model, run.corpus.documents("test", masks), run.compute)
    metrics = first.metrics
    assert metrics.loss == second.metrics.loss == found.loss_nats
    assert (metrics.n_tokens, metrics.objective) == (found.tokens, "masked_lm")
    assert (metrics.bits_per_char, metrics.bits_per_byte) == (None, None)
    assert first.samples == (), "it writes nothing"
    nothing: NDArray[np.uint8] = np.full(20, 3, dtype=np.uint8)
    with refused(ErrorCode.CORPUS_EMPTY, "no token that can be masked"):
        evaluate(model, Documents(nothing, model.vocabulary.special_ids, masks), run.compute)
