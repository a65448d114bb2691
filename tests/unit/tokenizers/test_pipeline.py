"""A run with each tokenizer, from its text to losses, scores and continuations by the textbook."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support.answers import score, scored_nats, write
from tests.support.markers import slow_except
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import POEM, Run, make_run, small_model
from trainer.contracts.tokenizers import METHODS
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import vocabulary_of
from trainer.training.evaluation import evaluate, measure

END_BIAS = {"char": 4.0, "byte": 5.0, "sentencepiece": 2.25, "sentencepiece with other special tokens": 2.25}
"""Output bias of the end of a line with which the model of a tokenizer ends lines; for others 2."""
RENAMED = " with other special tokens"
ALL = [*METHODS, f"bpe{RENAMED}", f"sentencepiece{RENAMED}"]


def run_with(folder: Path, method: str, **values: object) -> tuple[Run, LanguageModel]:
    tokenizer: dict[str, object] = {"method": method.removesuffix(RENAMED)}
    if method not in ("char", "byte"):
        tokenizer["vocab_size"] = 70
    if method.endswith(RENAMED):
        tokenizer["special_tokens"] = {"bos_token": "[B]", "eos_token": "[E]", "unk_token": "[U]", "pad_token": "[P]"}
    fields: dict[str, object] = {"model_family": "lstm", "tokenizer": tokenizer, "test_fraction": 0.3, **values}
    run = make_run(folder, [*POEM, "Rare words: zebra, quokka."], holdout_fraction=0.2, **fields)
    return run, small_model(vocabulary_of(run.tokenizer))


def nats_by_hand(run: Run, model: LanguageModel, lines: list[str]) -> list[list[float]]:
    """The losses of each line: its tokens, and its end. It follows a `<s>`, or an end where there is none."""
    reference, ids = ReferenceModel(model, "lstm"), run.tokenizer.special_ids
    found: list[list[float]] = []
    for line in lines:
        read = [ids.eos if ids.bos is None else ids.bos, *run.tokenizer.encode(line), ids.eos]
        answers = reference.log_probabilities(read[:-1])
        found.append([-answer[target] for answer, (_, target) in zip(answers, pairwise(read), strict=True)])
    return found


@pytest.mark.parametrize("method", ALL)
def test_test_split__is_measured_as_by_hand(tmp_path: Path, method: str) -> None:
    run, model = run_with(tmp_path, method)
    lines = run.lines("test")
    expected = [nats for line in nats_by_hand(run, model, lines) for nats in line]
    found = evaluate(model, run.corpus.documents("test"), run.compute)
    assert found.tokens == len(expected) == run.corpus.sizes["test"].tokens
    assert found.loss_nats == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    metrics, samples = measure(model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r")
    encoded = [(run.tokenizer.encode(line), run.tokenizer.spans(line)) for line in lines]
    lengths = sorted(len(ids) for ids, _ in encoded)
    assert (metrics.seq_len.min, metrics.seq_len.max) == (lengths[0], lengths[-1])
    assert metrics.n_tokens == sum(lengths) + len(lines)
    assert metrics.tokens_per_char == pytest.approx(sum(lengths) / sum(map(len, lines)))
    assert metrics.tokens_per_word == pytest.approx(sum(lengths) / sum(len(line.split()) for line in lines))
    unknown = run.tokenizer.special_ids.unk
    covered = [b - a for ids, spans in encoded for i, (a, b) in zip(ids, spans, strict=True) if i == unknown]
    assert run.corpus.sizes["test"].unknown_tokens == len(covered)
    assert metrics.unknown_chars == sum(covered)
    assert metrics.unknown_char_share == sum(covered) / metrics.n_chars
    names = list(run.tokenizer.manifest.special_tokens)
    assert not any(name in sample.text for sample in samples for name in names)


@pytest.mark.parametrize("method", ALL)
def test_score__equals_each_line_by_hand_in_every_unit(tmp_path: Path, method: str) -> None:
    run, model = run_with(tmp_path, method)
    lines, unknown = ["the sun", "the moon Ж", "th\u00e9"], run.tokenizer.special_ids.unk
    found = score(model, run.tokenizer, "the sun\r\n\n   \nthe moon Ж\nthe\u0301")
    ids = [i for line in lines for i in run.tokenizer.encode(line)]
    by_line = nats_by_hand(run, model, lines)
    nats, end_nats = [nats for line in by_line for nats in line[:-1]], math.fsum(line[-1] for line in by_line)
    assert found.surprisal == pytest.approx(nats, abs=1e-5)
    assert min(scored_nats(found)) >= 0
    assert (found.n_tokens, found.n_scored, found.n_ends) == (len(ids), len(ids), 3)
    assert found.unk_count == ids.count(unknown) >= (method != "byte")
    assert (found.n_chars, found.n_bytes) == (20, 22)
    assert found.nats == pytest.approx(math.fsum(scored_nats(found)), rel=1e-12)
    assert found.mean_surprisal == pytest.approx((found.nats or 0) / len(ids), rel=1e-12)
    assert found.end_nats == pytest.approx(end_nats, abs=1e-5)
    total = math.fsum(nats) + end_nats
    assert found.loss == pytest.approx(total / (len(ids) + 3), abs=1e-5)
    assert found.perplexity == math.exp(found.loss or 0)
    assert found.bits_per_char == pytest.approx(total / math.log(2) / 20, abs=1e-5)
    assert found.bits_per_byte == pytest.approx(total / math.log(2) / 22, abs=1e-5)
    assert (found.tokens, found.unknown_token) == (tuple(run.tokenizer.tokens(ids)), run.tokenizer.names[unknown])
    places = zip((0, 14, 25), lines, strict=True)
    spans = [(start + a, start + b) for start, line in places for a, b in run.tokenizer.spans(line)]
    assert list(found.char_spans or ()) == spans
    brief = score(model, run.tokenizer, "\n".join(lines), detail_level="summary")
    lists = (brief.surprisal, brief.rank, brief.entropy, brief.tokens, brief.char_spans, brief.topk)
    assert (brief.loss, lists, found.topk) == (found.loss, (None,) * 6, None)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "byte"])
def test_score__counts_unknown_characters_not_tokens(tmp_path: Path, method: str) -> None:
    run, model = run_with(tmp_path, method)
    text = ["ЖшЖ шЖш", "ЖЖ"]
    scored, unstarted = (score(model, run.tokenizer, "\n".join(text), context=context) for context in ("bos", "none"))
    assert [line.unknown_chars for line in scored.lines or ()] == [6, 2]
    assert (scored.unknown_chars, scored.unknown_char_share) == (8, 8 / 9)
    first = [end - start for start, end in (run.tokenizer.spans(line)[0] for line in text)]
    assert unstarted.unknown_chars == 8 - sum(first)  # the first token of each line has no score


@pytest.mark.parametrize("method", slow_except(ALL, "byte", "bpe"))
def test_continuation__follows_the_prompt_and_begins_lines_anew(tmp_path: Path, method: str) -> None:
    run, model = run_with(tmp_path, method)
    tokenizer, ids = run.tokenizer, run.tokenizer.special_ids
    with torch.no_grad():
        dict(model.named_parameters())["head_bias"][ids.eos] = END_BIAS.get(method, 2.0)
    opening = [] if ids.bos is None else [ids.bos]
    before, open_line = (tokenizer.encode(line) for line in ("the sea", "the moon"))
    read = [*(opening or [ids.eos]), *before, ids.eos, *opening, *open_line]
    written, reference = [open_line[:]], ReferenceModel(model, "lstm")
    for _ in range(30):
        answers = reference.log_probabilities(read)[-1]
        best = max((i for i in range(len(answers)) if i not in ids.never_sampled), key=answers.__getitem__)
        read += [best] if best != ids.eos else [best, *opening]
        written = [*written, []] if best == ids.eos else [*written[:-1], [*written[-1], best]]
    values: dict[str, object] = {"stop_on_eos": False, "max_new_tokens": 30, "temperature": 0.0}
    found = write(model, tokenizer, prompt_text="the sea\nthe moon", **values)
    assert len(written) > 1, "a line has ended"
    assert found.outputs == ("\n".join(map(tokenizer.decode, written))[len("the moon") :],)
    assert found.prompt_tokens == len(before) + len(open_line)
