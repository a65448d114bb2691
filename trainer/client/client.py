"""`trainer.Client`: the runs and models of a server in a notebook, without `await`."""

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from trainer.client.background_loop import BackgroundLoop
from trainer.client.download import download
from trainer.client.installation import RemoteInstallation
from trainer.client.notebook import NotebookModel
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.settings import ClientSettings, load_settings
from trainer.config.train_request import RequestDraft
from trainer.config.validation import field_problems
from trainer.contracts.base import RunState
from trainer.contracts.errors import ErrorCode, refusal
from trainer.contracts.events import Event
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.models import Objective
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.system.logs import readable_line


class Client:
    """Runs and models of the server at `url`, by default that of MT_URL and MT_KEY.

    Methods raise `trainer.contracts.errors.AppError`. A request that gets no answer is repeated for a minute, without
    being run twice.
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self._server = RemoteInstallation(_settings(url, key))
        self._loop = BackgroundLoop()
        self.close = weakref.finalize(self, _close, self._server, self._loop)
        """Close the connections. It is called by itself when the client is no longer used."""

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def runs(
        self,
        *,
        status: RunState | None = None,
        family: str | None = None,
        search: str | None = None,
    ) -> Iterator[RunStatus]:
        """Iterate over all runs, newest first; the server sends a page at a time."""
        return self._loop.iterate(self._server.all_runs(status, family=family, search=search))

    def train(
        self, request: TrainRequest | Mapping[str, object] | str | Path | None = None, /, **fields: object
    ) -> RunStatus:
        """Start a training and return its status at once.

        The request is the path of an experiment file (YAML) or the fields of a train request; `fields` replace its
        values. The corpora are on the server.
        """
        if isinstance(request, str | Path):
            draft = read_experiment(read_yaml(Path(request)), fields)
        elif isinstance(request, TrainRequest):
            given: dict[str, object] = request.model_dump(mode="json", exclude_unset=True)
            draft = RequestDraft(given | fields)
        else:
            draft = RequestDraft({**(request or {}), **fields})
        return self.status(self._loop.call(self._server.train(draft)).run_id)

    def status(self, run_id: str) -> RunStatus:
        """Return the status of a run."""
        return self._loop.call(self._server.status(run_id))

    def wait(self, run_id: str) -> RunStatus:
        """Wait for the end of a run and return its status."""
        return self._loop.call(self._server.ended(run_id))

    def cancel(self, run_id: str) -> RunStatus:
        """Cancel a run, which ends after its current step, and return its status."""
        return self._loop.call(self._server.cancel(run_id))

    def resume(self, run_id: str) -> RunStatus:
        """Resume a failed or cancelled run as a new run, and return the status of the new run."""
        return self.status(self._loop.call(self._server.resume(run_id)).run_id)

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended, with its files; raises CONFLICT if an experiment or another run needs it."""
        self._loop.call(self._server.delete(run_id))

    def events(self, run_id: str) -> Iterator[Event]:
        """Iterate over the events of a run, from the first one until it has ended."""
        return self._loop.iterate(self._server.events(run_id))

    def logs(self, run_id: str, *, tail: int = 200, follow: bool = False) -> Iterator[str]:
        """Iterate over the last lines of a run's log, and with `follow` over each new line until it has ended."""
        return map(readable_line, self._loop.iterate(self._server.log_lines(run_id, tail, follow=follow)))

    def download(self, run_id: str, folder: str | Path) -> Path:
        """Download the files of a completed run to a folder, which `trainer.load` takes; return the folder."""
        self._loop.call(download(self._server.api, "models", run_id, Path(folder)))
        return Path(folder)

    def load(self, run_id: str) -> "RemoteModel":
        """Return a completed run as a model whose methods run on the server; raises RUN_NOT_READY."""
        manifest = self._loop.call(self._server.completed_manifest(run_id))
        return RemoteModel(run_id, manifest.effective.objective, self._server, self._loop, self)


class RemoteModel(NotebookModel):
    """A model on a server."""

    def __init__(
        self, run_id: str, objective: Objective, server: RemoteInstallation, loop: BackgroundLoop, client: Client
    ) -> None:
        self.run_id = run_id
        self._objective = objective
        self._server = server
        self._loop = loop
        self._client = client  # its connections stay open while the model is used

    def _answer(self, request: Asks[ResponseT]) -> ResponseT:
        return self._loop.call(self._server.inference.ask(self.run_id, request))


def _settings(url: str | None, key: str | None) -> ClientSettings:
    """Return the server to use: what is given, else what MT_URL and MT_KEY name."""
    stored = load_settings().client if url is None or key is None else ClientSettings()
    values: dict[str, object] = {"url": stored.url if url is None else url, "key": stored.key if key is None else key}
    try:
        return ClientSettings.model_validate(values)
    except ValidationError as error:
        raise refusal(ErrorCode.CONFIG_INVALID, *field_problems(error, ClientSettings)) from None


def _close(server: RemoteInstallation, loop: BackgroundLoop) -> None:
    loop.stop(server.close())
