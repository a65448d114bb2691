"""Completions through a real worker: texts and batches of token ids, complete and in chunks."""

import shutil

import pytest

from tests.support.finished_runs import finished_run
from tests.support.lab import Lab
from trainer.config.validation import parse
from trainer.contracts.completions import CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateChunk, GenerateRequest
from trainer.queue.queue import JobQueue


def request_of(**values: object) -> CompletionRequest:
    return parse(CompletionRequest, {"prompts": ["cab", "ba"], "max_tokens": 12, "seed": 3, "n": 2, **values})


async def test_completions__are_the_generations_of_a_worker(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        whole = await queue.inference.ask(run_id, request_of())
        generated = await queue.inference.ask(
            run_id, GenerateRequest(prompt_text="cab", max_new_tokens=12, seed=3, num_return_sequences=2)
        )
        await chunks_add_up_to_the_text(queue, run_id)
        await refusals_name_what_is_wrong(lab, queue, run_id)
    assert whole.choices is not None
    assert tuple(choice.text for choice in whole.choices[:2]) == generated.outputs
    assert (whole.status, whole.seed_used, len(whole.choices)) == ("completed", 3, 4)


async def chunks_add_up_to_the_text(queue: JobQueue, run_id: str) -> None:
    whole = await queue.inference.ask(run_id, request_of(echo=True))
    *pieces, last = [piece async for piece in queue.inference.stream(run_id, request_of(echo=True))]
    unseeded = [piece async for piece in queue.inference.stream(run_id, request_of(seed=None, stop=["a"]))]
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
