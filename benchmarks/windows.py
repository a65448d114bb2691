"""Speed and error of scoring a line of 100,000 characters in windows, compared with the exact pass.

    python -m benchmarks.windows RUN_FOLDER TEXT_FILE

Use a trained run: the error depends on how far back the model remembers. Both ways are timed in turns, in the
environment of the worker's inference process.
"""

import os
import sys
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.config.settings import load_settings
from trainer.contracts.inference import ScoreRequest, ScoreResponse
from trainer.inference.model_files import load_model
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models.base import LanguageModel
from trainer.system.child_environment import tuned_environment
from trainer.system.hardware import default_threads
from trainer.tokenizers.base import Tokenizer

CHARACTERS = 100_000
REPETITIONS = 5
WINDOWS = (None, 128, 256, 512, 1024, 2048)


def main(run_folder: str, text_file: str) -> None:
    torch.set_num_threads(default_threads())
    model, tokenizer = load_model(Path(run_folder))
    line = " ".join(Path(text_file).read_text(encoding="utf-8").split())
    line = (line * (1 + CHARACTERS // len(line)))[:CHARACTERS]
    seconds: dict[int | None, list[float]] = {window: [] for window in WINDOWS}
    found: dict[int | None, ScoreResponse] = {}
    for repetition in range(1 + REPETITIONS):
        for window in WINDOWS:
            begin = perf_counter()
            found[window] = score(model, tokenizer, line, window)
            if repetition:  # the first repetition warms up
                seconds[window].append(perf_counter() - begin)
    exact = np.array(found[None].surprisal, dtype=np.float64)
    print(f"{CHARACTERS:,} characters in one line, {found[None].loss:.4f} nats per token, medians of {REPETITIONS}")
    for window in WINDOWS:
        median_seconds = median(seconds[window])
        speed, ratio = CHARACTERS / median_seconds, median(seconds[None]) / median_seconds
        report_line = f"{window or 'exact':>6}  {speed:>9,.0f} chars/s  {ratio:5.2f}x"
        report = found[window].window
        if report is not None:
            errors: NDArray[np.float64] = np.abs(np.array(found[window].surprisal, dtype=np.float64) - exact)
            nats: list[float] = errors.tolist()
            report_line += (
                f"  error in nats per token: {max(nats):.1e} at most, {fmean(nats):.1e} on average;"
                f" reported {report.max_difference_nats:.1e} of the first {report.compared_tokens:,}"
            )
        print(report_line)


def score(model: LanguageModel, tokenizer: Tokenizer, line: str, window: int | None) -> ScoreResponse:
    request = ScoreRequest(text=line, detail_level="per_char", window_tokens=window)
    queued = ScoreResponse(request_id="benchmark", run_id="run", status="queued")
    [scored] = score_texts(model, tokenizer, [ScoringJob.of(tokenizer, request, queued)])
    return scored


if __name__ == "__main__":
    if "MALLOC_MMAP_MAX_" not in os.environ:  # it is read when a process starts
        arguments = [sys.executable, "-m", "benchmarks.windows", *sys.argv[1:]]
        os.execve(sys.executable, arguments, tuned_environment(load_settings()))
    main(sys.argv[1], sys.argv[2])
