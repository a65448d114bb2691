"""Requests, responses and records of the scores of an experiment's texts."""

from typing import Literal

from trainer.contracts.base import Identifier
from trainer.contracts.inference_fields import InferenceRecord, InferenceRequest, Response


class SectionsRequest(InferenceRequest):
    """A request to score the texts of an experiment; the losses are files in the folder of the run."""

    experiment_id: Identifier

    @classmethod
    def response_type(cls) -> "type[SectionsResponse]":
        return SectionsResponse


class SectionsResponse(Response):
    n_texts: int | None = None


class SectionsRecord(InferenceRecord):
    kind: Literal["sections"] = "sections"
    request: SectionsRequest
    response: SectionsResponse
