"""`mt transfer`: pretrain on one language, then continue on others from its weights, all with one tokenizer.

The recipes are configs/paper_pretrain.yaml and configs/paper_continue.yaml. The command trains no phase twice: given
again, it continues what was interrupted.
"""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Literal

from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Argument, Commands, Options, repeatable
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.corpus_names import corpus_name
from trainer.commands.local_installation import LocalInstallation
from trainer.commands.requests import assign
from trainer.commands.terminal import Terminal, columns
from trainer.commands.tokenizers import wait_for_tokenizer
from trainer.commands.training import follow
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import JobQueue
from trainer.jobs.resolve import TrainingPreview, preview_training
from trainer.system.files import write_atomically

Phase = Literal["pretrain", "continue"]
_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_FIGURES = ("initial_val_loss", "best_val_loss", "test_loss", "test_perplexity", "bits_per_char", "auc")
_TITLES = ["phase", "corpus", "run", "steps", "before", "validation", "test", "perplexity", "bits/char", "auc"]


class PhaseResult(Frozen):
    """Results of one phase; losses in nats per token, `auc` is the area under the training loss over steps."""

    phase: Phase
    corpus: str
    run_id: Identifier
    steps: int
    epochs: int
    early_stopped: bool
    initial_val_loss: float | None
    """Validation loss of the pretrained weights, before the first step."""
    best_val_loss: float | None
    test_loss: float | None
    test_perplexity: float | None
    bits_per_char: float | None
    auc: float | None


class TransferResult(Frozen):
    """`transfer.json`: the first language, then the others in the order given."""

    tokenizer_id: Identifier
    phases: tuple[PhaseResult, ...]


class _TransferOptions(Options):
    corpus = Argument[str]("FIRST", help="corpus to pretrain on: its name, or the path of a text file")
    others = Argument[list[str]]("OTHER", nargs="+", help="corpus to continue on")
    set = repeatable("--set KEY=VALUE", "set a field of the train request, in both phases")


def add_to(commands: Commands) -> None:
    commands.add("transfer", _TransferOptions, _transfer)


def _transfer(options: _TransferOptions, terminal: Terminal) -> int:
    settings = settings_for()
    transfer = _Transfer(settings, options.set)
    asyncio.run(transfer.check([options.corpus, *options.others]))
    terminal.continues_when_repeated = True
    return with_queue(settings, terminal, lambda queue: transfer.run(terminal, queue))


class _Transfer:
    """The phases of one command and their corpora."""

    def __init__(self, settings: Settings, assignments: list[str]) -> None:
        self._settings = settings
        self._corpora = CorpusStore(settings)
        self._typed: dict[str, object] = {}
        for assignment in assignments:
            assign(TrainRequest, self._typed, assignment)
        self._stored: dict[str, str] = {}
        """Name of each corpus in the store, by the name given."""

    async def check(self, names: list[str]) -> None:
        """Raise AppError, before anything starts, where a phase cannot be trained."""
        for name in names:
            if name in self._stored:
                raise AppError(ErrorCode.INVALID_INPUT, f"'{name}' is given twice: give each corpus once.")
            self._stored[name] = await corpus_name(name, None, self._corpora)
            await self._preview("pretrain", name)
        self._tokenizer_request()

    async def run(self, terminal: Terminal, queue: JobQueue) -> int:
        """Train all phases, show their results and store them."""
        await self._corpora.store_offered()
        tokenizer_id = (await queue.train_tokenizer(self._tokenizer_request())).tokenizer_id
        installation = LocalInstallation(self._settings, queue)
        await wait_for_tokenizer(tokenizer_id, installation, terminal)
        queue.tokenizers.get(tokenizer_id).completed_manifest()
        first, *others = self._stored
        parent = await self._start("pretrain", first, queue, tokenizer_id=tokenizer_id)
        phases = [await _finish("pretrain", first, parent, terminal, installation)]
        runs = [(name, await self._start("continue", name, queue, init_from_run_id=parent)) for name in others]
        phases += [await _finish("continue", name, run_id, terminal, installation) for name, run_id in runs]
        result = TransferResult(tokenizer_id=tokenizer_id, phases=tuple(phases))
        rows = [_TITLES, *map(_row, phases)]
        path = Path("transfers") / sha256(" ".join(phase.run_id for phase in phases).encode()).hexdigest()[:16]
        folder = self._settings.app.artifacts_root / path
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "transfer.tsv", "".join("\t".join(row) + "\n" for row in rows).encode())
        write_atomically(folder / "transfer.json", result.model_dump_json(indent=2).encode())
        terminal.show(result, columns(rows), Text(f"stored in {path}"))
        return 0

    async def _start(self, phase: Phase, name: str, queue: JobQueue, **start: object) -> str:
        """Return the run of a phase: one with the same request, or else a new one."""
        preview = await self._preview(phase, name, **start)
        run_id = await asyncio.to_thread(_find_run, queue.runs, request_hash(preview.effective))
        return run_id or (await queue.accept(preview, user_id=None)).run_id

    async def _preview(self, phase: Phase, name: str, **start: object) -> TrainingPreview:
        own: dict[str, object] = {"corpus": self._stored[name], "label": f"{phase} {Path(name).stem}"[:64], **start}
        draft = read_experiment(read_yaml(_CONFIGS / f"paper_{phase}.yaml"), {**self._typed, **own})
        return await preview_training(draft.request(), self._corpora, self._settings)

    def _tokenizer_request(self) -> TokenizerTrainRequest:
        """Return the request for the one tokenizer, of the characters of all corpora."""
        return TokenizerTrainRequest(method="char", corpora=tuple(self._stored.values()))


def _find_run(runs: RunStore, wanted_hash: str) -> str | None:
    """Return the newest completed or unfinished run with this request hash."""
    for run in runs.all():
        manifest = run.manifest()
        if (manifest is None or manifest.status == "completed") and run.record().request_hash == wanted_hash:
            return run.run_id
    return None


async def _finish(
    phase: Phase, corpus: str, run_id: str, terminal: Terminal, installation: LocalInstallation
) -> PhaseResult:
    """Wait for a run and return its results; raises AppError where it has not completed."""
    await follow(run_id, terminal, installation)
    manifest = await installation.completed_manifest(run_id)
    metrics = manifest.metrics
    return PhaseResult(
        phase=phase,
        corpus=corpus,
        run_id=manifest.run_id,
        steps=manifest.steps,
        epochs=len(manifest.timings.epoch_seconds),
        early_stopped=manifest.early_stopped,
        initial_val_loss=metrics.initial,
        best_val_loss=metrics.best,
        test_loss=metrics.test,
        test_perplexity=metrics.test_perplexity,
        bits_per_char=metrics.bits_per_char,
        auc=metrics.auc,
    )


def _row(phase: PhaseResult) -> list[str]:
    figures: dict[str, float | None] = phase.model_dump(include=set(_FIGURES))
    shown = ["–" if (figure := figures[name]) is None else f"{figure:.4f}" for name in _FIGURES]
    return [phase.phase, phase.corpus, phase.run_id, f"{phase.steps}", *shown]
