"""Completions: continuations of texts or token ids, with the log probabilities of their tokens and of the prompts'."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, chain
from secrets import randbits
from typing import NamedTuple

from trainer.contracts.base import changed
from trainer.contracts.completions import (
    CompletionChoice,
    CompletionPrompt,
    CompletionRequest,
    CompletionResponse,
    completion_end,
)
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.generations import FinishReason, GenerateChunk, GenerateRequest, GenerateResponse
from trainer.data.normalization import documents, normalized
from trainer.inference.generation import Continuation, GenerationJob, Prompt, generate_together, read_prompt
from trainer.inference.scoring import Scores, score_sequences
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer


class PromptText(NamedTuple):
    """A prompt with its text, as an echo shows it.

    A text is normalized; its tokens are those of its lines, with an [EOS], or the newline of a stream, for each
    complete line. If the text is continued, a space at its end can belong to the next token. Of token ids every one is
    a token; special tokens have no text. The model reads the start token before them, unless they begin with it.
    """

    prompt: Prompt
    text: str
    shown: list[int]
    """The positions of the tokens in the ids that the model reads, without start tokens that were added."""
    offsets: list[int]
    """The position in the text at which each token begins. White space that no token has belongs to the next token."""

    def to_continue(self, tokenizer: Tokenizer) -> "PromptText":
        """Return the prompt with the tokens of `Prompt.to_continue`."""
        prompt = self.prompt.to_continue(tokenizer)
        count = len(self.shown) - (len(self.prompt.ids) - len(prompt.ids))
        return PromptText(prompt, self.text, self.shown[:count], self.offsets[:count])


def read_completion_prompt(
    model: LanguageModel, tokenizer: Tokenizer, prompt: CompletionPrompt, *, is_continued: bool
) -> PromptText:
    """Encode a text as a generation does, or check token ids.

    A space at the end of a text that is continued belongs to the next token; otherwise it is a token of the text.

    Raises INVALID_INPUT for an id outside the vocabulary, or for a prompt longer than the model's context.
    """
    read = _read_text(tokenizer, prompt) if isinstance(prompt, str) else _read_ids(tokenizer, list(prompt))
    if is_continued and isinstance(prompt, str):
        read = read.to_continue(tokenizer)
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


_MAX_SEQUENCES = 64
"""Continuations that are generated side by side; it limits the memory of a request with many prompts."""


def complete_together(
    model: LanguageModel, jobs: "Sequence[CompletionJob]", *, withdrawn: Callable[[], Collection[str]] = tuple
) -> "Iterator[CompletionResponse | GenerateChunk]":
    """Answer completions side by side; the model was trained with causal_lm.

    Yields each response as soon as its last continuation has finished, and before it the chunks of a streamed job. The
    prompts of all jobs are scored in common batches. Requests whose ids are `withdrawn` end as CANCELLED.
    """
    for job in jobs:
        yield from job.opening_chunks()
    _score_prompts(model, [job for job in jobs if job.request.scores_prompts])
    active = {job.request_id: job for job in jobs if job.generates}
    yield from (job.completed() for job in jobs if not job.generates)
    unfinished = Counter({request_id: len(job.generations) for request_id, job in active.items()})
    for group in _groups(list(chain.from_iterable(job.generations for job in active.values()))):
        cancelled = withdrawn()
        for generation in group:
            generation.is_cancelled = generation.request_id in cancelled
        for answer in generate_together(model, group, withdrawn=withdrawn):
            request_id = answer.request_id
            owner = active.get(request_id)
            if owner is None:  # its other continuations were withdrawn before
                continue
            if isinstance(answer, GenerateChunk):
                yield owner.moved(answer)
                continue
            unfinished[request_id] -= 1
            if answer.error is not None or not unfinished[request_id]:
                del active[request_id]
                yield owner.completed() if answer.error is None else owner.failed(answer.error)


_Likeliest = list[tuple[int, float]]
"""Ids with their log probabilities, the likeliest first."""


class _Token(NamedTuple):
    """A token of a choice."""

    name: str
    logprob: float | None
    top: dict[str, float] | None
    """The likeliest tokens at its position with their log probabilities, and the token itself."""
    offset: int


class CompletionJob:
    """A request, its prompts and their continuations."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        request: CompletionRequest,
        response: CompletionResponse,
        *,
        is_streamed: bool = False,
    ) -> None:
        """Read the prompts. Raises INVALID_INPUT for a prompt that the model cannot read."""
        self.request = request
        self.request_id = response.request_id
        self._response = response
        self._tokenizer = tokenizer
        self._is_streamed = is_streamed
        self._seed = randbits(32) if request.seed is None else request.seed
        is_continued = request.max_tokens > 0
        self.prompts = [
            read_completion_prompt(model, tokenizer, prompt, is_continued=is_continued) for prompt in request.prompts
        ]
        options = GenerateRequest(
            prompt_text="",
            max_new_tokens=max(1, request.max_tokens),
            temperature=request.temperature,
            top_p=request.top_p,
            stop_sequences=request.stop,
            seed=self._seed,
            num_return_sequences=request.n,
            logprobs=request.logprobs is not None,
            top_logprobs=request.logprobs or 0,
        )
        queued = GenerateResponse(request_id=response.request_id, run_id=response.run_id, status="queued")
        self.generations = [
            GenerationJob(
                model,
                tokenizer,
                options,
                queued,
                is_streamed=is_streamed,
                prompt=read.prompt,
                prompt_number=number,
            )
            for number, read in enumerate(self.prompts)
        ]
        self._scores: list[Scores] = []
        self._has_next_token = False

    @property
    def generates(self) -> bool:
        """True if continuations are to be generated step by step."""
        return self.request.max_tokens > 0 and not self._has_next_token

    @property
    def top_k(self) -> int:
        """The number of likeliest tokens that the scores of the prompts need."""
        return max(1, self.request.logprobs or 0) + len(self.generations[0].options.never_sampled) + 1

    def take_scores(self, scores: Iterator[Scores]) -> None:
        """Take the scores of each prompt; they also have the token after it, if one greedy token is to be generated."""
        self._scores = [next(scores) for _ in self.prompts]
        if (self.request.max_tokens, self.request.temperature) != (1, 0):
            return
        ends = [_likeliest(Scores(*(tensor[-1:] for tensor in score)))[0] for score in self._scores]
        allowed = [
            [(value, -i) for i, value in end if not generation.is_barred_first[i]]
            for end, generation in zip(ends, self.generations, strict=True)
        ]
        if not all(allowed):
            return  # no likely token begins with the space at the end of a prompt
        chosen = [max(of_prompt) for of_prompt in allowed]
        if any(value == end[-1][1] for (value, _), end in zip(chosen, ends, strict=True)):
            return  # a token with a lower id may be as likely
        for generation, (value, negative_id), end in zip(self.generations, chosen, ends, strict=True):
            for sequence in generation.sequences:
                sequence.extend([-negative_id])
                sequence.logprobs.append(value)
                sequence.top_logprobs.append(end[: self.request.logprobs])
        self._has_next_token = True

    def opening_chunks(self) -> Iterator[GenerateChunk]:
        """Yield the first chunks of a streamed request: echoed prompts, and the ends if nothing is generated."""
        if not self._is_streamed:
            return
        texts = [self._echo(read) for read in self.prompts for _ in range(self.request.n)]
        reason: FinishReason | None = None if self.request.max_tokens else "max_new_tokens"
        for index, text in enumerate(texts):
            if text or reason:
                yield GenerateChunk(request_id=self.request_id, index=index, start=0, text=text, stop_reason=reason)

    def moved(self, chunk: GenerateChunk) -> GenerateChunk:
        """Return a chunk of a continuation with its position in the choice's text."""
        return changed(chunk, start=chunk.start + len(self._echo(self.prompts[chunk.index // self.request.n])))

    def completed(self) -> CompletionResponse:
        choices: list[CompletionChoice] = []
        for number, (read, generation) in enumerate(zip(self.prompts, self.generations, strict=True)):
            echoed = list(self._echoed_tokens(read, self._scores[number])) if self.request.scores_prompts else []
            for sequence in generation.sequences:
                choices.append(self._choice(len(choices), read, echoed, sequence))
        return changed(
            self._response,
            status="completed",
            choices=tuple(choices),
            prompt_tokens=sum(len(read.shown) for read in self.prompts),
            completion_tokens=sum(choice.completion_tokens for choice in choices),
            seed_used=self._seed,
        )

    def failed(self, error: RunError) -> CompletionResponse:
        return changed(self._response, status="failed", error=error)

    def _choice(
        self, index: int, read: PromptText, echoed: Sequence[_Token], sequence: Continuation
    ) -> CompletionChoice:
        echo = self._echo(read)
        choice = CompletionChoice(
            index=index,
            text=echo + sequence.text,
            finish_reason=completion_end(sequence.stop_reason),
            prompt_tokens=len(read.shown),
            completion_tokens=sequence.steps,
        )
        if self.request.logprobs is None:
            return choice
        tokens = [*echoed, *self._sampled_tokens(sequence, len(echo))]
        return changed(
            choice,
            tokens=tuple(token.name for token in tokens),
            token_logprobs=tuple(token.logprob for token in tokens),
            top_logprobs=tuple(token.top for token in tokens),
            text_offset=tuple(token.offset for token in tokens),
        )

    def _echo(self, read: PromptText) -> str:
        return read.text if self.request.echo else ""

    def _echoed_tokens(self, read: PromptText, scores: Scores) -> Iterator[_Token]:
        """Yield the tokens of a prompt; the first one has no log probability.

        [BOS] after the end of a line has the log probability 0: the model reads it there and never predicts it.
        """
        special_ids = self._tokenizer.special_ids
        surprisals: list[float] = scores.surprisal.tolist()
        likeliest = _likeliest(scores)
        for number, (position, offset) in enumerate(zip(read.shown, read.offsets, strict=True)):
            token_id = read.prompt.ids[position]
            if token_id == special_ids.line_start and read.prompt.ids[position - 1] == special_ids.line_end and number:
                yield self._token(token_id, 0.0, (), offset)
            elif number:  # the score of a token comes one position before it
                yield self._token(token_id, 0.0 - surprisals[position - 1], likeliest[position - 1], offset)
            else:
                yield _Token(self._tokenizer.names[token_id], None, None, offset)

    def _sampled_tokens(self, sequence: Continuation, start: int) -> Iterator[_Token]:
        """Yield the tokens of a continuation that begins at a position of the text, up to where a stop text cut it."""
        ids, offsets, logprobs = sequence.sampled, sequence.offsets(), sequence.logprobs
        likeliest = sequence.top_logprobs or [[] for _ in ids]
        end = len(sequence.text)
        for token_id, offset, logprob, top in zip(ids, offsets, logprobs, likeliest, strict=True):
            if sequence.stop_reason != "stop_sequence" or max(0, offset) < end:
                yield self._token(token_id, logprob, top, max(0, start + offset))

    def _token(self, token_id: int, logprob: float, likeliest: Sequence[tuple[int, float]], offset: int) -> _Token:
        names = self._tokenizer.names
        top = {names[other]: value for other, value in likeliest[: self.request.logprobs]}
        top.setdefault(names[token_id], logprob)
        return _Token(names[token_id], logprob, top, offset)


def _score_prompts(model: LanguageModel, jobs: Sequence[CompletionJob]) -> None:
    """Give the scores of their prompts to the jobs, of which there may be none."""
    if jobs:
        sequences = [read.prompt.ids for job in jobs for read in job.prompts]
        scores = iter(score_sequences(model, sequences, max(job.top_k for job in jobs)))
        for job in jobs:
            job.take_scores(scores)


def _likeliest(scores: Scores) -> list[_Likeliest]:
    """Return the likeliest tokens at each position."""
    ids: list[list[int]] = scores.top_ids.tolist()
    values: list[list[float]] = scores.top_log_p.tolist()
    return [list(zip(*row, strict=True)) for row in zip(ids, values, strict=True)]


def _groups(generations: Sequence[GenerationJob]) -> Iterator[list[GenerationJob]]:
    """Yield the jobs in groups of at most _MAX_SEQUENCES continuations."""
    group: list[GenerationJob] = []
    for generation in generations:
        if sum(len(other.sequences) for other in (*group, generation)) > _MAX_SEQUENCES:
            yield group
            group = []
        group.append(generation)
    if group:
        yield group
