"""OpenAI's completions protocol: `POST /v1/completions` and the list of models."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

from aiohttp import web
from pydantic import AfterValidator, Field, JsonValue

from trainer.config.validation import parse
from trainer.contracts.base import Frozen, GivenName, Identifier, ModelName, Names, changed
from trainer.contracts.completions import CompletionChoice, CompletionRequest, CompletionResponse, completion_end
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateChunk
from trainer.contracts.parameters import NoBody, NoQuery, Query
from trainer.http.event_streams import begin_stream
from trainer.http.operations import ApiRequest
from trainer.http.waiting import has_left, reply
from trainer.lab.calls import PathT
from trainer.lab.inference import visible_models
from trainer.queue.run_index import RunEntry

_LOOK_SECONDS = 1.0
_TokenId = Annotated[int, Field(ge=0, lt=2**32)]
_Stop = Annotated[str, Field(min_length=1)]
_MAX_PROMPTS = 64
_MOST: dict[str, JsonValue] = {"maxItems": _MAX_PROMPTS}
_Prompt = (
    str
    | Annotated[tuple[str, ...], Field(min_length=1, json_schema_extra=_MOST)]
    | Annotated[tuple[_TokenId, ...], Field(min_length=1)]
    | Annotated[tuple[tuple[_TokenId, ...], ...], Field(min_length=1, json_schema_extra=_MOST)]
)


def _check_batch(prompt: _Prompt) -> _Prompt:
    """Refuse too many prompts after the union: it would name the limit and the other forms of a prompt."""
    if not isinstance(prompt, str) and len(prompt) > _MAX_PROMPTS and not isinstance(prompt[0], int):
        raise ValueError(f"must be at most {_MAX_PROMPTS} prompts, not {len(prompt)}")
    return prompt


_SAME_FIELDS = {"max_tokens", "temperature", "top_p", "n", "seed", "logprobs", "echo"}
"""Fields that a request for the worker has, too."""


class StreamOptions(Frozen):
    include_usage: bool = False
    """Send the counts of tokens in a last chunk."""


class CompletionBody(Frozen):
    """A request for completions, as OpenAI's clients send it; a null stands for the default."""

    model: Annotated[GivenName, Names.RUN]
    """A run, or a checkpoint of it as RUN@1200."""
    prompt: Annotated[_Prompt, AfterValidator(_check_batch)]
    """A text or token ids, or a batch of either; the start token is read before both, unless ids begin with it."""
    max_tokens: Annotated[int, Field(ge=0, le=512)] | None = None
    """Default: 16; 0 with `echo` only scores the prompt."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Default: 1."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    stop: _Stop | Annotated[tuple[_Stop, ...], Field(max_length=8)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=50)] | None = None
    """Number of likeliest tokens to return at each position, besides the token itself."""
    echo: bool | None = None
    """Return the prompt before its continuation."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    """Accepted without effect."""

    @property
    def wants_usage(self) -> bool:
        """True if a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def request(self) -> CompletionRequest:
        """Return the request for the worker; raises INVALID_INPUT."""
        fields: dict[str, object] = self.model_dump(include=_SAME_FIELDS, exclude_none=True)
        if self.stop is not None:
            fields["stop"] = (self.stop,) if isinstance(self.stop, str) else self.stop
        return parse(CompletionRequest, {**fields, "prompts": self.prompts()})

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Return the prompts of the batch."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = tuple(item for item in self.prompt if isinstance(item, int))
        return [ids] if ids else [item for item in self.prompt if not isinstance(item, int)]


class LogProbabilities(Frozen):
    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    """The first token of a prompt has none."""
    top_logprobs: tuple[dict[str, float] | None, ...] | None
    text_offset: tuple[int, ...]


class Choice(Frozen):
    text: str
    index: int
    logprobs: LogProbabilities | None = None
    finish_reason: Literal["stop", "length"] | None


class Usage(Frozen):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Frozen):
    """Completions of all prompts, or a chunk of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Seconds since 1970."""
    model: ModelName
    choices: tuple[Choice, ...]
    usage: Usage | None = None


class ModelEntry(Frozen):
    id: Identifier
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["model-trainer"] = "model-trainer"


class ModelList(Frozen):
    object: Literal["list"] = "list"
    data: tuple[ModelEntry, ...]


class ModelIdPath(Query):
    model: Annotated[GivenName, Names.RUN]


async def list_models(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List the completed runs that generate text, newest first."""
    models = await _models(call)
    return reply(ModelList(data=tuple(map(_entry, models))))


async def _models(call: ApiRequest[PathT, NoQuery, NoBody]) -> list[RunEntry]:
    lab = call.api.lab
    await lab.index.refresh()
    return [run for run in visible_models(lab, call.client.caller) if run.objective == "causal_lm"]


async def get_model(call: ApiRequest[ModelIdPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the entry of one run in the list of models."""
    run_id = call.path.model
    for run in await _models(call):
        if run.run_id == run_id:
            return reply(_entry(run))
    raise AppError(ErrorCode.RUN_NOT_READY, f"The run '{run_id}' is not completed, or generates no text.")


async def complete(call: ApiRequest[NoQuery, NoQuery, CompletionBody]) -> web.StreamResponse:
    """Continue or score prompts: OpenAI's completions, with `echo` and log probabilities of the prompt."""
    lab, caller, request = call.api.lab, call.client.caller, call.body.request()
    model = await lab.run_name(caller, call.body.model, or_checkpoint=True)
    call = call._replace(body=changed(call.body, model=model))
    body = call.body
    await lab.run(caller, body.model)
    await lab.rights.allowed_inference(caller, body.model, request)
    with call.api.stream(call.client):
        if body.stream:
            return await _stream(call, request)
        client = lab.queue.inference
        working = asyncio.create_task(
            client.ask(body.model, request, user_id=call.client.caller.discord_id, request_id=call.request_id)
        )
        try:
            while not working.done() and not has_left(call.request):
                await asyncio.wait([working], timeout=_LOOK_SECONDS)
            if not working.done():
                raise ConnectionResetError("The client has left.")
            return reply(_completion(body.model, working.result()))
        finally:
            working.cancel()  # withdraws the request
            await asyncio.wait([working])


async def _stream(call: ApiRequest[NoQuery, NoQuery, CompletionBody], request: CompletionRequest) -> web.StreamResponse:
    """Send chunks while a text is generated, as server-sent events; log probabilities come with the complete text."""
    body, client = call.body, call.api.lab.queue.inference
    created, user_id = int(time.time()), call.client.caller.discord_id
    if request.logprobs is not None:
        response = await client.ask(body.model, request, user_id=user_id, request_id=call.request_id)
        return await _send(call, _whole_choices(response, body))
    async with aclosing(client.stream(body.model, request, user_id=user_id)) as pieces:
        return await _send(call, _chunks(pieces, body, created))


async def _send(
    call: ApiRequest[NoQuery, NoQuery, CompletionBody], chunks: AsyncIterator[Completion]
) -> web.StreamResponse:
    """Send chunks, then `[DONE]`; an error before the first chunk is an ordinary answer."""
    first = await anext(chunks)
    async with (response := await begin_stream(call.api, call.request)):
        await response.send(first.model_dump_json())
        async for chunk in chunks:
            await response.send(chunk.model_dump_json())
        await response.send("[DONE]")
        return response


async def _chunks(
    pieces: AsyncIterator[GenerateChunk | CompletionResponse], body: CompletionBody, created: int
) -> AsyncIterator[Completion]:
    async for piece in pieces:
        if isinstance(piece, CompletionResponse):
            if body.wants_usage:
                yield changed(_completion(body.model, piece), choices=())
        else:
            reason = None if piece.stop_reason is None else completion_end(piece.stop_reason)
            choice = Choice(text=piece.text, index=piece.index, finish_reason=reason)
            yield Completion(id=_name(piece.request_id), created=created, model=body.model, choices=(choice,))


async def _whole_choices(response: CompletionResponse, body: CompletionBody) -> AsyncIterator[Completion]:
    completion = _completion(body.model, response)
    for choice in completion.choices:
        yield changed(completion, choices=(choice,), usage=None)
    if body.wants_usage:
        yield changed(completion, choices=())


def _completion(model: str, response: CompletionResponse) -> Completion:
    prompt_tokens, completion_tokens = response.prompt_tokens or 0, response.completion_tokens or 0
    return Completion(
        id=_name(response.request_id),
        created=int(time.time()),
        model=model,
        choices=tuple(map(_choice, response.choices or ())),
        usage=Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        ),
    )


def _choice(choice: CompletionChoice) -> Choice:
    found: LogProbabilities | None = None
    if choice.tokens is not None:
        fields: dict[str, object] = choice.model_dump(include=set(LogProbabilities.model_fields))
        found = LogProbabilities.model_validate(fields)
    return Choice(text=choice.text, index=choice.index, logprobs=found, finish_reason=choice.finish_reason)


def _name(request_id: str) -> str:
    return f"cmpl-{request_id}"


def _entry(run: RunEntry) -> ModelEntry:
    return ModelEntry(id=run.run_id, created=int(run.created_at.timestamp()))
