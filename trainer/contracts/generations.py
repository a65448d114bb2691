"""Requests, responses and records of continuations of prompts, and the samples of a training."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from trainer.contracts.base import Frozen, Identifier, Positive, Seed, describe_fields, exactly_one, json_schema_rule
from trainer.contracts.inference_fields import (
    MAX_PROMPT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    has_hidden_tokens,
    limited,
)
from trainer.contracts.runs import CorpusName

FinishReason = Literal["eos", "stop_sequence", "max_new_tokens", "context_full"]


class SamplingOptions(InferenceRequest, json_schema_extra=describe_fields):
    """Options that choose each token and end a continuation."""

    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    temperature: NonNegativeFloat = 1.0
    """0 is greedy; lower values than 1e-6 count as 1e-6."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """0: off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop_sequences: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=8)] = ()
    seed: Seed | None = None
    repetition_penalty: Positive | None = None
    repetition_window: Annotated[int, Field(ge=1, le=65_536)] = 80
    banned_tokens: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=64)] = ()
    """Excluded tokens, by name or by text, with and without a space before it."""
    alphabet: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """The characters that the output may have; None allows all."""

    @property
    def picks_tokens(self) -> bool:
        return bool(self.banned_tokens) or self.alphabet is not None


GenerationPrecision = Literal["fp32", "bf16"]
"""bf16: each matrix of the model is rounded to bf16; all else is computed in fp32."""
DecodeStep = Literal["compiled", "torch"]
"""The code that reads a token: C, or the forward pass where no compiled step serves."""


class GenerateRequest(SamplingOptions, json_schema_extra=json_schema_rule(exactly_one("prompt_text", "prompt_path"))):
    """A request to continue a prompt, or a corpus by its name; an empty prompt starts from [BOS].

    With a stream, it starts from a newline, and nothing but the other options ends a continuation.
    """

    corpus_field: ClassVar[str | None] = "prompt_path"

    prompt_text: Annotated[str, limited("prompt_text", MAX_PROMPT_CHARACTERS)] | None = None
    prompt_path: CorpusName | None = None
    stop_on_eos: bool = True
    """Stop at the end of a line; without effect in a stream, which has no [EOS]."""
    num_return_sequences: Annotated[int, Field(ge=1, le=10)] = 1
    logprobs: bool = False
    """Return the log probability of each token."""
    top_logprobs: Annotated[int, Field(ge=0, le=50)] = 0
    """Above 0: return the tokens of each continuation, and at each step this number of likeliest tokens."""
    precision: GenerationPrecision = "fp32"
    """bf16 reads half as many bytes for each token after the prompt, on a CPU."""

    @classmethod
    def response_type(cls) -> "type[GenerateResponse]":
        return GenerateResponse

    @property
    def has_surprisals(self) -> bool:
        is_changed = self.repetition_penalty is not None or self.picks_tokens
        is_greedy = self.temperature == 0 and not is_changed
        return (self.logprobs or self.top_logprobs > 0) and has_hidden_tokens(self.top_logprobs, is_greedy=is_greedy)

    @model_validator(mode="after")
    def _one_prompt(self) -> "GenerateRequest":
        if (self.prompt_text is None) == (self.prompt_path is None):
            raise ValueError("give either `prompt_text` or `prompt_path`")
        return self


class GenerateResponse(Response):
    """Continuations without the prompt; one entry per returned sequence in every list."""

    outputs: tuple[str, ...] | None = None
    steps: tuple[int, ...] | None = None
    eos_terminated: tuple[bool, ...] | None = None
    stop_reason: tuple[FinishReason, ...] | None = None
    prompt_tokens: int | None = None
    unk_count: int | None = None
    """Unknown tokens in the prompt."""
    seed_used: int | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    """ln p of each sampled token, at temperature 1 over the complete vocabulary, before filters and penalties: -1 times
    the surprisal of the token in a score. In bf16, those of the model in bf16; scores are always in fp32."""
    tokens: tuple[tuple[str, ...], ...] | None = None
    """With `top_logprobs`: the names of the sampled tokens, `steps` of each sequence."""
    text_offsets: tuple[tuple[int, ...], ...] | None = None
    """The position in the output, before a stop sequence cuts it, at which each token begins."""
    top_logprobs: tuple[tuple[tuple[tuple[str, float], ...], ...], ...] | None = None
    """The likeliest tokens of each step with ln p as in `logprobs`, the likeliest first."""
    precision: GenerationPrecision | None = None
    """The precision that the tokens after the prompt were generated in."""
    decode_step: DecodeStep | None = None
    """The code that read the tokens after the prompt; None if there were none."""
    notes: tuple[str, ...] = ()
    """Sentences about how the prompt was read."""


class GenerateChunk(Frozen):
    """A chunk of a streamed continuation; the chunks of an index, in order, are its output."""

    kind: Literal["chunk"] = "chunk"
    request_id: Identifier
    index: NonNegativeInt
    """The number of the sequence, from 0."""
    start: NonNegativeInt
    """The position of its first character in the output, or in the text of a completion."""
    text: str
    """Has no part of a stop sequence; empty only in the last chunk of a sequence."""
    stop_reason: FinishReason | None = None
    """The reason of the end in the last chunk, else None."""


class GenerateRecord(InferenceRecord):
    kind: Literal["generate"] = "generate"
    request: GenerateRequest
    response: GenerateResponse


class Sample(Frozen):
    """A line of `samples.jsonl`: a continuation of a prompt."""

    prompt: str
    text: str
    seed: int
    steps: int
    stop_reason: FinishReason


class TrainingSample(Frozen):
    """A line of `training_samples.jsonl`: a sample that the model generated after a step."""

    step: int
    sample: Sample
