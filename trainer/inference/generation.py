"""Greedy or sampled continuations of prompts: all sequences in one batch, each with its own random stream."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, chain, groupby
from secrets import randbits
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.generations import (
    DecodeStep,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    GenerationPrecision,
)
from trainer.contracts.inference_fields import cancelled_error
from trainer.data.normalization import documents, normalized
from trainer.inference.sampling import Doubles, choose, likeliest, log_softmax, of_ids, penalize_repetition
from trainer.models.base import LanguageModel
from trainer.models.compiled_steps import Choices, CompiledSteps
from trainer.models.steps import Floats, ModelState, Steps, concatenate_states
from trainer.tokenizers.base import Tokenizer

_MAX_POSITIONS = 1 << 12
_FIRST_STEPS, _MAX_STEPS, _CHUNK_SECONDS, _MIN_SECONDS = 8, 1 << 10, 0.05, 1e-6
_FEW_TOKENS = 16
"""Tokens of a transformer's prompt that steps read sooner than a forward pass."""
_NEW_LINE = "The prompt ends with a newline, so the output starts a new line."
_CONTEXT_TOKENS = 256
"""Tokens of the prompt's last line that are decoded with the output: they decide on a space before it, for example."""


class Prompt(NamedTuple):
    """A text to continue: its lines are complete, except for the last one, which may be empty."""

    ids: list[int]
    """As in training: each line from [BOS] (or the end of the line before) to [EOS], or to the newline of a stream."""
    lines: list[list[int]]
    """The tokens of each line, in a stream with its newline."""
    has_next_space: bool = False
    """The text ends with the space before the next word, so the output begins without it."""

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.lines))

    def unk_count(self, tokenizer: Tokenizer) -> int:
        return sum(line.count(tokenizer.special_ids.unk) for line in self.lines)

    def to_continue(self, tokenizer: Tokenizer) -> "Prompt":
        """Return the prompt without a space at its end that belongs to the next token, as words do in training.

        The next token must begin with that space: token healing (Lundberg 2023), for spaces alone.
        """
        line = self.lines[-1]
        if not line or line[-1] not in tokenizer.word_start_ids or tokenizer.texts[line[-1]] != " ":
            return self
        return Prompt(self.ids[:-1], [*self.lines[:-1], line[:-1]], has_next_space=True)


def read_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """Encode a text to continue. Blank lines are left out, except for the last one and those of a stream."""
    *complete, last = normalized(text, tokenizer.normalization).split("\n")
    special_ids = tokenizer.special_ids
    if special_ids.newline is not None:
        lines = [*([*tokenizer.encode(line), special_ids.newline] for line in complete), tokenizer.encode(last)]
        return Prompt([special_ids.start, *chain.from_iterable(lines)], lines, _has_next_space(tokenizer, last))
    lines = [*(tokenizer.encode(line.text) for line in documents("\n".join(complete))), tokenizer.encode(last)]
    opening = [] if special_ids.bos is None else [special_ids.bos]
    ids = [i for line in lines for i in (*opening, *line, special_ids.eos)][:-1]
    return Prompt(ids if opening else [special_ids.start, *ids], lines, _has_next_space(tokenizer, last))


def _has_next_space(tokenizer: Tokenizer, line: str) -> bool:
    """Return True if a line ends with the space that a word tokenizer writes before the next word."""
    return tokenizer.manifest.method == "word" and line != line.rstrip() != ""


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
    if model.training:
        model.eval()
    active = list(jobs)
    yield from (answer for job in active for answer in job.drain())
    active = [job for job in active if job.live]
    if not active:
        return
    steps = _read_prompts(model, active)
    for job in active:
        job.decode_step = steps.kind
    groups, pace, last = _groups(active), _Pace(), None
    while active:
        ids = _write(model, steps, groups, pace, last)
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
        last = ids


class _Pace:
    """The number of tokens that C chooses in a call: few at first, then as many as take 50 ms.

    Between two calls, withdrawn requests end.
    """

    def __init__(self) -> None:
        self.steps = _FIRST_STEPS

    def add(self, steps: int, seconds: float) -> None:
        """Add a call that took so long."""
        in_time = int(steps * _CHUNK_SECONDS / max(seconds, _MIN_SECONDS))
        self.steps = max(1, min(_MAX_STEPS, _FIRST_STEPS * self.steps, in_time))


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
    begins_with_space: bool

    @property
    def are_plain(self) -> bool:
        """True if C can choose the tokens: by the temperature alone."""
        is_filtered = self.top_k or self.top_p < 1 or self.repetition_penalty is not None
        return not (is_filtered or self.logprobs)


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
    ) -> None:
        """Check the request against the model.

        A request with several prompts is several jobs, each with its number. `prompt` replaces the request's text. If
        the text ends with the space of the next word, the first token begins with it, if such a token is allowed.

        Raises INVALID_INPUT if a banned token is not in the vocabulary, or if no token is allowed.
        """
        self.request_id = response.request_id
        self.tokenizer = tokenizer
        self.request = request
        self._response = response
        self.is_streamed = is_streamed
        never = never_sampled(tokenizer, request)
        starts = tokenizer.word_start_ids.difference(never)
        read = read_prompt(tokenizer, request.prompt_text or "") if prompt is None else prompt
        self.prompt = read.to_continue(tokenizer) if starts and prompt is None else read
        self.options = _Options(
            request.temperature,
            request.top_k,
            request.top_p,
            request.repetition_penalty,
            request.repetition_window,
            request.logprobs or request.top_logprobs > 0,
            request.top_logprobs,
            tuple(never),
            bool(starts) and self.prompt.has_next_space,
        )
        self.is_barred = torch.zeros(model.vocab_size, dtype=torch.bool)
        """True for a token that is never sampled."""
        self.is_barred[never] = True
        self.is_barred_first = self.is_barred
        """True for a token that is not sampled first."""
        if self.options.begins_with_space:
            first: list[int] = [*starts]
            self.is_barred_first = torch.ones_like(self.is_barred)
            self.is_barred_first[first] = False
        self.seed = randbits(32) if request.seed is None else request.seed
        self.is_cancelled = False
        self.decode_step: DecodeStep | None = None
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
            response = self._with_likeliest() if self.options.top_logprobs else self._response
            yield changed(
                response,
                status="completed",
                outputs=tuple(sequence.text for sequence in self.sequences),
                steps=tuple(sequence.steps for sequence in self.sequences),
                eos_terminated=tuple(reason == "eos" for reason in reasons),
                stop_reason=reasons,
                prompt_tokens=self.prompt.n_tokens,
                unk_count=self.prompt.unk_count(self.tokenizer),
                seed_used=self.seed,
                logprobs=logprobs if self.options.logprobs else None,
                precision=self.request.precision,
                decode_step=self.decode_step,
                notes=(_NEW_LINE,) if (self.request.prompt_text or "").endswith("\n") else (),
            )

    def _with_likeliest(self) -> GenerateResponse:
        """Return the response with the tokens of each sequence, and the likeliest tokens of each step."""
        names = self.tokenizer.names
        return changed(
            self._response,
            tokens=tuple(tuple(self.tokenizer.tokens(sequence.sampled)) for sequence in self.sequences),
            text_offsets=tuple(tuple(max(0, at) for at in sequence.offsets()) for sequence in self.sequences),
            top_logprobs=tuple(
                tuple(tuple((names[token_id], value) for token_id, value in top) for top in sequence.top_logprobs)
                for sequence in self.sequences
            ),
        )


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
    is_restricted = request.alphabet is not None or bool(request.banned_tokens)
    if is_restricted and never.issuperset([*(i for i, text in enumerate(texts) if text), *tokenizer.byte_values]):
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
        self._generator = np.random.Generator(np.random.PCG64([job.seed, number, prompt_number]))
        self._draws = torch.empty(0, dtype=torch.double)
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
        line = self._tokenizer.decode(self._line)[self._prompt_characters :]
        if self._complete_lines:
            return self._complete_lines + line
        return line.removeprefix(" ") if self.job.prompt.has_next_space else line

    @property
    def sampled(self) -> list[int]:
        return self.context[len(self.job.prompt.ids) :]

    @property
    def is_barred(self) -> Tensor:
        """True for a token that is not sampled next."""
        return self.job.is_barred if self.steps else self.job.is_barred_first

    @property
    def most_steps(self) -> int:
        """The most tokens that can be appended while the same tokens are allowed."""
        if self.job.options.begins_with_space and not self.steps:
            return 1
        return min(self.job.request.max_new_tokens - self.steps, int(min(self._room, _MAX_STEPS)) + 1)

    def draws(self, count: int) -> Tensor:
        """Return the next numbers in [0, 1) of the sequence's stream; those of appended tokens are gone."""
        missing = count - len(self._draws)
        if missing > 0:
            self._draws = torch.cat([self._draws, torch.from_numpy(self._generator.random(missing))])
        return self._draws[:count]

    def extend(self, token_ids: Sequence[int]) -> None:
        """Add sampled tokens to a live sequence, up to one that ends it. Only the last one may end a line."""
        self._draws = self._draws[len(token_ids) :]
        if self._stops:
            for token_id in token_ids:
                if self.stop_reason is None:
                    self._append(token_id)
            return
        *inner, last = token_ids
        self.steps += len(inner)
        self._room -= len(inner)
        self.context += inner
        self._line += inner
        self._append(last)

    def offsets(self) -> list[int]:
        """Return the position in the output, before it is cut, at which each sampled token begins.

        It is -1 for a first token that begins with the space at the end of the prompt.
        """
        before = self.job.prompt.lines[-1][-_CONTEXT_TOKENS:]
        lengths, line = list[int](), list[int]()
        prompt_characters = len(self._tokenizer.decode(before))
        for token_id in [*before, *self.sampled]:
            if token_id == self._tokenizer.special_ids.line_end:
                lengths += [*map(len, self._tokenizer.pieces(line)), len("\n")]
                line = []
            else:
                line.append(token_id)
        lengths += map(len, self._tokenizer.pieces(line))
        starts = accumulate(lengths[len(before) :], initial=sum(lengths[: len(before)]))
        if self.job.prompt.has_next_space:
            first = self._tokenizer.decode([*before, *self.sampled[:1]])
            prompt_characters += first.startswith(" ", prompt_characters)
        return [start - prompt_characters for start in starts][:-1]

    def _append(self, token_id: int) -> None:
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
    is_barred: NDArray[np.bool_] = live[0].is_barred.numpy()
    np.copyto(doubles, -math.inf, where=is_barred)
    ids = choose(doubles, job.request, [float(sequence.draws(1)) for sequence in live])
    for sequence, token_id in zip(live, ids, strict=True):
        sequence.extend([token_id])
    if log_p is not None:
        for sequence, value in zip(live, of_ids(log_p, ids), strict=True):
            sequence.logprobs.append(value)
        if options.top_logprobs:
            for sequence, top in zip(live, likeliest(log_p, options.top_logprobs), strict=True):
                sequence.top_logprobs.append(top)
    return ids


def _read_prompts(model: LanguageModel, jobs: list[GenerationJob]) -> Steps:
    """Return the steps after the prompt of each sequence."""
    prompts = [tuple(job.prompt.ids) for job in jobs for _ in job.sequences]
    unequal = sorted(set(prompts))
    steps = steps_after(model, unequal, jobs[0].request.precision)
    if unequal != prompts:
        steps.keep([unequal.index(prompt) for prompt in prompts])
    return steps


def steps_after(model: LanguageModel, prompts: Sequence[Sequence[int]], precision: GenerationPrecision) -> Steps:
    """Return the steps of some sequences after their prompts, each of at least one token.

    A compiled step reads the tokens of a recurrent model sooner than a forward pass, of a transformer only few tokens.
    """
    empty, longest = model.initial_state(len(prompts)), max(map(len, prompts))
    steps = model.steps(empty, torch.zeros(len(prompts), model.vocab_size, device=empty[0].device), precision)
    is_short = longest <= _FEW_TOKENS or model.context_tokens is None
    if isinstance(steps, CompiledSteps) and (longest == 1 or (is_short and precision == "fp32")):
        with model.computing("generation", 1, sum(map(len, prompts)), steps.read_bytes):
            for row, prompt in enumerate(prompts):
                steps.read_line(prompt, row)
        return steps
    read = [read_on(model, list(prompt), model.initial_state(1)) for prompt in prompts]
    logits = torch.cat([last for last, _ in read])
    return model.steps(concatenate_states([state for _, state in read]), logits, precision)


def _write(
    model: LanguageModel, steps: Steps, groups: "list[list[Continuation]]", pace: _Pace, last: list[int] | None
) -> list[int]:
    """Read the last ids, if there are any; then choose one or more ids of each sequence, and return the last ones."""
    sequences = list(chain.from_iterable(groups))
    special_ids = model.vocabulary.special_ids
    ended = [row for row, token_id in enumerate(last or ()) if token_id == special_ids.line_end]
    line_start = special_ids.line_start if ended else None
    are_plain = all(group[0].job.options.are_plain for group in groups)
    compiled = steps if isinstance(steps, CompiledSteps) and are_plain else None
    if last is not None and (line_start is not None or compiled is None):
        with model.computing("generation", len(last), len(last), steps.read_bytes):
            steps.read(last, range(len(last)))
        last = None
    if line_start is not None:
        with model.computing("generation", len(ended), len(ended), steps.read_bytes):
            steps.read([line_start] * len(ended), ended)
    if compiled is None:
        logits, ids = steps.logits, list[int]()
        for group in groups:
            ids += _sample(group, logits[len(ids) :])
        return ids
    is_streamed = any(sequence.job.is_streamed for sequence in sequences)
    count = 1 if is_streamed else min(pace.steps, *(sequence.most_steps for sequence in sequences))
    temperatures = [sequence.job.request.temperature for sequence in sequences]
    choices = Choices(
        torch.stack([sequence.draws(count) for sequence in sequences]),
        torch.tensor(temperatures, dtype=torch.double),
        [sequence.is_barred for sequence in sequences],
        special_ids.line_end,
    )
    begin = perf_counter()
    with model.computing("generation", len(sequences), len(sequences) * count, steps.read_bytes):
        chosen = compiled.write(choices, last)
    pace.add(len(chosen[0]), perf_counter() - begin)
    for sequence, token_ids in zip(sequences, chosen, strict=True):
        sequence.extend(token_ids)
    return [token_ids[-1] for token_ids in chosen]


def read_on(model: LanguageModel, token_ids: list[int], state: ModelState) -> tuple[Tensor, ModelState]:
    """Return the logits (1, V) and the state after more ids, at least one, of one sequence."""
    ids = torch.tensor(token_ids, device=model.device).unsqueeze(0)
    logits = torch.empty(0)
    with torch.inference_mode():
        for start in range(0, len(token_ids), _MAX_POSITIONS):
            chunk = ids[:, start : start + _MAX_POSITIONS]
            with model.computing("scoring", model.product_rows(chunk), chunk.numel()):
                logits, state = model.forward_with_state(chunk, state)
    return logits[:, -1], state
