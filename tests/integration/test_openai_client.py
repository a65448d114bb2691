"""OpenAI's own client against the API: models, completions, log probabilities of prompts, streams and errors."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import openai
import pytest
import torch
from openai import AsyncOpenAI
from openai.types import Completion

from tests.support.http import ADMIN, Site, lab_site
from tests.support.lab import Lab
from tests.support.tiny_models import tensor_of
from trainer.inference.model_files import load_run


@asynccontextmanager
async def client_of(site: Site, key: str = ADMIN) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key=key, max_retries=0) as client:
        yield client


async def test_client__lists_models_and_completes(lab: Lab) -> None:
    async with lab_site(lab) as site, client_of(site) as client:
        run = await lab.finished_run(site.queue)
        listed = [model.id async for model in client.models.list()]
        found = await client.models.retrieve(run.run_id)
        whole = await client.completions.create(model=run.run_id, prompt="cab", max_tokens=8, n=2, seed=3, stop=["zz"])
        again = await client.completions.create(model=run.run_id, prompt="cab", max_tokens=8, n=2, seed=3, stop="zz")
        greedy = await client.completions.create(model=run.run_id, prompt=["cab", "b"], max_tokens=4, temperature=0)
        async with AsyncOpenAI(base_url=client.base_url, api_key="wrong-key-0123456789", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.models.retrieve(run.run_id)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("no-such-run")
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="no-such-run", prompt="a")
        with pytest.raises(openai.ConflictError, match="999999"):
            await client.completions.create(model=run.run_id, prompt=[999999])

    assert run.run_id in listed and found.id == run.run_id
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert texts(whole) == texts(again)
    assert whole.usage is not None and whole.usage.prompt_tokens == 3
    assert whole.usage.total_tokens == 3 + whole.usage.completion_tokens
    assert len(greedy.choices) == 2 and {choice.finish_reason for choice in greedy.choices} <= {"stop", "length"}


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_echo__scores_token_ids_as_the_model_does(lab: Lab, max_tokens: int) -> None:
    async with lab_site(lab) as site, client_of(site) as client:
        run = await lab.finished_run(site.queue)
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


async def test_stream__adds_up_to_the_complete_text(lab: Lab) -> None:
    async with lab_site(lab) as site, client_of(site) as client:
        run = await lab.finished_run(site.queue)
        whole = await client.completions.create(model=run.run_id, prompt="cab", max_tokens=12, seed=5)
        scored = await client.completions.create(model=run.run_id, prompt="cab", max_tokens=12, seed=5, logprobs=1)
        plain = await client.completions.create(
            model=run.run_id,
            prompt="cab",
            max_tokens=12,
            seed=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        pieces = [chunk async for chunk in plain]
        with_logprobs = await client.completions.create(
            model=run.run_id,
            prompt="cab",
            max_tokens=12,
            seed=5,
            logprobs=1,
            stream=True,
            stream_options={"include_usage": True},
        )
        complete = [chunk async for chunk in with_logprobs]
        unused = await client.completions.create(model=run.run_id, prompt="cab", logprobs=1, stream=True)
        without_usage = [chunk async for chunk in unused]
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="no-such-run", prompt="a", stream=True)

    *chunks, last = pieces
    assert "".join(chunk.choices[0].text for chunk in chunks) == texts(whole)[0]
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == [] and last.usage == whole.usage
    assert complete[0].choices[0].logprobs == scored.choices[0].logprobs is not None
    assert complete[-1].choices == [] and complete[-1].usage == whole.usage
    assert [len(chunk.choices) for chunk in without_usage] == [1]


async def test_idempotency_key__returns_the_first_completion(lab: Lab) -> None:
    async with lab_site(lab) as site, client_of(site) as client:
        run = await lab.finished_run(site.queue)
        headers = {"Idempotency-Key": "once"}
        first, again = [
            await client.completions.create(model=run.run_id, prompt="cab", max_tokens=12, extra_headers=headers)
            for _ in range(2)
        ]
        with pytest.raises(openai.ConflictError):
            await client.completions.create(model=run.run_id, prompt="b", extra_headers=headers)

    assert (first.id, texts(first)) == (again.id, texts(again))


def texts(completion: Completion) -> list[str]:
    return [choice.text for choice in completion.choices]
