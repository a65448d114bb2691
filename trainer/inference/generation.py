"""Greedy or sampled continuations of prompts: all sequences in one batch, each with its own random stream."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, chain, groupby
from secrets import randbits
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    GenerationPrecision,
    cancelled_error,
)
from trainer.data.normalization import documents, normalized
from trainer.inference.sampling import Doubles, choose, likeliest, log_softmax, of_ids, penalize_repetition
from trainer.models.base import LanguageModel, ModelState, Steps, as_floats, concatenate_states
from trainer.models.linear import Floats
from trainer.models.transformer_steps import multiply_in_bf16
from trainer.tokenizers.base import Tokenizer

_MAX_POSITIONS = 1 << 12
_CONTEXT_TOKENS = 256
"""Tokens of the prompt's last line that are decoded with the output: they decide on a space before it, for example."""


class Prompt(NamedTuple):
    """A text to continue: its lines are complete, except for the last one, which may be empty."""

    ids: list[int]
    """As in training: each line from [BOS] (or the end of the line before) to [EOS], or to the newline of a stream."""
    lines: list[list[int]]
    """The tokens of each line, in a stream with its newline."""

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.lines))

    def unk_count(self, tokenizer: Tokenizer) -> int:
        return sum(line.count(tokenizer.special_ids.unk) for line in self.lines)


def read_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """Encode a text to continue. Blank lines are left out, except for the last one and those of a stream."""
    *complete, last = normalized(text, tokenizer.normalization).split("\n")
    special_ids = tokenizer.special_ids
    if special_ids.newline is not None:
        lines = [*([*tokenizer.encode(line), special_ids.newline] for line in complete), tokenizer.encode(last)]
        return Prompt([special_ids.start, *chain.from_iterable(lines)], lines)
    lines = [*(tokenizer.encode(line.text) for line in documents("\n".join(complete))), tokenizer.encode(last)]
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
    """Continue prompts side by side. The model was trained with causal_lm, and the jobs have one precision.

    Yields each response as soon as its last sequence has finished, and before it the chunks of a streamed job. The last
    line of a prompt is open, earlier lines end in [EOS]. With `stop_on_eos` false, a sampled [EOS] is a newline of the
    output, and the next line begins. So is each newline of a stream, which has no [EOS]. The output is cut before the
    first stop sequence; a stop sequence does not begin in the prompt. Sequence i of a job depends only on the seed, on
    the number of the prompt and on i. `steps` counts the sampled tokens, [EOS] included. A sequence ends where the
    model's context is full. After each token, the requests whose ids are `withdrawn` end as CANCELLED.
    """
    model.eval()
    active = list(jobs)
    yield from (answer for job in active for answer in job.drain())
    active = [job for job in active if job.live]
    if not active:
        return
    logits, steps = _read_prompts(model, active)
    groups = _groups(active)
    while active:
        ids: list[int] = []
        for group in groups:
            ids += _sample(group, logits[len(ids) :])
        cancelled = withdrawn()
        for job in active:
            job.is_cancelled = job.request_id in cancelled
        rows = [row for row, sequence in enumerate(chain.from_iterable(groups)) if sequence.is_live]
        have_all = len(rows) == len(ids)
        for job in active:
            if job.is_streamed or not have_all:
                yield from job.drain()
        if not have_all:
            ids = [ids[row] for row in rows]
            steps.keep(rows)
            active = [job for job in active if job.live]
            groups = _groups(active)
        if active:
            logits = _feed(model, steps, ids)


class _Options(NamedTuple):
    """Options of a request that choose a token; sequences with the same options are sampled together."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float | None
    repetition_window: int
    logprobs: bool
    top_logprobs: int
    never_sampled: tuple[int, ...]


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
        prompt: Prompt | None = None,
        prompt_number: int = 0,
        top_logprobs: int = 0,
    ) -> None:
        """Check the request against the model.

        A request with several prompts is several jobs, each with its number. `prompt` replaces the request's text. Each
        sequence has the `top_logprobs` likeliest tokens of each step, if the request has `logprobs`.

        Raises INVALID_INPUT if a banned token is not in the vocabulary, if no token is allowed, or for bf16 where the
        model or this machine's CPU does not generate in it.
        """
        check_precision(model, request.precision)
        self.request_id = response.request_id
        self.tokenizer = tokenizer
        self.request = request
        self._response = response
        self.is_streamed = is_streamed
        self.prompt = read_prompt(tokenizer, request.prompt_text or "") if prompt is None else prompt
        self.options = _Options(
            request.temperature,
            request.top_k,
            request.top_p,
            request.repetition_penalty,
            request.repetition_window,
            request.logprobs,
            top_logprobs,
            tuple(never_sampled(tokenizer, request)),
        )
        self.is_barred: NDArray[np.bool_] = np.zeros(model.vocab_size, dtype=np.bool_)
        """True for a token that is never sampled."""
        self.is_barred[list(self.options.never_sampled)] = True
        self.seed = randbits(32) if request.seed is None else request.seed
        self.is_cancelled = False
        self.sequences = [
            Continuation(self, prompt_number, number, model.context_tokens)
            for number in range(request.num_return_sequences)
        ]

    @property
    def live(self) -> "list[Continuation]":
        """The sequences that have not finished."""
        return [sequence for sequence in self.sequences if sequence.is_live]

    def drain(self) -> Iterator[GenerateResponse | GenerateChunk]:
        """Yield the new chunks of a streamed job, and the response of a finished one."""
        if self.is_streamed:
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
                precision=self.request.precision,
            )


def check_precision(
    model: LanguageModel, precision: GenerationPrecision, *, trial: Callable[[], None] = multiply_in_bf16
) -> None:
    """Raise INVALID_INPUT if the model or this machine's CPU does not generate in a precision."""
    if precision == "fp32":
        return
    if not model.generates_in_bf16:
        raise AppError(ErrorCode.INVALID_INPUT, "`precision` must be 'fp32': recurrent models generate in fp32 only.")
    try:
        trial()
    except RuntimeError:
        message = "`precision` must be 'fp32': this machine's CPU cannot multiply in bf16."
        raise AppError(ErrorCode.INVALID_INPUT, message) from None


def never_sampled(tokenizer: Tokenizer, request: GenerateRequest) -> list[int]:
    """Return the ids that a request excludes: special tokens but [EOS], banned tokens, and tokens of other characters.

    If [EOS] is a newline of the output, the newline must be in the alphabet. Raises INVALID_INPUT if a banned token is
    not in the vocabulary, or if no token is allowed.
    """
    ids, texts = tokenizer.special_ids, tokenizer.texts
    never = set(ids.never_sampled)
    for banned in request.banned_tokens:
        token = normalized(banned, tokenizer.normalization)
        named = enumerate(zip(tokenizer.names, texts, strict=True))
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
        in_letters = set("".join(letters).encode(errors="surrogatepass"))
        never |= {i for i, byte in tokenizer.byte_values.items() if byte not in in_letters}
        if not request.stop_on_eos and "\n" not in letters:
            never.add(ids.line_end)
    if never.issuperset([*(i for i, text in enumerate(texts) if text), *tokenizer.byte_values]):
        raise AppError(
            ErrorCode.INVALID_INPUT, "`alphabet` and `banned_tokens` leave this model no token to write: allow more."
        )
    return sorted(never)


class Continuation:
    """One continuation of a prompt."""

    def __init__(self, job: GenerationJob, prompt_number: int, number: int, context_tokens: int | None) -> None:
        self.job = job
        self._number = prompt_number * job.request.num_return_sequences + number
        self._tokenizer = job.tokenizer
        self.generator = np.random.Generator(np.random.PCG64([job.seed, number, prompt_number]))
        self._room = math.inf if context_tokens is None else context_tokens - len(job.prompt.ids)
        self._stops = [normalized(stop, job.tokenizer.normalization) for stop in job.request.stop_sequences]
        self._complete_lines = ""
        self._line = job.prompt.lines[-1][-_CONTEXT_TOKENS:]
        self._prompt_characters = len(job.tokenizer.decode(self._line))
        self.context = list(job.prompt.ids)
        self._text_before_stop: str | None = None
        self.steps = 0
        self.logprobs: list[float] = []
        self.top_logprobs: list[list[tuple[int, float]]] = []
        """The likeliest tokens of each step with their log probabilities, if the job asks for them."""
        self.stop_reason: FinishReason | None = "context_full" if self._room < 0 else None
        self._sent: tuple[int, FinishReason | None] = 0, None

    @property
    def is_live(self) -> bool:
        return self.stop_reason is None and not self.job.is_cancelled

    @property
    def text(self) -> str:
        """The output, decoded when it is asked for: most requests need it only at their end."""
        if self._text_before_stop is not None:
            return self._text_before_stop
        return self._complete_lines + self._tokenizer.decode(self._line)[self._prompt_characters :]

    @property
    def sampled(self) -> list[int]:
        return self.context[len(self.job.prompt.ids) :]

    def offsets(self) -> list[int]:
        """Return the position in the output, before it is cut, at which each sampled token begins.

        The request has `stop_on_eos`, so that the output is one line, or a stream.
        """
        before = self.job.prompt.lines[-1][-_CONTEXT_TOKENS:]
        pieces = self._tokenizer.pieces([*before, *self.sampled])
        starts = list(accumulate(map(len, pieces), initial=-self._prompt_characters))
        return starts[len(before) : -1]

    def append(self, token_id: int) -> None:
        """Add a sampled token to a live sequence."""
        self.steps += 1
        self._room -= 1
        self.context.append(token_id)
        is_end = token_id == self._tokenizer.special_ids.line_end
        if is_end and self.job.request.stop_on_eos and self._tokenizer.documents == "line":
            self.stop_reason = "eos"
            return
        if is_end:
            self._complete_lines, self._line, self._prompt_characters = self.text + "\n", [], 0
            self._room -= self._tokenizer.special_ids.line_start is not None  # for the [BOS] of the next line
        else:
            self._line.append(token_id)
        if self._stops:
            text = self.text
            found = [position for stop in self._stops if (position := text.find(stop)) >= 0]
            if found:
                self._text_before_stop, self.stop_reason = text[: min(found)], "stop_sequence"
                return
        if self.steps == self.job.request.max_new_tokens:
            self.stop_reason = "max_new_tokens"
        elif self._room < 0:
            self.stop_reason = "context_full"

    def next_chunk(self) -> Iterator[GenerateChunk]:
        """Yield the text since the last chunk, or the reason of the end, if there is anything new.

        Characters that may begin a stop sequence wait until that is decided.
        """
        text = self.text
        start, end = self._sent[0], len(text) - (0 if self.stop_reason else self._undecided(text))
        if self._sent != (end, self.stop_reason):
            self._sent = end, self.stop_reason
            yield GenerateChunk(
                request_id=self.job.request_id,
                index=self._number,
                start=start,
                text=text[start:end],
                stop_reason=self.stop_reason,
            )

    def _undecided(self, text: str) -> int:
        """Return the length of the longest end of the text with which a stop sequence begins."""
        longest = min(len(text), max(map(len, self._stops), default=0))
        ends = (n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops))
        return next(ends, 0)


def _options_of(job: GenerationJob) -> _Options:
    return job.options


def _groups(jobs: Sequence[GenerationJob]) -> "list[list[Continuation]]":
    """Return the live sequences, those of neighbouring jobs with the same options in one group."""
    return [[sequence for job in alike for sequence in job.live] for _, alike in groupby(jobs, key=_options_of)]


def _sample(live: "Sequence[Continuation]", logits: Floats) -> list[int]:
    """Choose the next id of each sequence of a group, by the first rows of the logits."""
    job = live[0].job
    options = job.options
    doubles: Doubles = logits[: len(live)].astype(np.float64)
    log_p = log_softmax(doubles) if options.logprobs else None
    if options.repetition_penalty is not None:
        seen = [sequence.context[-options.repetition_window :] for sequence in live]
        penalize_repetition(doubles, seen, options.repetition_penalty)
    np.copyto(doubles, -math.inf, where=job.is_barred)
    ids = choose(doubles, job.request, [sequence.generator.random() for sequence in live])
    for sequence, token_id in zip(live, ids, strict=True):
        sequence.append(token_id)
    if log_p is not None:
        for sequence, value in zip(live, of_ids(log_p, ids), strict=True):
            sequence.logprobs.append(value)
        if options.top_logprobs:
            for sequence, top in zip(live, likeliest(log_p, options.top_logprobs), strict=True):
                sequence.top_logprobs.append(top)
    return ids


def _read_prompts(model: LanguageModel, jobs: list[GenerationJob]) -> tuple[Floats, Steps]:
    """Return the logits (n, V) after the prompt of each sequence, and the steps from there."""
    begin = model.bf16_steps if jobs[0].request.precision == "bf16" else model.steps
    prompts = [tuple(job.prompt.ids) for job in jobs]
    if all(len(prompt) == 1 for prompt in prompts):  # without a text: a step takes less than the first pass
        ids = [prompt[0] for prompt, job in zip(prompts, jobs, strict=True) for _ in job.sequences]
        steps = begin(model.initial_state(len(ids)))
        return steps.read(ids, range(len(ids))), steps
    read = {prompt: read_on(model, list(prompt), model.initial_state(1)) for prompt in set(prompts)}
    after = [(read[prompt], len(job.sequences)) for prompt, job in zip(prompts, jobs, strict=True)]
    logits = torch.cat([last.repeat(count, 1) for (last, _), count in after])
    states = [tuple(part.repeat_interleave(count, dim=1) for part in state) for (_, state), count in after]
    return as_floats(logits), begin(concatenate_states(states))


def read_on(model: LanguageModel, token_ids: list[int], state: ModelState) -> tuple[Tensor, ModelState]:
    """Return the logits (1, V) and the state after more ids, at least one, of one sequence."""
    ids = torch.tensor(token_ids, device=model.input_embedding().weight.device).unsqueeze(0)
    logits = torch.empty(0)
    with torch.inference_mode():
        for start in range(0, len(token_ids), _MAX_POSITIONS):
            chunk = ids[:, start : start + _MAX_POSITIONS]
            with model.computing("scoring", model.product_rows(chunk), chunk.numel()):
                logits, state = model.forward_with_state(chunk, state)
    return logits[:, -1], state


def _feed(model: LanguageModel, steps: Steps, ids: list[int]) -> Floats:
    """Read one more id of each sequence, and the [BOS] that follows [EOS]; return the logits (n, V) after them."""
    special_ids = model.vocabulary.special_ids
    ended = [row for row, token_id in enumerate(ids) if token_id == special_ids.line_end]
    with model.computing("generation", len(ids), len(ids)):
        logits = steps.read(ids, range(len(ids)))
    if ended and special_ids.line_start is not None:
        with model.computing("generation", len(ended), len(ended)):
            logits[ended] = steps.read([special_ids.line_start] * len(ended), ended)
    return logits
