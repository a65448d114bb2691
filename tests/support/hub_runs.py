"""Runs with scheduled checkpoints, and a hub of this machine to push them to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

from tests.support.checkpoints import HASH
from tests.support.hub_server import Hub, running_hub
from trainer.artifacts.checkpoint_files import EpochSummary, TrainingState, scheduled_folder
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.inference.model_files import load_run
from trainer.system.files import file_records
from trainer.training.checkpoint import CheckpointStore

TOKEN = "hf_tokenqxwz"  # noqa: S105
NAME = "ana/sea"
CLIENT_WARNINGS = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client sends large files in a way that its HTTP library will drop."""


def add_steps(run: RunDirectory, *steps: int) -> None:
    """Add scheduled checkpoints whose weights differ from those of the run, and from each other."""
    model, _ = load_run(run)
    weights: dict[str, Tensor] = model.state_dict()
    for step in steps:
        epochs = (EpochSummary(train_loss_nats=2.75, seconds=0.5),) if step else ()
        state = TrainingState(request_hash=HASH, step=step, epochs=epochs, train_seconds=step / 4)
        torch.manual_seed(step)
        moved = {name: weight + torch.randn_like(weight) / 4 for name, weight in weights.items()}
        CheckpointStore(run.checkpoints).save_scheduled(state, moved)
    manifest = run.completed_manifest()
    kept = file_records(run.path, (path for path in scheduled_folder(run.checkpoints).rglob("*") if path.is_file()))
    run.write_manifest(changed(manifest, files=(*manifest.files, *kept)))
    run.seal.unlink()
    run.write_seal()


@pytest.fixture(name="hub")
def hub_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without data sets, which the client finds in this process and in its children."""
    with running_hub(tmp_path / "hub", TOKEN) as hub:
        # the client has read its environment at its import
        files = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name, value in hub_environment(hub, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield hub


def hub_environment(hub: Hub, folder: Path) -> dict[str, str]:
    """The settings of the client: large files go by Git LFS, as the hub of the tests knows no other store."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
