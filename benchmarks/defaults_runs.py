"""Cells of the grid of `benchmarks/defaults.py`: their texts, their drawn settings, and their runs."""

import asyncio
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import fsum, inf, isfinite, log10
from pathlib import Path
from shutil import copyfile
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal, NamedTuple

from benchmarks.lab import DEMO_CORPUS
from trainer.config.presets import architecture, request_hash
from trainer.config.settings import AppSettings, Settings
from trainer.config.validation import parse, parse_json, set_path
from trainer.contracts.base import Frozen, Sha256
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import CONFIGS, ModelFamily, RnnConfig
from trainer.contracts.runs import EffectiveRequest, HeldOutSplit, TrainRequest
from trainer.contracts.tokenizers import TokenizerMethod
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import corpus_paths
from trainer.models import build
from trainer.queue.resolve import resolve_request
from trainer.tokenizers.base import Vocabulary, vocabulary_of
from trainer.training.baseline import unigrams_and_ngram
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import resolve, seed_everything
from trainer.training.loop import TrainResult, train

TextName = Literal["demo", "cut", "ug", "tr", "tinyshakespeare", "wikitext-valid", "5mb"]
Fields = dict[str, bool | int | float | str]
"""Fields of a request by their paths."""

CUT_BYTES = 20_000
RULE_TEXTS: tuple[TextName, ...] = ("demo", "cut", "tr", "tinyshakespeare", "5mb")
"""Texts that the rules may be made on; the others show what the rules are worth on new text."""
SEEDS = (42, 43)
"""The first one is the default of a request."""
_RECURRENT_RATES, _TRANSFORMER_RATES = (1e-3, 3e-2), (5e-4, 1.5e-2)
_BATCH_ROWS: Mapping[TextName, Sequence[int]] = {
    "cut": (1, 2, 4, 8, 16),
    "demo": (2, 4, 8, 16, 32),
    "ug": (2, 4, 8, 16, 32),
    "tr": (2, 4, 8, 16, 32),
    "wikitext-valid": (4, 8, 16, 32, 64),
    "tinyshakespeare": (8, 16, 32, 64, 128),
    "5mb": (8, 16, 32, 64, 128),
}
"""Rows per batch to draw from, for a text of such a length; most texts have rows of 128 tokens."""
_MAX_DROPOUT = 0.5
_WEIGHT_DECAYS = (1e-3, 0.3)
_SCHEDULES = ("constant", "linear", "cosine", "wsd")
_OPTIMIZERS = ("adamw", "muon")
_FIRST_SHARE = 3
"""The first runs of a search have a third of the epochs of the default."""


class Plan(NamedTuple):
    """The size of the search in a cell."""

    settings: int
    finalists: int = 3
    """Best settings, which are trained with every seed."""
    epochs: int | None = None
    """Epochs of all runs, the default's too; None: those that the rules choose."""


class Cell(NamedTuple):
    """A training whose default is compared with a search."""

    family: ModelFamily
    size: str
    method: TokenizerMethod
    text: TextName

    @property
    def name(self) -> str:
        return f"{self.family} {self.size} {self.method} {self.text}"

    def request(self, fields: Mapping[str, object], seed: int) -> TrainRequest:
        """Return the request of a run: the default, but for the given fields."""
        values: dict[str, object] = {
            "corpus": self.text,
            "model_family": self.family,
            "model_size": self.size,
            "tokenizer": {"method": self.method},
            "seed": seed,
        }
        for path, value in fields.items():
            set_path(values, path, value)
        return parse(TrainRequest, values)

    def drawn_settings(self, count: int) -> list[Fields]:
        """Return settings that depend on the cell only; fewer of them are the first of more."""
        config = CONFIGS[architecture(self.family)]
        rates = _RECURRENT_RATES if issubclass(config, RnnConfig) else _TRANSFORMER_RATES
        draw = random.Random(self.name)
        found: list[Fields] = []
        for _ in range(count):
            fields: Fields = {
                "learning_rate": _log_uniform(draw, rates),
                "batch_size": draw.choice(_BATCH_ROWS[self.text]),
            }
            dropout = round(draw.uniform(0, _MAX_DROPOUT), 2)
            fields |= {f"model.{name}": dropout for name in config.dropouts}
            fields["optimizer.weight_decay"] = _log_uniform(draw, _WEIGHT_DECAYS)
            fields["lr_schedule"] = draw.choice(_SCHEDULES)
            fields["optimizer.name"] = draw.choice(_OPTIMIZERS)
            found.append(fields)
        return found


def _log_uniform(draw: random.Random, limits: tuple[float, float]) -> float:
    low, high = map(log10, limits)
    return float(f"{10 ** draw.uniform(low, high):.2g}")


def _cells(families: Sequence[ModelFamily], size: str, texts: Mapping[TextName, TokenizerMethod]) -> list[Cell]:
    return [
        Cell(family, size, "char" if family == "char_lstm" else method, text)
        for text, method in texts.items()
        for family in families
    ]


GRID: dict[str, tuple[Plan, list[Cell]]] = {
    "tiny": (
        Plan(settings=20),
        _cells(
            ("lstm", "gru", "rnn", "char_lstm", "gpt2", "llama", "qwen", "bert"),
            "tiny",
            {"demo": "char", "ug": "char", "cut": "char", "wikitext-valid": "bpe"},
        ),
    ),
    "small": (
        Plan(settings=8),
        _cells(
            ("lstm", "char_lstm", "gpt2", "llama", "bert"),
            "small",
            {"demo": "char", "tr": "char", "tinyshakespeare": "char"},
        ),
    ),
    "large": (Plan(settings=3), _cells(("lstm", "gpt2"), "small", {"5mb": "bpe"})),
}
QUICK_PLAN = Plan(settings=3, finalists=1, epochs=3)
QUICK_CELLS = _cells(("lstm", "gpt2"), "tiny", {"cut": "char"})


class Loss(Frozen):
    """A mean loss per predicted token, of a masked model per masked token."""

    nats: float
    bits_per_char: float | None = None
    """None for a masked model."""


class LossesOnTest(Frozen):
    """The losses of the default on the test split, and of the n-gram that counts the same text."""

    model: Loss
    ngram: Loss | None
    """None for a masked model."""


class Run(Frozen):
    """A line of a grid's file: a finished run."""

    cell: str
    request_hash: Sha256
    given: Fields
    """The fields in which its request differs from that of the default."""
    seed: int
    epochs: int
    steps: int = 0
    seconds: float
    validation: Loss | None
    """The lowest validation loss; None if the loss diverged."""
    test: LossesOnTest | None = None

    @property
    def loss_nats(self) -> float:
        return inf if self.validation is None else self.validation.nats


class RunFile:
    """A file of finished runs, a line of JSON each; what an interrupted program has half written is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        data = path.read_bytes()
        complete = data[: data.rfind(b"\n") + 1]
        os.truncate(path, len(complete))
        runs = [parse_json(Run, line) for line in complete.splitlines()]
        self._runs = {(run.cell, run.request_hash): run for run in runs}

    def find(self, cell: Cell, effective: EffectiveRequest) -> Run | None:
        return self._runs.get((cell.name, request_hash(effective)))

    def add(self, run: Run) -> None:
        with self.path.open("ab") as file:
            file.write(run.model_dump_json(exclude_none=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._runs[run.cell, run.request_hash] = run


class Outcome(NamedTuple):
    """A finished cell: the runs of the default and of the best setting of the search, one per seed."""

    cell: Cell
    default: list[Run]
    best: list[Run]

    @property
    def difference_nats(self) -> float:
        """Mean validation loss of the default above that of the best; negative if the default is better."""
        default = mean_nats(self.default)
        return default - mean_nats(self.best) if isfinite(default) else inf

    @property
    def difference_from_ngram_bits(self) -> float | None:
        """Bits per character of the default on the test split above those of the n-gram; None for a masked model."""
        test = self.default[0].test
        if test is None or test.ngram is None:
            return None
        return (test.model.bits_per_char or 0.0) - (test.ngram.bits_per_char or 0.0)


def mean_nats(runs: Sequence[Run]) -> float:
    return fmean(run.loss_nats for run in runs)


def cut_demo(file: Path) -> None:
    """Write the first lines of the demo corpus, as many as CUT_BYTES hold."""
    data = DEMO_CORPUS.read_bytes()[:CUT_BYTES]
    file.write_bytes(data[: data.rfind(b"\n") + 1])


class Texts:
    """The texts of the grid in a temporary folder of data; `folder` has the files of those that are not bundled."""

    def __init__(self, folder: Path | None, data: Path) -> None:
        self._folder = folder
        self.settings = Settings(app=AppSettings(data_root=data / "data", artifacts_root=data / "artifacts"))
        self._corpora = data / "data" / "corpus"
        self._corpora.mkdir(parents=True)
        cut_demo(self._corpora / "cut.txt")

    def add_all(self, names: Iterable[TextName]) -> list[TextName]:
        """Copy texts into the data; return those that the folder lacks."""
        return [name for name in sorted(set(names)) if not self._add(name)]

    def _add(self, name: TextName) -> bool:
        copy = self._corpora / f"{name}.txt"
        if name == "demo" or copy.exists():  # the program has the demo corpus
            return True
        if self._folder is None or not (self._folder / copy.name).is_file():
            return False
        copyfile(self._folder / copy.name, copy)
        return True


class Search:
    """The runs of a cell: its default, and the search that the default is compared with."""

    def __init__(self, cell: Cell, plan: Plan, texts: Texts, file: RunFile, report: Callable[[Run], None]) -> None:
        self._cell, self._plan, self._settings, self._file, self._report = cell, plan, texts.settings, file, report
        self._corpora = CorpusStore(texts.settings)

    def outcome(self) -> Outcome:
        """Train what the file lacks. The search sees validation losses only.

        All settings are trained for a third of the default's epochs, the better half of them for all, and the best ones
        with every seed. A search of no more settings than finalists trains each for all epochs.
        """
        plan = self._plan
        own: Fields = {} if plan.epochs is None else {"num_epochs": plan.epochs}
        default = [self._run(own, seed, has_test=seed == SEEDS[0]) for seed in SEEDS]
        epochs = default[0].epochs
        settings = self._cell.drawn_settings(plan.settings)
        if len(settings) > plan.finalists:
            settings = self._ranked(settings, max(1, epochs // _FIRST_SHARE))[: -(-len(settings) // 2)]
        finalists = self._ranked(settings, epochs)[: plan.finalists]
        trained = [[self._run({**fields, "num_epochs": epochs}, seed) for seed in SEEDS] for fields in finalists]
        return Outcome(self._cell, default, min(trained, key=mean_nats))

    def _ranked(self, settings: Sequence[Fields], epochs: int) -> list[Fields]:
        """Return the settings by their validation loss after a number of epochs, the best first."""

        def loss_nats(fields: Fields) -> float:
            return self._run({**fields, "num_epochs": epochs}, SEEDS[0]).loss_nats

        return sorted(settings, key=loss_nats)

    def _run(self, fields: Fields, seed: int, *, has_test: bool = False) -> Run:
        """Return a run from the file, or train it and add it to the file."""
        effective = self._resolved(fields, seed)
        found = self._file.find(self._cell, effective)
        if found is None:
            found = self._trained(effective, fields, has_test=has_test)
            self._file.add(found)
            self._report(found)
        return found

    def _trained(self, effective: EffectiveRequest, fields: Fields, *, has_test: bool) -> Run:
        """Train a run; its test split is read only with `has_test`."""
        _, vocabulary, corpus = self._prepared
        begin = perf_counter()
        read = corpus if has_test else corpus._replace(ids={s: ids for s, ids in corpus.ids.items() if s != "test"})
        compute = resolve(effective)
        seed_everything(effective.seed)
        model = build(effective.model, vocabulary, effective.objective)
        result: TrainResult | None = None
        try:
            with TemporaryDirectory() as folder:
                result = train(model, read, effective, compute, CheckpointStore(Path(folder)))
        except AppError as error:
            if error.code is not ErrorCode.TRAINING_NAN_LOSS:
                raise
        best = None if result is None else result.state.history.best_loss_nats
        test = None if result is None or result.test is None else result.test.loss_nats
        return Run(
            cell=self._cell.name,
            request_hash=request_hash(effective),
            given=fields,
            seed=effective.seed,
            epochs=effective.num_epochs,
            steps=0 if result is None else result.state.step,
            seconds=round(perf_counter() - begin, 1),
            validation=None if best is None else self._loss(best, "validation"),
            test=None if test is None else LossesOnTest(model=self._loss(test, "test"), ngram=self._ngram_loss()),
        )

    def _loss(self, nats: float, split: HeldOutSplit) -> Loss:
        corpus, effective = self._prepared.corpus, self._prepared.effective
        return Loss(nats=nats, bits_per_char=corpus.sizes[split].bits_per_char(nats, effective.objective))

    def _ngram_loss(self) -> Loss | None:
        """Return the loss of the baseline of a run's manifest on the test split."""
        effective, vocabulary, corpus = self._prepared
        if effective.objective == "masked_lm":
            return None
        nats: list[float] = unigrams_and_ngram(corpus, vocabulary.size).ngram.losses_nats(corpus.ids["test"]).tolist()
        return self._loss(fsum(nats) / corpus.sizes["test"].tokens, "test")

    @cached_property
    def _prepared(self) -> "_Prepared":
        """The text as all runs of the cell read it: none of the drawn fields changes its splits or its tokenizer."""
        effective = self._resolved({}, SEEDS[0])
        paths = corpus_paths(self._corpora, effective)
        tokenizer, corpus = prepare(effective, paths, self._settings.app.corpus_cache)
        return _Prepared(effective, vocabulary_of(tokenizer), corpus)

    def _resolved(self, fields: Mapping[str, object], seed: int) -> EffectiveRequest:
        return asyncio.run(resolve_request(self._cell.request(fields, seed), self._corpora, self._settings))


class _Prepared(NamedTuple):
    effective: EffectiveRequest
    vocabulary: Vocabulary
    corpus: TokenizedCorpus
