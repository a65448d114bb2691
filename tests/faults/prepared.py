"""Runs, tokenizers and requests that let every operation of the API succeed."""

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from scripts.api_page import BATTERY, EXPERIMENT, EXPORT, GROUP, REQUEST, SESSION, TOKENIZER, UPLOAD
from tests.support import tiny_request
from tests.support.api_process import ApiProcess
from tests.support.waiting import wait_until
from tests.support.worker_runs import LONG
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.chats import ChatResponse
from trainer.contracts.corpora import UploadStatus
from trainer.contracts.evaluations import EvalResponse
from trainer.contracts.experiments import ExperimentStatus
from trainer.contracts.exports import ExportStatus
from trainer.contracts.generations import GenerateResponse
from trainer.contracts.http_answers import CancelAnswer
from trainer.contracts.inference_fields import Response
from trainer.contracts.items import ItemsResponse
from trainer.contracts.operations import OTHER_RUN, RUN
from trainer.contracts.parameters import RequestPath
from trainer.contracts.predictions import PredictResponse
from trainer.contracts.runs import Accepted, RunStatus
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.sequences import SequencesResponse
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.http.operations import HttpOperation

_REQUESTS: Mapping[str, tuple[type[Response], Mapping[str, object]]] = {
    "score": (ScoreResponse, {"text": "abc"}),
    "sequences": (SequencesResponse, {"sequences": [{"parts": ["abc"]}]}),
    "items": (ItemsResponse, {"table": {"text": ["abc"]}, "text_column": "text"}),
    "generate": (GenerateResponse, {"prompt_text": "abc", "max_new_tokens": 1}),
    "predict": (PredictResponse, {"text": "abc"}),
    "evaluate": (EvalResponse, {}),
}
SPARED = "long"
"""The label of the runs, and the name of the experiment, that are there for an operation to cancel them."""
"""The name of the experiment that is there for an operation to cancel it."""


class Prepared(NamedTuple):
    """The values of the placeholders in examples."""

    api: ApiProcess
    run: str
    other_run: str
    resumable: str
    tokenizer: str
    requests: Mapping[str, str]
    """The ids of requests by the word in their path."""

    def chat(self) -> ChatResponse:
        """Send a first message."""
        body = {"message": "abc", "max_new_tokens": 1}
        return self.api.post(f"/runs/{self.run}/chat?wait=60", ChatResponse, body)

    def _job(self, operation: HttpOperation, run: str) -> dict[str, str]:
        """Start the job that an operation is about, and return its id as the value of its placeholder."""
        match next(iter(operation.path_model.model_fields), None):
            case "upload_id":
                return {UPLOAD: start_upload(self.api)}
            case "experiment_id":
                return {EXPERIMENT: start_experiment(self.api, is_long=operation.row.name == "cancel_experiment")}
            case "battery_id":
                return {BATTERY: start_battery(self.api, run, is_long=operation.row.name == "cancel_battery")}
            case "export_id":
                return {EXPORT: start_export(self.api, run)}
            case _:
                return {}

    def values(self, operation: HttpOperation) -> dict[str, str]:
        """Return new values of the placeholders of an operation."""
        run = self.resumable if operation.row.name == "resume_run" else self.run
        if operation.row.name in ("cancel_run", "delete_run"):
            run = train(self.api, label=SPARED, **LONG).run_id
        if operation.row.name == "delete_run":
            cancel(self.api, run)
            ended(self.api, run)
        found = {RUN: run, OTHER_RUN: self.other_run, TOKENIZER: self.tokenizer, **self._job(operation, run)}
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


def prepare(api: ApiProcess) -> Prepared:
    """Train two runs and a tokenizer, interrupt a run, and send one request of each kind."""
    runs = [train(api, seed=seed).run_id for seed in (1, 2)]
    for run in runs:
        assert ended(api, run).status == "completed"
    interrupted = train(api, **LONG).run_id
    wait_until(lambda: api.get(f"/runs/{interrupted}", RunStatus).last_checkpoint_step is not None)
    cancel(api, interrupted)
    assert ended(api, interrupted).status == "cancelled"
    wanted = {"method": "char", "corpora": ["text"]}
    tokenizer = api.post("/tokenizers/train?wait=60", TokenizerStatus, wanted)
    sent = {
        kind: api.post(f"/runs/{runs[0]}/{kind}?wait=60", record, body).request_id
        for kind, (record, body) in _REQUESTS.items()
    }
    return Prepared(api, runs[0], runs[1], interrupted, tokenizer.tokenizer_id, sent)


def train(api: ApiProcess, **fields: object) -> Accepted:
    body: dict[str, object] = tiny_request(**fields).model_dump(mode="json", exclude_unset=True)
    return api.post("/runs/train", Accepted, body)


def start_experiment(api: ApiProcess, *, is_long: bool) -> str:
    """Start an experiment on two bundled corpora and return its id."""
    model = {"embedding_size": 8, "hidden_size": 8, "num_layers": 1}
    fields: dict[str, object] = {"model_family": "lstm", "tokenizer": {"method": "char"}, "model": model, "threads": 1}
    fields |= {"split_by": "position", "num_epochs": 1000 if is_long else 1, "max_steps": None if is_long else 1}
    plan: dict[str, object] = {
        "name": SPARED if is_long else "short",
        "languages": {"kk": {}, "tr": {}},
        "corpora": "udhr_ipa",
        "models": {"lstm": {"train": fields}},
        "seeds": [1],
        "modes": ["skip"],
    }
    return api.post("/experiments", ExperimentStatus, plan).experiment_id


def start_battery(api: ApiProcess, run: str, *, is_long: bool) -> str:
    """Start a battery of one pair, or of more pairs than are scored in the time of a request, and return its id."""
    row = f"{'abc ' * 200},{'cab ' * 200}\n"
    pairs = {"name": f"{'long' if is_long else 'short'}.csv", "content": "good,bad\n" + row * (2000 if is_long else 1)}
    return api.post("/batteries", BatteryStatus, {"runs": [run], "files": [pairs]}).battery_id


def start_export(api: ApiProcess, run: str) -> str:
    return api.post(f"/runs/{run}/export", ExportStatus, {"format": "csv"}).export_id


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
