"""Requests, responses and records of predictions of the next token."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.contracts.base import Frozen, describe_fields
from trainer.contracts.inference_fields import (
    MAX_PROMPT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    has_hidden_tokens,
    limited,
)


class PredictRequest(InferenceRequest, json_schema_extra=describe_fields):
    """A request for the likeliest next tokens after a text, whose last line is open."""

    text: Annotated[str, limited("text", MAX_PROMPT_CHARACTERS)]
    k: Annotated[int, Field(ge=1, le=100)] = 5

    @classmethod
    def response_type(cls) -> "type[PredictResponse]":
        return PredictResponse

    @property
    def has_surprisals(self) -> bool:
        return has_hidden_tokens(self.k, is_greedy=True)


class Suggestion(Frozen):
    """A token with its probability and log probability at temperature 1.

    After a text that ends with the space of the next token, they are over the tokens that begin with that space.
    """

    token: str
    prob: float
    logp: float


class PredictResponse(Response):
    """Most probable next tokens, in descending order; empty for a text without tokens."""

    suggestions: tuple[Suggestion, ...] | None = None
    unk_count: int | None = None
    """Unknown tokens in the text."""


class PredictRecord(InferenceRecord):
    kind: Literal["predict"] = "predict"
    request: PredictRequest
    response: PredictResponse
