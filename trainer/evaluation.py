"""What a model does on a split: loss and accuracy by the rows that training uses, and seeded samples."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.contracts.base import Frozen, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    EvalMetrics,
    EvalSplit,
    GenerateRequest,
    SequenceLengths,
    StopReason,
    perplexity,
)
from trainer.contracts.runs import EffectiveRequest
from trainer.data.batches import NO_TARGET, Rows, masking, pieces
from trainer.data.corpus import Split
from trainer.data.tokens import TokenizedCorpus
from trainer.device import Compute
from trainer.generation import generate
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

SAMPLE_PROMPTS = ("", "a", "the ")
_SAMPLES_PER_PROMPT = 4
_SAMPLE_TOKENS = 100
SAMPLES_PER_DRAW = len(SAMPLE_PROMPTS) * _SAMPLES_PER_PROMPT


class Evaluation(NamedTuple):
    """Sums over the predicted tokens of a split; [EOS] is one of them, [BOS] and padding are not."""

    loss_sum_nats: float
    tokens: int
    top1_hits: int
    top5_hits: int

    @property
    def loss_nats(self) -> float:
        return self.loss_sum_nats / self.tokens


def evaluate_rows(
    model: LanguageModel, rows: Rows, compute: Compute, between_batches: Callable[[], None] = lambda: None
) -> Evaluation:
    """Score every row with the model as it is, without dropout; leaves the model in training mode if it was."""
    was_training = model.training
    model.eval()
    try:
        return _evaluate(model, rows, compute, between_batches)
    finally:
        model.train(was_training)


class Sample(Frozen):
    """A line of `samples.jsonl`."""

    prompt: str
    text: str
    seed: int
    steps: int
    stop_reason: StopReason


class TrainingSample(Frozen):
    """A line of `training_samples.jsonl`: what the model generated after some step."""

    step: int
    sample: Sample


class Measured(NamedTuple):
    """The record of `metrics.json` and the lines of `samples.jsonl`."""

    metrics: EvalMetrics
    samples: tuple[Sample, ...]


def measure(
    model: LanguageModel,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    split: EvalSplit,
    effective: EffectiveRequest,
    compute: Compute,
    *,
    run_id: str,
    checkpoint: str,
    found: Evaluation | None = None,
    artifacts: tuple[str, ...] = (),
) -> Measured:
    """Measure a model on a split, and what it writes of itself; a repetition gives equal numbers.

    What the model does on the rows may be `found` already. `bits_per_char` spreads all that was predicted, [EOS]
    included, over the characters of the lines; of a masked model, which predicts some tokens only, it spreads their
    mean over all tokens but [EOS]; `bits_per_byte` is the same over the bytes of the lines in UTF-8. Raises
    INVALID_INPUT where the run has no such split.
    """
    if split not in corpus.ids:
        raise AppError(ErrorCode.INVALID_INPUT, f"This run has no {split} split.")
    rows = corpus.rows(split, effective.max_seq_len, masking(effective, model.vocabulary))
    found = found or evaluate_rows(model, rows, compute)
    sizes = corpus.sizes[split]
    tokens = sizes.tokens - sizes.lines
    lengths: list[float] = np.percentile(line_lengths(corpus, split), (0, 50, 95, 100)).tolist()
    is_causal = effective.objective == "causal_lm"
    samples = draw_samples(model, tokenizer, effective.seed, run_id) if is_causal else ()
    predicted_bits = (found.loss_sum_nats if is_causal else found.loss_nats * tokens) / math.log(2)
    words = [sample.text.split() for sample in samples]
    text = {"validation": effective.validation_corpus, "test": effective.test_corpus}[split] or effective.corpus
    metrics = EvalMetrics(
        run_id=run_id,
        split=split,
        objective=effective.objective,
        dataset=text.name,
        loss=found.loss_nats,
        perplexity=perplexity(found.loss_nats),
        bits_per_char=predicted_bits / sizes.chars,
        bits_per_byte=None if sizes.bytes is None else predicted_bits / sizes.bytes,
        top1_accuracy=found.top1_hits / found.tokens,
        top5_accuracy=found.top5_hits / found.tokens,
        n_tokens=found.tokens,
        n_chars=sizes.chars,
        n_bytes=sizes.bytes,
        unknown_share=None if sizes.unknown_tokens is None else sizes.unknown_tokens / tokens,
        tokens_per_char=tokens / sizes.chars,
        tokens_per_word=tokens / corpus.words[split],
        seq_len=SequenceLengths(min=int(lengths[0]), p50=lengths[1], p95=lengths[2], max=int(lengths[3])),
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        repetition_rate=repetition_rate(words),
        seed=effective.seed,
        checkpoint=checkpoint,
        created_at=now(),
        artifacts=artifacts,
    )
    return Measured(metrics, samples)


def draw_samples(model: LanguageModel, tokenizer: Tokenizer, seed: int, run_id: str) -> tuple[Sample, ...]:
    """Continue each of the fixed prompts a few times; equal seeds give equal samples."""
    samples: list[Sample] = []
    for prompt in SAMPLE_PROMPTS:
        request = GenerateRequest(
            prompt_text=prompt, max_new_tokens=_SAMPLE_TOKENS, num_return_sequences=_SAMPLES_PER_PROMPT, seed=seed
        )
        answer = generate(model, tokenizer, request, run_id=run_id, request_id="samples")
        parts = zip(answer.outputs or (), answer.steps or (), answer.stop_reason or (), strict=True)
        samples += [Sample(prompt=prompt, text=t, seed=seed, steps=n, stop_reason=why) for t, n, why in parts]
    return tuple(samples)


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return the share of different n-grams among all n-grams of some texts (Li et al. 2016); 1 where there is none."""
    grams = [gram for words in texts for gram in _grams(words, n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def repetition_rate(texts: Sequence[Sequence[str]]) -> float:
    """Return the share of word pairs that were there before in the same text; 0 where there is none."""
    pairs = [_grams(words, 2) for words in texts]
    total = sum(len(of_text) for of_text in pairs)
    return 1 - sum(len(set(of_text)) for of_text in pairs) / total if total else 0.0


def _evaluate(model: LanguageModel, rows: Rows, compute: Compute, between_batches: Callable[[], None]) -> Evaluation:
    loss_sum = torch.zeros((), dtype=torch.float64, device=compute.device)
    hits = torch.zeros(2, dtype=torch.int64, device=compute.device)
    tokens = 0
    for start in range(0, len(rows), compute.batch_size):
        between_batches()
        batch = rows.batch(np.arange(start, min(start + compute.batch_size, len(rows)))).to(compute.device)
        with torch.inference_mode():
            logits = model.forward(batch.inputs, batch.lengths)  # (B, T, V)
            losses = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
            loss_sum += losses.double().sum()
            hits += _hits(logits, batch.targets)
        tokens += batch.tokens
    if not tokens:
        raise AppError(ErrorCode.CORPUS_EMPTY, "There is nothing to predict: the text has no token that can be masked.")
    return Evaluation(float(loss_sum), tokens, int(hits[0]), int(hits[1]))


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Count the targets (B, T) that are among the first one and the first five of the logits (B, T, V)."""
    predicted = targets != NO_TARGET
    of_target = logits.gather(-1, targets.clamp_min(0).unsqueeze(-1))  # (B, T, 1)
    better = (logits > of_target).sum(-1)  # (B, T)
    return torch.stack([(better[predicted] < 1).sum(), (better[predicted] < 5).sum()])


def line_lengths(corpus: TokenizedCorpus, split: Split) -> NDArray[np.int32]:
    """The tokens of each line, without [BOS] and [EOS]."""
    special_ids = corpus.special_ids
    not_counted = 1 if special_ids.bos is None else 2
    lengths: list[NDArray[np.int32]] = []
    last_end: NDArray[np.int64] = np.full(1, -1, dtype=np.int64)
    start = 0
    for piece in pieces(corpus.ids[split]):
        is_end: NDArray[np.bool_] = piece == special_ids.eos
        ends: NDArray[np.int64] = np.flatnonzero(is_end) + start
        last_and_ends = np.concatenate([last_end, ends])
        between: NDArray[np.int64] = np.diff(last_and_ends)
        lengths.append((between - not_counted).astype(np.int32))
        start += len(is_end)
        last_end = last_and_ends[-1:]
    return np.concatenate(lengths)


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
