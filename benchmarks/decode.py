"""Generation token by token, against loops that a user would write and plain reads of the same bytes.

    python -m benchmarks.decode MODELS…

Measures some models of the group `decode`, such as lstm-256 and gpt2-small, and prints their rows without saving them.
"""

import os
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from rich.console import Console

from benchmarks.decode_contestants import PROMPT_TOKENS, PROMPTS, RUNTIME_THREADS, SEQUENCES, Loaded
from benchmarks.decode_models import (
    Size,
    exported_in,
    kept_numbers,
    read_weights,
    recurrent_sizes,
    transformer_sizes,
    write_subject,
)
from benchmarks.lab import Lab
from benchmarks.limits import operations, sampling_products
from benchmarks.parity import greedy_differences
from benchmarks.plain_reads import compiled
from benchmarks.rows import Row, compared, print_rows
from benchmarks.turns import Contestant, Turns, in_turns, products_alone
from trainer.api import Model
from trainer.config.settings import load_settings
from trainer.contracts.base import changed
from trainer.contracts.models import Gpt2Config, RnnConfig
from trainer.models.threads import MIN_READ_BYTES
from trainer.system.child_environment import tuned_environment
from trainer.system.hardware import default_threads, has_bf16

_SAMPLED_CHARACTERS, _WORDS = 512, {"small": 256, "large": 64}
"""New tokens of a request."""
_FLOAT_BYTES, _BF16_BYTES = 4, 2
_RECURRENT_SHARE, _TRANSFORMER_SHARE = 0.85, 0.75
"""Goals: shares of the speed of plain reads."""
_LSTM_LOOP, _MANY = "nn.LSTM loop", f"ours, {SEQUENCES} at once"
_GENERATE_GOALS: dict[tuple[str, str, str], float] = {
    ("gpt2-small", "ours", "generate"): 3.0,
    ("gpt2-large", "ours", "generate"): 1.6,
    ("gpt2-large", "ours bf16", "generate"): 3.0,
}
_READ_CONTEXT = 1024
"""Positions of the GPT-2 that reads long prompts."""


class _Subject(NamedTuple):
    """A model with its folder, the new tokens of a request, and the numbers that each of them needs.

    `keys_and_values` are those of the tokens before it, the mean over a request.
    """

    name: str
    folder: Path
    loaded: Loaded
    new_tokens: int
    weights: int
    keys_and_values: int

    @classmethod
    def write(cls, lab: Lab, name: str, size: Size) -> "_Subject":
        folder = lab.folder / name
        loaded = Loaded(*write_subject(folder, size))
        tokens = _WORDS.get(name.rpartition("-")[2], _SAMPLED_CHARACTERS)
        keys_and_values = kept_numbers(loaded.model) * (PROMPT_TOKENS + tokens // 2)
        return cls(name, folder, loaded, tokens, read_weights(loaded.model, size.config), keys_and_values)

    def weight_bytes(self, ours: str) -> int:
        """Return the bytes of the weights that a token needs, in the precision of one of our contestants."""
        return self.weights * (_BF16_BYTES if ours.endswith("bf16") else _FLOAT_BYTES)

    def read_bytes(self, ours: str) -> int:
        """Return all bytes that a token needs; keys and values are in fp32."""
        return self.weight_bytes(ours) + self.keys_and_values * _FLOAT_BYTES

    def threads(self, ours: str) -> int:
        """Return the threads of one of our contestants on a quiet machine."""
        return 1 if self.weight_bytes(ours) < MIN_READ_BYTES else min(2, default_threads())

    def reads(self, ours: str) -> str:
        """Return the name of the contestant that only reads what one of ours reads, by as many threads."""
        return f"plain reads{' bf16' if ours.endswith('bf16') else ''} {self.threads(ours)}"


def decode_rows(lab: Lab, is_quick: bool, only: Collection[str] = ()) -> list[Row]:
    """Measure all models, or only some. A quick measurement of all has recurrent models of one width."""
    rounds, rows = 2 if is_quick else 7, list[Row]()
    reads = compiled(lab.folder)
    sizes = {**recurrent_sizes((256,) if is_quick and not only else (128, 256, 512)), **transformer_sizes()}
    for name, size in sizes.items():
        if only and name not in only:
            continue
        subject = _Subject.write(lab, name, size)
        is_recurrent = isinstance(size.config, RnnConfig)
        rows += (_recurrent_rows if is_recurrent else _transformer_rows)(subject, reads, rounds)
        if name == "lstm-256":
            rows += [_many_row(subject, rounds), *_first_token_rows(subject, rounds)]
        if isinstance(size.config, Gpt2Config) and name == "gpt2-small":
            longer = Size(changed(size.config, max_position_embeddings=_READ_CONTEXT), size.vocab_size)
            reader = _Subject.write(lab, f"{name}-{_READ_CONTEXT}", longer)
            rows += _first_token_rows(reader._replace(name=name), rounds)
    return rows


def _recurrent_rows(subject: _Subject, reads: Path | None, rounds: int) -> list[Row]:
    loop = f"nn.{subject.name.partition('-')[0].upper()} loop"
    is_lstm = loop == _LSTM_LOOP
    runtimes = [f"ONNX Runtime {threads}" for threads in RUNTIME_THREADS] if is_lstm else []
    turns = _measured(subject, ["ours", *_steps("ours", reads), loop, *runtimes], reads, rounds)
    rows = _read_rows(subject, turns, "ours", _RECURRENT_SHARE)
    rows += [_against(subject, turns, "ours", loop, 12.0 if is_lstm else None)]
    return rows + ([_against(subject, turns, "ours", _fastest(turns, runtimes), 2.0)] if is_lstm else [])


def _many_row(subject: _Subject, rounds: int) -> Row:
    """Compare many sequences at once with the loop, which samples one after the other."""
    turns = _measured(subject, [_MANY, _LSTM_LOOP], None, rounds)
    products = f"sampling-{SEQUENCES}"
    with products_alone(products) as alone:
        speed = in_turns({products: alone}, rounds).median(products)
    limit = SEQUENCES * speed / operations(sampling_products(SEQUENCES))
    case = f"decode-{subject.name}"
    return compared(case, turns, _MANY, _LSTM_LOOP, 40.0, limit=limit, limited_by="its own products alone")


def _transformer_rows(subject: _Subject, reads: Path | None, rounds: int) -> list[Row]:
    ours, rivals = ["ours", "ours bf16"], ["generate", *(["generate bf16"] if has_bf16() else [])]
    pairs = [("ours", "generate"), *(("ours bf16", rival) for rival in rivals)]
    steps = [step for name in ours for step in _steps(name, reads)]
    turns = _measured(subject, [*ours, *steps, *rivals], reads, rounds)
    rows = [row for name in ours for row in _read_rows(subject, turns, name, _TRANSFORMER_SHARE)]
    rows += [_against(subject, turns, *pair, _GENERATE_GOALS.get((subject.name, *pair))) for pair in pairs]
    model = Model(subject.name, subject.loaded.model, subject.loaded.tokenizer)
    differing = greedy_differences(model, exported_in(subject.folder), [subject.loaded.prompt])
    case = f"decode-{subject.name}: prompts continued otherwise"
    return [*rows, Row(case=case, value=differing, unit="prompts", goal=0, better="less")]


def _first_token_rows(subject: _Subject, rounds: int) -> list[Row]:
    names = {tokens: f"ours, first token after {tokens:,}" for tokens in PROMPTS}
    turns = _measured(subject, names.values(), None, rounds)
    return [
        Row(
            case=f"decode-{subject.name}: first token after a prompt of {tokens:,}",
            value=1 / turns.median(name),
            unit="s",
            better="less",
            foreign_share=turns.foreign_share,
        )
        for tokens, name in names.items()
    ]


def _measured(subject: _Subject, names: Collection[str], reads: Path | None, rounds: int) -> Turns:
    """Measure contestants in turns, and plain reads in each precision of ours; figures are tokens per second.

    Ours run in the environment of the worker's inference process.
    """
    tuned = tuned_environment(load_settings())
    with ExitStack() as running:
        contestants: dict[str, Contestant] = {}
        for name in names:
            words = [name, str(subject.folder), str(subject.new_tokens)]
            contestants[name] = Contestant(
                "benchmarks.decode_contestants", words, tuned if name.startswith("ours") else None
            )
            running.enter_context(contestants[name])
        for ours in ("ours", "ours bf16"):
            if reads and ours in names:
                words = [str(reads), str(subject.read_bytes(ours)), str(subject.threads(ours))]
                contestants[subject.reads(ours)] = Contestant("benchmarks.plain_reads", words)
                running.enter_context(contestants[subject.reads(ours)])
        return in_turns(contestants, rounds)


def _steps(ours: str, reads: Path | None) -> list[str]:
    """Return the contestant that chooses tokens without a request around them, if there is a C compiler."""
    return [ours.replace("ours", "ours, step")] if reads else []


def _fastest(turns: Turns, names: Collection[str]) -> str:
    return max(names, key=turns.median)


def _read_rows(subject: _Subject, turns: Turns, ours: str, goal: float) -> list[Row]:
    """Compare the step with plain reads by as many threads; without a C compiler return the speed of requests."""
    case, limit = f"decode-{subject.name}", subject.reads(ours)
    if limit in turns.figures:
        row = compared(case, turns, ours.replace("ours", "ours, step"), limit, goal)
        gigabytes = turns.median(limit) * subject.read_bytes(ours) / 1e9
        return [changed(row, details={**row.details, "GB per second": gigabytes})]
    no_limit = f"{case}: {ours}, no limit without a C compiler"
    return [Row(case=no_limit, value=turns.median(ours), unit="tokens/s", foreign_share=turns.foreign_share)]


def _against(subject: _Subject, turns: Turns, ours: str, rival: str, goal: float | None) -> Row:
    limit = turns.median(subject.reads(ours)) if subject.reads(ours) in turns.figures else None
    return compared(f"decode-{subject.name}", turns, ours, rival, goal, limit=limit, limited_by="plain reads")


def main(only: Sequence[str]) -> None:
    torch.set_num_threads(default_threads())
    with TemporaryDirectory() as folder:
        print_rows(decode_rows(Lab(Path(folder)), os.environ.get("QUICK") == "1", only), Console(width=200))


if __name__ == "__main__":
    main(sys.argv[1:])
