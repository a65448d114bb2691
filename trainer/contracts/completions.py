"""Completions in the manner of OpenAI's API: the request, the response and the stored record."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, Tag, model_validator

from trainer.contracts.base import Frozen, Seed, requires
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import FinishReason
from trainer.contracts.inference_fields import (
    MAX_PROMPT_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    has_hidden_tokens,
    limited,
)

TokenId = Annotated[int, Field(ge=0, lt=2**32)]
_Text = Annotated[str, limited("prompts", MAX_PROMPT_CHARACTERS), Tag("text")]
_Ids = Annotated[tuple[TokenId, ...], Field(max_length=65_536), Tag("ids")]


def _form(prompt: object) -> str:
    return "ids" if isinstance(prompt, list | tuple) else "text"


CompletionPrompt = Annotated[_Text | _Ids, Discriminator(_form)]
"""A text, or token ids; the start token is read before both, unless the ids begin with it."""


class CompletionRequest(InferenceRequest):
    """A request to continue prompts, to score them, or both."""

    prompts: Annotated[
        tuple[CompletionPrompt, ...], Field(max_length=64), requires(len, "at least one prompt", "must have")
    ]
    max_tokens: Annotated[int, Field(ge=0, le=512)] = 16
    """0 generates nothing: with `echo`, the prompt is only scored."""
    temperature: NonNegativeFloat = 1.0
    """0 is greedy; lower values than 1e-6 count as 1e-6."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    n: Annotated[int, Field(ge=1, le=10)] = 1
    """Continuations of each prompt."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=8)] = ()
    """The text is cut before the first of these texts; none begins in the prompt."""
    seed: Seed | None = None
    """Continuation i of prompt p depends only on the seed, on p and on i."""
    logprobs: Annotated[int, Field(ge=0, le=50)] | None = None
    """Return the tokens with their log probabilities, and at each position this number of likeliest tokens."""
    echo: bool = False
    """Put the prompt before its continuation, in the text and in the lists of tokens."""

    @classmethod
    def response_type(cls) -> "type[CompletionResponse]":
        return CompletionResponse

    @property
    def scores_prompts(self) -> bool:
        """True if the response has the log probabilities of the prompts' tokens."""
        return self.echo and self.logprobs is not None

    @property
    def has_surprisals(self) -> bool:
        if self.logprobs is None:
            return False
        return self.echo or has_hidden_tokens(self.logprobs, is_greedy=self.temperature == 0)

    @property
    def picks_tokens(self) -> bool:
        return not all(isinstance(prompt, str) for prompt in self.prompts)

    @model_validator(mode="after")
    def _check(self) -> "CompletionRequest":
        entries = 1 + (self.logprobs or 0) if self.scores_prompts else 1
        if entries * sum(map(len, self.prompts)) > MAX_TEXT_CHARACTERS:
            raise AppError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"`prompts` are too long: together at most {MAX_TEXT_CHARACTERS // entries:,} characters or tokens are"
                " allowed with these options.",
            )
        return self


CompletionEnd = Literal["stop", "length"]
"""stop: the end of a line, or a stop text; length: `max_tokens`, or the end of the model's context."""


def completion_end(reason: FinishReason | None) -> CompletionEnd:
    """Return the end of a completion's choice; None: nothing was to be generated."""
    return "stop" if reason in ("eos", "stop_sequence") else "length"


class CompletionChoice(Frozen):
    """One continuation of one prompt. Without `logprobs` the lists are None.

    The lists have an entry for each token of `text`, and for a sampled [EOS], which has no text.
    """

    index: int
    """Prompt number * n + number of the continuation."""
    text: str
    finish_reason: CompletionEnd
    tokens: tuple[str, ...] | None = None
    """The tokens by their names in the vocabulary, which are different for different ids."""
    token_logprobs: tuple[float | None, ...] | None = None
    """ln p of each token, at temperature 1 over the complete vocabulary; None for the first token of a prompt."""
    top_logprobs: tuple[dict[str, float] | None, ...] | None = None
    """ln p of the likeliest tokens at the position of each token, the likeliest first, and of the token itself."""
    text_offset: tuple[int, ...] | None = None
    """The position in `text` at which each token begins; white space that no token has belongs to the next one."""
    prompt_tokens: int
    """Tokens of the prompt, without the special ones that are read before a line."""
    completion_tokens: int
    """Sampled tokens, with [EOS] and with tokens that a stop text removed."""


class CompletionResponse(Response):
    """The choices, ordered by prompt, then by the number of the continuation."""

    choices: tuple[CompletionChoice, ...] | None = None
    prompt_tokens: int | None = None
    """Tokens of all prompts, each prompt once."""
    completion_tokens: int | None = None
    """Sampled tokens of all choices."""
    seed_used: int | None = None


class CompletionRecord(InferenceRecord):
    kind: Literal["complete"] = "complete"
    request: CompletionRequest
    response: CompletionResponse
