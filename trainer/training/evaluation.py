"""Loss and accuracy of a model on the lines of a split, and seeded samples."""

from collections.abc import Callable, Sequence
from itertools import takewhile
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
    Sample,
    SequenceLengths,
    perplexity,
)
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpus import Split
from trainer.inference.generation import generate
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Ids, Tokenizer
from trainer.training.batches import NO_TARGET, Batch, masking
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute
from trainer.training.documents import Block, Documents, line_ends

SAMPLES_PER_PROMPT = 4
_SAMPLE_TOKENS = 100
_ROWS_AT_ONCE = 128
_POSITIONS_AT_ONCE = 1 << 13
_LOGITS_AT_ONCE = 1 << 24
"""Lines, tokens, and tokens times vocabulary of a batch, at most: a wider one is hardly faster."""
_MOST_TOKENS_WITHOUT_STATE = 4096
"""Longer lines are read in windows by models that read both sides and have no context of their own."""
_PROMPTS, _PROMPT_TOKENS, _LINES_TRIED = 3, 20, 30
_LONG_LINE = 4096
"""Tokens before a place among which the begin of its line is looked for."""


class Evaluation(NamedTuple):
    """Sums over the predicted tokens of a split; [EOS] is one of them, [BOS] and padding are not."""

    loss_sum_nats: float
    tokens: int
    top1_hits: int
    top5_hits: int

    @property
    def loss_nats(self) -> float:
        return self.loss_sum_nats / self.tokens


def evaluate(
    model: LanguageModel, documents: Documents, compute: Compute, between_batches: Callable[[], None] = lambda: None
) -> Evaluation:
    """Measure a model on every line of a split, without dropout; leaves the model in training mode if it was.

    Recurrent models carry their state to the end of a line, other models read at most their context at once. The result
    depends on neither `max_seq_len` nor `batch_size`.
    """
    was_training = model.training
    model.eval()
    try:
        return _evaluate(model, documents, compute, between_batches)
    finally:
        model.train(was_training)


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

    The evaluation may be `found` already. `bits_per_char` spreads the bits of all predicted tokens, [EOS] included,
    over the characters of the lines, `bits_per_byte` over their bytes in UTF-8; a masked model has neither. Raises
    INVALID_INPUT where the run has no such split.
    """
    if split not in corpus.ids:
        raise AppError(ErrorCode.INVALID_INPUT, f"This run has no {split} split.")
    if found is None:
        found = evaluate(model, corpus.documents(split, masking(effective, model.vocabulary)), compute)
    sizes = corpus.sizes[split]
    tokens = sizes.tokens - sizes.lines
    lengths: list[float] = np.percentile(line_lengths(corpus, split), (0, 50, 95, 100)).tolist()
    is_causal = effective.objective == "causal_lm"
    prompts = sample_prompts(corpus, tokenizer, effective.seed) if is_causal else ()
    samples = draw_samples(model, tokenizer, prompts, effective.seed, run_id)
    bits_per_char = sizes.bits_per_char(found.loss_nats, effective.objective)
    words = [sample.text.split() for sample in samples]
    text = {"validation": effective.validation_corpus, "test": effective.test_corpus}[split] or effective.corpus
    metrics = EvalMetrics(
        run_id=run_id,
        split=split,
        objective=effective.objective,
        dataset=text.name,
        loss=found.loss_nats,
        perplexity=perplexity(found.loss_nats),
        bits_per_char=bits_per_char,
        bits_per_byte=None if bits_per_char is None or not sizes.bytes else bits_per_char * sizes.chars / sizes.bytes,
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


def sample_prompts(corpus: TokenizedCorpus, tokenizer: Tokenizer, seed: int) -> tuple[str, ...]:
    """Return the empty prompt and the first words of two lines of the validation split, drawn by the seed.

    A word is cut after its 20th token, and before one that the tokenizer does not know; a text of few words gives fewer
    prompts. Of a corpus without that split the lines are those of its first one.
    """
    ids = corpus.ids["validation" if "validation" in corpus.ids else next(iter(corpus.ids))]
    places: list[int] = np.random.Generator(np.random.PCG64(seed)).integers(len(ids), size=_LINES_TRIED).tolist()
    prompts = [""]
    for place in places:
        words = tokenizer.decode(_line_begin(ids, place, tokenizer)).split()
        prompts += [word for word in words[:1] if word not in prompts]
    return tuple(prompts[:_PROMPTS])


def _line_begin(ids: Ids, place: int, tokenizer: Tokenizer) -> list[int]:
    """The first tokens of the line that holds a place, up to its end or to the first unknown one."""
    special = tokenizer.special_ids
    before: list[int] = ids[max(0, place - _LONG_LINE) : place].tolist()
    of_line = list(takewhile(lambda token: token != special.eos, reversed(before)))
    start = place - len(of_line) + (special.bos is not None)
    line: list[int] = ids[start : start + _PROMPT_TOKENS].tolist()
    return list(takewhile(lambda token: token not in (special.eos, special.unk), line))


def draw_samples(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], seed: int, run_id: str
) -> tuple[Sample, ...]:
    """Continue each prompt a few times; equal seeds give equal samples."""
    samples: list[Sample] = []
    for prompt in prompts:
        request = GenerateRequest(
            prompt_text=prompt, max_new_tokens=_SAMPLE_TOKENS, num_return_sequences=SAMPLES_PER_PROMPT, seed=seed
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


def _evaluate(
    model: LanguageModel, documents: Documents, compute: Compute, between_batches: Callable[[], None]
) -> Evaluation:
    sums = _Sums(
        torch.zeros((), dtype=torch.float64, device=compute.device),
        torch.zeros(2, dtype=torch.int64, device=compute.device),
    )
    carries_state = model.objective == "causal_lm" and model.context_tokens is None
    most_tokens = None if carries_state else model.context_tokens or _MOST_TOKENS_WITHOUT_STATE
    positions = max(1, min(_POSITIONS_AT_ONCE, _LOGITS_AT_ONCE // model.vocab_size))
    with torch.inference_mode():
        for block in documents.blocks(most_tokens):
            row = 0
            while row < len(block.lengths):
                longest = 1 if carries_state else block.lengths[row]
                count = min(max(1, min(_ROWS_AT_ONCE, positions // longest)), len(block.lengths) - row)
                if carries_state:
                    sums = _read_in_chunks(model, block, row, count, positions, sums, between_batches)
                else:
                    between_batches()
                    batch = block.batch(row, count).to(compute.device)
                    sums = sums.add(model.forward(batch.inputs, batch.lengths), batch)
                row += count
    if not sums.tokens:
        raise AppError(ErrorCode.CORPUS_EMPTY, "There is nothing to predict: the text has no token that can be masked.")
    return Evaluation(float(sums.loss), sums.tokens, int(sums.hits[0]), int(sums.hits[1]))


class _Sums(NamedTuple):
    """What was predicted so far, added up on the device."""

    loss: Tensor
    hits: Tensor
    tokens: int = 0

    def add(self, logits: Tensor, batch: Batch) -> "_Sums":
        """Add the predictions (B, T, V) of a batch."""
        losses = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
        hits = self.hits + _hits(logits, batch.targets)
        return _Sums(self.loss + losses.double().sum(), hits, self.tokens + batch.tokens)


def _read_in_chunks(
    model: LanguageModel,
    block: Block,
    row: int,
    count: int,
    positions: int,
    sums: _Sums,
    between_batches: Callable[[], None],
) -> _Sums:
    """Read lines side by side in chunks of so many positions; lines that have ended leave the batch between chunks."""
    lengths = block.lengths[row : row + count]
    state = model.initial_state(count)
    start = 0
    while start < lengths[0]:
        between_batches()
        unread = sum(length > start for length in lengths)
        if unread < state[0].shape[1]:
            state = tuple(part[:, :unread].contiguous() for part in state)
        half_ended = lengths[unread // 2]  # the lines that are shorter are padded up to here, and no further
        stop = min(start + max(1, positions // unread), half_ended)
        batch = block.batch(row, unread, start, stop).to(sums.loss.device)
        logits, state = model.forward_with_state(batch.inputs, state)
        sums = sums.add(logits, batch)
        start = stop
    return sums


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
    for ends in line_ends(corpus.ids[split], special_ids.eos):
        between: NDArray[np.int64] = np.diff(ends)
        lengths.append((between - not_counted).astype(np.int32))
    return np.concatenate(lengths)


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
