"""The records of each operation: path, query, body and answer, for those who do it and for those who ask for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel

from trainer.artifacts.run_files import RunFiles
from trainer.config.validation import parse
from trainer.contracts.base import KindName
from trainer.contracts.batteries import BatteryList, BatteryRequest, BatteryStatus
from trainer.contracts.chats import ChatHistory, ChatResponse
from trainer.contracts.corpora import (
    BuildList,
    BuildStatus,
    CorpusList,
    CorpusOverview,
    CorpusText,
    UploadRequest,
    UploadStatus,
)
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.experiments import ExperimentList, ExperimentRequest, ExperimentStatus
from trainer.contracts.exports import ExportList, ExportRequest, ExportStatus
from trainer.contracts.groups import GroupStatus
from trainer.contracts.http_answers import (
    ArtifactFiles,
    CancelAnswer,
    CheckedTraining,
    Curve,
    GroupCurve,
    RunPage,
    RunReport,
    RunRequest,
    TrainingSamples,
)
from trainer.contracts.job_status import JobPage, JobStatus
from trainer.contracts.jobs import WorkerOrder, WorkersState
from trainer.contracts.looks import TextLock, Unlocked, UnlockRequest
from trainer.contracts.operations import BY_NAME, JOB_ROWS, OPERATIONS, Operation
from trainer.contracts.parameters import (
    AnyRunQuery,
    ArtifactPath,
    BatteryPath,
    BuildPath,
    ChatPath,
    ChatTurnPath,
    CompareQuery,
    CorpusPath,
    CurveQuery,
    ExperimentPath,
    ExportPath,
    GroupPath,
    JobsQuery,
    LogsQuery,
    ModelPath,
    NoBody,
    NoQuery,
    PredictQuery,
    Query,
    RequestPath,
    RunPath,
    RunsQuery,
    SamplesQuery,
    TokenizerPath,
    UploadPath,
    VerificationPath,
    WaitQuery,
)
from trainer.contracts.predictions import PredictRequest, PredictResponse
from trainer.contracts.readings import ReadingList, ReadingPath, ReadingRequest, ReadingResult, ReadingStatus
from trainer.contracts.reports import Report
from trainer.contracts.runs import Accepted, AnnotationChange, RunManifest, RunStatus, Setting, TrainRequest
from trainer.contracts.studies import StudyList, StudyPath, StudyRequest, StudyStatus
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerList, TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.verification import VerificationList, VerificationStatus
from trainer.queue.inference_kinds import KINDS
from trainer.reports.comparison import Comparison

PathT_co = TypeVar("PathT_co", bound=BaseModel, covariant=True)
QueryT_co = TypeVar("QueryT_co", bound=BaseModel, covariant=True)
BodyT_co = TypeVar("BodyT_co", bound=BaseModel, covariant=True)
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Call(NamedTuple, Generic[PathT_co, QueryT_co, BodyT_co, AnswerT_co]):
    """An operation with the classes of its path, query, body and answer."""

    operation: Operation
    path: type[PathT_co]
    query: type[QueryT_co]
    body: type[BodyT_co]
    answer: type[AnswerT_co]
    """A record, or text, or nothing."""


AnyCall: TypeAlias = Call[BaseModel, BaseModel, BaseModel, object]
PathT = TypeVar("PathT", bound=BaseModel)
QueryT = TypeVar("QueryT", bound=BaseModel)
BodyT = TypeVar("BodyT", bound=BaseModel)
AnswerT = TypeVar("AnswerT")
JobPathT = TypeVar("JobPathT", bound=Query)
JobPathT_co = TypeVar("JobPathT_co", bound=Query, covariant=True)
PageT = TypeVar("PageT", bound=JobPage)
PageT_co = TypeVar("PageT_co", bound=JobPage, covariant=True)
StatusT = TypeVar("StatusT", bound=JobStatus)
StatusT_co = TypeVar("StatusT_co", bound=JobStatus, covariant=True)
_NOTHING = type(None)
CALLS: dict[str, AnyCall] = {}
"""All calls by the names of their operations."""


def _call(
    name: str, path: type[PathT], query: type[QueryT], body: type[BodyT], answer: type[AnswerT]
) -> Call[PathT, QueryT, BodyT, AnswerT]:
    call = Call(BY_NAME[name], path, query, body, answer)
    CALLS[name] = call
    return call


class JobCalls(NamedTuple, Generic[JobPathT_co, PageT_co, StatusT_co]):
    """The calls on the jobs of a kind."""

    list: Call[NoQuery, JobsQuery, NoBody, PageT_co]
    get: Call[JobPathT_co, WaitQuery, NoBody, StatusT_co]
    cancel: Call[JobPathT_co, NoQuery, NoBody, StatusT_co]
    delete: Call[JobPathT_co, NoQuery, NoBody, None]
    result: type[BaseModel] | None
    """The record of `result.json`, for kinds whose report `mt job show` shows."""

    def named(self, given: str) -> JobPathT_co:
        """Return the path of the job that a name is meant for; raises INVALID_INPUT for what can be no name."""
        [field] = self.get.path.model_fields
        return parse(self.get.path, {field: given})


JOB_CALLS: dict[KindName, JobCalls[Query, JobPage, JobStatus]] = {}
"""The calls on the jobs of each kind but runs."""


def _job_calls(
    kind: KindName,
    path: type[JobPathT],
    page: type[PageT],
    status: type[StatusT],
    result: type[BaseModel] | None = None,
) -> JobCalls[JobPathT, PageT, StatusT]:
    row = JOB_ROWS[kind]
    calls = JobCalls(
        _call(f"list_{row.words}", NoQuery, JobsQuery, NoBody, page),
        _call(f"get_{row.word}", path, WaitQuery, NoBody, status),
        _call(f"cancel_{row.word}", path, NoQuery, NoBody, status),
        _call(f"delete_{row.word}", path, NoQuery, NoBody, _NOTHING),
        result,
    )
    JOB_CALLS[kind] = calls
    return calls


TOKENIZERS = _job_calls("tokenizers", TokenizerPath, TokenizerList, TokenizerStatus)
EXPERIMENTS = _job_calls("experiments", ExperimentPath, ExperimentList, ExperimentStatus)
STUDIES = _job_calls("studies", StudyPath, StudyList, StudyStatus)
BATTERIES = _job_calls("batteries", BatteryPath, BatteryList, BatteryStatus)
READINGS = _job_calls("readings", ReadingPath, ReadingList, ReadingStatus, ReadingResult)
EXPORTS = _job_calls("exports", ExportPath, ExportList, ExportStatus)
VERIFICATIONS = _job_calls("verifications", VerificationPath, VerificationList, VerificationStatus)
BUILDS = _job_calls("corpus_builds", BuildPath, BuildList, BuildStatus)


class LocalTraining(WaitQuery):
    """Inputs of a training besides its request, which only a program of this machine may give."""

    requested_paths: tuple[str, ...] | None = None
    unused_settings: Mapping[str, Setting] = {}
    text: Path | None = None
    """A file to train on in place of the corpus; its text is stored when the run is accepted."""


class LocalResume(WaitQuery):
    """Inputs of a resumed run, which only a program of this machine may give."""

    epochs: int | None = None
    """Passes over the training split in all; None: as before."""


LIST_WORKERS = _call("list_workers", NoQuery, NoQuery, NoBody, WorkersState)
ORDER_WORKERS = _call("order_workers", NoQuery, NoQuery, WorkerOrder, WorkersState)
LIST_RUNS = _call("list_runs", NoQuery, RunsQuery, NoBody, RunPage)
TRAIN = _call("train", NoQuery, WaitQuery, TrainRequest, Accepted)
CHECK_TRAINING = _call("check_training", NoQuery, NoQuery, TrainRequest, CheckedTraining)
GET_RUN = _call("get_run", RunPath, WaitQuery, NoBody, RunStatus)
REPORT_GROUP = _call("report_group", GroupPath, NoQuery, NoBody, Report)
REPORT_RUN = _call("report_run", RunPath, NoQuery, NoBody, RunReport)
CANCEL_RUN = _call("cancel_run", RunPath, NoQuery, NoBody, CancelAnswer)
RESUME_RUN = _call("resume_run", RunPath, WaitQuery, NoBody, Accepted)
DELETE_RUN = _call("delete_run", RunPath, NoQuery, NoBody, _NOTHING)
ANNOTATE_RUN = _call("annotate_run", RunPath, NoQuery, AnnotationChange, RunStatus)
UNLOCK = _call("unlock", NoQuery, WaitQuery, UnlockRequest, Unlocked)
GET_MANIFEST = _call("get_manifest", RunPath, NoQuery, NoBody, RunManifest)
GET_FILES = _call("get_files", ModelPath, NoQuery, NoBody, RunFiles)
GET_LOGS = _call("get_logs", RunPath, LogsQuery, NoBody, str)
GET_CONFIG = _call("get_config", RunPath, NoQuery, NoBody, str)
COMPARE_RUNS = _call("compare_runs", NoQuery, CompareQuery, NoBody, Comparison)
REPORT_COMPARISON = _call("report_comparison", NoQuery, CompareQuery, NoBody, Report)
GET_CURVE = _call("get_curve", RunPath, CurveQuery, NoBody, Curve)
GET_REQUEST = _call("get_request", RunPath, NoQuery, NoBody, RunRequest)
GET_SAMPLES = _call("get_samples", RunPath, SamplesQuery, NoBody, TrainingSamples)
VERIFY_RUN = _call("verify_run", RunPath, WaitQuery, NoBody, VerificationStatus)
GET_GROUP = _call("get_group", GroupPath, WaitQuery, NoBody, GroupStatus)
GET_GROUP_CURVE = _call("get_group_curve", GroupPath, CurveQuery, NoBody, GroupCurve)
CANCEL_GROUP = _call("cancel_group", GroupPath, NoQuery, NoBody, CancelAnswer)
EXPORT_RUN = _call("export_run", ModelPath, WaitQuery, ExportRequest, ExportStatus)
PREDICT_WITH_NEWEST = _call("predict_with_newest", NoQuery, AnyRunQuery, PredictRequest, PredictResponse)
GET_CHAT_ANSWER = _call("get_chat_answer", ChatTurnPath, WaitQuery, NoBody, ChatResponse)
GET_CHAT = _call("get_chat", ChatPath, NoQuery, NoBody, ChatHistory)
DELETE_CHAT = _call("delete_chat", ChatPath, NoQuery, NoBody, _NOTHING)
GET_LATEST_EVALUATION = _call("get_latest_evaluation", RunPath, NoQuery, NoBody, EvalMetrics)
LIST_CORPORA = _call("list_corpora", NoQuery, NoQuery, NoBody, CorpusList)
REPORT_CORPUS = _call("report_corpus", CorpusPath, NoQuery, NoBody, Report)
LOCK_CORPUS = _call("lock_corpus", CorpusPath, NoQuery, NoBody, TextLock)
DELETE_CORPUS = _call("delete_corpus", CorpusPath, NoQuery, NoBody, _NOTHING)
START_UPLOAD = _call("start_upload", NoQuery, NoQuery, UploadRequest, UploadStatus)
ADD_CORPUS = _call("add_corpus", NoQuery, NoQuery, CorpusText, CorpusOverview)
GET_UPLOAD = _call("get_upload", UploadPath, NoQuery, NoBody, UploadStatus)
DELETE_UPLOAD = _call("delete_upload", UploadPath, NoQuery, NoBody, _NOTHING)
REPORT_TOKENIZER = _call("report_tokenizer", TokenizerPath, NoQuery, NoBody, Report)
TRAIN_TOKENIZER = _call("train_tokenizer", NoQuery, WaitQuery, TokenizerTrainRequest, TokenizerAccepted)
START_EXPERIMENT = _call("start_experiment", NoQuery, WaitQuery, ExperimentRequest, ExperimentStatus)
START_STUDY = _call("start_study", NoQuery, WaitQuery, StudyRequest, StudyStatus)
START_BATTERY = _call("start_battery", NoQuery, WaitQuery, BatteryRequest, BatteryStatus)
START_READING = _call("start_reading", NoQuery, WaitQuery, ReadingRequest, ReadingStatus)
LIST_FILES = _call("list_files", ArtifactPath, NoQuery, NoBody, ArtifactFiles)


def _inference(row: Operation) -> None:
    """Add the calls of an inference kind."""
    kind, query = KINDS[row.name], PredictQuery if row.name == "predict" else WaitQuery
    response = kind.request.response_type()
    _call(row.name, ModelPath, query, kind.request, response)
    if row.follows not in CALLS:  # answers to messages of a chat are below the chat
        _call(row.follows, RequestPath, WaitQuery, NoBody, response)
        _call(row.follows.replace("get_", "delete_", 1), RequestPath, NoQuery, NoBody, _NOTHING)


for _row in OPERATIONS:
    if _row.work == "inference:submit":
        _inference(_row)
