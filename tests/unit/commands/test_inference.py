"""Notes that are shown with a generated text."""

import pytest

from trainer.commands.inference import end_note
from trainer.contracts.inference import FinishReason, GenerateResponse


@pytest.mark.parametrize(
    ("reason", "steps", "note"),
    [
        ("eos", (3,), "eos"),
        ("context_full", (3,), "context_full: the model's context is full"),
        ("context_full", (0, 0), "context_full: the prompt has 1,200 tokens, more than the model's context"),
    ],
)
def test_end__states_that_the_context_is_full(reason: FinishReason, steps: tuple[int, ...], note: str) -> None:
    response = GenerateResponse(request_id="q", run_id="r", status="completed", steps=steps, prompt_tokens=1200)
    assert end_note(reason, response) == note
