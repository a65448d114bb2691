"""Validation loss on a corpus as one stream against a plain loop: nanoGPT's example for CPUs on Tiny Shakespeare.

    python -m benchmarks.shakespeare TEXT_FILE [--steps N] [--seeds N] [--threads N]

Trains the model of `SHAPES["gpt2"]` with `documents: stream`, and the one of `plain_gpt2` with nanoGPT's loop on the
same text. Prints the losses of both over all of the same validation text, and as nanoGPT estimates them: over random
windows. Exits 1 if the mean loss of ours over the seeds is more than `MAX_NATS` above that of the plain loop.

Source of the settings: https://github.com/karpathy/nanoGPT (README.md, config/train_shakespeare_char.py, train.py).
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.plain_gpt2 import Gpt
from benchmarks.shapes import SHAPES
from trainer.config.presets import resolve
from trainer.config.validation import parse
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.data.corpus import Split
from trainer.data.run_corpora import CorpusPaths
from trainer.data.text import corpus_sha256
from trainer.inference.windows import context_of
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.system.hardware import default_threads
from trainer.tokenizers.base import vocabulary_of
from trainer.training.batches import NO_TARGET
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import resolve as resolve_compute
from trainer.training.device import seed_everything
from trainer.training.evaluation import evaluate
from trainer.training.loop import train

MAX_NATS = 0.01
SHAPE = SHAPES["gpt2"]
_LEARNING_RATE, _MIN_LEARNING_RATE, _WARMUP_STEPS = 1e-3, 1e-4, 100
_BETAS, _WEIGHT_DECAY, _CLIP_NORM = (0.9, 0.99), 0.1, 1.0
_INITIAL_STD = 0.02
_WINDOWS_PER_BATCH = 64
_ESTIMATE_BATCHES = 200
"""`eval_iters` of nanoGPT's train.py; its example for CPUs takes 20."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Returns the mean loss in nats of the targets (B, T) after the inputs (B, T)."""


def request(text_file: Path, steps: int, seed: int, threads: int) -> EffectiveRequest:
    """Return nanoGPT's settings as a train request: all weights decay but those of normalizations and biases."""
    fields: dict[str, object] = {
        "corpus": text_file.name,
        "documents": "stream",
        "model_family": "gpt2",
        "model": {
            "num_layers": SHAPE.layers,
            "hidden_size": SHAPE.hidden_size,
            "num_attention_heads": SHAPE.heads,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_function": "gelu",
        },
        "tokenizer": {"method": "char"},
        "max_seq_len": SHAPE.length,
        "batch_size": SHAPE.rows,
        "num_epochs": 1000,
        "max_steps": steps,
        "optimizer": {"betas": _BETAS, "weight_decay": _WEIGHT_DECAY, "weight_decay_exclude": ("bias", "norm")},
        "learning_rate": _LEARNING_RATE,
        "min_learning_rate": _MIN_LEARNING_RATE,
        "lr_schedule": "cosine",
        "warmup_steps": _WARMUP_STEPS,
        "gradient_clipping": _CLIP_NORM,
        "holdout_fraction": 0.1,
        "test_fraction": 0.0,
        "seed": seed,
        "device": "cpu",
        "threads": threads,
    }
    reference = CorpusRef(name=text_file.name, sha256=corpus_sha256(text_file), bytes=text_file.stat().st_size)
    return resolve(
        parse(TrainRequest, fields),
        corpus=reference,
    )


def train_ours(effective: EffectiveRequest, corpus: TokenizedCorpus, model: LanguageModel) -> LanguageModel:
    with TemporaryDirectory() as folder:
        train(model, corpus, effective, resolve_compute(effective), CheckpointStore(Path(folder)))
    return model.eval()


def train_plain(ids: Tensor, vocabulary: int, steps: int, seed: int) -> Gpt:
    """Train with nanoGPT's initial weights, rows from random positions, weight decay of matrices and its schedule."""
    torch.manual_seed(seed)
    model = Gpt(SHAPE, vocabulary, bias=False)
    for name, weight in model.named_parameters():
        if weight.dim() >= 2:
            is_residual = name.endswith(("output.weight", "narrow.weight"))
            nn.init.normal_(weight, std=_INITIAL_STD / (math.sqrt(2 * SHAPE.layers) if is_residual else 1))
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizers = [
        torch.optim.AdamW(weights, betas=_BETAS, weight_decay=decay)
        for weights, decay in ((matrices, _WEIGHT_DECAY), (vectors, 0.0))
    ]
    for step in range(steps):
        starts: list[int] = torch.randint(len(ids) - SHAPE.length, (SHAPE.rows,)).tolist()
        rows = torch.stack([ids[start : start + SHAPE.length + 1] for start in starts])
        loss = model.forward(rows[:, :-1], rows[:, 1:].contiguous())
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        for optimizer in optimizers:
            groups: list[dict[str, object]] = optimizer.param_groups
            groups[0]["lr"] = _learning_rate(step, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return model.eval()


def _learning_rate(step: int, steps: int) -> float:
    if step < _WARMUP_STEPS:
        return _LEARNING_RATE * (step + 1) / _WARMUP_STEPS
    share = (1 + math.cos(math.pi * (step - _WARMUP_STEPS) / (steps - _WARMUP_STEPS))) / 2
    return _MIN_LEARNING_RATE + share * (_LEARNING_RATE - _MIN_LEARNING_RATE)


def loss_over(ids: Tensor, loss_of: Loss, context: int) -> float:
    """Return the mean loss of all ids but the first, in windows that read `context` tokens before their targets."""
    starts = range(0, len(ids) - 1, SHAPE.length - context)
    windows = [ids[start : start + SHAPE.length + 1] for start in starts]
    windows = [window for number, window in enumerate(windows) if number == 0 or len(window) > context + 1]
    total = 0.0
    with torch.inference_mode():
        for first in range(0, len(windows), _WINDOWS_PER_BATCH):
            batch = windows[first : first + _WINDOWS_PER_BATCH]
            alike = [window for window in batch if len(window) == len(batch[0])]
            for part in (alike, batch[len(alike) :]):
                if part:
                    rows = torch.stack(part)
                    targets = rows[:, 1:].clone()
                    targets[int(first == 0 and part is alike) :, :context] = NO_TARGET
                    predicted = int(torch.count_nonzero(targets != NO_TARGET))
                    total += float(loss_of(rows[:, :-1], targets)) * predicted
    return total / (len(ids) - 1)


def estimated_loss(ids: Tensor, loss_of: Loss, seed: int) -> float:
    """Return nanoGPT's `estimate_loss`: the mean loss of batches of windows from random positions, without context."""
    random = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    with torch.inference_mode():
        for _ in range(_ESTIMATE_BATCHES):
            starts: list[int] = torch.randint(len(ids) - SHAPE.length, (SHAPE.rows,), generator=random).tolist()
            rows = torch.stack([ids[start : start + SHAPE.length + 1] for start in starts])
            losses.append(float(loss_of(rows[:, :-1], rows[:, 1:].contiguous())))
    return mean(losses)


def measure(text_file: Path, steps: int, seed: int, threads: int) -> dict[str, float]:
    """Train both with a seed; return their validation losses in nats per character."""
    effective = request(text_file, steps, seed, threads)
    with TemporaryDirectory() as folder:
        tokenizer, corpus = prepare(effective, CorpusPaths(text_file), Path(folder))
        streams = {split: _tensor(corpus, split) for split in ("train", "validation")}
        seed_everything(seed)
        model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
        ours = train_ours(effective, corpus, model)
        evaluated = evaluate(ours, corpus.documents("validation"), resolve_compute(effective)).loss_nats
    plain = train_plain(streams["train"], tokenizer.vocab_size, steps, seed)

    def loss_of_ours(inputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(ours.forward(inputs).flatten(0, 1), targets.flatten())

    read = torch.cat([torch.full((1,), tokenizer.special_ids.start), streams["validation"]])
    context = context_of(SHAPE.length)
    return {
        "ours, by mt eval": evaluated,
        "ours, windows": loss_over(read, loss_of_ours, context),
        "plain, windows": loss_over(read, plain.forward, context),
        "ours, blocks": loss_over(read, loss_of_ours, 0),
        "plain, blocks": loss_over(read, plain.forward, 0),
        "ours, random windows": estimated_loss(streams["validation"], loss_of_ours, seed),
        "plain, random windows": estimated_loss(streams["validation"], plain.forward, seed),
    }


def _tensor(corpus: TokenizedCorpus, split: Split) -> Tensor:
    ids: list[int] = corpus.ids[split].tolist()
    return torch.tensor(ids)


def main() -> int:
    parser = argparse.ArgumentParser(description="validation loss on a stream against a plain loop")
    parser.add_argument("text_file", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args(namespace=_Options())
    losses: list[dict[str, float]] = []
    for seed in range(1, options.seeds + 1):
        losses.append(measure(options.text_file, options.steps, seed, options.threads))
        print(f"seed {seed}:", ", ".join(f"{name} {loss:.4f}" for name, loss in losses[-1].items()), flush=True)
    means = {name: mean(of_seed[name] for of_seed in losses) for name in losses[0]}
    print("mean:", ", ".join(f"{name} {loss:.4f}" for name, loss in means.items()))
    return int(max(means[f"ours, {way}"] - means[f"plain, {way}"] for way in ("windows", "blocks")) > MAX_NATS)


class _Options(argparse.Namespace):
    text_file: Path
    steps: int
    seeds: int
    threads: int


if __name__ == "__main__":
    sys.exit(main())
