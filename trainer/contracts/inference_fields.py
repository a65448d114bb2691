"""Limits, field types and base records that all inference requests share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, NonNegativeInt

from trainer.contracts.base import Frozen, Identifier, JobState, changed, describe_fields, model_name
from trainer.contracts.errors import AppError, ErrorCode, RunError

MAX_TEXT_CHARACTERS, MAX_PROMPT_CHARACTERS = 2_000_000, 100_000
"""Limits of the text of one score request, and of a prompt."""
NO_RESULT = "No worker has answered; try again in a minute."
EMPTY_PREFIX = "Prefix is empty after tokenization. Provide at least one word."
ScoringMethod = Literal["causal", "pseudo_log_likelihood"]


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
    checkpoint: NonNegativeInt | None = None
    """The step of the checkpoint that answers; None for the model of the run."""
    status: JobState
    error: RunError | None = None

    @property
    def model(self) -> str:
        """The name of the model that answers: `RUN`, or `RUN@1200`."""
        return model_name(self.run_id, self.checkpoint)

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed")

    @property
    def place(self) -> tuple[str, ...]:
        """The parts of its address below the run and the kind."""
        return (self.request_id,)


SHARED_TOKENS = 10
"""Likeliest next tokens whose probabilities everybody gets who may use a run."""


def has_hidden_tokens(n_likeliest: int, *, is_greedy: bool) -> bool:
    """Return whether a response has probabilities of other tokens than the `SHARED_TOKENS` likeliest ones.

    A token that is not chosen greedily can be any token, and its probability is a surprisal.
    """
    return n_likeliest > SHARED_TOKENS or not is_greedy


class InferenceRequest(Frozen):
    """A request to a finished run."""

    corpus_field: ClassVar[str | None] = None  # the field that may name a corpus to read

    @classmethod
    @abstractmethod
    def response_type(cls) -> type[Response]:
        """Return the class of its response."""

    @property
    def corpus(self) -> str | None:
        """The name of the corpus that it reads."""
        if self.corpus_field is None:
            return None
        name: str | None = getattr(self, self.corpus_field)
        return name

    @property
    def reads_own_text(self) -> bool:
        """True if it reads the corpora of its run."""
        return False

    @property
    def is_searched(self) -> bool:
        """True if its text is searched for in what the run and its ancestors have read."""
        return False

    def without_quotes(self) -> Self | None:
        """Return the request for which no response has words of the corpora that it reads; None if there is none."""
        return None

    @property
    def has_surprisals(self) -> bool:
        """True if the response has surprisals of single words or tokens, which only owner and admins of a run get."""
        return False

    @property
    def picks_tokens(self) -> bool:
        """True if it picks tokens of the vocabulary, by id, name or characters: the response shows what they are."""
        return False


ResponseT = TypeVar("ResponseT", bound=Response)
_ResponseT_co = TypeVar("_ResponseT_co", bound=Response, covariant=True)


class Asks(Protocol[_ResponseT_co]):
    """An inference request, for the type checker: it is answered with a response of this class."""

    def response_type(self) -> type[_ResponseT_co]: ...

    @property
    def corpus_field(self) -> str | None: ...

    @property
    def corpus(self) -> str | None: ...

    @property
    def reads_own_text(self) -> bool: ...

    @property
    def has_surprisals(self) -> bool: ...

    @property
    def picks_tokens(self) -> bool: ...

    def without_quotes(self) -> Self | None: ...

    def model_copy(self, *, update: Mapping[str, object]) -> Self: ...

    def model_dump_json(self, *, exclude_unset: bool = False) -> str: ...


class AsksForStream(Asks[_ResponseT_co], Protocol[_ResponseT_co]):
    """A request whose response can be streamed."""

    @property
    def seed(self) -> int | None: ...


class InferenceRecord(Frozen):
    """A stored request and its response. Its text is stored nowhere else, and validation errors do not show it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    kind: str
    user_id: int | None = None
    """The Discord user; None for another requester."""
    api_key: str | None = None
    """Name of the API key; None for a request in Discord, from the command line, or of an earlier version."""
    request: InferenceRequest
    response: Response
    is_streamed: bool = False
    """The client reads chunks while the text is generated."""

    @property
    def owner(self) -> int | str | None:
        """The requester, as in the records of jobs."""
        return self.api_key if self.user_id is None else self.user_id


RecordT = TypeVar("RecordT", bound=InferenceRecord)


def cancelled_error() -> AppError:
    """Return the error of a request that its client withdrew."""
    return AppError(ErrorCode.CANCELLED, "The client withdrew this request.")


def failed_record(record: RecordT, error: RunError) -> RecordT:
    """Return the record of a failed request."""
    return changed(record, response=changed(record.response, status="failed", error=error))
