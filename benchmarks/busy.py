"""Speed of the product's choice of threads, alone on the machine and beside busy processes.

    python -m benchmarks.busy MODEL WORK THREADS

Each contestant is a process with the environment and the niceness of the product's children. It measures one kind of
work of one model: with the product's choice of threads (THREADS is 0), or with a fixed number.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from statistics import mean
from typing import Literal

import numpy as np
import torch

from benchmarks.decode_contestants import free_choices
from benchmarks.lab import Lab
from benchmarks.rows import Row
from benchmarks.turns import Contestant, in_turns, repeated, serve
from trainer.config.presets import resolve
from trainer.config.settings import load_settings
from trainer.config.validation import parse
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.tokenizers import SpecialIds
from trainer.contracts.wording import counted
from trainer.inference.scoring import sequence_surprisals
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.compiled_steps import CompiledSteps
from trainer.system.child_environment import tuned_environment
from trainer.system.hardware import default_threads
from trainer.tokenizers.base import Vocabulary
from trainer.training.device import resolve as resolve_compute
from trainer.training.documents import Documents
from trainer.training.evaluation import evaluate
from trainer.training.optimizer import Optimizer
from trainer.training.processes import LossSum
from trainer.worker.children.train_child import NICENESS

Work = Literal["training", "evaluation", "scoring", "generation of 1", "generation of 32"]
_WORKS: tuple[Work, ...] = ("training", "evaluation", "scoring", "generation of 1", "generation of 32")
_QUICK_WORKS: tuple[Work, ...] = ("training", "evaluation", "generation of 32")
_LOADS, _QUICK_LOADS = (0, 1, 2, 4), (0, 1, 4)
_SLICE_SECONDS = 1.0
_ADAPTATION_SLICES = 4
"""Slices of the choice that are not measured, after the load has changed."""
_MAX_SLOWDOWN = 1.3
_CHOICE, _ONE, _ALL = "choice", "1 thread", "all threads"

_SPECIAL_IDS = SpecialIds(pad=0, unk=1, bos=2, eos=3)
_VOCABULARY = Vocabulary(100, _SPECIAL_IDS)
_FIRST_ID = len(_SPECIAL_IDS.all)
_LINE_TOKENS = 64
"""Tokens of a line and of a continuation."""
_EVALUATED_LINES, _SCORED_LINES = 128, 32
_SIZES: dict[str, object] = {"hidden_size": 128, "num_layers": 4, "num_attention_heads": 4}
_SIZES |= {"max_position_embeddings": _LINE_TOKENS, "dropout": 0.0, "attention_dropout": 0.0}
_MODELS: dict[str, dict[str, object]] = {
    "gru tiny": {"model_family": "gru", "model_size": "tiny", "batch_size": 16, "max_seq_len": 64},
    "lstm": {"model_family": "char_lstm", "batch_size": 64, "max_seq_len": 32},
    "gpt2": {"model_family": "gpt2", "model": _SIZES, "batch_size": 12, "max_seq_len": 64},
}
"""Requests of trainings: a tiny GRU, the paper's LSTM, and nanoGPT's small GPT-2.

Rows are short, so that a slice beside four busy processes has some steps.
"""


def busy_rows(lab: Lab, is_quick: bool) -> list[Row]:
    """Return a row for each model, kind of work and number of busy processes."""
    del lab  # models have random weights
    works = _QUICK_WORKS if is_quick else _WORKS
    return [row for model in _MODELS for work in works for row in _rows(model, work, is_quick=is_quick)]


def _rows(model: str, work: Work, *, is_quick: bool) -> Iterator[Row]:
    threads = {_CHOICE: 0, _ONE: 1, _ALL: default_threads()}
    tuned = tuned_environment(load_settings())
    with ExitStack() as running:
        contestants = {
            name: running.enter_context(Contestant("benchmarks.busy", [model, work, str(count)], tuned))
            for name, count in threads.items()
        }
        for load in _QUICK_LOADS if is_quick else _LOADS:
            with busy_processes(load):
                for _ in range(_ADAPTATION_SLICES):
                    contestants[_CHOICE]()
                turns = in_turns(contestants, 2 if is_quick else 3)
            speeds = {name: mean(figures) for name, figures in turns.figures.items()}  # trials of the choice count
            yield Row(
                case=f"{model} {work} beside {counted(load, 'busy loop')}: choice / best number of threads",
                value=speeds[_CHOICE] / max(speeds[_ONE], speeds[_ALL]),
                unit="x",
                goal=1 / _MAX_SLOWDOWN,
                details={f"{name} tokens/s": speed for name, speed in speeds.items()},
                foreign_share=turns.foreign_share,
            )


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep as many processes computing.

    They are in the session of the contestants: Linux lowers the share of a process by its niceness only within a
    session, so trainings have less of the processors here than beside programs of other sessions.
    """
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(name: str, work: str, threads: str) -> None:
    usual: dict[str, object] = {"corpus": "text", "tokenizer": {"method": "char"}, "device": "cpu"}
    request = parse(TrainRequest, {**usual, **_MODELS[name], "threads": int(threads)})
    corpus = CorpusRef(name="text", sha256="0" * 64, bytes=1)
    effective = resolve(request, corpus=corpus)
    if work in ("training", "evaluation"):
        os.nice(NICENESS)
    serve(partial(repeated, _work(effective, work), _SLICE_SECONDS))


def _work(effective: EffectiveRequest, work: str) -> Callable[[], int]:
    """Return a function that does some work and returns the number of its tokens."""
    compute = resolve_compute(effective)  # sets the number of threads
    model = build(effective.model, _VOCABULARY).eval()
    model.threads_are_fixed = effective.threads > 0
    if work == "training":
        optimizer, loss_sum = Optimizer(model.train(), effective, compute, 1), LossSum(model, compute)
        ids = torch.randint(_FIRST_ID, _VOCABULARY.size, (compute.batch_size, effective.max_seq_len + 1))
        tokens = compute.batch_size * effective.max_seq_len

        def train() -> int:
            with model.computing("training", model.product_rows(ids[:, :-1]), tokens):
                optimizer.backward(loss_sum.forward(ids[:, :-1], ids[:, 1:], None) / tokens)
                optimizer.clip_gradients()
                optimizer.step(0, 0)
            return tokens

        return train
    lines = np.random.default_rng(1).integers(_FIRST_ID, _VOCABULARY.size, (_EVALUATED_LINES, _LINE_TOKENS))
    if work == "evaluation":
        lines[:, 0], lines[:, -1] = _SPECIAL_IDS.start, _SPECIAL_IDS.eos
        documents = Documents(lines.astype(np.uint8).ravel(), _SPECIAL_IDS)
        return lambda: evaluate(model, documents, compute).tokens
    if work == "scoring":
        scored: list[list[int]] = lines[:_SCORED_LINES].tolist()
        return lambda: sum(map(len, sequence_surprisals(model, scored)))
    return partial(_generate, model, int(work.rpartition(" ")[2]))


def _generate(model: LanguageModel, rows: int) -> int:
    """Choose tokens as a generation does: all by one call of the compiled step, else one by one."""
    steps = model.steps(model.initial_state(rows), torch.zeros(rows, model.vocab_size))
    tokens = _LINE_TOKENS - 1
    if isinstance(steps, CompiledSteps):
        calls: list[Callable[[], object]] = [partial(steps.write, free_choices(model, rows, tokens, 0))]
    else:
        ids = [_FIRST_ID] * rows
        calls = [partial(steps.read, ids, range(rows))] * tokens
    for call in calls:
        computing = model.computing("generation", rows, rows * tokens // len(calls), steps.read_bytes)
        # with fixed threads no context: it would give small products one thread
        with nullcontext() if model.threads_are_fixed else computing:
            call()
    return rows * tokens


if __name__ == "__main__":
    main(*sys.argv[1:])
