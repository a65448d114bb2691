"""Builds corpora by `mt corpus build` in a child process, one build at a time, which ends with the bot."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import structlog
from pydantic import Field, ValidationError

from trainer.config.settings import Settings, child_environment
from trainer.contracts.base import Frozen
from trainer.contracts.corpora import BuildProgress, CorpusManifest
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode
from trainer.contracts.validation import shown_name
from trainer.contracts.wording import counted
from trainer.data.cleaning import ALPHABETS
from trainer.jobs.services import die_with_parent, end, pipe

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

SourceName = Literal["oscar", "culturax", "local"]

_STOP_SECONDS, _LAST_MESSAGE_SECONDS = 5.0, 6.0
_AGAIN = "Run the same command again: it continues."
_LINE_BYTES = 1 << 22
_OPTIONS = {
    ", or give text that is in IPA already with `--from-ipa`": "",
    "`--threshold 0`": "`threshold:0`",
    "`--langs`": "`languages`",
    "`--threshold": "`threshold",
    "`--source`": "`source`",
    "give the same command again": "run the same command again",
    " where there is a network, or build from a folder of texts": ", or build from `source:local`",
    ", or give a folder of texts": ", or give `source:local`",
}
"""Words of the terminal's command, and those of Discord's."""


class BuildRequest(Frozen):
    """A build as requested in Discord."""

    source: SourceName
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    characters: Annotated[int, Field(ge=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9

    def words(self, corpus_folder: Path) -> list[str]:
        """Return the words of the terminal's command."""
        source = str(corpus_folder.resolve() / self.source) if self.source == "local" else self.source
        words = ["corpus", "build", "--json", "--log-format", "json", "--source", source]
        words += ["--langs", ",".join(self.languages), "--threshold", f"{self.threshold}"]
        return words if self.characters is None else [*words, "--characters", f"{self.characters}"]


class BuildState(NamedTuple):
    """The progress of a build by language, and in the end its manifest or an error."""

    request: BuildRequest
    progress: Sequence[BuildProgress] = ()
    manifest: CorpusManifest | None = None
    error: AppError | None = None

    @property
    def has_ended(self) -> bool:
        return self.manifest is not None or self.error is not None


class CorpusBuild:
    """A running build in a child process."""

    def __init__(self, request: BuildRequest, process: Process) -> None:
        self.state = BuildState(request)
        self.changed = asyncio.Event()
        """Set at each change of `state`; the reader clears it."""
        self._process = process
        self._is_stopped = False
        self.reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stop(self) -> None:
        """End the process; what it has read is stored."""
        self._is_stopped = True
        await end(self._process, _STOP_SECONDS)
        await asyncio.gather(self.reading, return_exceptions=True)

    async def _read(self) -> None:
        result = asyncio.create_task(pipe(self._process.stdout).read())
        async for line in pipe(self._process.stderr):
            with suppress(ValidationError):  # a warning of a library
                one = BuildProgress.model_validate_json(line)
                progress = {known.language: known for known in self.state.progress} | {one.language: one}
                self._change(progress=tuple(progress.values()))
        output, code = await result, await self._process.wait()
        if self._is_stopped:
            self._change(error=AppError(ErrorCode.SERVICE_UNAVAILABLE, f"The build was stopped with the bot. {_AGAIN}"))
            return
        try:
            if code == 0:
                self._change(manifest=CorpusManifest.model_validate_json(output))
            else:
                body = ErrorBody.model_validate_json(output)
                self._change(error=AppError(body.code, _in_discords_words(body.message)))
        except ValidationError:
            log.error("corpus_build_died", exit_code=code)
            message = f"The build ended unexpectedly. {_AGAIN}"
            self._change(error=AppError(ErrorCode.INTERNAL_ERROR, message))

    def _change(
        self,
        *,
        progress: Sequence[BuildProgress] = (),
        manifest: CorpusManifest | None = None,
        error: AppError | None = None,
    ) -> None:
        self.state = BuildState(self.state.request, progress or self.state.progress, manifest, error)
        self.changed.set()


class CorpusBuilder:
    """Runs one build at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.app.data_root / "corpus"
        self.current: CorpusBuild | None = None
        """The last build that was started."""
        self._starting = asyncio.Lock()
        self._deliveries: set[asyncio.Task[None]] = set()

    async def start(self, request: BuildRequest) -> CorpusBuild:
        """Start a build; raises INVALID_INPUT, DATA_NOT_FOUND, and CONFLICT while another build runs."""
        unknown = [language for language in request.languages if language not in ALPHABETS]
        if unknown:
            message = f"`languages` must be of {', '.join(ALPHABETS)}, you gave '{shown_name(','.join(unknown))}'."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        if request.source == "local" and not (self._folder / request.source).is_dir():
            message = "There is no folder `local` in the corpus folder: put a text per language into it, as `kk.txt`."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)
        async with self._starting:
            if self.current is not None and not self.current.state.has_ended:
                raise AppError(ErrorCode.CONFLICT, f"A build is running: {_summary(self.current.state)}.")
            process = await asyncio.create_subprocess_exec(
                *die_with_parent(),
                *(sys.executable, "-m", "trainer", *request.words(self._folder)),
                env=child_environment(self._settings),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=_LINE_BYTES,
            )
            self.current = CorpusBuild(request, process)
            return self.current

    def deliver(self, delivery: Coroutine[None, None, None]) -> None:
        """Run the delivery of a build's messages until `stop`."""
        task = asyncio.create_task(delivery)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def stop(self) -> None:
        """End the build, and let its messages say so for a moment."""
        if self.current is not None and not self.current.state.has_ended:
            await self.current.stop()
        deliveries = [*self._deliveries]
        if deliveries:
            await asyncio.wait(deliveries, timeout=_LAST_MESSAGE_SECONDS)
        for delivery in deliveries:
            delivery.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)


def _summary(state: BuildState) -> str:
    """Return the progress of a build in a few words."""
    done = ", ".join(f"{one.language} {counted(one.documents, 'document')}" for one in state.progress)
    return f"{state.request.source}, {done or 'no document yet'}"


def _in_discords_words(message: str) -> str:
    for terminal, discord in _OPTIONS.items():
        message = message.replace(terminal, discord)
    return message
