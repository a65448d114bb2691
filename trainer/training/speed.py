"""Trial of the speed of trainings on this machine: `python -m trainer.training.speed TOKENS SECONDS < requests`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import structlog
from pydantic import TypeAdapter

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.runs import EffectiveRequest, SplitSizes
from trainer.contracts.tokenizers import SpecialIds
from trainer.data.corpus import Split
from trainer.models import build
from trainer.tokenizers.base import Ids, Vocabulary, ids_type
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import resolve
from trainer.training.loop import StopReason, TrainingCallbacks, train
from trainer.training.progress import CurveRow
from trainer.training.selftest import PLAIN_TRAINING, NoCheckpoints

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_FIRST_STEPS, _MIN_STEPS, _EPOCH_STEPS = 1, 3, 64
"""Steps that are not measured, because they start threads; the fewest steps; and those between two validations."""
_MAX_STEP_OPERATIONS = 3e11
"""Multiplications of a step, which take a core seconds: larger steps are measured with fewer rows."""
_OPERATIONS_PER_WEIGHT = 6
_SPECIAL_IDS = SpecialIds(pad=0, unk=1, bos=2, eos=3, mask=4)
_MIN_VOCABULARY = 8


def measured_speeds(requests: Sequence[EffectiveRequest], vocab_size: int, seconds: float) -> list[float]:
    """Return the tokens per second of trainings, the smallest model first, of as many as some seconds are enough for.

    The first is measured in any case, and raises what its training would raise. Another one that fails ends the list.
    """
    begin, speeds = perf_counter(), list[float]()
    for effective in requests:
        try:
            speeds.append(tokens_per_second(effective, vocab_size, seconds / len(requests)))
        except (AppError, RuntimeError, MemoryError) as error:
            if not speeds:
                raise
            log.warning("speed_trial_failed", model_size=effective.model_size, error=type(error).__name__)
            break
        if perf_counter() - begin > seconds:
            break
    return speeds


def tokens_per_second(effective: EffectiveRequest, vocab_size: int, seconds: float) -> float:
    """Return the speed of a training on random tokens, measured for so many seconds, and for three steps at least.

    All tokens of a row count, also those that a masked model does not predict.
    """
    vocabulary = Vocabulary(max(vocab_size, _MIN_VOCABULARY), _SPECIAL_IDS)
    operations = _OPERATIONS_PER_WEIGHT * effective.model.parameter_count(vocabulary.size) * effective.max_seq_len
    rows = max(1, min(effective.batch_size, int(_MAX_STEP_OPERATIONS / operations)))
    effective = changed(effective, batch_size=rows, **_TRIAL)
    curve: list[CurveRow] = []
    begin = perf_counter()

    def stop() -> StopReason | None:
        return "cancel" if len(curve) >= _MIN_STEPS and perf_counter() - begin > seconds else None

    corpus = _random_corpus(vocabulary, _EPOCH_STEPS * rows * effective.max_seq_len)
    callbacks = TrainingCallbacks(on_row=curve.append, should_stop=stop)
    model = build(effective.model, vocabulary, effective.objective)
    train(model, corpus, effective, resolve(effective), NoCheckpoints(Path()), callbacks=callbacks)
    first, last = curve[_FIRST_STEPS - 1], curve[-1]
    tokens = (last.step - first.step) * rows * effective.gradient_accumulation * effective.max_seq_len
    return tokens / (last.elapsed_seconds - first.elapsed_seconds)


_TRIAL: dict[str, object] = PLAIN_TRAINING | {
    "num_epochs": 1 << 20,
    "minutes": None,
    "max_steps": None,
    "max_seconds": None,
    "log_every_steps": 1,
    "devices": 1,
    "checkpoint_every_steps": None,
}


def _random_corpus(vocabulary: Vocabulary, tokens: int) -> TokenizedCorpus:
    """Return a corpus of one long training line; its validation split is a short line, only to have one."""
    kind = ids_type(vocabulary.size)
    drawn: Ids = np.random.default_rng(1).integers(len(_SPECIAL_IDS), vocabulary.size, tokens).astype(kind)
    ids: dict[Split, Ids] = {"train": drawn, "validation": drawn[:_MIN_VOCABULARY].copy()}
    for of_split in ids.values():
        of_split[0], of_split[-1] = vocabulary.special_ids.start, vocabulary.special_ids.line_end
    sizes = {split: SplitSizes(lines=1, chars=len(some), tokens=len(some) - 1) for split, some in ids.items()}
    return TokenizedCorpus(ids, sizes, {"train": tokens}, vocabulary.special_ids, {})


if __name__ == "__main__":
    _requests: TypeAdapter[list[EffectiveRequest]] = TypeAdapter(list[EffectiveRequest])
    _speeds: TypeAdapter[list[float]] = TypeAdapter(list[float])
    _measured = measured_speeds(_requests.validate_json(input()), int(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write(_speeds.dump_json(_measured).decode())
