"""Proof that a training learns: one small batch, again and again, until the model knows it by heart (KB-16)."""

from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional

from trainer.contracts.base import Frozen
from trainer.contracts.runs import EarlyStopping, EffectiveRequest, SplitSizes
from trainer.contracts.wording import counted
from trainer.data.corpus import SplitRule, read_blocks
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Ids, Text, Tokenizer, ids_type, vocabulary_of
from trainer.training.batches import Batch, masking
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import resolve, seed_everything
from trainer.training.loop import StopReason, TrainingCallbacks, train
from trainer.training.progress import CurveRow

LEARNED_NATS = 0.5
_ROWS, _TARGETS = 8, 32
_STEPS = 300
_SECONDS = 120.0


class CurvePoint(Frozen):
    """The loss of the batch after so many steps, in nats per token, without dropout."""

    step: int
    loss: float


class SelfTest(Frozen):
    """What came of it; `curve` holds the first step, then each that doubles the one before, and the last."""

    ok: bool
    loss: float
    steps: int
    seconds: float
    rows: int
    tokens: int
    """Predicted in the batch."""
    vocab_size: int
    params: int
    curve: tuple[CurvePoint, ...]
    message: str


def overfit_one_batch(effective: EffectiveRequest, corpus: Path) -> SelfTest:
    """Train a fresh model by the training loop on the first rows of a text; learning means less than half a nat.

    The model, the tokenizer's method, the optimizer and its rate are the request's; its schedule, which is made for a
    whole training, is left out. Raises what training raises, TRAINING_NAN_LOSS say.
    """
    started = perf_counter()
    effective = effective.model_copy(update=_ONE_BATCH)
    lines = next(read_blocks(corpus, effective.tokenizer.normalization))
    rule = SplitRule(effective.holdout_fraction, effective.test_fraction, effective.seed)
    tokenizer = train_tokenizer(effective.tokenizer, [Text(effective.corpus, lines)], lines, rule=rule)
    length = min(effective.max_seq_len, _TARGETS)
    short: dict[str, object] = {"max_seq_len": length}
    effective = effective.model_copy(update=short)
    # a line is two ids at least
    ids = tokenizer.encode_documents(lines[: _ROWS * length])[
        : _ROWS * length + (tokenizer.special_ids.bos is not None)
    ]
    text = _as_corpus(tokenizer, ids)
    rows = text.rows("train", length, masking(effective, vocabulary_of(tokenizer)))
    compute = resolve(effective)
    seed_everything(effective.seed)
    model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
    curve: list[CurvePoint] = []

    def add(row: CurveRow) -> None:
        loss = _loss(model, rows.batch(np.arange(len(rows))).to(compute.device))
        curve.append(CurvePoint(step=row.step, loss=loss))

    def stop() -> StopReason | None:
        if not curve:
            return None
        over = len(curve) == _STEPS or perf_counter() - started > _SECONDS
        return "cancel" if over or curve[-1].loss < LEARNED_NATS else None

    train(model, text, effective, compute, _Nowhere(Path()), callbacks=TrainingCallbacks(on_row=add, should_stop=stop))
    last = curve[-1]
    ok = last.loss < LEARNED_NATS
    return SelfTest(
        ok=ok,
        loss=last.loss,
        steps=last.step,
        seconds=perf_counter() - started,
        rows=len(rows),
        tokens=text.sizes["train"].tokens,
        vocab_size=tokenizer.vocab_size,
        params=model.parameter_count(),
        curve=tuple(point for point in curve if point.step.bit_count() == 1 or point is last),
        message=_verdict(curve, ok=ok),
    )


_ONE_BATCH: dict[str, object] = {
    "batch_size": _ROWS,
    "gradient_accumulation": 1,
    "num_epochs": _STEPS + 1,  # each is one step; it is stopped before the last
    "max_steps": None,
    "max_seconds": None,
    "lr_schedule": "constant",
    "warmup_steps": None,
    "warmup_ratio": None,
    "early_stopping": EarlyStopping(),
    "eval_every_steps": None,
    "checkpoint_schedule": None,
    "sample_every_steps": None,
    "init_from_run_id": None,
    "freeze_embeddings": False,
    "threads": 1,  # so small a batch is no faster with more, and far slower where other processes have the cores
}


class _Nowhere(CheckpointStore):
    """Keeps nothing: this training is never resumed, and a checkpoint after each step would take most of its time."""

    def save(self, checkpoint: Checkpoint) -> None:
        pass


def _loss(model: LanguageModel, batch: Batch) -> float:
    """Return the loss of the batch without dropout; the model is in training mode before and after."""
    model.eval()
    with torch.inference_mode():
        logits = model.forward(batch.inputs, batch.lengths)  # (B, T, V)
    model.train()
    return float(functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))


def _as_corpus(tokenizer: Tokenizer, ids: Ids) -> TokenizedCorpus:
    """The batch as the text to train on; the validation, whose loss nobody reads, is a short part of it as a line."""
    places: list[int] = ids.tolist()
    special_ids = tokenizer.special_ids
    predicted = [i for i in places if i != special_ids.bos]
    lines = places.count(special_ids.start)
    sizes = SplitSizes(lines=lines, chars=len(tokenizer.decode(predicted)), tokens=len(predicted))
    short = [*places[:_TARGETS], special_ids.eos]
    line: Ids = np.array(short, dtype=ids_type(tokenizer.vocab_size))
    return TokenizedCorpus({"train": ids, "validation": line}, {"train": sizes, "validation": sizes}, {}, special_ids)


def _verdict(curve: list[CurvePoint], *, ok: bool) -> str:
    first, last = curve[0], curve[-1]
    fell = f"from {first.loss:.3f} to {last.loss:.3f} nats per token in {counted(last.step, 'step')}"
    if ok:
        return f"The training learns: the loss of one batch fell {fell}."
    return f"The training does not learn one batch by heart: its loss went {fell}, not below {LEARNED_NATS}."
