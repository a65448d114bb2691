"""Continue prompts: greedy or sampled, all sequences in one batch, each with its own stream of draws."""

import math
from collections.abc import Iterator, Sequence
from secrets import randbits

import numpy as np
import torch
from torch import Tensor

from trainer.contracts.inference import GenerateRequest, GenerateResponse, StopReason
from trainer.contracts.tokenizers import SpecialIds
from trainer.data.normalization import documents, normalized
from trainer.models.base import LanguageModel, State, joined, rows_of
from trainer.tokenizers.base import Tokenizer

_PLACES_AT_ONCE = 1 << 12
_FINITE = torch.finfo(torch.float64)
_CONTEXT_TOKENS = 256
"""What of a prompt's last line decides how the text goes on: whether a space or a closing quote comes next, say."""


def generate(
    model: LanguageModel, tokenizer: Tokenizer, request: GenerateRequest, *, run_id: str, request_id: str
) -> GenerateResponse:
    """Continue one prompt as `generate_together` does."""
    response = GenerateResponse(request_id=request_id, run_id=run_id, status="queued")
    [completed] = generate_together(model, tokenizer, [(request, response)])
    return completed


def generate_together(
    model: LanguageModel, tokenizer: Tokenizer, asked: Sequence[tuple[GenerateRequest, GenerateResponse]]
) -> Iterator[GenerateResponse]:
    """Continue prompts side by side as the model was trained: the last line is open, earlier lines end in [EOS].

    Yields each response as soon as its last sequence has ended. With `stop_on_eos` false, a sampled [EOS] is a newline
    of the output, and the next line begins. A stop sequence is cut off with all after it; what the prompt ends in is no
    part of one. Sequence i of a request depends on its seed and on i alone, not on what else is generated; `steps`
    counts its sampled tokens, [EOS] included. A sequence ends where the model can read no more, if there is such a
    place. The text of a `prompt_path` is in the request already. The model was trained with causal_lm.
    """
    model.eval()
    all_asked = [_Continuation(model, tokenizer, request, response) for request, response in asked]
    yield from (one.completed() for one in all_asked if one.has_ended)
    going = [one for one in all_asked if not one.has_ended]
    if not going:
        return
    special_ids = tokenizer.special_ids
    logits, state = _read_all(model, going)
    while going:
        taking = [sequence for one in going for sequence in one.live]
        ids = _take_next(going, logits)
        rows = [row for row, sequence in enumerate(taking) if sequence.stop_reason is None]
        yield from (one.completed() for one in going if one.has_ended)
        going = [one for one in going if not one.has_ended]
        if len(rows) < len(ids):
            ids, state = [ids[row] for row in rows], rows_of(state, rows)
        if going:
            logits, state = _feed(model, ids, state, special_ids)


def filtered_probabilities(logits: Tensor, request: GenerateRequest) -> tuple[Tensor, Tensor]:
    """Return the distribution (n, V) that is drawn from, likeliest first, and the ids (n, V) in that order.

    Temperature comes first, then the `top_k` likeliest (of equals the lower id), then the fewest of those that make up
    `top_p` of what is left.
    """
    scaled = (logits - logits.amax(-1, keepdim=True)) / request.temperature
    probabilities, ids = torch.sort(scaled.softmax(-1), dim=-1, descending=True, stable=True)
    if request.top_k:
        probabilities[:, request.top_k :] = 0
        probabilities /= probabilities.sum(-1, keepdim=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= request.top_p] = 0
    return probabilities / probabilities.sum(-1, keepdim=True), ids


def choose(logits: Tensor, request: GenerateRequest, draws: Tensor) -> list[int]:
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


class _Continuation:
    """A request as its sequences grow."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, request: GenerateRequest, response: GenerateResponse
    ) -> None:
        self._request = request
        self._response = response
        self._prompt_lines = _prompt_lines(tokenizer, request.prompt_text or "")
        special_ids = tokenizer.special_ids
        opening = [] if special_ids.bos is None else [special_ids.bos]
        lines = [i for line in self._prompt_lines for i in (*opening, *line, special_ids.eos)][:-1]
        self.prompt = lines if opening else [special_ids.start, *lines]
        self._special_ids = special_ids
        self._seed = randbits(32) if request.seed is None else request.seed
        generators = [
            np.random.Generator(np.random.PCG64([self._seed, number])) for number in range(request.num_return_sequences)
        ]
        self.sequences = [
            _Sequence(tokenizer, request, self.prompt, self._prompt_lines[-1], model.context_tokens, each)
            for each in generators
        ]

    @property
    def has_ended(self) -> bool:
        return not self.live

    @property
    def live(self) -> "list[_Sequence]":
        """The sequences that have not ended."""
        return [sequence for sequence in self.sequences if sequence.stop_reason is None]

    def take(self, logits: Tensor) -> list[int]:
        """Choose the next id of each live sequence by its row of the logits (n, V)."""
        live = self.live
        penalized = _penalized(logits.double().cpu(), live, self._request)
        penalized[:, self._special_ids.never_sampled] = -math.inf
        draws = [sequence.draw() for sequence in live]
        ids = choose(penalized, self._request, torch.tensor(draws, dtype=torch.float64))
        for sequence, token_id in zip(live, ids, strict=True):
            sequence.take(token_id)
        return ids

    def completed(self) -> GenerateResponse:
        reasons = [sequence.stop_reason for sequence in self.sequences]
        update: dict[str, object] = {
            "status": "completed",
            "outputs": tuple(sequence.text for sequence in self.sequences),
            "steps": tuple(sequence.steps for sequence in self.sequences),
            "eos_terminated": tuple(reason == "eos" for reason in reasons),
            "stop_reason": tuple(reasons),
            "prompt_tokens": sum(len(line) for line in self._prompt_lines),
            "unk_count": sum(line.count(self._special_ids.unk) for line in self._prompt_lines),
            "seed_used": self._seed,
        }
        return self._response.model_copy(update=update)


class _Sequence:
    """One continuation as it grows."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        request: GenerateRequest,
        prompt: list[int],
        open_line: list[int],
        context_tokens: int | None,
        generator: np.random.Generator,
    ) -> None:
        self._generator = generator
        self._room = math.inf if context_tokens is None else context_tokens - len(prompt)
        self._tokenizer = tokenizer
        self._request = request
        self._stops = [normalized(stop, tokenizer.normalization) for stop in request.stop_sequences]
        self._closed_lines = ""
        self._line = open_line[-_CONTEXT_TOKENS:]
        self._known_characters = len(tokenizer.decode(self._line))
        self.context = list(prompt)
        self.text = ""
        self.steps = 0
        self.stop_reason: StopReason | None = "context_full" if self._room < 0 else None

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


def _prompt_lines(tokenizer: Tokenizer, prompt: str) -> list[list[int]]:
    """The ids of the prompt's lines; the last one stays open, be it empty."""
    *closed, last = normalized(prompt, tokenizer.normalization).split("\n")
    return [*(tokenizer.encode(line.text) for line in documents("\n".join(closed))), tokenizer.encode(last)]


def _read_all(model: LanguageModel, continuations: list[_Continuation]) -> tuple[Tensor, State]:
    """Return the logits (n, V) after the prompt of each sequence, and the state there."""
    with torch.inference_mode():
        read = [_read(model, one.prompt, len(one.sequences)) for one in continuations]
        return torch.cat([logits for logits, _ in read]), joined([state for _, state in read])


def _read(model: LanguageModel, prompt: list[int], count: int) -> tuple[Tensor, State]:
    """Return the logits (count, V) after the prompt, so many times, and the state there."""
    ids = torch.tensor(prompt, device=model.input_embedding().weight.device).unsqueeze(0)
    logits, state = torch.empty(0), model.initial_state(1)
    for start in range(0, len(prompt), _PLACES_AT_ONCE):
        logits, state = model.forward_with_state(ids[:, start : start + _PLACES_AT_ONCE], state)
    return logits[:, -1].repeat(count, 1), tuple(part.repeat_interleave(count, dim=1) for part in state)


def _take_next(continuations: list[_Continuation], logits: Tensor) -> list[int]:
    """Choose the next id of every sequence by its row of the logits (n, V)."""
    ids: list[int] = []
    with torch.inference_mode():
        for one in continuations:
            ids += one.take(logits[len(ids) : len(ids) + len(one.live)])
    return ids


def _feed(model: LanguageModel, ids: list[int], state: State, special_ids: SpecialIds) -> tuple[Tensor, State]:
    """Return the logits (n, V) after one more id each; after [EOS] a [BOS], where there is one, opens the next line."""
    device = state[0].device
    with torch.inference_mode():
        logits, state = model.forward_with_state(torch.tensor(ids, device=device).unsqueeze(-1), state)
        rows: list[int] = [row for row, token_id in enumerate(ids) if token_id == special_ids.eos]
        if rows and special_ids.bos is not None:
            opening = torch.full((len(rows), 1), special_ids.bos, device=device)
            of_ended, state_of_ended = model.forward_with_state(opening, rows_of(state, rows))
            logits[torch.tensor(rows, device=device)] = of_ended
            others = [row for row in range(len(ids)) if row not in rows]
            places: list[int] = np.argsort([*others, *rows]).tolist()
            state = rows_of(joined([rows_of(state, others), state_of_ended]), places)
        return logits[:, -1], state


def _penalized(logits: Tensor, sequences: list[_Sequence], request: GenerateRequest) -> Tensor:
    """Make the tokens of the repetition window less likely (Keskar et al. 2019)."""
    if request.repetition_penalty is not None:
        for row, sequence in enumerate(sequences):
            window_ids: list[int] = sorted(set(sequence.context[-request.repetition_window :]))
            window = torch.tensor(window_ids)
            seen = logits[row, window]
            changed = torch.where(seen > 0, seen / request.repetition_penalty, seen * request.repetition_penalty)
            logits[row, window] = changed.clamp(_FINITE.min, _FINITE.max)
    return logits
