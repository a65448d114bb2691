"""Contestants of scoring, each in a process of its own.

    python -m benchmarks.inference_contestants NAME RUN_FOLDER EXPORTED_FOLDER

Ours have the environment of the worker's inference process, the others that of their user.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from pydantic_core import to_json

from benchmarks.lab import demo_lines, sentences
from benchmarks.reference_tools import load_scorer, row_of
from benchmarks.turns import repeated, serve
from trainer.api import Model
from trainer.batteries.reading import battery_of, read_battery
from trainer.batteries.scoring import portions, scores_of
from trainer.contracts.batteries import BatteryItem, BatteryOptions
from trainer.contracts.scores import DetailLevel, ScoreRequest, ScoreResponse
from trainer.data.rows import TextFile
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.system.hardware import default_threads

SCORED_SENTENCES, MASKED_SENTENCES, LINE_CHARACTERS = 1000, 200, 100_000
WINDOW_TOKENS = 512
MINICONS_BATCHES = (32, 128)
MADE_UP_PAIRS, BATTERY_BATCHES = 2000, (32, 128, 512)


def main(name: str, run_folder: str, exported_folder: str) -> None:
    torch.set_num_threads(default_threads())
    work = CONTESTANTS[name](Path(run_folder), Path(exported_folder))
    serve(lambda: repeated(work))


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


def battery_items() -> list[BatteryItem]:
    """Return the items of the folder of `BATTERY`, or pairs of nine words, of which two are exchanged in the second."""
    if "BATTERY" in os.environ:
        return [*read_battery(Path(os.environ["BATTERY"]), BatteryOptions()).items]
    rows: list[bytes] = []
    for sentence in sentences(MADE_UP_PAIRS):
        words = (sentence.split() * 2)[:9]
        pair = {"good": " ".join(words), "bad": " ".join([*words[:4], *words[5:3:-1], *words[6:]])}
        rows.append(to_json(pair))
    return [*battery_of("pairs", [TextFile("pairs.jsonl", b"\n".join(rows))], BatteryOptions()).items]


def our_battery(run: Path, _: Path) -> Callable[[], int]:
    """Score the sequences of a portion of items, as a worker does."""
    loaded, options = Model.load(run), BatteryOptions()
    work = cycle([*portions("trained", battery_items(), options, 0)])

    def score() -> int:
        portion, request = next(work)
        scores_of(portion, loaded.ask(request))
        return len(request.sequences)

    return score


def minicons_battery(batch: int, run: Path, exported: Path) -> Callable[[], int]:
    """Score a batch of the same sequences."""
    scorer = load_scorer("IncrementalLMScorer", exported)
    texts = [sequence.text for item in battery_items() for sequence in item.sequences]
    work = cycle([texts[start : start + batch] for start in range(0, len(texts), batch)])

    def score() -> int:
        chosen = next(work)
        scorer.compute_stats(scorer.prepare_text(chosen, bos_token=True))
        return len(chosen)

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


def _endless(rows: list[list[int]]) -> Iterator[list[int]]:
    while True:
        yield from rows


CONTESTANTS: dict[str, Callable[[Path, Path], Callable[[], int]]] = {
    "our scores": partial(our_scores, SCORED_SENTENCES),
    **{f"minicons {batch}": partial(minicons_scores, batch) for batch in MINICONS_BATCHES},
    "our battery": our_battery,
    **{f"minicons battery {batch}": partial(minicons_battery, batch) for batch in BATTERY_BATCHES},
    "our masked scores": partial(our_scores, MASKED_SENTENCES),
    "masked loop": loop_masked_scores,
    "stateful": partial(our_line, None),
    "windows": partial(our_line, WINDOW_TOKENS),
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
