"""Continue prompts: greedy or sampled, all sequences in one batch, each with its own stream of draws."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from secrets import randbits
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    SamplingOptions,
    cancelled_error,
)
from trainer.contracts.tokenizers import SpecialIds
from trainer.data.normalization import documents, normalized
from trainer.models.base import LanguageModel, ModelState, concatenate_states, select_rows
from trainer.tokenizers.base import Tokenizer

_PLACES_AT_ONCE = 1 << 12
_FINITE = torch.finfo(torch.float64)
_CONTEXT_TOKENS = 256
"""What of a prompt's last line decides how the text goes on: whether a space or a closing quote comes next, say."""
_COLDEST = 1e-6


class Prompt(NamedTuple):
    """A text to go on with: its lines are closed but for the last one, which may be empty."""

    ids: list[int]
    """As the model was trained: each line from [BOS] (or the [EOS] of the line before) to [EOS]."""
    lines: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.lines))


def read_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """Encode a text to go on with; blank lines but the last one are left out."""
    *closed, last = normalized(text, tokenizer.normalization).split("\n")
    lines = [*(tokenizer.encode(line.text) for line in documents("\n".join(closed))), tokenizer.encode(last)]
    special_ids = tokenizer.special_ids
    opening = [] if special_ids.bos is None else [special_ids.bos]
    ids = [i for line in lines for i in (*opening, *line, special_ids.eos)][:-1]
    return Prompt(ids if opening else [special_ids.start, *ids], lines)


def generate(
    model: LanguageModel, tokenizer: Tokenizer, request: GenerateRequest, *, run_id: str, request_id: str
) -> GenerateResponse:
    """Continue one prompt as `generate_together` does; raises INVALID_INPUT where no token may be written."""
    response = GenerateResponse(request_id=request_id, run_id=run_id, status="queued")
    asked = GenerationJob(model, tokenizer, request, response)
    [completed] = [answer for answer in generate_together(model, [asked]) if isinstance(answer, GenerateResponse)]
    return completed


def generate_together(
    model: LanguageModel,
    asked: "Sequence[GenerationJob]",
    *,
    withdrawn: Callable[[], Collection[str]] = tuple,
) -> Iterator[GenerateResponse | GenerateChunk]:
    """Continue prompts side by side as the model was trained: the last line is open, earlier lines end in [EOS].

    Yields each response as soon as its last sequence has ended, and before it its pieces, where it is streamed. With
    `stop_on_eos` false, a sampled [EOS] is a newline of the output, and the next line begins. A stop sequence is cut
    off with all after it; what the prompt ends in is no part of one. Sequence i of a request depends on its seed and on
    i alone, not on what else is generated; `steps` counts its sampled tokens, [EOS] included. A sequence ends where the
    model can read no more, if there is such a place. A request whose id is `withdrawn` by now, looked at after each
    token, ends as CANCELLED. The text of a `prompt_path` is in the request already. The model was trained with
    causal_lm.
    """
    model.eval()
    going = list(asked)
    yield from (answer for one in going for answer in one.told())
    going = [one for one in going if not one.has_ended]
    if not going:
        return
    special_ids = going[0].special_ids
    logits, state = _read_all(model, going)
    while going:
        taking = [sequence for one in going for sequence in one.live]
        ids = _take_next(going, logits)
        gone = withdrawn()
        for one in going:
            if one.request_id in gone:
                one.withdraw()
            yield from one.told()
        rows = [row for row, sequence in enumerate(taking) if sequence.is_live]
        going = [one for one in going if not one.has_ended]
        if len(rows) < len(ids):
            ids, state = [ids[row] for row in rows], select_rows(state, rows)
        if going:
            logits, state = _feed(model, ids, state, special_ids)


def filtered_probabilities(logits: Tensor, request: SamplingOptions) -> tuple[Tensor, Tensor]:
    """Return the distribution (n, V) that is drawn from, likeliest first, and the ids (n, V) in that order.

    Temperature comes first, then the `top_k` likeliest (of equals the lower id), then the fewest of those that make up
    `top_p` of what is left.
    """
    scaled = (logits - logits.amax(-1, keepdim=True)) / max(request.temperature, _COLDEST)
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
        place = (probabilities.cumsum(-1) <= draws.unsqueeze(-1)).sum(-1, keepdim=True)
        chosen = ids.gather(-1, place.minimum(possible - 1)).squeeze(-1)
    chosen_ids: list[int] = chosen.tolist()
    return chosen_ids


class GenerationJob:
    """A request as its sequences grow."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        request: GenerateRequest,
        response: GenerateResponse,
        *,
        is_streamed: bool = False,
    ) -> None:
        """Raises INVALID_INPUT where a banned token is none of the tokenizer's, or no token is left to be written."""
        self._request = request
        self._response = response
        self._is_streamed = is_streamed
        self._prompt = read_prompt(tokenizer, request.prompt_text or "")
        self.special_ids = tokenizer.special_ids
        self._never_sampled = never_sampled(tokenizer, request)
        self._seed = randbits(32) if request.seed is None else request.seed
        generators = [
            np.random.Generator(np.random.PCG64([self._seed, number])) for number in range(request.num_return_sequences)
        ]
        self.sequences = [
            _Sequence(tokenizer, request, self._prompt, model.context_tokens, each) for each in generators
        ]

    @property
    def request_id(self) -> str:
        return self._response.request_id

    @property
    def prompt_ids(self) -> list[int]:
        return self._prompt.ids

    @property
    def has_ended(self) -> bool:
        return not self.live

    @property
    def live(self) -> "list[_Sequence]":
        """The sequences that have not ended."""
        return [sequence for sequence in self.sequences if sequence.is_live]

    def take(self, logits: Tensor) -> list[int]:
        """Choose the next id of each live sequence by its row of the logits (n, V)."""
        live = self.live
        logits = logits.double().cpu()
        log_p = logits.log_softmax(-1) if self._request.logprobs else None
        penalized = _penalized(logits, live, self._request)
        penalized[:, self._never_sampled] = -math.inf
        draws = [sequence.draw() for sequence in live]
        ids = choose(penalized, self._request, torch.tensor(draws, dtype=torch.float64))
        for row, (sequence, token_id) in enumerate(zip(live, ids, strict=True)):
            sequence.take(token_id)
            if log_p is not None:
                sequence.logprobs.append(float(log_p[row, token_id]))
        return ids

    def withdraw(self) -> None:
        """Write no more: nobody waits for it."""
        for sequence in self.sequences:
            sequence.is_withdrawn = True

    def told(self) -> Iterator[GenerateResponse | GenerateChunk]:
        """What there is to tell since the last time: pieces where it is streamed, the response when it has ended."""
        if self._is_streamed:
            for index, sequence in enumerate(self.sequences):
                piece = sequence.piece()
                if piece is not None:
                    start, text, reason = piece
                    yield GenerateChunk(
                        request_id=self.request_id, index=index, start=start, text=text, stop_reason=reason
                    )
        if self.has_ended:
            yield self._ended()

    def _ended(self) -> GenerateResponse:
        if any(sequence.is_withdrawn for sequence in self.sequences):
            error = RunError.of(cancelled_error())
            cancelled: dict[str, object] = {"status": "failed", "error": error}
            return self._response.model_copy(update=cancelled)
        reasons = [sequence.stop_reason for sequence in self.sequences]
        update: dict[str, object] = {
            "status": "completed",
            "outputs": tuple(sequence.text for sequence in self.sequences),
            "steps": tuple(sequence.steps for sequence in self.sequences),
            "eos_terminated": tuple(reason == "eos" for reason in reasons),
            "stop_reason": tuple(reasons),
            "prompt_tokens": self._prompt.tokens,
            "unk_count": sum(line.count(self.special_ids.unk) for line in self._prompt.lines),
            "seed_used": self._seed,
            "logprobs": tuple(tuple(sequence.logprobs) for sequence in self.sequences)
            if self._request.logprobs
            else None,
        }
        return self._response.model_copy(update=update)


def never_sampled(tokenizer: Tokenizer, request: GenerateRequest) -> list[int]:
    """Return the ids that a request may not write: special tokens but [EOS], what is banned, what is of other letters.

    Where [EOS] writes a newline, a newline must be in the alphabet. Raises INVALID_INPUT where a banned token is none
    of the tokenizer's, or where no text is left.
    """
    ids, texts = tokenizer.special_ids, tokenizer.texts
    never = set(ids.never_sampled)
    names = tokenizer.tokens(range(tokenizer.vocab_size)) if request.banned_tokens else []
    for banned in request.banned_tokens:
        token = normalized(banned, tokenizer.normalization)
        found = {i for i, name in enumerate(names) if token in (name, texts[i]) or texts[i] == f" {token}"}
        if not found:
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"`banned_tokens`: {banned!r} is no token of this model; ban the tokens that it is made of.",
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
    """One continuation as it grows."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        request: GenerateRequest,
        prompt: Prompt,
        context_tokens: int | None,
        generator: np.random.Generator,
    ) -> None:
        self._generator = generator
        self._room = math.inf if context_tokens is None else context_tokens - len(prompt.ids)
        self._tokenizer = tokenizer
        self._request = request
        self._stops = [normalized(stop, tokenizer.normalization) for stop in request.stop_sequences]
        self._closed_lines = ""
        self._line = prompt.lines[-1][-_CONTEXT_TOKENS:]
        self._known_characters = len(tokenizer.decode(self._line))
        self.context = list(prompt.ids)
        self.text = ""
        self.steps = 0
        self.logprobs: list[float] = []
        self.stop_reason: FinishReason | None = "context_full" if self._room < 0 else None
        self.is_withdrawn = False
        self._told_characters = 0
        self._end_is_told = False

    @property
    def is_live(self) -> bool:
        return self.stop_reason is None and not self.is_withdrawn

    def draw(self) -> float:
        return self._generator.random()

    def take(self, token_id: int) -> None:
        """Add a sampled token; the sequence has not ended."""
        self.steps += 1
        self._room -= 1
        self.context.append(token_id)
        is_end = token_id == self._tokenizer.special_ids.eos
        if is_end and self._request.stop_on_eos:
            self.stop_reason = "eos"
            return
        if is_end:
            self._closed_lines, self._line, self._known_characters = self.text + "\n", [], 0
            self._room -= self._tokenizer.special_ids.bos is not None  # for the [BOS] of the next line
        else:
            self._line.append(token_id)
        self.text = self._closed_lines + self._tokenizer.decode(self._line)[self._known_characters :]
        found = [place for stop in self._stops if (place := self.text.find(stop)) >= 0]
        if found:
            self.text, self.stop_reason = self.text[: min(found)], "stop_sequence"
        elif self.steps == self._request.max_new_tokens:
            self.stop_reason = "max_new_tokens"
        elif self._room < 0:
            self.stop_reason = "context_full"

    def piece(self) -> tuple[int, str, FinishReason | None] | None:
        """What was written since the last time and stays, from which character on, and why it ends with that.

        What may become a stop sequence waits until it is known; None where there is nothing to tell.
        """
        start, end = self._told_characters, len(self.text) - (0 if self.stop_reason else self._undecided())
        if start == end and (self.stop_reason is None or self._end_is_told):
            return None
        self._told_characters, self._end_is_told = end, self.stop_reason is not None
        return start, self.text[start:end], self.stop_reason

    def _undecided(self) -> int:
        """How many characters at the end of the text a stop sequence begins with, at most."""
        longest = min(len(self.text), max(map(len, self._stops), default=0))
        tails = (n for n in range(longest, 0, -1) if any(stop.startswith(self.text[-n:]) for stop in self._stops))
        return next(tails, 0)


def _read_all(model: LanguageModel, continuations: list[GenerationJob]) -> tuple[Tensor, ModelState]:
    """Return the logits (n, V) after the prompt of each sequence, and the state there."""
    with torch.inference_mode():
        read = [_read(model, one.prompt_ids, len(one.sequences)) for one in continuations]
        return torch.cat([logits for logits, _ in read]), concatenate_states([state for _, state in read])


def _read(model: LanguageModel, prompt: list[int], count: int) -> tuple[Tensor, ModelState]:
    """Return the logits (count, V) after the prompt, so many times, and the state there."""
    logits, state = read_on(model, prompt, model.initial_state(1))
    return logits.repeat(count, 1), tuple(part.repeat_interleave(count, dim=1) for part in state)


def read_on(model: LanguageModel, token_ids: list[int], state: ModelState) -> tuple[Tensor, ModelState]:
    """Return the logits (1, V) after some more ids of one sequence, one at least, and the state there."""
    ids = torch.tensor(token_ids, device=model.input_embedding().weight.device).unsqueeze(0)
    logits = torch.empty(0)
    with torch.inference_mode():
        for start in range(0, len(token_ids), _PLACES_AT_ONCE):
            logits, state = model.forward_with_state(ids[:, start : start + _PLACES_AT_ONCE], state)
    return logits[:, -1], state


def _take_next(continuations: list[GenerationJob], logits: Tensor) -> list[int]:
    """Choose the next id of every sequence by its row of the logits (n, V)."""
    ids: list[int] = []
    with torch.inference_mode():
        for one in continuations:
            ids += one.take(logits[len(ids) : len(ids) + len(one.live)])
    return ids


def _feed(
    model: LanguageModel, ids: list[int], state: ModelState, special_ids: SpecialIds
) -> tuple[Tensor, ModelState]:
    """Return the logits (n, V) after one more id each; after [EOS] a [BOS], where there is one, opens the next line."""
    device = state[0].device
    with torch.inference_mode():
        logits, state = model.forward_with_state(torch.tensor(ids, device=device).unsqueeze(-1), state)
        rows: list[int] = [row for row, token_id in enumerate(ids) if token_id == special_ids.eos]
        if rows and special_ids.bos is not None:
            opening = torch.full((len(rows), 1), special_ids.bos, device=device)
            of_ended, state_of_ended = model.forward_with_state(opening, select_rows(state, rows))
            logits[torch.tensor(rows, device=device)] = of_ended
            others = [row for row in range(len(ids)) if row not in rows]
            places: list[int] = np.argsort([*others, *rows]).tolist()
            state = select_rows(concatenate_states([select_rows(state, others), state_of_ended]), places)
        return logits[:, -1], state


def _penalized(logits: Tensor, sequences: list[_Sequence], request: SamplingOptions) -> Tensor:
    """Make the tokens of the repetition window less likely (Keskar et al. 2019)."""
    if request.repetition_penalty is not None:
        for row, sequence in enumerate(sequences):
            window_ids: list[int] = sorted(set(sequence.context[-request.repetition_window :]))
            window = torch.tensor(window_ids)
            seen = logits[row, window]
            changed = torch.where(seen > 0, seen / request.repetition_penalty, seen * request.repetition_penalty)
            logits[row, window] = changed.clamp(_FINITE.min, _FINITE.max)
    return logits
