"""Comparison with reference tools: exported runs in minicons and in the transformers library.

    python -m benchmarks.parity [--corpus PATH] [--sentences N] [--draws N]

Trains every family briefly on a corpus (default: the demo corpus) and exports it. Then, on sentences of that corpus:

- surprisals of GPT-2 and BERT equal those of minicons 0.3.39, per token, per word and in sum;
- greedy generation equals `generate` of transformers, token by token, for each causal family;
- sampled tokens have the distribution that transformers' top-k, top-p and temperature filters leave (chi-square).

Prints the differences. Exits 1 if one exceeds its bound. Needs the extra `parity`.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from benchmarks.lab import DEMO_CORPUS, Lab
from benchmarks.reference_tools import load_library_model, load_scorer, row_of
from trainer.api import Model
from trainer.config.validation import parse
from trainer.contracts.generations import GenerateChunk, GenerateRequest, GenerateResponse
from trainer.inference.generation import GenerationJob, generate, generate_together
from trainer.inference.scoring import score_lines, word_surprisals
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
MAX_NATS = 1e-4
MIN_P = 1e-3
"""Samples of the right distribution fail this once in 1,000 seeds; the seeds here are fixed."""
MAX_CHARACTERS = 100
NEW_TOKENS = 40
DRAWS_PER_REQUEST = 10
CAUSAL: dict[str, str] = {
    "char_lstm": "char",
    "lstm": "word",
    "gru": "char",
    "rnn": "bpe",
    "gpt2": "bpe",
    "llama": "sentencepiece",
    "qwen": "wordpiece",
}
"""Families with their tokenizers; every subword method has a family that minicons can load."""
WORDS = ("gpt2", "llama", "qwen")
"""Families whose word surprisals are compared: one for each subword method."""
SAMPLINGS: dict[str, dict[str, object]] = {
    "plain": {},
    "top-k 5": {"top_k": 5},
    "top-p 0.8": {"top_p": 0.8},
    "temperature 0.7": {"temperature": 0.7},
    "all three": {"top_k": 12, "top_p": 0.9, "temperature": 1.3},
}


class Difference(NamedTuple):
    """Maximum differences of surprisals."""

    token_nats: float
    sum_nats: float


class _Warper(Protocol):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor: ...


def surprisal_difference(folder: Path, sentences: Sequence[str], *, batch: int = 20) -> Difference:
    """Score sentences with minicons, from an exported folder alone, and with ours."""
    ours = Model.load(folder)
    is_causal = ours.model.objective == "causal_lm"
    scorer = load_scorer("IncrementalLMScorer" if is_causal else "MaskedLMScorer", folder)
    differences: list[Difference] = []
    for start in range(0, len(sentences), batch):
        texts = list(sentences[start : start + batch])
        if is_causal:
            theirs = scorer.compute_stats(scorer.prepare_text(texts, bos_token=True))
        else:  # minicons asks the tokenizer for a method that the library has no more, but takes what is encoded
            theirs = scorer.compute_stats(scorer.prepare_text(scorer.tokenizer(texts, padding="longest")))
        own = score_lines(ours.model, [ours.tokenizer.encode(text) for text in texts])
        for log_probabilities, scores in zip(theirs, own, strict=True):
            found: list[float] = scores.surprisal.tolist()
            apart = [abs(nats + log_p) for nats, log_p in zip(found, log_probabilities, strict=True)]
            differences.append(Difference(max(apart), abs(sum(found) + sum(log_probabilities))))
    return Difference(max(each.token_nats for each in differences), max(each.sum_nats for each in differences))


def word_difference(folder: Path, sentences: Sequence[str]) -> float:
    """Score the words of sentences with minicons, corrected for white space, and with ours, as it defines a word."""
    ours = Model.load(folder)
    scorer = load_scorer("IncrementalLMScorer", folder)
    apart: list[float] = []
    for text in sentences:
        [theirs] = scorer.word_score_tokenized(
            [text], lambda line: line.split(), bow_correction=True, bos_token=True, surprisal=True
        )
        own = word_surprisals(ours.model, ours.tokenizer, text, as_minicons=True)
        apart += [abs(nats - other) for (_, nats), (_, other) in zip(own, theirs, strict=True)]
    return max(apart)


def greedy_differences(ours: Model, exported: Path, prompts: Sequence[str]) -> int:
    """Count the prompts that the library's `generate` continues otherwise with the exported model."""
    model, tokenizer = load_library_model(exported), ours.tokenizer
    differing = 0
    for prompt in prompts:
        ids = tokenizer.encode(prompt)
        started = [tokenizer.special_ids.start, *ids]
        room = (ours.model.context_tokens or len(started) + NEW_TOKENS) - len(started)
        count = min(NEW_TOKENS, room)
        [theirs] = model.generate(row_of(started), max_new_tokens=count, do_sample=False).tolist()
        new = theirs[len(started) :]
        request = GenerateRequest(prompt_text=prompt, max_new_tokens=count, temperature=0)
        answer = generate(ours.model, tokenizer, request, run_id="run", request_id="request")
        text = tokenizer.decode([*ids, *new])[len(tokenizer.decode(ids)) :]
        differing += answer.steps != (len(new),) or answer.outputs != (text,)
    return differing


def drawn_p_value(folder: Path, prompt: str, draws: int, **options: object) -> float:
    """Return how likely draws that are at least so far from the exact distribution would be: chi-square.

    The exact one comes from the exported model and the library's filters; the tokenizer is one of characters.
    """
    ours = Model.load(folder)
    tokenizer = ours.tokenizer
    ids = [tokenizer.special_ids.start, *tokenizer.encode(prompt)]
    with torch.no_grad():
        logits = load_library_model(folder)(row_of(ids)).logits[0, -1:].double()
    logits[:, tokenizer.special_ids.never_sampled] = -torch.inf
    for warper in _warpers(parse(GenerateRequest, {"prompt_text": "", **options})):
        logits = warper(row_of(ids), logits)
    exact: list[float] = logits.softmax(-1)[0].tolist()
    counts = _drawn(ours.model, tokenizer, prompt, draws, options)
    if any(exact[token_id] == 0 for token_id in counts):
        return 0.0
    rare = [token_id for token_id, p in enumerate(exact) if 0 < p * draws < 5]
    bins = [[token_id] for token_id, p in enumerate(exact) if p * draws >= 5] + ([rare] if rare else [])
    expected = [sum(exact[token_id] for token_id in of_bin) * draws for of_bin in bins]
    found = [sum(counts[token_id] for token_id in of_bin) for of_bin in bins]
    squares = sum((a - b) ** 2 / b for a, b in zip(found, expected, strict=True))
    freedom = max(1, len(bins) - 1)
    p: Tensor = _beyond(_double(freedom / 2), _double(squares / 2))
    return float(p)


def _drawn(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, draws: int, options: dict[str, object]
) -> Counter[int]:
    """Sample one token repeatedly, each time with another seed."""
    given: dict[str, object] = {
        "prompt_text": prompt,
        "max_new_tokens": 1,
        "num_return_sequences": DRAWS_PER_REQUEST,
        **options,
    }
    counts: Counter[int] = Counter()
    for first in range(0, draws // DRAWS_PER_REQUEST, 100):
        seeds = range(first, min(first + 100, draws // DRAWS_PER_REQUEST))
        response = GenerateResponse(request_id="request", run_id="run", status="queued")
        requests = [parse(GenerateRequest, {**given, "seed": seed}) for seed in seeds]
        jobs = [GenerationJob(model, tokenizer, request, response) for request in requests]
        for answer in generate_together(model, jobs):
            if isinstance(answer, GenerateChunk):
                continue
            for text, ended in zip(answer.outputs or (), answer.eos_terminated or (), strict=True):
                counts[tokenizer.special_ids.eos if ended else tokenizer.encode(text)[0]] += 1
    return counts


def _warpers(request: GenerateRequest) -> list[_Warper]:
    library = import_module("transformers")
    temperature: Callable[[float], _Warper] = library.TemperatureLogitsWarper
    top_k: Callable[[int], _Warper] = library.TopKLogitsWarper
    top_p: Callable[[float], _Warper] = library.TopPLogitsWarper
    warpers = [temperature(request.temperature)]
    if request.top_k:
        warpers.append(top_k(request.top_k))
    return [*warpers, top_p(request.top_p)] if request.top_p < 1 else warpers


_beyond: Callable[[Tensor, Tensor], Tensor] = import_module("torch.special").gammaincc
"""The upper tail of the gamma distribution, of which chi-square's is one."""


def _double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class _Arguments(argparse.Namespace):
    corpus: str
    sentences: int
    draws: int


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compares exported runs with the reference tools.")
    parser.add_argument("--corpus", default=str(DEMO_CORPUS), metavar="PATH")
    parser.add_argument("--sentences", type=int, default=200, metavar="N")
    parser.add_argument("--draws", type=int, default=20_000, metavar="N")
    arguments = parser.parse_args(words, namespace=_Arguments())
    with TemporaryDirectory() as folder:
        os.environ["HF_HOME"] = folder  # where the library copies the code of recurrent models to
        return compare(Path(arguments.corpus).resolve(), Path(folder), arguments.sentences, arguments.draws)


def compare(corpus: Path, folder: Path, sentences: int, draws: int) -> int:
    """Train, export, compare and tell; return 1 where something is beyond its bound."""
    lines = [line.strip() for line in corpus.read_text(encoding="utf-8").splitlines()]
    fitting = {line: None for line in lines if 10 <= len(line) <= MAX_CHARACTERS}
    texts = list(fitting)[:sentences]
    if len(texts) < sentences:
        raise SystemExit(f"The corpus has {len(texts)} different lines of 10 to {MAX_CHARACTERS} characters.")
    lab = Lab(folder)
    exported = {family: _trained(lab, family, tokenizer, corpus) for family, tokenizer in _TRAINED.items()}
    failures = 0
    for family in ("gpt2", "bert"):
        found = surprisal_difference(exported[family], texts)
        ok = max(found) <= MAX_NATS
        failures += not ok
        print(
            f"{family:<10} minicons, {len(texts)} sentences: at most {found.token_nats:.1e} nats off per token,"
            f" {found.sum_nats:.1e} per sentence  {_verdict(ok)}"
        )
    for family in WORDS:
        apart = word_difference(exported[family], texts)
        failures += apart > MAX_NATS
        print(
            f"{family:<10} minicons, words of {CAUSAL[family]}: at most {apart:.1e} nats off per word"
            f"  {_verdict(apart <= MAX_NATS)}"
        )
    prompts = [" ".join(text.split()[:3]) for text in texts[:20]]
    for family in CAUSAL:
        differing = greedy_differences(Model.load(exported[family]), exported[family], prompts)
        failures += differing > 0
        print(
            f"{family:<10} greedy, {len(prompts)} prompts, {NEW_TOKENS} tokens each: {differing} differ from the"
            f" library's  {_verdict(not differing)}"
        )
    for name, options in SAMPLINGS.items():
        p = drawn_p_value(exported["char_lstm"], prompts[0], draws, **options)
        failures += p < MIN_P
        print(f"{name:<16} {draws:,} draws against the exact distribution: p = {p:.3f}  {_verdict(p >= MIN_P)}")
    return 1 if failures else 0


_TRAINED = {**CAUSAL, "bert": "wordpiece"}


def _trained(lab: Lab, family: str, tokenizer: str, corpus: Path) -> Path:
    """Train a family at its smallest for some steps and export it; return the exported folder."""
    fields: dict[str, object] = {"model_family": family, "model_size": "tiny", "tokenizer.method": tokenizer}
    fields |= {"max_steps": 100, "max_seq_len": 160, "batch_size": 16, "seed": 1}
    if tokenizer not in ("char", "word"):
        fields["tokenizer.vocab_size"] = 1000
    return lab.export(lab.train(corpus, fields))


def _verdict(ok: bool) -> str:
    return "ok" if ok else "BEYOND THE BOUND"


if __name__ == "__main__":
    sys.exit(main())
