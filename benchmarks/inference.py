"""Speed of scoring against minicons and plain loops, on runs trained by `mt train`."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.inference_contestants import (
    BATTERY_BATCHES,
    MASKED_SENTENCES,
    MINICONS_BATCHES,
    SCORED_SENTENCES,
    WINDOW_TOKENS,
    long_line,
    scored,
)
from benchmarks.lab import Lab, sentences, write_text
from benchmarks.parity import surprisal_difference
from benchmarks.rows import Row, compared
from benchmarks.shapes import SHAPES
from benchmarks.turns import Contestant, Turns, in_turns, products_alone
from trainer.api import Model
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import load_settings
from trainer.contracts.scores import ScoreResponse
from trainer.inference.windows import context_of
from trainer.system.child_environment import tuned_environment

_LINE_CHARACTERS = 2000
"""Long lines, so that a continuation does not end early."""
_MAX_SCORE_NATS, _MAX_WINDOW_NATS = 1e-5, 1e-3
_COMPARED_SENTENCES = 200
_LAYERS, _WIDTH, _VOCABULARY = 6, 256, 4000
_BODY_FLOPS, _HEAD_FLOPS = 2 * 12 * _LAYERS * _WIDTH**2, 2 * _WIDTH * _VOCABULARY
"""Operations of a token in the products with the weights of the layers, and with those of the output layer."""


class _Subject(NamedTuple):
    """A run and its exported folder."""

    run: RunDirectory
    exported: Path


def inference_rows(lab: Lab, is_quick: bool) -> list[Row]:
    """Train and export the models, then measure all cases."""
    steps = 20 if is_quick else 300
    text = write_text(lab.folder / "lines.txt", 1_000_000, line_characters=_LINE_CHARACTERS)
    lstm = _subject(lab, text, {"model_family": "char_lstm", "max_steps": steps})
    sizes: dict[str, object] = {"model.num_layers": _LAYERS, "model.hidden_size": _WIDTH}
    sizes |= {"model.num_attention_heads": 8, "tokenizer.vocab_size": _VOCABULARY}
    sizes |= {"model.max_position_embeddings": 256, "max_seq_len": 256, "batch_size": 8, "max_steps": steps}
    gpt2 = _subject(lab, text, sizes | {"model_family": "gpt2", "tokenizer.method": "bpe"})
    bert = _subject(lab, text, sizes | {"model_family": "bert", "tokenizer.method": "wordpiece"})
    rounds = 2 if is_quick else 5
    return (
        _score_rows(gpt2, rounds)
        + _battery_rows(gpt2, rounds)
        + _masked_rows(bert, rounds)
        + _window_rows(lstm, rounds)
    )


def _score_rows(gpt2: _Subject, rounds: int) -> list[Row]:
    rivals = [f"minicons {batch}" for batch in MINICONS_BATCHES]
    turns = _measured(gpt2, ["our scores", *rivals], rounds)
    _, best = sorted((turns.median(name), name) for name in rivals)[-1]
    difference = surprisal_difference(gpt2.exported, sentences(_COMPARED_SENTENCES))
    tokens = [length + 1 for length in _lengths(gpt2, SCORED_SENTENCES)]  # with [BOS]
    limit = len(tokens) * _limit("gemm", rounds) / (sum(tokens) * (_BODY_FLOPS + _HEAD_FLOPS))
    return [
        compared("GPT-2 scoring", turns, "our scores", best, 1.8, limit=limit, limited_by="the products alone"),
        _at_most("GPT-2 scoring: difference from minicons", difference.token_nats, "nats", _MAX_SCORE_NATS),
    ]


def _battery_rows(gpt2: _Subject, rounds: int) -> list[Row]:
    rivals = [f"minicons battery {batch}" for batch in BATTERY_BATCHES]
    turns = _measured(gpt2, ["our battery", *rivals], rounds)
    _, best = sorted((turns.median(name), name) for name in rivals)[-1]
    return [compared("GPT-2 battery of minimal pairs", turns, "our battery", best, 1.8)]


def _masked_rows(bert: _Subject, rounds: int) -> list[Row]:
    turns = _measured(bert, ["our masked scores", "masked loop"], rounds)
    lengths = _lengths(bert, MASKED_SENTENCES)
    flops = sum(n * ((n + 2) * _BODY_FLOPS + _HEAD_FLOPS) for n in lengths)  # a pass for each token, with [CLS], [SEP]
    limit = len(lengths) * _limit("gemm", rounds) / flops
    return [
        compared(
            "BERT pseudo-log-likelihood",
            *(turns, "our masked scores", "masked loop", 4.0),
            limit=limit,
            limited_by="the products alone",
        )
    ]


def _window_rows(lstm: _Subject, rounds: int) -> list[Row]:
    turns = _measured(lstm, ["windows", "stateful"], rounds)
    loaded = Model.load(lstm.run.path)
    [exact], [windows] = (
        scored(loaded, [long_line()], window_tokens=size, detail_level="per_char") for size in (None, WINDOW_TOKENS)
    )
    reads = WINDOW_TOKENS / (WINDOW_TOKENS - context_of(WINDOW_TOKENS))  # of each character
    forward_flops = SHAPES["lstm"].flops_per_token(loaded.model.vocab_size) / 3
    differences: list[float] = np.abs(_surprisals(exact) - _surprisals(windows)).tolist()
    return [
        compared(
            "LSTM scoring of a long line",
            *(turns, "windows", "stateful", 2.4),
            limit=_limit("lstm", rounds) / (reads * forward_flops),
            limited_by="its own products alone",
        ),
        _at_most("LSTM scoring of a long line: largest difference", max(differences), "nats", _MAX_WINDOW_NATS),
    ]


def _measured(subject: _Subject, names: Sequence[str], rounds: int) -> Turns:
    """Measure contestants in turns; ours run in the environment of the worker's inference process."""
    tuned = tuned_environment(load_settings())
    folders = [str(subject.run.path), str(subject.exported)]
    with ExitStack() as running:
        contestants = {
            name: running.enter_context(
                Contestant(
                    "benchmarks.inference_contestants",
                    [name, *folders],
                    tuned if name.startswith("our") or name in ("windows", "stateful") else None,
                )
            )
            for name in names
        }
        return in_turns(contestants, rounds)


def _limit(kind: str, rounds: int) -> float:
    """Measure a limit of this machine, per second."""
    with products_alone(kind) as limit:
        return in_turns({kind: limit}, rounds).median(kind)


def _lengths(subject: _Subject, count: int) -> list[int]:
    """Return the tokens of each of the first sentences."""
    tokenizer = Model.load(subject.run.path).tokenizer
    return [len(tokenizer.encode(sentence)) for sentence in sentences(count)]


def _at_most(case: str, value: float, unit: str, goal: float) -> Row:
    return Row(case=case, value=value, unit=unit, goal=goal, better="less")


def _surprisals(response: ScoreResponse) -> NDArray[np.float64]:
    return np.array(response.surprisal, dtype=np.float64)


def _subject(lab: Lab, corpus: Path, fields: dict[str, object]) -> _Subject:
    run = lab.train(corpus, fields)
    return _Subject(run, lab.export(run))
