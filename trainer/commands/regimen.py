"""`mt regimen`: pretrain on one language, then continue on others from its weights, all with one tokenizer.

The recipes are configs/paper_pretrain.yaml and configs/paper_continue.yaml. A phase that has been trained already, or
is under way, is not trained twice: what was interrupted goes on by the same command.
"""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Literal

from rich.text import Text

from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, with_queue
from trainer.commands.requests import assign, corpus_name
from trainer.commands.terminal import Terminal, columns
from trainer.commands.tokenizers import ended_tokenizer
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
from trainer.jobs.resolve import preview_training
from trainer.system.files import write_atomically

Phase = Literal["pretrain", "continue"]
_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class PhaseResult(Frozen):
    """What came of one training; losses in nats per token, `auc` is the area under its training curve over steps."""

    phase: Phase
    corpus: str
    run_id: Identifier
    steps: int
    epochs: int
    early_stopped: bool
    initial_val_loss: float | None
    """What the weights of the first language do, before the first step."""
    best_val_loss: float | None
    test_loss: float | None
    test_perplexity: float | None
    bits_per_char: float | None
    auc: float | None


class RegimenResult(Frozen):
    """`regimen.json`: the first language, then the others, in the order in which they were named."""

    tokenizer_id: Identifier
    phases: tuple[PhaseResult, ...]


def add_to(commands: Commands) -> None:
    regimen = commands.add("regimen", _do, "pretrain on one language, continue on others from its weights")
    regimen.add_argument("corpus", metavar="FIRST", help="the text to pretrain on: a corpus name or a path")
    regimen.add_argument("corpora", nargs="+", metavar="OTHER", help="a text to continue on")
    regimen.add_assignments("a field of the train request, in both phases")


def _do(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    regimen = _Regimen(settings, arguments.set)
    names = [arguments.corpus or "", *arguments.corpora]
    asyncio.run(regimen.check(names))
    return with_queue(settings, terminal, lambda queue: regimen.run(terminal, queue))


class _Regimen:
    """The trainings of one command, and the texts that they are of."""

    def __init__(self, settings: Settings, assignments: list[str]) -> None:
        self._settings = settings
        self._corpora = CorpusStore(settings)
        self._typed: dict[str, object] = {}
        for assignment in assignments:
            assign(TrainRequest, self._typed, assignment)
        self._texts: list[tuple[str, str]] = []
        """(name as typed, name as stored), each text once."""

    async def check(self, names: list[str]) -> None:
        """Refuse, before anything is begun, what cannot be trained."""
        for name in names:
            if name in (shown for shown, _ in self._texts):
                raise AppError(ErrorCode.INVALID_INPUT, f"'{name}' is named twice: give each text once.")
            stored = await corpus_name(name, None, self._corpora)
            await preview_training(self._request("pretrain", stored, name), self._corpora, self._settings)
            self._texts.append((name, stored))
        self._tokenizer_request()

    async def run(self, terminal: Terminal, queue: JobQueue) -> int:
        await self._corpora.keep_offered()
        tokenizer_id = await self._tokenizer(terminal, queue)
        (first, first_text), *others = self._texts
        parent = await self._accepted("pretrain", first, first_text, queue, tokenizer_id=tokenizer_id)
        phases = [await _ended("pretrain", first, parent, terminal, queue)]
        runs = [
            (name, await self._accepted("continue", name, stored, queue, init_from_run_id=parent))
            for name, stored in others
        ]
        phases += [await _ended("continue", name, run_id, terminal, queue) for name, run_id in runs]
        result = RegimenResult(tokenizer_id=tokenizer_id, phases=tuple(phases))
        folder = await asyncio.to_thread(self._store, result)
        terminal.show(result, columns(_rows(result)), Text(f"kept in {folder}"))
        return 0

    async def _tokenizer(self, terminal: Terminal, queue: JobQueue) -> str:
        """The one tokenizer: of the characters of all texts."""
        tokenizer_id = (await queue.train_tokenizer(self._tokenizer_request())).tokenizer_id
        await ended_tokenizer(tokenizer_id, queue, terminal)
        queue.tokenizers.completed_manifest(tokenizer_id)
        return tokenizer_id

    async def _accepted(self, phase: Phase, name: str, corpus: str, queue: JobQueue, **start: object) -> str:
        """The run of a training of this phase: one that is there, or else a new one."""
        request = self._request(phase, corpus, name, **start)
        preview = await preview_training(request, self._corpora, self._settings)
        run_id = await asyncio.to_thread(_run_with, queue, request_hash(preview.effective))
        return run_id or (await queue.accept(preview, user_id=None)).run_id

    def _request(self, phase: Phase, corpus: str, name: str, **start: object) -> TrainRequest:
        own: dict[str, object] = {"corpus": corpus, "label": f"{phase} {Path(name).stem}"[:64], **start}
        document = read_yaml(_CONFIGS / f"paper_{phase}.yaml")
        return read_experiment(document, {**self._typed, **own}).request()

    def _tokenizer_request(self) -> TokenizerTrainRequest:
        return TokenizerTrainRequest(method="char", corpora=tuple(stored for _, stored in self._texts))

    def _store(self, result: RegimenResult) -> Path:
        """Keep a result in a folder that equal regimens share; return its place below the artifacts."""
        runs = " ".join(phase.run_id for phase in result.phases)
        place = Path("regimens") / sha256(runs.encode()).hexdigest()[:16]
        folder = self._settings.app.artifacts_root / place
        folder.mkdir(parents=True, exist_ok=True)
        table = "".join("\t".join(row) + "\n" for row in _rows(result))
        write_atomically(folder / "regimen.tsv", table.encode())
        write_atomically(folder / "regimen.json", result.model_dump_json(indent=2).encode())
        return place


def _run_with(queue: JobQueue, wanted_hash: str) -> str | None:
    """The newest run that did, or is doing, just this training."""
    for run in queue.runs.all():
        manifest = run.manifest()
        ended_badly = manifest is not None and manifest.status != "completed"
        if not ended_badly and run.record().request_hash == wanted_hash:
            return run.run_id
    return None


async def _ended(phase: Phase, corpus: str, run_id: str, terminal: Terminal, queue: JobQueue) -> PhaseResult:
    """Wait for a run and say what came of it; raises where it has not completed."""
    await follow(run_id, terminal, queue)
    manifest = queue.runs.get(run_id).completed_manifest()
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


def _rows(result: RegimenResult) -> list[list[str]]:
    head = ["phase", "text", "run", "steps", "before", "validation", "test", "perplexity", "bits/char", "auc"]
    rows = [
        [
            phase.phase,
            phase.corpus,
            phase.run_id,
            f"{phase.steps}",
            *(
                "–" if figure is None else f"{figure:.4f}"
                for figure in (
                    phase.initial_val_loss,
                    phase.best_val_loss,
                    phase.test_loss,
                    phase.test_perplexity,
                    phase.bits_per_char,
                    phase.auc,
                )
            ),
        ]
        for phase in result.phases
    ]
    return [head, *rows]
