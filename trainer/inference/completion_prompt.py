"""Prompts of completions: the ids that a model reads, and the part of the prompt's text that each id has."""

from itertools import accumulate
from typing import NamedTuple

from trainer.contracts.completions import CompletionPrompt
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.normalization import documents, normalized
from trainer.inference.generation import Prompt, read_prompt
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer


class PromptText(NamedTuple):
    """A prompt with its text, as an echo shows it.

    A text is normalized; its tokens are those of its lines, with an [EOS], or the newline of a stream, for each
    complete line. Of token ids every one is a token; special tokens have no text. The model reads the start token
    before them, unless they begin with it.
    """

    prompt: Prompt
    text: str
    shown: list[int]
    """The positions of the tokens in the ids that the model reads, without start tokens that were added."""
    offsets: list[int]
    """The position in the text at which each token begins. White space that no token has belongs to the next token."""


def read_completion_prompt(model: LanguageModel, tokenizer: Tokenizer, prompt: CompletionPrompt) -> PromptText:
    """Encode a text as a generation does, or check token ids.

    Raises INVALID_INPUT for an id outside the vocabulary, or for a prompt longer than the model's context.
    """
    read = _read_text(tokenizer, prompt) if isinstance(prompt, str) else _read_ids(tokenizer, list(prompt))
    tokens, context = len(read.prompt.ids), model.context_tokens
    if context is not None and tokens > context:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`prompts`: a prompt has {tokens:,} tokens, and this model reads at most {context:,}. Give only its end.",
        )
    return read


def _read_text(tokenizer: Tokenizer, prompt: str) -> PromptText:
    read, bos = read_prompt(tokenizer, prompt), tokenizer.special_ids.line_start
    text = normalized(prompt, tokenizer.normalization)
    if tokenizer.documents == "stream":
        return PromptText(read, text, list(range(1, len(read.ids))), _offsets(tokenizer, text, 0))
    *complete, last = text.split("\n")
    offsets: list[int] = []
    for line in documents("\n".join(complete)):
        offsets += [*_offsets(tokenizer, line.text, line.start), line.start + len(line.text)]
    offsets += _offsets(tokenizer, last, len(text) - len(last))
    shown = [position for position, token_id in enumerate(read.ids) if position and token_id != bos]
    return PromptText(read, text, shown, offsets)


def _offsets(tokenizer: Tokenizer, line: str, start: int) -> list[int]:
    """Return where the tokens of a line begin: each where the token before it ends."""
    ends = [end for _, end in tokenizer.spans(line)]
    return [start + before for before in [0, *ends][:-1]]


def _read_ids(tokenizer: Tokenizer, ids: list[int]) -> PromptText:
    size = tokenizer.vocab_size
    for token_id in ids:
        if token_id >= size:
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"`prompts`: the token id {token_id} is not in the vocabulary of {size:,} tokens.",
            )
    pieces = tokenizer.pieces(ids)
    offsets = list(accumulate(map(len, pieces), initial=0))[:-1]
    start = [tokenizer.special_ids.start]
    read = ids if ids[:1] == start else [*start, *ids]
    shown = list(range(len(read) - len(ids), len(read)))
    return PromptText(Prompt(read, [ids]), "".join(pieces), shown, offsets)
