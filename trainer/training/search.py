"""The search before a training: its trials, one after another, each of which is stored when it ends."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from trainer.config.search import Round, left_in, rounds, trial_request, variants
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.search import Search, Trial, Variant
from trainer.models.base import LanguageModel
from trainer.system.files import DISK, Disk, find_record, write_atomically
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import TokenizedCorpus
from trainer.training.device import Compute
from trainer.training.loop import StopReason, TrainingCallbacks, total_steps, train


class SearchPlaces(NamedTuple):
    """The file of a search's record, and the folder of the checkpoints of its running trial."""

    record: Path
    trials: Path
    disk: Disk = DISK


class SearchCallbacks(NamedTuple):
    """Callbacks of a search; `on_trial` comes with the number of trials that it will have when one has ended."""

    new_model: Callable[[EffectiveRequest], LanguageModel]
    """Returns an untrained model of a request, and seeds the random generators as for it."""
    of_training: TrainingCallbacks
    on_trial: Callable[[Search, int], None]


def search(
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    compute: Compute,
    places: SearchPlaces,
    callbacks: SearchCallbacks,
) -> Search | StopReason:
    """Train the trials of a request's search that have not ended, and return all; or the reason why they stop.

    A trial reads the training and the validation split, never the test split. One that diverges loses; other errors
    of a training are raised as `train` raises them.
    """
    rows = len(corpus.rows("train", effective.max_seq_len))
    steps = total_steps(rows, effective, compute)
    known = corpus.without_test()
    plan = variants(effective)
    found = find_record(places.record, Search) or Search(variants=len(plan))
    in_all = sum(each.variants for each in rounds(len(plan)))
    for each in rounds(len(plan)):
        ended = {trial.number for trial in found.trials if trial.round == each.number}
        for variant in left_in(each, plan, found):
            if variant.number in ended:
                continue
            trial = _trial(known, effective, compute, places, callbacks, each, variant, each.steps(steps))
            if not isinstance(trial, Trial):
                return trial
            found = changed(found, trials=(*found.trials, trial))
            write_atomically(places.record, found.model_dump_json().encode(), places.disk)
            callbacks.on_trial(found, in_all)
    if places.trials.exists():
        places.disk.remove_folder(places.trials)
    return found


def _trial(
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    compute: Compute,
    places: SearchPlaces,
    callbacks: SearchCallbacks,
    each: Round,
    variant: Variant,
    steps: int,
) -> Trial | StopReason:
    request = trial_request(effective, variant, steps)
    model = callbacks.new_model(request)
    store = CheckpointStore(places.trials / f"{each.number}-{variant.number}", places.disk)
    expected: dict[str, Tensor] = model.state_dict()
    loss: float | None = None
    try:
        result = train(
            model,
            corpus,
            request,
            compute,
            store,
            resume=store.recover(expected).checkpoint,
            callbacks=callbacks.of_training,
        )
    except AppError as error:
        if error.code is not ErrorCode.TRAINING_NAN_LOSS:
            raise
    else:
        if result.stopped is not None:
            return result.stopped
        loss = result.state.history.best_loss_nats
    return Trial(
        number=variant.number,
        learning_rate=variant.learning_rate,
        dropout=variant.dropout,
        round=each.number,
        steps=steps,
        val_loss=loss,
    )
