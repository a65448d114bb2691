"""A run with each tokenizer, from its text to scores and continuations."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support.markers import slow_except
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import POEM, Run, lines_in, make_run, small_model
from trainer.contracts.inference import GenerateRequest, ScoreRequest, ScoreResponse
from trainer.contracts.tokenizers import METHODS
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.inference.generation import generate
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.tokenizers.base import vocabulary_of
from trainer.training.evaluation import evaluate, measure
from trainer.training.selftest import overfit_one_batch

Pairs = list[tuple[int, int]]


END_BIAS = {"char": 4.0, "byte": 5.0, "sentencepiece": 2.25, "sentencepiece with other special tokens": 2.25}
"""Output bias of the end of a line with which the model of a tokenizer ends lines; for others 2."""
RENAMED = " with other special tokens"
ALL = [*METHODS, f"bpe{RENAMED}", f"sentencepiece{RENAMED}"]


def run_with(folder: Path, method: str, **values: object) -> Run:
    tokenizer: dict[str, object] = {"method": method.removesuffix(RENAMED)} | (
        {"vocab_size": 70} if method not in ("char", "byte") else {}
    )
    if method.endswith(RENAMED):
        tokenizer["special_tokens"] = {"bos_token": "[B]", "eos_token": "[E]", "unk_token": "[U]", "pad_token": "[P]"}
    fields: dict[str, object] = {"model_family": "lstm", "tokenizer": tokenizer, "test_fraction": 0.3, **values}
    return make_run(folder, [*POEM, "Rare words: zebra, quokka."], holdout_fraction=0.2, **fields)


def lines_of(run: Run) -> list[str]:
    rule = SplitRule(run.effective.holdout_fraction, run.effective.test_fraction, run.effective.split_seed)
    corpus = SplitCorpus(run.folder / "corpus.txt", run.tokenizer.normalization, rule)
    return lines_in(corpus.lines("test"))


def documents_by_hand(run: Run) -> list[Pairs]:
    """Return each line's documents: `<s> line </s>`; without a `<s>` each line follows an end."""
    ids = run.tokenizer.special_ids
    start = ids.eos if ids.bos is None else ids.bos
    lines = [run.tokenizer.encode(line) for line in lines_of(run)]
    return [list(pairwise([start, *line, ids.eos])) for line in lines]


def nats_by_hand(model: ReferenceModel, documents: Sequence[Pairs]) -> list[float]:
    return [
        -answer[target]
        for pairs in documents
        for answer, (_, target) in zip(model.log_probabilities([a for a, _ in pairs]), pairs, strict=True)
    ]


@pytest.mark.parametrize("method", ALL)
def test_loss__is_the_brute_force_over_whole_lines(tmp_path: Path, method: str) -> None:
    run = run_with(tmp_path, method)
    model = small_model(vocabulary_of(run.tokenizer))
    found = evaluate(model, run.corpus.documents("test"), run.compute)
    expected = nats_by_hand(ReferenceModel(model, "lstm"), documents_by_hand(run))
    assert found.tokens == len(expected) == run.corpus.sizes["test"].tokens
    assert found.loss_nats == pytest.approx(sum(expected) / len(expected), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_measured__lengths_and_unknown_tokens_are_those_of_the_lines(tmp_path: Path, method: str) -> None:
    run = run_with(tmp_path, method)
    lines = lines_of(run)
    lengths = sorted(len(run.tokenizer.encode(line)) for line in lines)
    model = small_model(vocabulary_of(run.tokenizer))

    metrics, samples = measure(model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r")

    assert (metrics.seq_len.min, metrics.seq_len.max) == (lengths[0], lengths[-1])
    assert metrics.n_tokens == sum(lengths) + len(lines)
    assert metrics.tokens_per_char == pytest.approx(sum(lengths) / sum(map(len, lines)))
    assert metrics.tokens_per_word == pytest.approx(sum(lengths) / sum(len(line.split()) for line in lines))
    unknown = sum(run.tokenizer.encode(line).count(run.tokenizer.special_ids.unk) for line in lines)
    assert run.corpus.sizes["test"].unknown_tokens == unknown
    covered = [
        end - start
        for line in lines
        for token, (start, end) in zip(run.tokenizer.encode(line), run.tokenizer.spans(line), strict=True)
        if token == run.tokenizer.special_ids.unk
    ]
    assert metrics.unknown_chars == sum(covered)
    assert metrics.unknown_char_share == sum(covered) / metrics.n_chars
    names = list(run.tokenizer.manifest.special_tokens)
    assert not any(name in sample.text for sample in samples for name in names)


@pytest.mark.parametrize("method", ALL)
def test_score__is_the_brute_force_of_each_line_from_its_start(tmp_path: Path, method: str) -> None:
    run = run_with(tmp_path, method)
    model = small_model(vocabulary_of(run.tokenizer))
    asked = ScoreRequest(text="the sun\n\nthe moon Ж", detail_level="per_char")
    queued = ScoreResponse(request_id="r", run_id="r", status="queued")

    [scored] = score_texts(model, run.tokenizer, [ScoringJob.of(run.tokenizer, asked, queued)])

    lines = [run.tokenizer.encode(line) for line in ("the sun", "the moon Ж")]
    start = run.tokenizer.special_ids.start
    rows: list[Pairs] = [list(zip([start, *line], line, strict=False)) for line in lines]
    end = run.tokenizer.special_ids.eos
    with_ends: list[Pairs] = [list(zip([start, *line], [*line, end], strict=True)) for line in lines]
    expected = nats_by_hand(ReferenceModel(model, "lstm"), rows)
    assert scored.surprisal is not None and scored.char_spans is not None
    assert scored.surprisal == pytest.approx(expected, abs=1e-5)
    whole = nats_by_hand(ReferenceModel(model, "lstm"), with_ends)
    assert scored.bits_per_char == pytest.approx(math.fsum(whole) / math.log(2) / 17, abs=1e-5)
    assert scored.unknown_token == run.tokenizer.tokens([run.tokenizer.special_ids.unk])[0]
    assert scored.unk_count == sum(line.count(run.tokenizer.special_ids.unk) for line in lines)
    assert scored.unk_count >= (method != "byte")
    assert len(scored.char_spans) == len(expected) == scored.n_tokens


def test_score__of_unseen_letters_in_bytes_is_that_of_a_uniform_model(tmp_path: Path) -> None:
    run = run_with(tmp_path, "byte")
    model = small_model(vocabulary_of(run.tokenizer))
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()  # so that each of the 260 tokens has the same probability
    text = "the ЖшбдЖшбд\nЖшбдцйЖшбЖшбдЖш"  # 23 of 27 characters were not in the training text, each of two bytes
    queued = ScoreResponse(request_id="r", run_id="r", status="queued")
    [scored] = score_texts(model, run.tokenizer, [ScoringJob.of(run.tokenizer, ScoreRequest(text=text), queued)])
    assert (scored.n_chars, scored.n_bytes, scored.unknown_chars) == (27, 4 + 2 * 23, 0)
    tokens = 4 + 2 * 23 + 2  # and the end of each line
    assert scored.bits_per_char == pytest.approx(tokens * math.log2(260) / 27, rel=1e-6)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "byte"])
def test_score__counts_unknown_characters_not_tokens(tmp_path: Path, method: str) -> None:
    run = run_with(tmp_path, method)
    model = small_model(vocabulary_of(run.tokenizer))
    queued = ScoreResponse(request_id="r", run_id="r", status="queued")
    whole = ScoreRequest(text="ЖшЖ шЖш\nЖЖ", detail_level="per_line")
    rest = ScoreRequest(text="ЖшЖ шЖш\nЖЖ", context="none")
    scored, unstarted = (
        score_texts(model, run.tokenizer, [ScoringJob.of(run.tokenizer, request, queued)])[0]
        for request in (whole, rest)
    )
    assert scored.lines is not None and [line.unknown_chars for line in scored.lines] == [6, 2]
    assert (scored.unknown_chars, scored.unknown_char_share) == (8, 8 / 9)
    first = [start_of[1] - start_of[0] for start_of in (run.tokenizer.spans(line)[0] for line in ("ЖшЖ шЖш", "ЖЖ"))]
    assert unstarted.unknown_chars == 8 - sum(first)  # the first token of each line has no score


@pytest.mark.parametrize("method", ALL)
def test_continuation__follows_the_prompt_with_its_spaces_and_begins_lines_anew(tmp_path: Path, method: str) -> None:
    run = run_with(tmp_path, method)
    model = small_model(vocabulary_of(run.tokenizer))
    with torch.no_grad():
        dict(model.named_parameters())["head_bias"][run.tokenizer.special_ids.eos] = END_BIAS.get(method, 2.0)
    asked = GenerateRequest(prompt_text="the sea\nthe moon", stop_on_eos=False, max_new_tokens=30, temperature=0.0)
    ids = run.tokenizer.special_ids
    opening = [] if ids.bos is None else [ids.bos]
    lines = [run.tokenizer.encode(line) for line in ("the sea", "the moon")]
    read = [*(opening or [ids.eos]), *lines[0], ids.eos, *opening, *lines[1]]
    written: list[list[int]] = [lines[1][:]]
    reference = ReferenceModel(model, "lstm")
    for _ in range(30):
        answers = reference.log_probabilities(read)[-1]
        best = max((i for i in range(len(answers)) if i not in ids.never_sampled), key=answers.__getitem__)
        read += [best] if best != ids.eos else [best, *opening]
        written = [*written, []] if best == ids.eos else [*written[:-1], [*written[-1], best]]

    answer = generate(model, run.tokenizer, asked, run_id="r", request_id="r")

    assert len(written) > 1, "a line has ended"
    expected = "\n".join(run.tokenizer.decode(line) for line in written)
    assert answer.outputs == (expected[len("the moon") :],)
    assert answer.prompt_tokens == len(lines[0]) + len(lines[1])


@pytest.mark.parametrize("method", slow_except(METHODS, "sentencepiece"))
def test_one_batch__is_learned_by_heart(tmp_path: Path, method: str) -> None:
    run = run_with(tmp_path, method, learning_rate=0.02)
    found = overfit_one_batch(run.effective, tmp_path / "corpus.txt")
    assert found.ok and found.rows <= 8
