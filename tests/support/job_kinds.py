"""Jobs of every kind on disk, for tests of what all kinds promise."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.batteries import battery_record
from tests.support.cross_language import experiment_record
from tests.support.readings import reading_record
from tests.support.runs import record as run_record
from tests.support.studies import study_record
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.command_jobs import ExportRecord, ExportStore, VerificationRecord, VerificationStore
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.job_folder import JobFolder
from trainer.artifacts.readings import ReadingStore
from trainer.artifacts.runs import RunStore, cancel_idle_run
from trainer.artifacts.studies import StudyStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.contracts.base import JobRecord, KindName, changed, now
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.exports import ExportRequest
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerTrainRequest

FAILURE = AppError(ErrorCode.OUT_OF_MEMORY, "Memory ran out.")


class Kind(NamedTuple):
    """A kind of jobs for tests: how one with a number is accepted on disk, and how it ends."""

    create: Callable[[Path, int], JobFolder[JobRecord]]
    end: Callable[[Path, str], object]


def tokenizer(root: Path, number: int) -> JobFolder[JobRecord]:
    corpus = CorpusRef(name="kk_ipa", sha256="c" * 64, bytes=10)
    request = TokenizerTrainRequest(method="char", corpora=("kk_ipa",))
    record = TokenizerRecord(tokenizer_id=f"char-{number:016}", created_at=now(), request=request, corpora=(corpus,))
    return TokenizerStore(root).create(record)


def battery(root: Path, number: int) -> JobFolder[JobRecord]:
    return BatteryStore(root).create(*battery_record(f"pairs-{number}"))


def export(root: Path, number: int) -> JobFolder[JobRecord]:
    record = ExportRecord(created_at=now(), model="lstm-1", request=ExportRequest(format="hf"))
    return ExportStore(root).create_or_continue(f"export-{number}", record)


def verification(root: Path, number: int) -> JobFolder[JobRecord]:
    record = VerificationRecord(created_at=now(), run_id="lstm-1")
    return VerificationStore(root).create_or_continue(f"verification-{number}", record)


def build(root: Path, number: int) -> JobFolder[JobRecord]:
    record = BuildRecord(created_at=now(), request=BuildRequest(source="local", languages=("kk",)))
    return BuildStore(root).create_or_continue(f"build-{number}", record)


KINDS: dict[KindName, Kind] = {
    "models": Kind(
        lambda root, number: RunStore(root).create(changed(run_record(f"lstm-{number}"), created_at=now())),
        lambda root, job_id: cancel_idle_run(RunStore(root).get(job_id)),
    ),
    "tokenizers": Kind(tokenizer, lambda root, job_id: TokenizerStore(root).get(job_id).fail(FAILURE)),
    "experiments": Kind(
        lambda root, number: ExperimentStore(root).create(experiment_record(f"small-{number}")),
        lambda root, job_id: ExperimentStore(root).get(job_id).fail(FAILURE),
    ),
    "studies": Kind(
        lambda root, number: StudyStore(root).create(study_record(f"rates-{number}")),
        lambda root, job_id: StudyStore(root).get(job_id).fail(FAILURE),
    ),
    "batteries": Kind(battery, lambda root, job_id: BatteryStore(root).get(job_id).fail(FAILURE)),
    "readings": Kind(
        lambda root, number: ReadingStore(root).create(*reading_record(f"times-{number}")),
        lambda root, job_id: ReadingStore(root).get(job_id).fail(FAILURE),
    ),
    "exports": Kind(export, lambda root, job_id: ExportStore(root).get(job_id).fail(FAILURE)),
    "verifications": Kind(verification, lambda root, job_id: VerificationStore(root).get(job_id).fail(FAILURE)),
    "corpus_builds": Kind(build, lambda root, job_id: BuildStore(root).get(job_id).fail(FAILURE)),
}
