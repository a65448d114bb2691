"""Self-test of training: overfit one small batch."""

from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional

from trainer.contracts.base import Frozen, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest, SplitSizes
from trainer.contracts.training_options import EarlyStopping
from trainer.contracts.units import Unit, loss_number
from trainer.contracts.wording import counted
from trainer.data.corpus import Split, SplitRule, read_blocks
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
_MAX_STEPS = 300
_MAX_SECONDS = 120.0


class CurvePoint(Frozen):
    """Loss of the batch after a step, in nats per token, without dropout."""

    step: int
    loss: float


class SelfTest(Frozen):
    """Result of a self-test; `curve` has the steps 1, 2, 4, 8, ... and the last one."""

    ok: bool
    loss: float
    steps: int
    seconds: float
    rows: int
    tokens: int
    """Number of predicted tokens in the batch."""
    vocab_size: int
    params: int
    curve: tuple[CurvePoint, ...]
    message: str


def overfit_one_batch(effective: EffectiveRequest, corpus: Path, unit: Unit = "bits") -> SelfTest:
    """Train a new model on the first rows of a corpus with the training loop; the test passes below LEARNED_NATS.

    The model, the tokenizer method, the optimizer and its learning rate are those of the request; the schedule is
    constant. The message has losses in `unit`. Raises MODEL_INCOMPATIBLE for an n-gram model, and the errors of
    `train`, such as TRAINING_NAN_LOSS.
    """
    if effective.model_family == "ngram":
        message = "An n-gram model is counted at once: the self-test is for models that are trained in steps."
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, message)
    started = perf_counter()
    length = min(effective.max_seq_len, _TARGETS)
    effective = changed(effective, max_seq_len=length, **_ONE_BATCH)
    block = next(read_blocks(corpus, effective.tokenizer.normalization, effective.documents))
    rule = SplitRule(effective.holdout_fraction, effective.test_fraction, effective.split_seed)
    tokenizer = train_tokenizer(
        effective.tokenizer,
        [Text(effective.corpus, lambda: [block])],
        [block],
        rule=rule,
        documents=effective.documents,
    )
    num_ids = _ROWS * length + (tokenizer.special_ids.line_start is not None)
    lines = "\n".join(block.split("\n")[: _ROWS * length])
    ids = tokenizer.encode_documents(lines)[:num_ids]  # a line has at least two ids
    batch_corpus = _corpus_of(tokenizer, ids)
    rows = batch_corpus.rows("train", length, masking(effective, vocabulary_of(tokenizer), effective.seed))
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
        is_over = len(curve) == _MAX_STEPS or perf_counter() - started > _MAX_SECONDS
        return "cancel" if is_over or curve[-1].loss < LEARNED_NATS else None

    callbacks = TrainingCallbacks(on_row=add, should_stop=stop)
    train(model, batch_corpus, effective, compute, NoCheckpoints(Path()), callbacks=callbacks)
    first, last = curve[0], curve[-1]
    start, end, bound = (loss_number(nats, unit) for nats in (first.loss, last.loss, LEARNED_NATS))
    change = f"from {start} to {end} {unit} per token in {counted(last.step, 'step')}"
    ok = last.loss < LEARNED_NATS
    return SelfTest(
        ok=ok,
        loss=last.loss,
        steps=last.step,
        seconds=perf_counter() - started,
        rows=len(rows),
        tokens=batch_corpus.sizes["train"].tokens,
        vocab_size=tokenizer.vocab_size,
        params=model.parameter_count(),
        curve=tuple(point for point in curve if point.step.bit_count() == 1 or point is last),
        message=f"Training works: the loss of one batch fell {change}."
        if ok
        else f"Training did not overfit one batch: the loss went {change}, not below {bound}.",
    )


PLAIN_TRAINING: dict[str, object] = {
    "gradient_accumulation": 1,
    "early_stopping": EarlyStopping(),
    "eval_every_steps": None,
    "checkpoint_schedule": None,
    "sample_every_steps": None,
    "init_from_run_id": None,
    "freeze_embeddings": False,
}
"""Fields of a training from random weights that only takes steps."""
_ONE_BATCH: dict[str, object] = PLAIN_TRAINING | {
    "batch_size": _ROWS,
    "num_epochs": _MAX_STEPS + 1,  # an epoch is one step; `stop` ends the training before the last
    "max_steps": None,
    "max_seconds": None,
    "lr_schedule": "constant",
    "warmup_steps": None,
    "warmup_ratio": None,
    "threads": 1,  # more threads do not help such a small batch, and slow it down on a busy machine
}


class NoCheckpoints(CheckpointStore):
    """Saves nothing: a self-test is never resumed, and a checkpoint after each step would take most of its time."""

    def save(self, checkpoint: Checkpoint) -> None:
        pass


def _loss(model: LanguageModel, batch: Batch) -> float:
    """Return the loss of the batch in nats per token, without dropout; the model is in training mode afterwards."""
    model.eval()
    with torch.inference_mode():
        logits = model.forward(batch.inputs, batch.lengths)  # (B, T, V)
    model.train()
    return float(functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))


def _corpus_of(tokenizer: Tokenizer, ids: Ids) -> TokenizedCorpus:
    """Return a corpus whose training split is the batch; its validation split is a short line, only to have one."""
    id_list: list[int] = ids.tolist()
    special_ids = tokenizer.special_ids
    predicted = [i for i in id_list if i != special_ids.line_start]
    text = tokenizer.decode(predicted)
    sizes = SplitSizes(lines=id_list.count(special_ids.start), chars=len(text), tokens=len(predicted))
    line: Ids = np.array([*id_list[:_TARGETS], special_ids.line_end], dtype=ids_type(tokenizer.vocab_size))
    splits: dict[Split, Ids] = {"train": ids, "validation": line}
    return TokenizedCorpus(splits, {"train": sizes, "validation": sizes}, {"train": len(text.split())}, special_ids, {})
