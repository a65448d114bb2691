"""Attempts at a run in the process of the test."""

from collections.abc import Mapping
from pathlib import Path

from tests.support import add_corpus, settings_in
from tests.support.runs import record
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.train_request import train_request
from trainer.contracts.events import JobStarted, stamp
from trainer.contracts.runs import RunManifest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.system.signals import StopFlag
from trainer.worker.children.train_run import TrainingAttempt


async def accepted(folder: Path, text: str, fields: Mapping[str, object], run_id: str = "run") -> RunDirectory:
    """A run of a text that was accepted and has not begun."""
    add_corpus(folder, text)
    settings = settings_in(folder)
    request = train_request({"corpus": "text", **fields})
    effective = await resolve_request(request, CorpusStore(settings), settings)
    return RunStore(settings.app.artifacts_root).create(record(run_id, None, request=request, effective=effective))


def attempt(run: RunDirectory, folder: Path, number: int = 1, *, pause: StopFlag | None = None) -> RunManifest | None:
    """Run an attempt in this process, until it ends or its worker does; return the end of the run, if it has one."""
    with run.open_log() as events:
        started = JobStarted(**stamp(run.run_id, None, f"started:{number}"), queue="training", attempt=number)
        events.append(started)
        TrainingAttempt(settings_in(folder), run, events, [started] * number, pause or StopFlag()).run()
    return run.manifest()


class EndedAfter(StopFlag):
    """The end of a worker, which comes at the n-th time of asking."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._calls = calls

    def is_set(self) -> bool:
        self._calls -= 1
        return self._calls < 0
