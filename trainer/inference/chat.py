"""Chats with a model: each message and each answer is one line of text, and the model continues after the last one."""

from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.chats import ChatRequest, ChatResponse, ChatTurn
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRequest, GenerateResponse, SamplingOptions
from trainer.contracts.inference_fields import MAX_PROMPT_CHARACTERS
from trainer.inference.generation import read_prompt
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer


def chat_prompt(
    model: LanguageModel, tokenizer: Tokenizer, request: ChatRequest, turns: tuple[ChatTurn, ...]
) -> tuple[GenerateRequest, int]:
    """Return the request to generate an answer, and the number of oldest turns that did not fit.

    The prompt is all turns and the message, each closed with a newline, so that the answer is one line. A model with a
    limited context keeps room for the longest answer; for other models, a prompt has at most MAX_PROMPT_CHARACTERS.
    In a stream, a newline stops the answer. Raises INVALID_INPUT for a message that is too long by itself, or for more
    stop sequences than a generation has.
    """
    context = model.context_tokens
    max_prompt = MAX_PROMPT_CHARACTERS if context is None else context + 1 - request.max_new_tokens

    def size(text: str) -> int:
        return len(text) if context is None else len(read_prompt(tokenizer, text).ids) - 1

    prompt = f"{request.message}\n"
    used = size(prompt) + 1
    if context is not None and used > context:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`message` has {used:,} tokens, and this model reads at most {context:,}. Write a shorter message.",
        )
    n_dropped = 0
    for number, turn in enumerate(reversed(turns)):
        text = f"{turn.message}\n{turn.answer}\n"
        used += size(text)
        if used > max_prompt:
            n_dropped = len(turns) - number
            break
        prompt = text + prompt
    options: dict[str, object] = request.model_dump(include=set(SamplingOptions.model_fields))
    if tokenizer.documents == "stream":
        options["stop_sequences"] = (*request.stop_sequences, "\n")
    return parse(GenerateRequest, {**options, "prompt_text": prompt}), n_dropped


def chat_answer(response: ChatResponse, generated: GenerateResponse) -> ChatResponse:
    """Complete the response of a chat with generated text, or with its error."""
    if generated.outputs is None or generated.steps is None or generated.stop_reason is None:
        return changed(response, status="failed", error=generated.error)
    return changed(
        response,
        status="completed",
        answer=generated.outputs[0],
        steps=generated.steps[0],
        stop_reason=generated.stop_reason[0],
        prompt_tokens=generated.prompt_tokens,
        unk_count=generated.unk_count,
        seed_used=generated.seed_used,
    )
