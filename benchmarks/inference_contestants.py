"""Contestants of generation and scoring, each in a process of its own.

    python -m benchmarks.inference_contestants NAME RUN_FOLDER EXPORTED_FOLDER

Ours have the environment of the worker's inference process, the others that of their user.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.lab import demo_lines, sentences
from benchmarks.reference_tools import load_library_model, load_scorer, row_of
from benchmarks.turns import repeated, serve
from trainer.api import Model
from trainer.contracts.inference import (
    DetailLevel,
    GenerateRequest,
    GenerateResponse,
    GenerationPrecision,
    ScoreRequest,
    ScoreResponse,
)
from trainer.inference.generation import GenerationJob, generate_together
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models.recurrent import RecurrentModel
from trainer.system.hardware import default_threads

SCORED_SENTENCES, MASKED_SENTENCES, LINE_CHARACTERS = 1000, 200, 100_000
GREEDY_TOKENS, SAMPLED_CHARACTERS, SEQUENCES = 100, 500, 64
PROMPT_TOKENS = 8
WINDOW_TOKENS = 512
MINICONS_BATCHES = (32, 128)


def main(name: str, run_folder: str, exported_folder: str) -> None:
    torch.set_num_threads(default_threads())
    work = CONTESTANTS[name](Path(run_folder), Path(exported_folder))
    serve(lambda: repeated(work))


def our_greedy(precision: GenerationPrecision, run: Path, _: Path) -> Callable[[], int]:
    """Count the tokens of a greedy continuation."""
    loaded = Model.load(run)
    prompt = loaded.tokenizer.decode(prompt_ids(loaded))
    request = GenerateRequest(prompt_text=prompt, max_new_tokens=GREEDY_TOKENS, temperature=0, precision=precision)
    return lambda: _generated(loaded, [request])


def library_greedy(run: Path, exported: Path) -> Callable[[], int]:
    loaded = Model.load(run)
    start = [loaded.tokenizer.special_ids.start, *prompt_ids(loaded)]
    model, ids = load_library_model(exported), row_of(start)

    def generate() -> int:
        [row] = model.generate(ids, max_new_tokens=GREEDY_TOKENS, do_sample=False).tolist()
        return len(row) - len(start)

    return generate


def our_samples(count: int, run: Path, _: Path) -> Callable[[], int]:
    """Count the characters of `count` continuations at once."""
    loaded = Model.load(run)
    seeds = iter(range(1_000_000))
    return lambda: _generated(
        loaded,
        [
            GenerateRequest(prompt_text="", max_new_tokens=SAMPLED_CHARACTERS, stop_on_eos=False, seed=next(seeds))
            for _ in range(count)
        ],
    )


def loop_samples(run: Path, _: Path) -> Callable[[], int]:
    """A loop over `nn.LSTM`, with the weights of the run."""
    model = Model.load(run).model.eval()
    if not isinstance(model, RecurrentModel):
        raise TypeError("not a recurrent model")
    lstm, start = model.layers, model.vocabulary.special_ids.start

    def sample() -> int:
        token, state = row_of([start]), model.initial_state(1)
        with torch.inference_mode():
            for _ in range(SAMPLED_CHARACTERS):
                embedded: Tensor = model.embedding(token)
                output: tuple[Tensor, tuple[Tensor, ...]] = lstm(embedded, state)
                hidden, state = output
                token = torch.multinomial(model.logits(hidden[:, -1]).softmax(-1), 1)
        return SAMPLED_CHARACTERS

    return sample


def our_scores(count: int, run: Path, _: Path) -> Callable[[], int]:
    loaded, texts = Model.load(run), sentences(count)
    return lambda: len(scored(loaded, texts))


def minicons_scores(batch: int, run: Path, exported: Path) -> Callable[[], int]:
    scorer, texts = load_scorer("IncrementalLMScorer", exported), sentences(SCORED_SENTENCES)

    def score() -> int:
        for start in range(0, len(texts), batch):
            scorer.compute_stats(scorer.prepare_text(texts[start : start + batch], bos_token=True))
        return len(texts)

    return score


def loop_masked_scores(run: Path, _: Path) -> Callable[[], int]:
    """Masks one token a pass."""
    loaded = Model.load(run)
    special = loaded.tokenizer.special_ids
    rows = [[special.start, *loaded.tokenizer.encode(text), special.eos] for text in sentences(MASKED_SENTENCES)]
    remaining = iter(_endless(rows))

    def score() -> int:
        row = next(remaining)
        with torch.inference_mode():
            for position in range(1, len(row) - 1):
                masked = [*row[:position], special.mask or special.unk, *row[position + 1 :]]
                loaded.model.forward(row_of(masked))[0, position].log_softmax(-1)[row[position]].item()
        return 1

    return score


def our_line(window_tokens: int | None, run: Path, _: Path) -> Callable[[], int]:
    """Score one long line; count its characters."""
    loaded, line = Model.load(run), long_line()

    def score() -> int:
        scored(loaded, [line], window_tokens=window_tokens)
        return len(line)

    return score


def prompt_ids(loaded: Model) -> list[int]:
    return loaded.tokenizer.encode(" ".join(demo_lines()[:10]))[:PROMPT_TOKENS]


def long_line() -> str:
    line = " ".join(demo_lines())
    return (line * (1 + LINE_CHARACTERS // len(line)))[:LINE_CHARACTERS]


def scored(
    loaded: Model, texts: list[str], *, window_tokens: int | None = None, detail_level: DetailLevel = "summary"
) -> list[ScoreResponse]:
    """Score texts as the worker scores a batch of requests."""
    queued = ScoreResponse(request_id="benchmark", run_id="run", status="queued")
    requests = [ScoreRequest(text=text, detail_level=detail_level, window_tokens=window_tokens) for text in texts]
    return score_texts(
        loaded.model, loaded.tokenizer, [ScoringJob.of(loaded.tokenizer, request, queued) for request in requests]
    )


def _generated(loaded: Model, requests: list[GenerateRequest]) -> int:
    """Answer requests as the worker answers a batch of them; return the number of tokens."""
    queued = GenerateResponse(request_id="benchmark", run_id="run", status="queued")
    jobs = [GenerationJob(loaded.model, loaded.tokenizer, request, queued) for request in requests]
    answers = generate_together(loaded.model, jobs)
    return sum(sum(answer.steps or ()) for answer in answers if isinstance(answer, GenerateResponse))


def _endless(rows: list[list[int]]) -> Iterator[list[int]]:
    while True:
        yield from rows


CONTESTANTS: dict[str, Callable[[Path, Path], Callable[[], int]]] = {
    "our greedy": partial(our_greedy, "fp32"),
    "our greedy bf16": partial(our_greedy, "bf16"),
    "library greedy": library_greedy,
    "our sample": partial(our_samples, 1),
    f"our {SEQUENCES} samples": partial(our_samples, SEQUENCES),
    "nn.LSTM loop": loop_samples,
    "our scores": partial(our_scores, SCORED_SENTENCES),
    **{f"minicons {batch}": partial(minicons_scores, batch) for batch in MINICONS_BATCHES},
    "our masked scores": partial(our_scores, MASKED_SENTENCES),
    "masked loop": loop_masked_scores,
    "stateful": partial(our_line, None),
    "windows": partial(our_line, WINDOW_TOKENS),
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
