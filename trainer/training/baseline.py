"""The baseline of a run: unigrams and the best n-gram of its training split, measured on its held-out splits."""

from math import fsum, log
from pathlib import Path
from typing import NamedTuple

from trainer.contracts.base import changed
from trainer.contracts.baselines import MAX_COUNTED_TOKENS, Baseline, Baselines, CharacterCounts, Shortfall
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.intervals import margin
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest, HeldOutSplit
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import check_unchanged, corpus_paths
from trainer.models.ngram import CountedText, NgramModel
from trainer.ngrams.choose import MAX_ORDER, choose_ngram
from trainer.ngrams.kneser_ney import KneserNey
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.counted_splits import SplitCounts
from trainer.training.counting import filled
from trainer.training.dataset import TokenizedCorpus, prepare


class Counted(NamedTuple):
    """Unigrams and the best n-gram of a training split."""

    unigram: KneserNey
    ngram: KneserNey
    counted_tokens: int


def measure_baselines(
    counts: SplitCounts | None,
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    metrics: EvalMetrics,
    validation_loss_nats: float | None,
) -> tuple[Baselines, EvalMetrics]:
    """Return the baseline on each split with a loss of the model, and the evaluation of a split with its baseline.

    Equal splits give equal numbers. Without counts there is no baseline.
    """
    if counts is None:
        return {}, metrics
    losses: dict[HeldOutSplit, float | None] = {"validation": validation_loss_nats, metrics.split: metrics.loss}
    baselines: Baselines = {}
    for split, loss_nats in losses.items():
        if loss_nats is not None:
            baseline, ngram_nats = _measured(counts, corpus, split, loss_nats)
            baselines[split] = changed(baseline, shortfall=_shortfall(effective, baseline))
            if split == metrics.split:
                baselines[split], metrics = compared(baselines[split], metrics, ngram_nats)
    return baselines, metrics


def counted_validation_loss(
    counts: SplitCounts | None, corpus: TokenizedCorpus, effective: EffectiveRequest
) -> float | None:
    """Return the validation loss of the stronger n-gram, in nats per token, which a training has to beat.

    None without counts, and for a model that counts itself.
    """
    if counts is None or isinstance(effective.model, NgramConfig):
        return None
    _, nats = counts.stronger("validation")
    return fsum(nats) / corpus.sizes["validation"].tokens


def _shortfall(effective: EffectiveRequest, baseline: Baseline) -> Shortfall:
    if isinstance(effective.model, NgramConfig):
        return "tokens" if baseline.is_of_characters else "order"
    if any(limit is not None for limit in (effective.minutes, effective.max_steps, effective.max_seconds)):
        return "time"
    return "size" if effective.model_size == "tiny" else "settings"


def compared(
    baseline: Baseline, metrics: EvalMetrics, ngram_nats: tuple[float, ...] | None
) -> tuple[Baseline, EvalMetrics]:
    """Return the baseline of a split compared with an evaluation of it, and the evaluation with the baseline.

    `ngram_nats` are the losses of the n-gram over the groups of lines of the split; None gives no interval.
    """
    lines, half_nats = metrics.lines, None
    if ngram_nats is not None:
        lines = changed(lines, ngram_nats=ngram_nats)
        half_nats = margin((lines.nats, lines.chars), (ngram_nats, lines.chars), is_drawn=lines.is_drawn)
    bits = _bits_per_char(metrics.loss, metrics.n_tokens, metrics.n_chars)
    baseline = changed(baseline, bits_per_char=bits, margin=None if half_nats is None else half_nats / log(2))
    if baseline.known_ngram_loss is not None and metrics.known is not None:
        baseline = changed(baseline, known_loss=metrics.known.loss)
    return baseline, changed(metrics, baseline=baseline, lines=lines)


def unigrams_and_ngram(corpus: TokenizedCorpus, vocab_size: int, max_order: int = MAX_ORDER) -> Counted:
    """Count the training split, or a sample of it, and choose the order on the validation split."""
    unigram, ngram = (
        choose_ngram(
            corpus.ids["train"],
            corpus.ids["validation"],
            vocab_size=vocab_size,
            special_ids=corpus.special_ids,
            max_order=order,
            max_tokens=MAX_COUNTED_TOKENS,
        )
        for order in (1, max_order)
    )
    return Counted(unigram.model, ngram.model, ngram.counted_tokens)


def count_corpus(effective: EffectiveRequest, corpora: CorpusStore, cache: Path, tokenizer: Tokenizer) -> CountedText:
    """Count the training text of a run; raises DATA_NOT_FOUND if it is deleted or has changed.

    `cache` is the folder of encoded corpora.
    """
    _, corpus = prepare(effective, corpus_paths(corpora, effective), cache, tokenizer)
    unigram, ngram, _ = unigrams_and_ngram(corpus, tokenizer.vocab_size)
    has_spaces = corpus.words["train"] > corpus.sizes["train"].lines
    return CountedText(tokenizer, _model(unigram, tokenizer), _model(ngram, tokenizer), ngram.order, has_spaces)


class KeptCounts:
    """Counts the training text of a run when that is first needed, and keeps the counts while the text is there.

    Five megabytes take two seconds.
    """

    def __init__(self, effective: EffectiveRequest, corpora: CorpusStore, cache: Path, tokenizer: Tokenizer) -> None:
        """Take what `count_corpus` takes."""
        self._effective, self._corpora, self._cache, self._tokenizer = effective, corpora, cache, tokenizer
        self._counted: CountedText | None = None

    def __call__(self) -> CountedText:
        """Return the counts; raises DATA_NOT_FOUND if the text is deleted or has changed."""
        kept, self._counted = self._counted, None
        if kept is None:
            kept = count_corpus(self._effective, self._corpora, self._cache, self._tokenizer)
        else:
            check_unchanged(self._effective, corpus_paths(self._corpora, self._effective))
        self._counted = kept
        return kept

    @property
    def memory_bytes(self) -> int:
        return 0 if self._counted is None else self._counted.unigram.memory_bytes() + self._counted.ngram.memory_bytes()


def _model(engine: KneserNey, tokenizer: Tokenizer) -> NgramModel:
    return filled(NgramModel(NgramConfig(max_order=engine.order), vocabulary_of(tokenizer), "causal_lm"), engine)


def _measured(
    counts: SplitCounts, corpus: TokenizedCorpus, split: HeldOutSplit, loss_nats: float
) -> tuple[Baseline, tuple[float, ...]]:
    """Return the baseline on a split, and the losses of the stronger n-gram over the groups of lines."""
    sizes, ngram, characters = corpus.sizes[split], counts.ngram, counts.characters
    losses = [fsum(one.nats[split]) / sizes.tokens for one in (counts.unigram, ngram)]
    unigram_bits, ngram_bits, bits = (_bits_per_char(loss, sizes.tokens, sizes.chars) for loss in (*losses, loss_nats))
    stronger, nats = counts.stronger(split)
    baseline = Baseline(
        order=ngram.order,
        counted_tokens=ngram.counted_tokens,
        train_tokens=ngram.all_tokens,
        unigram_loss=losses[0],
        unigram_bits_per_char=unigram_bits,
        ngram_loss=losses[1],
        ngram_bits_per_char=ngram_bits,
        bits_per_char=bits,
        has_leak=sizes.leak is not None and sizes.leak.is_large,
        characters=None
        if characters is None or split not in characters.nats
        else CharacterCounts(
            order=characters.order,
            bits_per_char=fsum(characters.nats[split]) / log(2) / sizes.chars,
            counted_characters=characters.counted_tokens,
            train_characters=characters.all_tokens,
        ),
        ancestors=counts.ancestors.ancestors if stronger.has_ancestors else (),
        uncounted=counts.ancestors.missing,
        unknown_char_share=sizes.unknown_char_share,
        known_ngram_loss=ngram.known_nats[split] if sizes.unknown_tokens else None,
    )
    return baseline, nats


def _bits_per_char(loss_nats: float, tokens: int, chars: int) -> float:
    return loss_nats / log(2) * tokens / chars
