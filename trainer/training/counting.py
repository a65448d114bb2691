"""Training without steps: n-grams are counted once, and the order of the model is chosen on the validation split."""

import math
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.config.checkpoint_schedule import TrainingSize
from trainer.contracts.base import changed
from trainer.contracts.intervals import Ratio, margin
from trainer.contracts.runs import EffectiveRequest
from trainer.models.ngram import NgramModel
from trainer.ngrams.choose import choose_ngram
from trainer.ngrams.kneser_ney import CHUNK_TOKENS, MIN_PROBABILITY, Floats, KneserNey
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute
from trainer.training.documents import Documents
from trainer.training.evaluation import evaluate
from trainer.training.loop import Stopped, TrainingCallbacks, TrainResult
from trainer.training.progress import TrainingProgress


def count(empty: NgramModel, corpus: TokenizedCorpus) -> tuple[NgramModel, float]:
    """Count the n-grams of the training split; return the model of the best order, and the seconds that it took."""
    started = perf_counter()
    chosen = choose_ngram(
        corpus.ids["train"],
        corpus.ids["validation"],
        vocab_size=empty.vocab_size,
        special_ids=corpus.special_ids,
        max_order=empty.config.max_order,
    )
    return filled(empty, chosen.model), perf_counter() - started


def filled(empty: NgramModel, engine: KneserNey) -> NgramModel:
    """Return a model of counted n-grams, given one before the counting."""
    sizes = tuple(map(len, engine.tables.keys))
    config = changed(empty.config, order=engine.order, ngrams=sizes, discounts=engine.discounts)
    model = NgramModel(config, empty.vocabulary, empty.objective)
    model.built_from = config
    model.fill(engine.tables)
    return model.eval()


def evaluate_counted(
    model: NgramModel,
    seconds: float,
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    compute: Compute,
    callbacks: TrainingCallbacks,
) -> TrainResult:
    """Evaluate a model whose counting took some seconds, and return the result of a training of one step."""

    def check_stop() -> None:
        if (reason := callbacks.should_stop()) is not None:
            raise Stopped(reason)

    size = TrainingSize(1, 1, 1, corpus.words["train"], corpus.sizes["train"].tokens)
    progress = TrainingProgress(model, corpus, effective, compute, size=size, state=None)
    try:
        check_stop()
        nats, _ = _losses(model.engine, corpus.documents("train"), check_stop)
        progress.add_loss(torch.tensor(math.fsum(nats), dtype=torch.float64))
        progress.add_step(1, size.tokens, seconds, seconds + progress.elapsed())
        nats, tokens = _losses(model.engine, corpus.documents("validation"), check_stop)
        margin_nats = margin((nats, tokens), is_drawn=effective.draws_lines("validation"))
        progress.add_validation(math.fsum(nats) / sum(tokens), margin_nats)
        callbacks.on_row(changed(progress.next_row(), lr=0.0, grad_norm=None))
        progress.mark_processed()
        callbacks.on_step(lambda: changed(progress.numbers(), learning_rate=0.0))
        callbacks.on_test()
        test = evaluate(model, corpus.documents("test"), compute, check_stop) if "test" in corpus.ids else None
    except Stopped as stop:
        return TrainResult(stop.reason, False, progress.state, None)
    return TrainResult(None, False, progress.state, test)


def _losses(engine: KneserNey, documents: Documents, after_chunk: Callable[[], None]) -> Ratio:
    """Return losses in nats and tokens of each group of lines of a split.

    `evaluate` computes the same, and the probabilities of all other tokens, which takes long for a training split.
    """
    (ids, special_ids, _), ends = documents, documents.group_ends()
    nats: Floats = np.zeros(len(ends))
    tokens: NDArray[np.int64] = np.zeros(len(ends), dtype=np.int64)
    for begin, targets in zip(range(0, len(ids), CHUNK_TOKENS), engine.targets(ids), strict=True):
        chunk = ids[begin : begin + CHUNK_TOKENS]
        positions: NDArray[np.int64] = np.arange(begin, begin + len(chunk))
        if special_ids.line_start is not None:
            is_target: NDArray[np.bool_] = chunk != special_ids.line_start
            positions = positions[is_target]
        groups: NDArray[np.int64] = np.searchsorted(ends, positions)
        probabilities: Floats = np.maximum(targets.probabilities(engine.discounts)[-1], MIN_PROBABILITY)
        nats -= np.bincount(groups, np.log(probabilities), len(ends))
        tokens += np.bincount(groups, minlength=len(ends))
        after_chunk()
    nats_list: list[float] = nats.tolist()
    tokens_list: list[int] = tokens.tolist()
    return nats_list, tokens_list
