"""OpenAI's own clients against the API: models, completions, log probabilities of prompts, streams and errors."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import openai
import pytest
import torch
from openai import AsyncOpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletionStreamOptionsParam

from tests.support import twin
from tests.support.http import ADMIN, ANA, BOB, WRONG, Site, lab_site
from tests.support.lab import Lab
from tests.support.tiny_models import tensor_of
from trainer.artifacts.runs import RunDirectory
from trainer.inference.model_files import load_run
from trainer.lab.requests import MAX_BODY_BYTES

DAMAGED = "damaged-v1"


class Refused(NamedTuple):
    """A request under /v1 that is refused, and its error."""

    method: str
    path: str
    body: dict[str, object] | None
    key: str
    status: int
    code: str
    says: str
    param: str | None = None
    type: str = "invalid_request_error"
    content_type: str = "application/json"


COMPLETIONS = "/completions"
REFUSED = [
    Refused("get", "/nowhere", None, ADMIN, 404, "NOT_FOUND", "There is no such address."),
    Refused("get", "/models/no-such-run", None, ADMIN, 404, "RUN_NOT_FOUND", "'no-such-run'"),
    Refused("get", "/models", None, WRONG, 401, "UNAUTHORIZED", "Send a valid API key"),
    Refused("delete", "/models", None, ADMIN, 405, "METHOD_NOT_ALLOWED", "use GET, HEAD."),
    Refused("post", COMPLETIONS, {"stream": True, "model": "none"}, ADMIN, 404, "RUN_NOT_FOUND", "'none'"),
    Refused("post", COMPLETIONS, {"max_tokens": -1}, ADMIN, 422, "INVALID_INPUT", "`max_tokens`", "max_tokens"),
    Refused("post", COMPLETIONS, {"prompt": ["a"] * 65}, ADMIN, 422, "INVALID_INPUT", "64 prompts, not 65.", "prompt"),
    Refused("post", COMPLETIONS, {"prompt": [999999]}, ADMIN, 422, "INVALID_INPUT", "999999"),
    Refused("post", COMPLETIONS, {"echo": True, "logprobs": 1}, ANA, 403, "FORBIDDEN", "surprisals"),
    Refused("post", COMPLETIONS, {"user": "a" * MAX_BODY_BYTES}, ADMIN, 413, "PAYLOAD_TOO_LARGE", "16,777,216 bytes"),
    Refused("post", COMPLETIONS, {}, ADMIN, 415, "UNSUPPORTED_MEDIA_TYPE", "as JSON", content_type="text/plain"),
    Refused("post", COMPLETIONS, {}, BOB, 429, "RATE_LIMIT_EXCEEDED", "1 request", type="rate_limit_error"),
    Refused("get", f"/models/{DAMAGED}", None, ANA, 409, "RECORD_UNREADABLE", "cannot be", type="server_error"),
]


@asynccontextmanager
async def refusing_site(lab: Lab) -> AsyncIterator[tuple[Site, dict[str, object]]]:
    """A site with a damaged run, on which a key has no request left; and the fields of a request that is right."""
    async with lab_site(lab, limits={"requests_per_minute": 1}) as site:
        run = await lab.finished_run(site.queue)
        damaged = twin(run, DAMAGED)
        (damaged.path / "request.json").write_text("{", encoding="utf-8")
        fields: dict[str, object] = {"model": run.run_id, "prompt": "a", "max_tokens": 1}
        try:
            assert (await site.post("/v1/completions", fields, key=BOB)).status == 200
            yield site, fields
        finally:
            shutil.rmtree(damaged.path)


@asynccontextmanager
async def client_of(site: Site, key: str = ADMIN) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key=key, max_retries=0) as client:
        yield client


async def test_client__lists_models_and_completes(here: Site, run: RunDirectory) -> None:
    async with client_of(here) as client:
        listed = [model.id async for model in client.models.list()]
        found = await client.models.retrieve(run.run_id)
        whole = await client.completions.create(model=run.run_id, prompt="cab", max_tokens=8, n=2, seed=3, stop=["zz"])
        again = await client.completions.create(model=run.run_id, prompt="cab", max_tokens=8, n=2, seed=3, stop="zz")
        greedy = await client.completions.create(model=run.run_id, prompt=["cab", "b"], max_tokens=4, temperature=0)
    assert run.run_id in listed and found.id == run.run_id
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert texts(whole) == texts(again)
    assert whole.usage is not None and whole.usage.prompt_tokens == 3
    assert whole.usage.total_tokens == 3 + whole.usage.completion_tokens
    assert len(greedy.choices) == 2 and {choice.finish_reason for choice in greedy.choices} <= {"stop", "length"}


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_echo__scores_token_ids_as_the_model_does(here: Site, run: RunDirectory, max_tokens: int) -> None:
    async with client_of(here) as client:
        model, tokenizer = load_run(run)
        prompts = [[2, *tokenizer.encode(text)] for text in ("cab bac", "a", "abc acb")]
        scored = await client.completions.create(
            model=run.run_id, prompt=prompts, max_tokens=max_tokens, logprobs=3, echo=True, temperature=0
        )
    for ids, choice in zip(prompts, scored.choices, strict=True):
        with torch.inference_mode():
            log_p = model.forward(tensor_of([ids]))[0].log_softmax(-1)
        found = choice.logprobs
        assert found is not None and found.token_logprobs is not None and found.text_offset is not None
        listed: Sequence[float | None] = found.token_logprobs  # OpenAI's types know no null
        rest = [value for value in listed if value is not None]
        assert listed[0] is None and len(rest) == len(listed) - 1 == len(ids) - 1 + max_tokens
        expected = [float(log_p[place, token]) for place, token in enumerate(ids[1:])]
        assert rest[: len(expected)] == pytest.approx(expected, abs=1e-4)
        assert found.tokens is not None and len(found.tokens) == len(found.token_logprobs) == len(found.text_offset)
        assert choice.text.startswith(tokenizer.decode(ids))


async def test_stream__adds_up_to_the_complete_text(here: Site, run: RunDirectory) -> None:
    async with client_of(here) as client:
        create, name = client.completions.create, run.run_id
        usage: ChatCompletionStreamOptionsParam = {"include_usage": True}
        whole = await create(model=name, prompt="cab", max_tokens=9, seed=5)
        scored = await create(model=name, prompt="cab", max_tokens=9, seed=5, logprobs=1)
        plain = await create(model=name, prompt="cab", max_tokens=9, seed=5, stream=True, stream_options=usage)
        pieces = [chunk async for chunk in plain]
        bare = await create(model=name, prompt="cab", max_tokens=9, seed=5, stream=True)
        texts_only = [chunk.choices[0].text async for chunk in bare]
        scored_stream = await create(
            model=name, prompt="cab", max_tokens=9, seed=5, logprobs=1, stream=True, stream_options=usage
        )
        complete = [chunk async for chunk in scored_stream]
        unused = await create(model=name, prompt="cab", logprobs=1, stream=True)
        without_usage = [chunk async for chunk in unused]
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="no-such-run", prompt="a", stream=True)
    *chunks, last = pieces
    assert "".join(chunk.choices[0].text for chunk in chunks) == texts(whole)[0]
    assert texts_only == [chunk.choices[0].text for chunk in chunks]
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == [] and last.usage == whole.usage
    assert complete[0].choices[0].logprobs == scored.choices[0].logprobs is not None
    assert complete[-1].choices == [] and complete[-1].usage == whole.usage
    assert [len(chunk.choices) for chunk in without_usage] == [1]


async def test_error__has_its_code_and_message_in_python(lab: Lab) -> None:
    async with refusing_site(lab) as (site, fields):
        for one in REFUSED:
            body = None if one.body is None else fields | one.body
            headers = {"Content-Type": one.content_type}
            async with client_of(site, one.key) as client:
                with pytest.raises(openai.APIStatusError) as caught:
                    if body is not None:
                        await client.post(one.path, cast_to=Completion, body=body, options={"headers": headers})
                    elif one.method == "get":
                        await client.get(one.path, cast_to=Completion)
                    else:
                        await client.delete(one.path, cast_to=Completion)
            error = caught.value
            assert (error.status_code, error.code) == (one.status, one.code)
            assert (error.type, error.param) == (one.type, one.param), one.code
            assert one.says in error.message


def texts(completion: Completion) -> list[str]:
    return [choice.text for choice in completion.choices]
