"""Limits, field types and base records that all inference requests share."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from trainer.contracts.base import Frozen, Identifier, JobState, describe_fields
from trainer.contracts.errors import AppError, ErrorCode, RunError

MAX_TEXT_CHARACTERS, MAX_PROMPT_CHARACTERS = 2_000_000, 100_000
"""Limits of the text of one score request, and of a prompt."""
EMPTY_PREFIX = "Prefix is empty after tokenization. Provide at least one word."
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def check_text_length(what: str, characters: float, limit: int) -> None:
    """Raise PAYLOAD_TOO_LARGE if a text has more than `limit` characters."""
    if characters > limit:
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"{what} is too long: at most {limit:,} characters are allowed.")


def limited(field: str, limit: int) -> AfterValidator:
    """Return a validator that raises PAYLOAD_TOO_LARGE for a longer text."""

    def check(text: str) -> str:
        check_text_length(f"`{field}`", len(text), limit)
        return text

    return AfterValidator(check)


class Response(Frozen, json_schema_extra=describe_fields):
    """The state of a request; a failed one has an error."""

    request_id: Identifier
    run_id: Identifier
    status: JobState
    error: RunError | None = None


class StoredRequest(Frozen):
    """A stored request and its response. Its text is stored nowhere else, and validation errors do not show it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    user_id: int | None = None
    """The Discord user; None for a request from the command line."""
