"""Requests, responses and records of chats."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.contracts.base import Frozen, Identifier, Names
from trainer.contracts.generations import FinishReason, SamplingOptions
from trainer.contracts.inference_fields import MAX_PROMPT_CHARACTERS, InferenceRecord, Response, limited

CHAT_EXPIRED = "This chat has expired: start a new one."


class ChatRequest(SamplingOptions):
    """A message of a chat; without a session id it starts one. The answer is one line."""

    session_id: Annotated[Identifier, Names.REQUEST] | None = None
    message: Annotated[str, Field(min_length=1), limited("message", MAX_PROMPT_CHARACTERS - 1)]

    @classmethod
    def response_type(cls) -> "type[ChatResponse]":
        return ChatResponse


class ChatTurn(Frozen):
    request_id: Identifier
    message: str
    answer: str


class ChatHistory(Frozen):
    """The stored turns of a chat, the oldest first."""

    run_id: Identifier
    session_id: Identifier
    turns: tuple[ChatTurn, ...]


class ChatResponse(Response):
    session_id: Identifier
    answer: str | None = None
    steps: int | None = None
    stop_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    """Tokens of the message and of the turns that fitted."""
    unk_count: int | None = None
    turns_dropped: int | None = None
    """The number of oldest turns that did not fit."""
    seed_used: int | None = None

    @property
    def place(self) -> tuple[str, ...]:
        return (self.session_id, self.request_id)


class ChatRecord(InferenceRecord):
    kind: Literal["chat"] = "chat"
    request: ChatRequest
    response: ChatResponse
    turns: tuple[ChatTurn, ...] = ()
    """The earlier turns, while the request is active; the chat history stores them otherwise."""
