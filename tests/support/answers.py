"""Answers of a model in this process, what one forward pass says of them, and models whose answers are known."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tests.support.families import vocabulary
from tests.support.tiny_models import POEM, TableModel, char_tokenizer, tensor_of, tokenizer_of
from trainer.config.validation import parse
from trainer.contracts.generations import GenerateChunk, GenerateRequest, GenerateResponse
from trainer.contracts.scores import ScoreRequest, ScoreResponse
from trainer.inference.generation import GenerationJob, generate_together
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

LETTERS = char_tokenizer(["abcdefgh"])
WITH_MASK = char_tokenizer(["abcdefgh"], mask_token=True)
BOS, EOS, MASK = 2, 3, 4
WORD_START = {"bpe": " ", "wordpiece": " ", "sentencepiece": "\u2581"}
"""The space at the start of the tokens that begin a word, by method; other methods have no such tokens."""


def small_tokenizer(method: str, documents: str = "line") -> Tokenizer:
    """A tokenizer of lines with letters and signs of several scripts."""
    size = None if method in ("char", "byte", "word") else 120
    lines = [*POEM, "Ağaç, ёлка: “quoted” (twice) 1871."]
    return tokenizer_of(method, lines, vocab_size=size, documents=documents)


def scoring_job(tokenizer: Tokenizer, text: str, /, **values: object) -> ScoringJob:
    request = parse(ScoreRequest, {"text": text, "detail_level": "per_char", **values})
    return ScoringJob.of(tokenizer, request, ScoreResponse(request_id="request", run_id="run", status="queued"))


def score(model: LanguageModel, tokenizer: Tokenizer, text: str, /, **values: object) -> ScoreResponse:
    [response] = score_texts(model, tokenizer, [scoring_job(tokenizer, text, **values)])
    return response


def scored_nats(response: ScoreResponse) -> list[float]:
    """The surprisals of the tokens that have one."""
    return [value for value in response.surprisal or () if value is not None]


def write(model: LanguageModel, tokenizer: Tokenizer = LETTERS, /, **values: object) -> GenerateResponse:
    """Continue a prompt."""
    [response] = write_together(model, tokenizer, values)
    assert isinstance(response, GenerateResponse)
    return response


def write_together(
    model: LanguageModel,
    tokenizer: Tokenizer,
    *requests: Mapping[str, object],
    is_streamed: bool = False,
    withdrawn: tuple[str, ...] = (),
) -> list[GenerateResponse | GenerateChunk]:
    """Continue prompts side by side, with chunks if streamed; the requests have the ids r0, r1, …"""
    jobs = [
        GenerationJob(
            model,
            tokenizer,
            parse(GenerateRequest, {"prompt_text": "", **values}),
            GenerateResponse(request_id=f"r{number}", run_id="run", status="queued"),
            is_streamed=is_streamed,
        )
        for number, values in enumerate(requests)
    ]
    return list(generate_together(model, jobs, withdrawn=lambda: withdrawn))


def check_chunks(answers: Sequence[object], index: int, text: str) -> list[GenerateChunk]:
    """Return the chunks of a continuation, which are its text in order; only the last has an end and may be empty."""
    chunks = [answer for answer in answers if isinstance(answer, GenerateChunk) and answer.index == index]
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.start for chunk in chunks] == [sum(len(c.text) for c in chunks[:n]) for n in range(len(chunks))]
    assert [chunk.stop_reason is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert all(chunk.text for chunk in chunks[:-1])
    return chunks


def log_probabilities(model: LanguageModel, ids: Sequence[int]) -> list[list[float]]:
    """ln p of every token after each id, from one forward pass: a row for each id."""
    with torch.inference_mode():
        rows: list[list[float]] = model.forward(tensor_of([list(ids)]))[0].double().log_softmax(-1).tolist()
    return rows


def surprisals(model: LanguageModel, ids: Sequence[int]) -> list[float]:
    """-ln p of each id but the first, from one forward pass."""
    answers = log_probabilities(model, ids[:-1]) if len(ids) > 1 else []
    return [-answer[target] for answer, target in zip(answers, ids[1:], strict=True)]


def continue_greedily(model: LanguageModel, tokenizer: Tokenizer, ids: Sequence[int], steps: int) -> list[int]:
    """The likeliest token that may be sampled, each time of a complete forward pass; a new line begins after an end."""
    special, read, written = tokenizer.special_ids, list(ids), list[int]()
    for _ in range(steps):
        answers = log_probabilities(model, read)[-1]
        best = max((i for i in range(len(answers)) if i not in special.never_sampled), key=answers.__getitem__)
        read += [best, special.bos] if best == special.eos and special.bos is not None else [best]
        written.append(best)
    return written


class Script(TableModel):
    """A model whose next token after each one is given."""

    def __init__(self, follows: Mapping[int, int], size: int = LETTERS.vocab_size) -> None:
        super().__init__(vocabulary(size))
        self.table = torch.full((size, size), -100.0)
        for token in range(size):
            self.table[token, follows.get(token, EOS)] = 100.0

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.table[ids]


def spelling(text: str) -> Script:
    """A model that writes this text of different letters after [BOS], then [EOS]."""
    return Script(dict(pairwise([BOS, *LETTERS.encode(text), EOS])))
