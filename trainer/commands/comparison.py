"""`mt compare`: compares metrics and settings of runs, as measured in training or on one corpus."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trainer.commands.arguments import RUN_IDS, Argument, Commands, RunOptions, flag, option
from trainer.commands.connection import (
    Installation,
    completed_manifest,
    full_run_id,
    run_or_group,
    settings_for_any,
    with_inference,
    with_installation,
)
from trainer.commands.corpus_names import CorpusToMeasure
from trainer.commands.terminal import EXIT_FAILED, Terminal
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import run_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalRequest, EvalSplit, summary_of
from trainer.contracts.parameters import RunPath
from trainer.contracts.reports import Note
from trainer.contracts.runs import EvalSummary, RunManifest, RunStatus
from trainer.lab.calls import GET_RUN
from trainer.reports.comparison import (
    TOLERANCE,
    Measured,
    MeasuredGroup,
    Measurement,
    check_different,
    chosen_split,
    compare,
    summary_on,
)
from trainer.reports.comparison_report import comparison_report

_TOLERANCE_HELP = f"relative rise of the loss up to which RUN counts as no worse; default: {TOLERANCE:g}"


_compared_name = partial(full_run_id, or_group=True, or_checkpoint=True)


class _CompareOptions(RunOptions):
    run = Argument[str]("RUN", type=_compared_name, completion=RUN_IDS, help="run, group of runs or RUN@1200 to judge")
    others = Argument[list[str]](
        "OTHER", nargs="+", type=_compared_name, completion=RUN_IDS, help="what to compare it with"
    )
    split = option("--split validation|test", str, "compare on this split; default: test, validation if it is locked")
    path = option("--path F", Path, "measure all runs on a corpus, or a text file, first")
    tolerance = option("--tolerance X", float, _TOLERANCE_HELP, TOLERANCE)
    fail_on_regression = flag("--fail-on-regression", "exit with 1 where RUN is worse or cannot be compared")


class _Found(NamedTuple):
    """A run or a group to compare: manifests and statuses of its completed runs."""

    name: str
    left_out: Sequence[str] | None
    """The seeds of the group without a completed run; None for a run."""
    runs: Sequence[tuple[RunManifest, RunStatus]]

    def models(self) -> list[str]:
        """Return the names of the models to measure."""
        return [self.name if "@" in self.name else manifest.run_id for manifest, _ in self.runs]

    def measured(self, summaries: Iterator[EvalSummary]) -> Measured:
        """Return the runs with the next summaries."""
        checkpoint = self.name if "@" in self.name else None
        runs = [
            Measurement(manifest, next(summaries), status.tokens_per_second, checkpoint, status.test_looks)
            for manifest, status in self.runs
        ]
        return runs[0] if self.left_out is None else MeasuredGroup(self.name, runs, self.left_out)


def add_to(commands: Commands) -> None:
    commands.add("compare", _CompareOptions, _compare, with_unit=True)


def _compare(options: _CompareOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    if options.split is not None and options.path is not None:
        raise AppError(ErrorCode.INVALID_INPUT, "Give `--split` or `--path`, not both.")
    if not 0 <= options.tolerance < 1:
        message = f"`--tolerance` must be at least 0 and below 1, you gave {options.tolerance:g}."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    names = [options.run, *options.others]
    check_different(names)

    async def read(installation: Installation) -> list[_Found]:
        return [await _find(name, installation) for name in names]

    return _show(with_installation(settings, read), options, settings, terminal)


async def _find(name: str, installation: Installation) -> _Found:
    """Return the manifest of a completed run, or those of the completed runs of a group; raises RUN_NOT_READY.

    A checkpoint has the manifest of its run.
    """
    if "@" in name:
        await installation.check_model(name)
        path = RunPath(run_id=run_of(name))
        manifest = await completed_manifest(installation, path.run_id)
        return _Found(name, None, [(manifest, await installation.call(GET_RUN, path))])
    status = await run_or_group(installation, name)
    if isinstance(status, RunStatus):
        return _Found(name, None, [(await completed_manifest(installation, name), status)])
    completed = status.with_completed()
    manifests = [(await completed_manifest(installation, one.run_id), one) for one in completed]
    return _Found(name, status.left_out(), manifests)


def _show(
    found: Sequence[_Found],
    options: _CompareOptions,
    settings: Settings,
    terminal: Terminal,
) -> int:
    """Compare runs on their splits, or measure them on a corpus first; return the exit code."""

    notes: tuple[Note, ...] = ()

    def show(summaries: Sequence[EvalSummary], split: EvalSplit | None = None, dataset: str | None = None) -> int:
        left = iter(summaries)
        measured = [one.measured(left) for one in found]
        compared = compare(measured, split=split, dataset=dataset, tolerance=options.tolerance, notes=notes)
        terminal.show_report(compared, comparison_report(compared))
        return EXIT_FAILED if options.fail_on_regression and not compared.is_passed else 0

    models = [model for one in found for model in one.models()]
    if options.path is None:
        split, notes = chosen_split(manifest for one in found for manifest, _ in one.runs)
        if options.split is not None:
            split, notes = parse(EvalRequest, {"split": options.split}).split, ()
        known = {manifest.run_id: manifest for one in found if "@" not in one.name for manifest, _ in one.runs}
        summaries = {run_id: summary_on(manifest, split) for run_id, manifest in known.items()}
        if len(summaries) == len(models):
            return show([*summaries.values()], split=split)

        async def measure_checkpoints(installation: Installation) -> int:
            for model in models:
                if model not in summaries:
                    summaries[model] = summary_of((await installation.ask(model, EvalRequest(split=split))).measured())
            return show([summaries[model] for model in models], split=split)

        return with_inference(settings, terminal, measure_checkpoints)
    path, corpus = str(options.path), CorpusToMeasure(options.path, settings, terminal)

    async def measure(installation: Installation) -> int:
        request = EvalRequest(path_override=corpus.name)
        await corpus.store()
        metrics = [(await installation.ask(model, request)).measured() for model in models]
        return show([summary_of(one, corpus.name) for one in metrics], dataset=path)

    return with_inference(settings, terminal, measure)
