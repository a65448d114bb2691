"""A talk with a model: each message and each answer is text of its own lines, which the next answer goes on from."""

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    MAX_PROMPT_CHARACTERS,
    ChatRequest,
    ChatResponse,
    ChatTurn,
    GenerateRequest,
    GenerateResponse,
    SamplingOptions,
)
from trainer.contracts.validation import parse
from trainer.inference.generation import read_prompt
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer


def chat_prompt(
    model: LanguageModel, tokenizer: Tokenizer, request: ChatRequest, turns: tuple[ChatTurn, ...]
) -> tuple[GenerateRequest, int]:
    """Return what is to be continued, and how many of the turns before it, the oldest ones, had no room.

    The prompt is all turns and the message, each closed with a newline, so the answer is one line. A model that reads
    so many tokens at once keeps room for the longest answer; the others read as many characters as a prompt may have.
    Raises INVALID_INPUT for a message that is too long by itself.
    """
    most = model.context_tokens
    longest_prompt = MAX_PROMPT_CHARACTERS if most is None else most + 1 - request.max_new_tokens

    def size(text: str) -> int:
        return len(text) if most is None else len(read_prompt(tokenizer, text).ids) - 1

    prompt = f"{request.message}\n"
    taken = size(prompt) + 1
    if most is not None and taken > most:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`message` takes {taken:,} tokens, and this model reads {most:,} at once: write less.",
        )
    for place, turn in enumerate(reversed(turns)):
        text = f"{turn.message}\n{turn.answer}\n"
        taken += size(text)
        if taken > longest_prompt:
            return _continuing(request, prompt), len(turns) - place
        prompt = text + prompt
    return _continuing(request, prompt), 0


def chat_answer(response: ChatResponse, written: GenerateResponse) -> ChatResponse:
    """What was written, as an answer."""
    if written.outputs is None or written.steps is None or written.stop_reason is None:
        failed: dict[str, object] = {"status": "failed", "error": written.error}
        return response.model_copy(update=failed)
    update: dict[str, object] = {
        "status": "completed",
        "answer": written.outputs[0],
        "steps": written.steps[0],
        "stop_reason": written.stop_reason[0],
        "prompt_tokens": written.prompt_tokens,
        "unk_count": written.unk_count,
        "seed_used": written.seed_used,
    }
    return response.model_copy(update=update)


def _continuing(request: ChatRequest, prompt: str) -> GenerateRequest:
    options: dict[str, object] = request.model_dump(include=set(SamplingOptions.model_fields))
    return parse(GenerateRequest, {**options, "prompt_text": prompt})
