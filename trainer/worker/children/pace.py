"""What a training that has `minutes` leaves to the machine that takes it: its size, its batches and its epochs."""

from contextlib import nullcontext

import structlog
import torch

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.defaults import trial_seconds
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.runs import RunRecord
from trainer.contracts.training_options import Pace
from trainer.queue.cost import preview_cost
from trainer.queue.resolution import Facts, facts_of_run, resolve
from trainer.queue.speed import pace_of, size_candidates
from trainer.system.files import changing_folder
from trainer.training.speed import measured_speeds
from trainer.worker.children.evaluate_run import data_paths

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def choose_by_speed(settings: Settings, run: RunDirectory) -> None:
    """Measure how fast this machine trains a run, and write what follows from it into the run's record.

    The runs of a group differ in their seeds only, so that all take what the first of them has measured. The caller
    holds the run's lock. Raises AppError if the run does not fit into this machine, and what its training would raise.
    """
    runs, record = RunStore(settings.app.artifacts_root), run.record()
    first = None if record.group is None else runs.find(record.group.first_id)
    paths, _ = data_paths(settings, record.effective)
    facts = facts_of_run(record, paths.corpus, settings, has_cuda=torch.cuda.is_available())
    with nullcontext() if first is None else changing_folder(first.path):
        pace = _pace_of_group(record, runs) or _measured(record, facts, settings)
        found = resolve(record.request, facts._replace(pace=pace))
        effective = changed(found.effective, test=record.effective.test)
        cost = preview_cost(effective, found.measured, facts.sample, settings)
        changes: dict[str, object] = {"effective": effective, "chosen": found.chosen, "pace": pace, "cost": cost}
        run.replace_record(changed(record, request_hash=request_hash(effective), **changes))
    runs.mark_annotated()
    log.info("speed_measured", model_size=effective.model_size, step_ms=round(1000 * pace.step_seconds, 3))


def _pace_of_group(record: RunRecord, runs: RunStore) -> Pace | None:
    """Return what another run of the group has measured, if one has."""
    seeds = () if record.group is None else record.group.seeds
    members = (runs.find(record.group.member_id(seed)) for seed in seeds if record.group is not None)
    return next((pace for one in members if one is not None and (pace := one.record().pace) is not None), None)


def _measured(record: RunRecord, facts: Facts, settings: Settings) -> Pace:
    candidates = size_candidates(record.request, facts, settings)
    vocab_size, seconds = candidates[0].measured.for_rules.vocab_size, trial_seconds(record.request.minutes or 0.0)
    return pace_of(candidates, measured_speeds([one.effective for one in candidates], vocab_size, seconds))
