"""Greedy or sampled continuations of prompts: all sequences in one batch, each with its own random stream."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from secrets import randbits
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    SamplingOptions,
    cancelled_error,
)
from trainer.data.normalization import documents, normalized
from trainer.models.base import LanguageModel, ModelState, concatenate_states, select_rows
from trainer.tokenizers.base import Tokenizer

_MAX_POSITIONS = 1 << 12
_FINITE = torch.finfo(torch.float64)
_CONTEXT_TOKENS = 256
"""Tokens of the prompt's last line that are decoded with the output: they decide on a space before it, for example."""
_MIN_TEMPERATURE = 1e-6


class Prompt(NamedTuple):
    """A text to continue: its lines are complete, except for the last one, which may be empty."""

    ids: list[int]
    """As in training: each line from [BOS] (or the [EOS] of the line before) to [EOS]."""
    lines: list[list[int]]

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.lines))

    def unk_count(self, tokenizer: Tokenizer) -> int:
        return sum(line.count(tokenizer.special_ids.unk) for line in self.lines)


def read_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """Encode a text to continue. Blank lines are left out, except for the last one."""
    *complete, last = normalized(text, tokenizer.normalization).split("\n")
    lines = [*(tokenizer.encode(line.text) for line in documents("\n".join(complete))), tokenizer.encode(last)]
    special_ids = tokenizer.special_ids
    opening = [] if special_ids.bos is None else [special_ids.bos]
    ids = [i for line in lines for i in (*opening, *line, special_ids.eos)][:-1]
    return Prompt(ids if opening else [special_ids.start, *ids], lines)


def generate(
    model: LanguageModel, tokenizer: Tokenizer, request: GenerateRequest, *, run_id: str, request_id: str
) -> GenerateResponse:
    """Continue one prompt, as `generate_together` does. Raises INVALID_INPUT if no token is allowed."""
    response = GenerateResponse(request_id=request_id, run_id=run_id, status="queued")
    job = GenerationJob(model, tokenizer, request, response)
    [completed] = [answer for answer in generate_together(model, [job]) if isinstance(answer, GenerateResponse)]
    return completed


def generate_together(
    model: LanguageModel, jobs: "Sequence[GenerationJob]", *, withdrawn: Callable[[], Collection[str]] = tuple
) -> Iterator[GenerateResponse | GenerateChunk]:
    """Continue prompts side by side. The model was trained with causal_lm.

    Yields each response as soon as its last sequence has finished, and before it the chunks of a streamed job. The last
    line of a prompt is open, earlier lines end in [EOS]. With `stop_on_eos` false, a sampled [EOS] is a newline of the
    output, and the next line begins. The output is cut before the first stop sequence; a stop sequence does not begin
    in the prompt. Sequence i of a request depends only on the seed of the request and on i. `steps` counts the sampled
    tokens, [EOS] included. A sequence ends where the model's context is full. After each token, the requests whose ids
    are `withdrawn` end as CANCELLED.
    """
    model.eval()
    active = list(jobs)
    yield from (answer for job in active for answer in job.drain())
    active = [job for job in active if job.live]
    if not active:
        return
    logits, state = _read_prompts(model, active)
    while active:
        sequences = [sequence for job in active for sequence in job.live]
        with torch.inference_mode():
            of_jobs = torch.split(logits, [len(job.live) for job in active])
            ids = [i for job, rows in zip(active, of_jobs, strict=True) for i in job.sample(rows)]
        cancelled = withdrawn()
        for job in active:
            job.is_cancelled = job.request_id in cancelled
            yield from job.drain()
        rows = [row for row, sequence in enumerate(sequences) if sequence.is_live]
        active = [job for job in active if job.live]
        if len(rows) < len(ids):
            ids, state = [ids[row] for row in rows], select_rows(state, rows)
        if active:
            logits, state = _feed(model, ids, state)


def filtered_probabilities(logits: Tensor, request: SamplingOptions) -> tuple[Tensor, Tensor]:
    """Return the distribution (n, V) to sample from, likeliest first, and the ids (n, V) in that order.

    Applies the temperature, then keeps the `top_k` likeliest tokens (of equals the lower id), then the fewest of them
    that make up `top_p` of the rest.
    """
    scaled = (logits - logits.amax(-1, keepdim=True)) / max(request.temperature, _MIN_TEMPERATURE)
    probabilities, ids = torch.sort(scaled.softmax(-1), dim=-1, descending=True, stable=True)
    if request.top_k:
        probabilities[:, request.top_k :] = 0
        probabilities /= probabilities.sum(-1, keepdim=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= request.top_p] = 0
    return probabilities / probabilities.sum(-1, keepdim=True), ids


def choose(logits: Tensor, request: SamplingOptions, draws: Tensor) -> list[int]:
    """Choose an id for each row of logits (n, V): the likeliest at temperature 0, else by the draws (n,) in [0, 1)."""
    if request.temperature == 0:
        chosen = logits.argmax(-1)
    else:
        probabilities, ids = filtered_probabilities(logits, request)
        possible = (probabilities > 0).sum(-1, keepdim=True)
        rank = (probabilities.cumsum(-1) <= draws.unsqueeze(-1)).sum(-1, keepdim=True)
        chosen = ids.gather(-1, rank.minimum(possible - 1)).squeeze(-1)
    chosen_ids: list[int] = chosen.tolist()
    return chosen_ids


class GenerationJob:
    """A request and its sequences."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        request: GenerateRequest,
        response: GenerateResponse,
        *,
        is_streamed: bool = False,
    ) -> None:
        """Raises INVALID_INPUT if a banned token is not in the vocabulary, or if no token is allowed."""
        self.request_id = response.request_id
        self.tokenizer = tokenizer
        self.request = request
        self._response = response
        self._is_streamed = is_streamed
        self.prompt = read_prompt(tokenizer, request.prompt_text or "")
        self._never_sampled = never_sampled(tokenizer, request)
        self.seed = randbits(32) if request.seed is None else request.seed
        self.is_cancelled = False
        self.sequences = [
            _Sequence(self, number, model.context_tokens) for number in range(request.num_return_sequences)
        ]

    @property
    def live(self) -> "list[_Sequence]":
        """The sequences that have not finished."""
        return [sequence for sequence in self.sequences if sequence.is_live]

    def sample(self, logits: Tensor) -> list[int]:
        """Choose the next id of each live sequence by its row of the logits (n, V)."""
        live = self.live
        logits = logits.double().cpu()
        log_p = logits.log_softmax(-1) if self.request.logprobs else None
        penalized = _penalize_repetition(logits, live, self.request)
        penalized[:, self._never_sampled] = -math.inf
        draws = [sequence.generator.random() for sequence in live]
        ids = choose(penalized, self.request, torch.tensor(draws, dtype=torch.float64))
        for row, (sequence, token_id) in enumerate(zip(live, ids, strict=True)):
            sequence.append(token_id)
            if log_p is not None:
                sequence.logprobs.append(float(log_p[row, token_id]))
        return ids

    def drain(self) -> Iterator[GenerateResponse | GenerateChunk]:
        """Yield the new chunks of a streamed job, and the response of a finished one."""
        if self._is_streamed:
            for sequence in self.sequences:
                yield from sequence.next_chunk()
        if self.is_cancelled:
            yield changed(self._response, status="failed", error=RunError.of(cancelled_error()))
        elif not self.live:
            reasons = tuple(sequence.stop_reason for sequence in self.sequences)
            logprobs = tuple(tuple(sequence.logprobs) for sequence in self.sequences)
            yield changed(
                self._response,
                status="completed",
                outputs=tuple(sequence.text for sequence in self.sequences),
                steps=tuple(sequence.steps for sequence in self.sequences),
                eos_terminated=tuple(reason == "eos" for reason in reasons),
                stop_reason=reasons,
                prompt_tokens=self.prompt.n_tokens,
                unk_count=self.prompt.unk_count(self.tokenizer),
                seed_used=self.seed,
                logprobs=logprobs if self.request.logprobs else None,
            )


def never_sampled(tokenizer: Tokenizer, request: GenerateRequest) -> list[int]:
    """Return the ids that a request excludes: special tokens but [EOS], banned tokens, and tokens of other characters.

    If [EOS] is a newline of the output, the newline must be in the alphabet. Raises INVALID_INPUT if a banned token is
    not in the vocabulary, or if no token is allowed.
    """
    ids, texts = tokenizer.special_ids, tokenizer.texts
    never = set(ids.never_sampled)
    named = list(enumerate(zip(tokenizer.names, texts, strict=True)))
    for banned in request.banned_tokens:
        token = normalized(banned, tokenizer.normalization)
        found = {i for i, (name, text) in named if token in (name, text) or text == f" {token}"}
        if not found:
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"`banned_tokens`: {banned!r} is no token of this model. Ban the tokens that spell it.",
            )
        never |= found
    if request.alphabet is not None:
        letters = set(request.alphabet + normalized(request.alphabet, tokenizer.normalization))
        never |= {i for i, text in enumerate(texts) if text and not letters.issuperset(text)}
        if not request.stop_on_eos and "\n" not in letters:
            never.add(ids.eos)
    if never.issuperset(i for i, text in enumerate(texts) if text):
        raise AppError(
            ErrorCode.INVALID_INPUT, "`alphabet` and `banned_tokens` leave this model no token to write: allow more."
        )
    return sorted(never)


class _Sequence:
    """One continuation of a prompt."""

    def __init__(self, job: GenerationJob, number: int, context_tokens: int | None) -> None:
        self._job = job
        self._number = number
        self._tokenizer = job.tokenizer
        self.generator = np.random.Generator(np.random.PCG64([job.seed, number]))
        self._room = math.inf if context_tokens is None else context_tokens - len(job.prompt.ids)
        self._stops = [normalized(stop, job.tokenizer.normalization) for stop in job.request.stop_sequences]
        self._complete_lines = ""
        self._line = job.prompt.lines[-1][-_CONTEXT_TOKENS:]
        self._prompt_characters = len(job.tokenizer.decode(self._line))
        self.context = list(job.prompt.ids)
        self.text = ""
        self.steps = 0
        self.logprobs: list[float] = []
        self.stop_reason: FinishReason | None = "context_full" if self._room < 0 else None
        self._sent: tuple[int, FinishReason | None] = 0, None

    @property
    def is_live(self) -> bool:
        return self.stop_reason is None and not self._job.is_cancelled

    def append(self, token_id: int) -> None:
        """Add a sampled token to a live sequence."""
        self.steps += 1
        self._room -= 1
        self.context.append(token_id)
        is_end = token_id == self._tokenizer.special_ids.eos
        if is_end and self._job.request.stop_on_eos:
            self.stop_reason = "eos"
            return
        if is_end:
            self._complete_lines, self._line, self._prompt_characters = self.text + "\n", [], 0
            self._room -= self._tokenizer.special_ids.bos is not None  # for the [BOS] of the next line
        else:
            self._line.append(token_id)
        self.text = self._complete_lines + self._tokenizer.decode(self._line)[self._prompt_characters :]
        found = [position for stop in self._stops if (position := self.text.find(stop)) >= 0]
        if found:
            self.text, self.stop_reason = self.text[: min(found)], "stop_sequence"
        elif self.steps == self._job.request.max_new_tokens:
            self.stop_reason = "max_new_tokens"
        elif self._room < 0:
            self.stop_reason = "context_full"

    def next_chunk(self) -> Iterator[GenerateChunk]:
        """Yield the text since the last chunk, or the reason of the end, if there is anything new.

        Characters that may begin a stop sequence wait until that is decided.
        """
        start, end = self._sent[0], len(self.text) - (0 if self.stop_reason else self._undecided())
        if self._sent != (end, self.stop_reason):
            self._sent = end, self.stop_reason
            yield GenerateChunk(
                request_id=self._job.request_id,
                index=self._number,
                start=start,
                text=self.text[start:end],
                stop_reason=self.stop_reason,
            )

    def _undecided(self) -> int:
        """Return the length of the longest end of the text with which a stop sequence begins."""
        longest = min(len(self.text), max(map(len, self._stops), default=0))
        ends = (n for n in range(longest, 0, -1) if any(stop.startswith(self.text[-n:]) for stop in self._stops))
        return next(ends, 0)


def _read_prompts(model: LanguageModel, jobs: list[GenerationJob]) -> tuple[Tensor, ModelState]:
    """Return the logits (n, V) after the prompt of each sequence, and the state there."""
    logits: list[Tensor] = []
    states: list[ModelState] = []
    with torch.inference_mode():
        for job in jobs:
            last, state = read_on(model, job.prompt.ids, model.initial_state(1))
            logits.append(last.repeat(len(job.sequences), 1))
            states.append(tuple(part.repeat_interleave(len(job.sequences), dim=1) for part in state))
        return torch.cat(logits), concatenate_states(states)


def read_on(model: LanguageModel, token_ids: list[int], state: ModelState) -> tuple[Tensor, ModelState]:
    """Return the logits (1, V) and the state after more ids, at least one, of one sequence."""
    ids = torch.tensor(token_ids, device=model.input_embedding().weight.device).unsqueeze(0)
    logits = torch.empty(0)
    with torch.inference_mode():
        for start in range(0, len(token_ids), _MAX_POSITIONS):
            logits, state = model.forward_with_state(ids[:, start : start + _MAX_POSITIONS], state)
    return logits[:, -1], state


def _feed(model: LanguageModel, ids: list[int], state: ModelState) -> tuple[Tensor, ModelState]:
    """Return the logits (n, V) and the state after one more id per sequence, and after the [BOS] that follows [EOS]."""
    special_ids, device = model.vocabulary.special_ids, state[0].device
    with torch.inference_mode():
        logits, state = model.forward_with_state(torch.tensor(ids, device=device).unsqueeze(-1), state)
        rows = [row for row, token_id in enumerate(ids) if token_id == special_ids.eos]
        if rows and special_ids.bos is not None:
            opening = torch.full((len(rows), 1), special_ids.bos, device=device)
            opened_logits, opened_state = model.forward_with_state(opening, select_rows(state, rows))
            logits[torch.tensor(rows, device=device)] = opened_logits
            others = [row for row in range(len(ids)) if row not in rows]
            order: list[int] = np.argsort([*others, *rows]).tolist()
            state = select_rows(concatenate_states([select_rows(state, others), opened_state]), order)
        return logits[:, -1], state


def _penalize_repetition(logits: Tensor, sequences: list[_Sequence], request: SamplingOptions) -> Tensor:
    """Make the tokens of the repetition window less likely (Keskar et al. 2019)."""
    if request.repetition_penalty is not None:
        for row, sequence in enumerate(sequences):
            window_ids: list[int] = sorted(set(sequence.context[-request.repetition_window :]))
            window = torch.tensor(window_ids)
            seen = logits[row, window]
            penalized = torch.where(seen > 0, seen / request.repetition_penalty, seen * request.repetition_penalty)
            logits[row, window] = penalized.clamp(_FINITE.min, _FINITE.max)
    return logits
