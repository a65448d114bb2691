"""Runs, other jobs and requests that let every operation of the API succeed."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from scripts.api_page import CORPUS, GROUP, REQUEST, SESSION, UPLOAD
from tests.support import tiny_request
from tests.support.api_process import ApiProcess
from tests.support.job_kinds import KINDS
from tests.support.readings import times_table
from tests.support.waiting import wait_until
from tests.support.worker_runs import LONG
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.chats import ChatResponse
from trainer.contracts.corpora import UploadStatus
from trainer.contracts.evaluations import EvalResponse
from trainer.contracts.generations import GenerateResponse
from trainer.contracts.http_answers import CancelAnswer
from trainer.contracts.inference_fields import Response
from trainer.contracts.items import ItemsResponse
from trainer.contracts.operations import JOB_ROWS, OTHER_RUN, RUN
from trainer.contracts.parameters import RequestPath
from trainer.contracts.predictions import PredictResponse
from trainer.contracts.readings import ReadingStatus
from trainer.contracts.runs import Accepted, RunStatus
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.segmentation import SegmentResponse
from trainer.contracts.sequences import SequencesResponse
from trainer.http.operations import HttpOperation

_REQUESTS: Mapping[str, tuple[type[Response], Mapping[str, object]]] = {
    "score": (ScoreResponse, {"text": "abc"}),
    "sequences": (SequencesResponse, {"sequences": [{"parts": ["abc"]}]}),
    "items": (ItemsResponse, {"table": {"text": ["abc"]}, "text_column": "text"}),
    "segment": (SegmentResponse, {"text": "ab abc\n" * 10}),
    "generate": (GenerateResponse, {"prompt_text": "abc", "max_new_tokens": 1}),
    "predict": (PredictResponse, {"text": "abc"}),
    "evaluate": (EvalResponse, {}),
}
SPARED = "long"
"""The label of the runs that are there for an operation to cancel them."""


class Prepared(NamedTuple):
    """The values of the placeholders in examples."""

    api: ApiProcess
    run: str
    other_run: str
    resumable: str
    requests: Mapping[str, str]
    """The ids of requests by the word in their path."""
    folder: Path
    numbers: Iterator[int]
    held: ExitStack
    """The locks of jobs that no worker is to take, as an operation cancels them."""

    def chat(self) -> ChatResponse:
        """Send a first message."""
        body = {"message": "abc", "max_new_tokens": 1}
        return self.api.post(f"/runs/{self.run}/chat?wait=60", ChatResponse, body)

    def _thing(self, operation: HttpOperation) -> dict[str, str]:
        """Create the job, the upload or the corpus that an operation is about; return its id by its placeholder."""
        fields, kind = operation.path_model.model_fields, operation.row.kind
        if "upload_id" in fields:
            return {UPLOAD: start_upload(self.api)}
        number = next(self.numbers)
        if "corpus" in fields:
            name = f"deleted-{number}"
            (self.folder / "artifacts" / "corpora" / f"{name}.txt").write_text(f"{number}\n", encoding="utf-8")
            return {CORPUS: name}
        if "tokenizer_id" in fields and kind is None:
            return {
                JOB_ROWS["tokenizers"].word.upper(): self.api.get(f"/runs/{self.run}", RunStatus).tokenizer_id or ""
            }
        if kind is None or not fields:
            return {}
        job = KINDS[kind].create(self.folder / "artifacts", number)
        if operation.row.name.startswith("cancel_"):
            lock = job.lock()
            assert lock is not None
            self.held.enter_context(lock)
        else:
            KINDS[kind].end(self.folder / "artifacts", job.job_id)
        return {JOB_ROWS[kind].word.upper(): job.job_id}

    def values(self, operation: HttpOperation) -> dict[str, str]:
        """Return new values of the placeholders of an operation."""
        run = self.resumable if operation.row.name == "resume_run" else self.run
        if operation.row.name in ("cancel_run", "delete_run"):
            run = train(self.api, label=SPARED, **LONG).run_id
        if operation.row.name == "delete_run":
            cancel(self.api, run)
            ended(self.api, run)
        found = {RUN: run, OTHER_RUN: self.other_run, **self._thing(operation)}
        if "group_id" in operation.path_model.model_fields:
            long: dict[str, object] = {"label": SPARED, **LONG}
            accepted = train(self.api, seeds=2, **(long if operation.row.name == "cancel_group" else {"max_steps": 1}))
            assert accepted.group is not None
            found[GROUP] = accepted.group.group_id
        if "session_id" in operation.path_model.model_fields:
            chat = self.chat()
            return {**found, SESSION: chat.session_id, REQUEST: chat.request_id}
        if issubclass(operation.path_model, RequestPath):
            kind = operation.row.path.split("/")[3]
            found[REQUEST] = self.requests[kind]
            if operation.row.method == "DELETE":
                record, body = _REQUESTS[kind]
                found[REQUEST] = self.api.post(f"/runs/{run}/{kind}?wait=60", record, body).request_id
        return found


@contextmanager
def prepare(api: ApiProcess, folder: Path) -> Iterator[Prepared]:
    """Train two runs, interrupt a run, start a battery and a reading, and send one request of each kind."""
    runs = [train(api, seed=seed).run_id for seed in (1, 2)]
    for run in runs:
        assert ended(api, run).status == "completed"
    interrupted = train(api, **LONG).run_id
    wait_until(lambda: api.get(f"/runs/{interrupted}", RunStatus).last_checkpoint_step is not None)
    cancel(api, interrupted)
    assert ended(api, interrupted).status == "cancelled"
    sent = {
        kind: api.post(f"/runs/{runs[0]}/{kind}?wait=60", record, body).request_id
        for kind, (record, body) in _REQUESTS.items()
    }
    pair = {"name": "pair.csv", "content": "good,bad\nabc,cab\n"}
    api.post("/batteries", BatteryStatus, {"runs": [runs[0]], "files": [pair]})
    times = {"name": "times.csv", "content": times_table()}
    api.post("/readings", ReadingStatus, {"runs": [runs[0]], "file": times, "baseline": ["length"], "spillover": 0})
    (folder / "artifacts" / "corpora").mkdir(exist_ok=True)
    with ExitStack() as held:
        yield Prepared(api, runs[0], runs[1], interrupted, sent, folder, count(50_000), held)


def train(api: ApiProcess, **fields: object) -> Accepted:
    body: dict[str, object] = tiny_request(**fields).model_dump(mode="json", exclude_unset=True)
    return api.post("/runs/train", Accepted, body)


def start_upload(api: ApiProcess) -> str:
    """Start an upload that is longer than the portion of the examples, and return its id."""
    digest = secrets.token_hex(32)
    body = {"files": [{"name": "hello.txt", "bytes": 6, "sha256": digest}]}
    return api.post("/corpora", UploadStatus, body).upload_id


def ended(api: ApiProcess, run_id: str) -> RunStatus:
    """Wait for the end of a run, however busy the machine is."""
    while not (status := api.get(f"/runs/{run_id}?wait=60", RunStatus)).has_ended:
        pass
    return status


def cancel(api: ApiProcess, run_id: str) -> None:
    api.post(f"/runs/{run_id}/cancel", CancelAnswer)
