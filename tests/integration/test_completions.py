"""Completions through a real worker: texts and batches of token ids, complete and in chunks."""

import contextlib
import shutil

import pytest
import torch

from tests.support.finished_runs import finished_run
from tests.support.lab import Lab
from tests.support.tiny_models import tensor_of
from trainer.config.validation import parse
from trainer.contracts.completions import CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateChunk, GenerateRequest
from trainer.inference.model_files import load_run
from trainer.queue.queue import JobQueue


def request_of(**values: object) -> CompletionRequest:
    return parse(CompletionRequest, {"prompts": ["cab", "ba"], "max_tokens": 12, "seed": 3, "n": 2, **values})


async def test_completions__are_answered_by_a_worker(lab: Lab) -> None:
    async with lab.queue() as queue:
        run = await lab.finished_run(queue)
        model, tokenizer = load_run(run)
        prompts = [[2, *tokenizer.encode(text)] for text in ("cab bac", "a", "abc acb abc")]

        scored = await queue.inference.ask(
            run.run_id, request_of(prompts=prompts, echo=True, logprobs=1, max_tokens=1, temperature=0, n=1)
        )
        whole = await queue.inference.ask(run.run_id, request_of())
        generated = await queue.inference.ask(
            run.run_id, GenerateRequest(prompt_text="cab", max_new_tokens=12, seed=3, num_return_sequences=2)
        )
        await chunks_add_up_to_the_text(queue, run.run_id)
        await refusals_name_what_is_wrong(lab, queue, run.run_id)

    assert scored.choices is not None and whole.choices is not None
    for ids, choice in zip(prompts, scored.choices, strict=True):
        with torch.inference_mode():
            log_p = model.forward(tensor_of([ids]))[0].log_softmax(-1)
        expected = [float(log_p[place, token]) for place, token in enumerate(ids[1:])]
        found = choice.token_logprobs or ()
        assert found[0] is None and len(found) == len(ids) + 1
        assert [value for value in found[1:-1] if value is not None] == pytest.approx(expected, abs=1e-4)
        assert choice.text.startswith(tokenizer.decode(ids))
    assert tuple(choice.text for choice in whole.choices[:2]) == generated.outputs
    assert (whole.status, whole.seed_used, len(whole.choices)) == ("completed", 3, 4)


async def chunks_add_up_to_the_text(queue: JobQueue, run_id: str) -> None:
    whole = await queue.inference.ask(run_id, request_of(echo=True))
    *pieces, last = [piece async for piece in queue.inference.stream(run_id, request_of(echo=True))]
    unseeded = [piece async for piece in queue.inference.stream(run_id, request_of(seed=None, stop=["a"]))]
    async with contextlib.aclosing(queue.inference.stream(run_id, request_of(max_tokens=512))) as stream:
        assert isinstance(await anext(stream), GenerateChunk)
    assert isinstance(last, CompletionResponse) and last.choices == whole.choices and whole.choices is not None
    assert isinstance(unseeded[-1], CompletionResponse) and unseeded[-1].seed_used is not None
    for choice in whole.choices:
        own = [piece for piece in pieces if isinstance(piece, GenerateChunk) and piece.index == choice.index]
        assert own[0].text == ("cab", "ba")[choice.index // 2]
        assert "".join(piece.text for piece in own) == choice.text
        assert [piece.stop_reason is None for piece in own] == [True] * (len(own) - 1) + [False]


async def refusals_name_what_is_wrong(lab: Lab, queue: JobQueue, run_id: str) -> None:
    with pytest.raises(AppError, match="the token id 999 is not in the vocabulary") as of_id:
        await queue.inference.ask(run_id, request_of(prompts=[[1, 999]]))
    masked = finished_run(lab.folder, "bert")
    try:
        with pytest.raises(AppError, match="trained with masked_lm and cannot generate text") as of_masked:
            await queue.inference.ask(masked.run_id, request_of())
    finally:
        shutil.rmtree(masked.path)
    codes = [caught.value.code for caught in (of_id, of_masked)]
    assert codes == [ErrorCode.INVALID_INPUT, ErrorCode.MODEL_INCOMPATIBLE]
