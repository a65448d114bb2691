"""Experiments, trainings of tokenizers and builds of corpora as subjects of notifications; all states are on disk."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from bot.messages.buttons import button_row
from bot.messages.corpus_build_card import corpus_build_card
from bot.messages.experiment_buttons import experiment_buttons
from bot.messages.experiment_card import HEAT_MAP_NAME, TREE_NAME, attach_figures, experiment_card
from bot.messages.tokenizer_card import tokenizer_card
from bot.notifications.subjects import HEARTBEAT_SECONDS, RESULT, Message, Reading, Subject, View, no_files
from bot.people.watchers import Ledger, State, Watcher
from trainer.artifacts.corpus_builds import BuildDirectory, BuildStatus
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.contracts.base import changed
from trainer.contracts.experiments import ExperimentRecord, ExperimentResult, ExperimentStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.system.files import read_record, read_regular

_UNFINISHED = ("queued", "running")
_MAX_FIGURE_BYTES = 8 << 20


class ExperimentState(State):
    status: ExperimentStatus
    heartbeat: int
    """Number of intervals since the experiment was requested."""

    @property
    def has_ended(self) -> bool:
        return self.status.status not in _UNFINISHED


class ExperimentView(View):
    def __init__(self, state: ExperimentState, status: ExperimentStatus, experiment: ExperimentDirectory) -> None:
        super().__init__(state)
        self._status = status
        self._experiment = experiment

    def card(self, user_id: int) -> Message:
        return Message(experiment_card(self._status), no_files, experiment_buttons(self._status))

    async def final(self, watcher: Watcher) -> Message:
        """Return the final message: of a completed experiment its matrix, with heat map and tree."""
        result: ExperimentResult | None = None
        if self._status.status == "completed":
            result = await asyncio.to_thread(read_record, self._experiment.result, ExperimentResult)
        embed = experiment_card(self._status, result)
        embed.set_footer(text=f"{self._experiment.experiment_id}{RESULT}")
        files = no_files
        if result is not None:
            with suppress(OSError, ValueError):  # the figures of a report can be deleted
                paths = [self._experiment.path / name for name in (HEAT_MAP_NAME, TREE_NAME)]
                heat_map, tree = [await asyncio.to_thread(read_regular, path, _MAX_FIGURE_BYTES) for path in paths]
                files = partial(attach_figures, embed, heat_map, tree, result)
        return Message(embed, files, experiment_buttons(self._status))


class ExperimentSubject(Subject):
    id_name = "experiment_id"

    def __init__(
        self,
        experiment: ExperimentDirectory,
        runs: RunStore,
        can_receive: Callable[[int, ExperimentRecord], bool],
        *,
        interval_seconds: float,
    ) -> None:
        self._record = experiment.record()
        super().__init__(experiment.experiment_id, Ledger(experiment), interval_seconds, self._record.created_at)
        self._experiment = experiment
        self._runs = runs
        self._can_receive = can_receive

    def may_receive(self, user_id: int) -> bool:
        return self._can_receive(user_id, self._record)

    async def _read(self) -> Reading:
        status = await asyncio.to_thread(self._experiment.status, self._runs, has_files=False)
        heartbeat = int((status.elapsed_seconds or 0.0) // HEARTBEAT_SECONDS) if status.status == "running" else 0
        state = ExperimentState(status=changed(status, elapsed_seconds=None), heartbeat=heartbeat)
        return Reading(state, partial(self._draw, state, status))

    async def _draw(self, state: ExperimentState, status: ExperimentStatus) -> View:
        return ExperimentView(state, status, self._experiment)


class TokenizerState(State):
    status: TokenizerStatus

    @property
    def has_ended(self) -> bool:
        return self.status.status not in _UNFINISHED


class TokenizerView(View):
    def __init__(self, state: TokenizerState) -> None:
        super().__init__(state)
        self._status = state.status

    def card(self, user_id: int) -> Message:
        return Message(tokenizer_card(self._status), no_files, button_row())


class TokenizerSubject(Subject):
    id_name = "tokenizer_id"

    def __init__(self, tokenizer: TokenizerDirectory, *, interval_seconds: float) -> None:
        super().__init__(tokenizer.tokenizer_id, Ledger(tokenizer), interval_seconds, tokenizer.created_at())
        self._tokenizer = tokenizer

    def may_receive(self, user_id: int) -> bool:
        return True

    async def _read(self) -> Reading:
        state = TokenizerState(status=await asyncio.to_thread(self._tokenizer.status))
        return Reading(state, partial(self._draw, state))

    async def _draw(self, state: TokenizerState) -> View:
        return TokenizerView(state)


class BuildState(State):
    status: BuildStatus

    @property
    def has_ended(self) -> bool:
        return self.status.has_ended


class BuildView(View):
    def __init__(self, build_id: str, state: BuildState) -> None:
        super().__init__(state)
        self._build_id, self._build = build_id, state.status

    def card(self, user_id: int) -> Message:
        return Message(corpus_build_card(self._build_id, self._build), no_files, button_row())


class BuildSubject(Subject):
    id_name = "build_id"

    def __init__(self, build: BuildDirectory, *, interval_seconds: float) -> None:
        super().__init__(build.build_id, Ledger(build), interval_seconds)
        self._build = build

    def may_receive(self, user_id: int) -> bool:
        return True

    async def _read(self) -> Reading:
        state = BuildState(status=await asyncio.to_thread(self._build.status))
        return Reading(state, partial(self._draw, state))

    async def _draw(self, state: BuildState) -> View:
        return BuildView(self.subject_id, state)
