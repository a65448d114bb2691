"""The kinds of jobs that workers run, one row each; queue, worker, reconciler and replication walk over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeAlias

from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.command_jobs import ExportStore, VerificationStore
from trainer.artifacts.corpus_builds import BuildStore
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.job_folder import AnyJob, AnyStatusJob, FolderT_co, JobStore
from trainer.artifacts.readings import ReadingStore
from trainer.artifacts.runs import RunStore
from trainer.artifacts.studies import StudyStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import QueueSettings
from trainer.contracts.base import KindName


class JobKind(NamedTuple, Generic[FolderT_co]):
    """A kind of job: its folder, and how the queue knows it."""

    name: KindName
    store: Callable[[Path], JobStore[FolderT_co]]
    """Opens the store of an artifacts root."""
    function: str
    """Name of its arq function."""
    own_queue: str | None
    """None for the queue that the settings name."""
    own_slots: int | None = 1
    """Jobs of a worker at the same time; None for the number of the settings."""
    only_waits: bool = False
    """Its jobs wait for other jobs and for answers, so that a worker that drains gives them back at once."""

    def queue(self, settings: QueueSettings) -> str:
        return settings.name if self.own_queue is None else self.own_queue

    def slots(self, settings: QueueSettings) -> int:
        return settings.training_slots if self.own_slots is None else self.own_slots


TOKENIZER_QUEUE, EXPERIMENT_QUEUE, BATTERY_QUEUE = "tokenizers", "experiments", "batteries"
RUNS = JobKind("models", RunStore, "train", own_queue=None, own_slots=None)
TOKENIZERS = JobKind("tokenizers", TokenizerStore, "train_tokenizer", TOKENIZER_QUEUE)
EXPERIMENTS = JobKind("experiments", ExperimentStore, "run_experiment", EXPERIMENT_QUEUE, own_slots=4, only_waits=True)
STUDIES = JobKind("studies", StudyStore, "run_study", "studies", own_slots=4, only_waits=True)
BATTERIES = JobKind("batteries", BatteryStore, "run_battery", BATTERY_QUEUE, own_slots=2, only_waits=True)
READINGS = JobKind("readings", ReadingStore, "explain_reading", "readings", own_slots=2, only_waits=True)
EXPORTS = JobKind("exports", ExportStore, "export", "exports")
VERIFICATIONS = JobKind("verifications", VerificationStore, "verify", "verifications")
BUILDS = JobKind("corpus_builds", BuildStore, "build_corpora", "corpus_builds")
AnyKind: TypeAlias = JobKind[AnyJob]
StatusKind: TypeAlias = JobKind[AnyStatusJob]
_STATUS_KINDS: tuple[StatusKind, ...] = (
    *(TOKENIZERS, EXPERIMENTS, STUDIES, BATTERIES, READINGS),
    *(EXPORTS, VERIFICATIONS, BUILDS),
)
STATUS_KINDS: dict[KindName, StatusKind] = {kind.name: kind for kind in _STATUS_KINDS}
"""All kinds but runs."""
JOB_KINDS: tuple[AnyKind, ...] = (RUNS, *_STATUS_KINDS)
KINDS_BY_NAME: dict[KindName, AnyKind] = {kind.name: kind for kind in JOB_KINDS}
