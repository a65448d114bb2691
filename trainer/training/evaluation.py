"""Loss, accuracy and seeded samples of a model on a split."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics, EvalSplit, SequenceLengths
from trainer.contracts.generations import GenerateRequest, Sample
from trainer.contracts.intervals import LineLosses, margin
from trainer.contracts.reports import Note
from trainer.contracts.runs import EffectiveRequest, KnownFigures
from trainer.contracts.seeds import listed_seeds
from trainer.contracts.units import perplexity
from trainer.data.corpus import Split
from trainer.inference.generation import generate
from trainer.inference.model_files import WEIGHTS_FILE
from trainer.models.base import LanguageModel
from trainer.reports.leak_notes import leak_notes, split_note, training_text_note
from trainer.tokenizers.base import Ids, Tokenizer
from trainer.training.batches import NO_TARGET, Batch, masking
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute
from trainer.training.documents import Block, Documents, group_bounds, line_ends

SAMPLES_PER_PROMPT = 4
_SAMPLE_TOKENS = 100
_MAX_BATCH_ROWS = 128
_MAX_BATCH_POSITIONS = 1 << 13
_MAX_BATCH_LOGITS = 1 << 24
"""Limits of a batch: lines, tokens, and tokens times vocabulary. A larger batch is hardly faster."""
_MAX_WINDOW_TOKENS = 4096
"""Maximum window of bidirectional models without a context limit."""
_MAX_PROMPTS, _MAX_PROMPT_TOKENS, _DRAWN_POSITIONS = 3, 20, 30
_MAX_TOKENS_TO_LINE_START = 4096
"""Number of tokens before a drawn position that are searched for the start of its line."""


class KnownTokens(NamedTuple):
    """Sums over the predicted tokens that are not unknown."""

    loss_sum_nats: float
    tokens: int
    top1_hits: int
    top5_hits: int


class Evaluation(NamedTuple):
    """Sums over the predicted tokens of a split: with [EOS] or the newlines of a stream, without [BOS] and padding."""

    loss_sum_nats: float
    tokens: int
    top1_hits: int
    top5_hits: int
    group_nats: tuple[float, ...]
    group_tokens: tuple[int, ...]
    """Losses and tokens of each group of lines."""
    known: KnownTokens
    """Sums over the tokens that are not unknown."""

    @property
    def loss_nats(self) -> float:
        return self.loss_sum_nats / self.tokens

    def margin_nats(self, *, is_drawn: bool) -> float | None:
        """Return half the width of the 95 % interval of the loss over the lines; None with too few lines."""
        return margin((self.group_nats, self.group_tokens), is_drawn=is_drawn)


def evaluate(
    model: LanguageModel, documents: Documents, compute: Compute, after_batch: Callable[[], None] = lambda: None
) -> Evaluation:
    """Evaluate a model on every document of a split, without dropout; its training mode is the same afterwards.

    Recurrent models carry their state to the end of a document; other models read windows of at most their context. The
    result does not depend on `max_seq_len` or `batch_size`. Calls `after_batch` after each batch, which may raise.
    Raises CORPUS_EMPTY if the split has no token to predict.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=compute.device)
    known_loss = torch.zeros((), dtype=torch.float64, device=compute.device)
    hits = torch.zeros(3, dtype=torch.int64, device=compute.device)
    known_hits = torch.zeros(3, dtype=torch.int64, device=compute.device)
    group_ends = documents.group_ends()
    group_nats = torch.zeros(len(group_ends), dtype=torch.float64, device=compute.device)
    group_tokens = torch.zeros(len(group_ends), dtype=torch.int64, device=compute.device)
    tokens = 0
    try:
        with torch.inference_mode(), closing(_predictions(model, documents, group_ends, compute)) as predictions:
            for logits, batch, groups in predictions:
                targets, group = batch.targets.flatten(), groups.flatten()
                losses = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none").double()
                loss += losses.sum()
                group_nats.index_add_(0, group, losses)
                group_tokens.index_add_(0, group, (targets != NO_TARGET).long())
                likelier, is_target = _likelier(logits, batch.targets), batch.targets != NO_TARGET
                is_known = is_target & (batch.targets != documents.special_ids.unk)
                known_loss += losses.where(is_known.flatten(), 0.0).sum()
                hits += _hits(likelier[is_target])
                known_hits += _hits(likelier[is_known])
                tokens += batch.tokens
                del logits  # the next batch needs their memory
                after_batch()
    finally:
        model.train(was_training)
    if not tokens:
        raise AppError(ErrorCode.CORPUS_EMPTY, "There is nothing to predict: the text has no token that can be masked.")
    nats_list: list[float] = group_nats.tolist()
    tokens_list: list[int] = group_tokens.tolist()
    top1, top5, _ = map(int, hits)
    known_top1, known_top5, known_tokens = map(int, known_hits)
    return Evaluation(
        float(loss),
        tokens,
        top1,
        top5,
        tuple(nats_list),
        tuple(tokens_list),
        KnownTokens(float(known_loss), known_tokens, known_top1, known_top5),
    )


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
    evaluation: Evaluation | None = None,
    what: Note | None = None,
) -> Measured:
    """Return the metrics of a model on a split and samples from it; equal calls give equal numbers.

    `evaluation` is the result of an earlier `evaluate`, if there was one; `what` names a text other than the split.
    `bits_per_char` divides the bits of all predicted tokens, with [EOS], by the characters of the lines, in a stream
    with their newlines; `bits_per_byte` by their UTF-8 bytes. Both are None for masked models. Raises INVALID_INPUT if
    the run does not have the split.
    """
    if split not in corpus.ids:
        raise AppError(ErrorCode.INVALID_INPUT, f"This run has no {split} split.")
    if evaluation is None:
        evaluation = evaluate(
            model, corpus.documents(split, masking(effective, model.vocabulary, effective.split_seed)), compute
        )
    sizes = corpus.sizes[split]
    tokens = sizes.tokens - sizes.lines * corpus.special_ids.ends_per_line
    lengths: list[float] = np.percentile(line_lengths(corpus, split), (0, 50, 95, 100)).tolist()
    is_causal = effective.objective == "causal_lm"
    prompts = sample_prompts(corpus, tokenizer, effective) if is_causal else ()
    samples = draw_samples(model, tokenizer, prompts, effective.seed, run_id)
    bits_per_char = sizes.bits_per_char(evaluation.loss_nats, effective.objective)
    words = [sample.text.split() for sample in samples]
    firsts = group_bounds(sizes.lines)[:-1]
    chars: list[int] = np.add.reduceat(corpus.line_chars[split], firsts, dtype=np.int64).tolist()
    text = {"validation": effective.validation_corpus, "test": effective.test_corpus}[split] or effective.corpus
    metrics = EvalMetrics(
        run_id=run_id,
        split=split,
        objective=effective.objective,
        dataset=text.name,
        loss=evaluation.loss_nats,
        perplexity=perplexity(evaluation.loss_nats),
        bits_per_char=bits_per_char,
        bits_per_byte=None if bits_per_char is None else bits_per_char * sizes.chars / sizes.bytes,
        top1_accuracy=evaluation.top1_hits / evaluation.tokens,
        top5_accuracy=evaluation.top5_hits / evaluation.tokens,
        known=_known(evaluation.known),
        n_tokens=evaluation.tokens,
        n_chars=sizes.chars,
        n_bytes=sizes.bytes,
        lines=LineLosses(
            nats=evaluation.group_nats,
            tokens=evaluation.group_tokens,
            chars=tuple(chars),
            is_drawn=effective.draws_lines(split),
        ),
        unknown_share=sizes.unknown_tokens / tokens,
        unknown_chars=sizes.unknown_chars,
        unknown_char_share=sizes.unknown_char_share,
        tokens_per_char=tokens / sizes.chars,
        tokens_per_word=tokens / corpus.words[split],
        seq_len=SequenceLengths(min=int(lengths[0]), p50=lengths[1], p95=lengths[2], max=int(lengths[3])),
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        repetition_rate=repetition_rate(words),
        seed=effective.seed,
        checkpoint=WEIGHTS_FILE,
        created_at=now(),
        artifacts=("eval/metrics.json", "eval/samples.jsonl"),
        leak=sizes.leak,
        notes=()
        if sizes.leak is None
        else tuple(leak_notes(sizes.leak, what or split_note(split), training_text_note(run_id))),
    )
    return Measured(metrics, samples)


def _known(found: KnownTokens) -> KnownFigures | None:
    if not found.tokens:
        return None
    return KnownFigures(
        loss=found.loss_sum_nats / found.tokens,
        top1_accuracy=found.top1_hits / found.tokens,
        top5_accuracy=found.top5_hits / found.tokens,
        n_tokens=found.tokens,
    )


def sample_prompts(corpus: TokenizedCorpus, tokenizer: Tokenizer, effective: EffectiveRequest) -> tuple[str, ...]:
    """Return the empty prompt and the first words of two lines, drawn by the split seed; fewer if it has few words.

    The lines are those of the validation split, if there is one. A prompt ends before an unknown token.
    """
    if effective.sample_prompts == "none":
        return ("",)
    seed = effective.split_seed
    ids = corpus.ids["validation" if "validation" in corpus.ids else next(iter(corpus.ids))]
    drawn: list[int] = np.random.Generator(np.random.PCG64(seed)).integers(len(ids), size=_DRAWN_POSITIONS).tolist()
    prompts = [""]
    for position in drawn:
        words = tokenizer.decode(_line_start(ids, position, tokenizer)).split()
        prompts += [word for word in words[:1] if word not in prompts]
    return tuple(prompts[:_MAX_PROMPTS])


def _line_start(ids: Ids, position: int, tokenizer: Tokenizer) -> list[int]:
    """Return the first tokens of the line at a position, up to its end or its first unknown token."""
    special = tokenizer.special_ids
    before: list[int] = ids[max(0, position - _MAX_TOKENS_TO_LINE_START) : position].tolist()
    in_line = list(takewhile(lambda token: token != special.line_end, reversed(before)))
    start = position - len(in_line) + (special.line_start is not None)
    line: list[int] = ids[start : start + _MAX_PROMPT_TOKENS].tolist()
    return list(takewhile(lambda token: token not in (special.line_end, special.unk), line))


def draw_samples(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], seed: int, run_id: str
) -> tuple[Sample, ...]:
    """Generate SAMPLES_PER_PROMPT continuations of each prompt, each with the next seed; equal seeds, equal samples."""
    samples: list[Sample] = []
    for prompt, prompt_seed in zip(prompts, listed_seeds(len(prompts), seed), strict=False):
        request = GenerateRequest(
            prompt_text=prompt, max_new_tokens=_SAMPLE_TOKENS, num_return_sequences=SAMPLES_PER_PROMPT, seed=prompt_seed
        )
        response = generate(model, tokenizer, request, run_id=run_id, request_id="samples")
        columns = zip(response.outputs or (), response.steps or (), response.stop_reason or (), strict=True)
        samples += [Sample(prompt=prompt, text=t, seed=prompt_seed, steps=n, stop_reason=why) for t, n, why in columns]
    return tuple(samples)


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return the share of distinct n-grams among all n-grams of the texts (Li et al. 2016); 1 if there are none."""
    grams = [gram for words in texts for gram in _grams(words, n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def repetition_rate(texts: Sequence[Sequence[str]]) -> float:
    """Return the share of word pairs that occur earlier in the same text; 0 if there are no pairs."""
    texts_pairs = [_grams(words, 2) for words in texts]
    total = sum(len(pairs) for pairs in texts_pairs)
    return 1 - sum(len(set(pairs)) for pairs in texts_pairs) / total if total else 0.0


def _predictions(
    model: LanguageModel, documents: Documents, group_ends: NDArray[np.int64], compute: Compute
) -> Generator[tuple[Tensor, Batch, Tensor], None, None]:
    """Yield the logits (B, T, V) of each batch, the batch, and the group of lines of each target (B, T).

    Losses have as many threads as the logits that they are of.
    """
    carries_state = model.carries_unlimited_state
    max_tokens = None if carries_state else model.context_tokens or _MAX_WINDOW_TOKENS
    positions = max(1, min(_MAX_BATCH_POSITIONS, _MAX_BATCH_LOGITS // model.vocab_size))
    for block in documents.blocks(max_tokens, group_ends):
        row = 0
        while row < len(block.lengths):
            longest = 1 if carries_state else block.lengths[row]
            count = min(max(1, min(_MAX_BATCH_ROWS, positions // longest)), len(block.lengths) - row)
            if carries_state:
                yield from _predictions_in_chunks(model, block, row, count, positions, compute)
            else:
                batch, groups = _on_device(block.batch(row, count), compute)
                inputs, lengths = batch.inputs, batch.lengths
                with model.computing("evaluation", model.product_rows(inputs, lengths), inputs.numel()):
                    yield model.forward(inputs, lengths), batch, groups
            row += count


def _predictions_in_chunks(
    model: LanguageModel, block: Block, row: int, count: int, positions: int, compute: Compute
) -> Generator[tuple[Tensor, Batch, Tensor], None, None]:
    """Read `count` lines, longest first, in chunks of at most `positions`; ended lines leave the batch."""
    lengths = block.lengths[row : row + count]
    state = model.initial_state(count)
    start = 0
    while start < lengths[0]:
        unread = sum(length > start for length in lengths)
        if unread < state[0].shape[1]:
            state = tuple(tensor[:, :unread].contiguous() for tensor in state)
        median = lengths[unread // 2]  # a chunk ends here at the latest, so at most half of its rows have padding
        stop = min(start + max(1, positions // unread), median)
        batch, groups = _on_device(block.batch(row, unread, start, stop), compute)
        with model.computing("evaluation", unread, batch.inputs.numel()):
            logits, state = model.forward_with_state(batch.inputs, state)
            yield logits, batch, groups
        start = stop


def _on_device(read: tuple[Batch, Tensor], compute: Compute) -> tuple[Batch, Tensor]:
    batch, groups = read
    return batch.to(compute.device), groups.to(compute.device, non_blocking=True)


def _likelier(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the number of tokens that are likelier than each target (B, T), by the logits (B, T, V)."""
    target_logits = logits.gather(-1, targets.clamp_min(0).unsqueeze(-1))  # (B, T, 1)
    return (logits > target_logits).sum(-1)


def _hits(likelier: Tensor) -> Tensor:
    """Return how many targets (targets,) are the likeliest token, and among the likeliest five, and all: (3,)."""
    return torch.stack([(likelier < 1).sum(), (likelier < 5).sum(), torch.tensor(likelier.numel()).to(likelier)])


def line_lengths(corpus: TokenizedCorpus, split: Split) -> NDArray[np.int32]:
    """Return the number of tokens of each line (lines,), without [BOS] and [EOS], in a stream with its newline."""
    special_ids = corpus.special_ids
    lengths = [np.diff(ends).astype(np.int32) for ends in line_ends(corpus.ids[split], special_ids.line_end)]
    return np.concatenate(lengths) - special_ids.marks_per_line


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
