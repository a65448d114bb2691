"""The interface of the installation that commands work on: this machine's, or that of a server."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from trainer.artifacts.run_files import RunFiles
from trainer.contracts.base import RunState
from trainer.contracts.inference import EvalMetrics, GenerateChunk
from trainer.contracts.inference_fields import Asks, AsksForStream, ResponseT
from trainer.contracts.runs import RunManifest, RunStatus
from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerStatus


class Installation(Protocol):
    """Runs and tokenizers."""

    async def runs(self, status: RunState | None, limit: int) -> Sequence[RunStatus]:
        """List runs, newest first."""

    async def unfinished(self) -> Sequence[RunStatus]:
        """List the runs that have not ended, with their places in the queue."""

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run; raises RUN_NOT_FOUND, as all methods do."""

    def follow(self, run_id: str) -> AsyncGenerator[RunStatus, None]:
        """Yield the status of a run until it has ended."""

    async def saved_step(self, status: RunStatus) -> int | None:
        """Return the step that a failed or cancelled run would resume from."""

    async def cancel(self, run_id: str) -> RunStatus:
        """Request the end of a run and return its status; raises RUN_FINISHED for a run that has ended."""

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended, with its files; raises CONFLICT if an experiment or another run needs it."""

    async def completed_manifest(self, run_id: str) -> RunManifest:
        """Return the manifest of a completed run; raises RUN_NOT_READY."""

    async def experiment_file(self, run_id: str) -> str:
        """Return the request of a run as an experiment file."""

    async def files(self, run_id: str) -> RunFiles:
        """List the files of a run."""

    async def evaluation(self, run_id: str) -> EvalMetrics:
        """Return the latest evaluation of a run; raises EVAL_NOT_FOUND."""

    def log_lines(self, run_id: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the last lines of a run's log as stored, and with `follow` each new line until the run has ended."""

    async def last_lines(self, run_id: str) -> Sequence[str]:
        """Return the last lines of the error output of a run whose process ended without an error of its own."""

    async def tokenizers(self) -> TokenizerList:
        """List tokenizers, newest first."""

    async def tokenizer(self, tokenizer_id: str) -> TokenizerStatus:
        """Return the status of a tokenizer; raises TOKENIZER_NOT_FOUND."""

    def follow_tokenizer(self, tokenizer_id: str) -> AsyncGenerator[TokenizerStatus, None]:
        """Yield the status of a tokenizer until its training has ended."""


class Inference(Protocol):
    """Inference on finished runs, which needs a worker."""

    async def ask(self, run_id: str, request: Asks[ResponseT], *, is_kept: bool = True) -> ResponseT:
        """Submit a request and wait for its result; `is_kept=False` deletes the stored result afterwards."""

    def stream(self, run_id: str, request: AsksForStream[ResponseT]) -> AsyncGenerator[GenerateChunk | ResponseT, None]:
        """Yield chunks of the continuations, then the complete response."""
