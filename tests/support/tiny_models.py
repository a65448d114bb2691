"""Tiny requests, corpora, tokenizers and models for trainings in this process."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.support import steady
from tests.support.families import vocabulary
from trainer.config.presets import resolve
from trainer.config.tokenizer_request import config_of
from trainer.config.validation import parse
from trainer.contracts.models import ModelConfig, RnnConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.contracts.tokenizers import CharTokenizerConfig, DocumentMode, Normalization, TokenizerConfig
from trainer.data.corpus import Split, SplitCorpus, SplitRule
from trainer.data.run_corpora import CorpusPaths
from trainer.data.text import corpus_sha256
from trainer.inference.sampling import Doubles
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.steps import ModelState
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Ids, Text, Tokenizer, Vocabulary, vocabulary_of
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import Compute, seed_everything
from trainer.training.device import resolve as resolve_compute
from trainer.training.loop import TrainingCallbacks, TrainResult, train

NFC = Normalization()
SMALL: dict[str, object] = {
    "model_family": "char_lstm",
    "model": {"embedding_size": 8, "hidden_size": 16, "num_layers": 1, "dropout": 0.0},
    "max_seq_len": 16,
    "batch_size": 4,
    "num_epochs": 2,
    "learning_rate": 0.01,
    "log_every_steps": 3,
    "threads": 1,
}
POEM = [
    "the sun was shining on the sea",
    "shining with all his might",
    "he did his very best to make",
    "the billows smooth and bright",
    "and this was odd because it was",
    "the middle of the night",
    "the moon was shining sulkily",
    "because she thought the sun",
    "had got no business to be there",
    "after the day was done",
]


class Run(NamedTuple):
    """All that a training needs, before it begins."""

    effective: EffectiveRequest
    compute: Compute
    tokenizer: Tokenizer
    corpus: TokenizedCorpus
    folder: Path

    def fresh_model(self) -> LanguageModel:
        seed_everything(self.effective.seed)
        return build(self.effective.model, vocabulary_of(self.tokenizer), self.effective.objective)

    def lines(self, split: Split) -> list[str]:
        """The normalized lines of a split, from the corpus itself."""
        request = self.effective
        rule = SplitRule(request.holdout_fraction, request.test_fraction, request.split_seed, request.split_by)
        return lines_in(SplitCorpus(self.folder / "corpus.txt", self.tokenizer.normalization, rule).lines(split))

    def train(
        self,
        model: LanguageModel,
        *,
        store: CheckpointStore | None = None,
        resume: Checkpoint | None = None,
        callbacks: TrainingCallbacks | None = None,
    ) -> TrainResult:
        store = store or CheckpointStore(self.folder / "checkpoints")
        return train(model, self.corpus, self.effective, self.compute, store, resume=resume, callbacks=callbacks)


def write(folder: Path, lines: Iterable[str], name: str = "corpus.txt") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def reference(path: Path) -> CorpusRef:
    return CorpusRef(name=path.name, sha256=corpus_sha256(path), bytes=1)


def make_run(folder: Path, lines: Iterable[str] = POEM, **values: object) -> Run:
    """Prepare a small run on these lines; `values` replace those of SMALL."""
    path = write(folder, lines)
    effective = resolve(
        parse(TrainRequest, {**SMALL, **steady(values), "corpus": path.name, **values}),
        corpus=reference(path),
    )
    tokenizer, corpus = prepare(effective, CorpusPaths(path), folder / "cache")
    return Run(effective, resolve_compute(effective), tokenizer, corpus, folder)


def lines_in(blocks: Iterable[str]) -> list[str]:
    """Return the lines of blocks, in which newlines separate them."""
    return [line for block in blocks for line in block.split("\n")]


def char_tokenizer(lines: Iterable[str], holdout: Iterable[str] = ("a b",), **config: object) -> Tokenizer:
    return _trained(parse(CharTokenizerConfig, config), lines, holdout)


def tokenizer_of(method: str, lines: Sequence[str], holdout: Sequence[str] = ("a b",), **fields: object) -> Tokenizer:
    """A tokenizer of any method, made from lines that are normalized already."""
    request = parse(TokenizerTrainRequest, {"method": method, "corpora": ("text",), **fields})
    return _trained(config_of(request), lines, holdout, request.documents)


def _trained(
    config: TokenizerConfig, lines: Iterable[str], holdout: Iterable[str], documents: DocumentMode = "line"
) -> Tokenizer:
    corpus, rule = CorpusRef(name="text", sha256="0" * 64, bytes=1), SplitRule(0.1, 0.1, 1)
    texts = [Text(corpus, lambda: ["\n".join(lines)])]
    return train_tokenizer(config, texts, ["\n".join(holdout)], rule=rule, documents=documents)


def library_tokenizer(ours: Tokenizer) -> tokenizers.Tokenizer:
    """Load the file that a tokenizer saves with the `tokenizers` library."""
    with TemporaryDirectory() as folder:
        ours.save(Path(folder))
        library = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    library.encode_special_tokens = True
    return library


def small_model(
    tokens: int | Vocabulary, architecture: str = "lstm", *, tied: bool = True, layers: int = 2
) -> LanguageModel:
    """A model with random weights that are large enough for its answers to differ."""
    torch.manual_seed(5)
    fields: dict[str, object] = {"architecture": architecture, "embedding_size": 6, "hidden_size": 7}
    fields |= {"num_layers": layers, "tie_word_embeddings": tied}
    config: ModelConfig = parse(RnnConfig, fields)
    model = build(config, vocabulary(tokens) if isinstance(tokens, int) else tokens)
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-1, 1)
    return model.eval()


class TableModel(LanguageModel):
    """A model without a state, whose logits are what `hidden_states` gives; a row of its embedding for each token."""

    def __init__(self, tokens: Vocabulary) -> None:
        super().__init__(tokens, "causal_lm")
        self.embedding = nn.Embedding(tokens.size, tokens.size)

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        rows: Tensor = self.embedding(ids)
        return rows

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def initial_state(self, batch: int) -> ModelState:
        return (torch.zeros(1, batch, 1),)

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        return self.forward(ids), state

    def input_embedding(self) -> nn.Embedding:
        return self.embedding


def tensor_of(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows)


def doubles(tensor: Tensor) -> Doubles:
    array: Doubles = tensor.numpy()
    return array


def integers(array: "Ids | NDArray[np.int64] | Tensor") -> list[int]:
    values: list[int] = array.flatten().tolist()
    return values


def floats(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.tolist()
    return values
