"""Names of models: a run, and the checkpoints that it has kept."""

from pathlib import Path

import pytest
import torch

import trainer
from tests.support import settings_in, tiny_request
from tests.support.checkpoints import checkpoint, keep_checkpoint
from tests.support.finished_runs import finished_run
from tests.support.refusals import refused
from tests.support.runs import record
from trainer.artifacts.checkpoint_files import EpochSummary, TextSeen
from trainer.artifacts.checkpoints import checkpoint_folder, named_model
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.errors import ErrorCode
from trainer.data.corpora import CorpusStore
from trainer.inference.model_files import load_named
from trainer.queue.resolve import resolve_request
from trainer.training.checkpoint import CheckpointStore

EPOCH = EpochSummary(train_loss_nats=1.5, seconds=1.0)


def seen(words: int, tokens: int) -> TextSeen:
    """After a step that has read 40 words, 100 tokens."""
    return TextSeen(words=words, tokens=tokens, words_in_step=40, tokens_in_step=100)


@pytest.fixture(scope="module", name="run")
def run_fixture(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A completed run with checkpoints before its first step, within an epoch, and at the ends of two epochs."""
    run = finished_run(tmp_path_factory.mktemp("kept"), "gru")
    keep_checkpoint(run, 0, seen=TextSeen())
    keep_checkpoint(run, 7, position=3, seen=seen(1000, 2500))
    keep_checkpoint(run, 20, epochs=(EPOCH,), seen=seen(2020, 5000))
    keep_checkpoint(run, 40, epochs=(EPOCH, EPOCH))
    return run


def store_of(run: RunDirectory) -> RunStore:
    return RunStore(run.path.parent.parent)


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ("@7", 7),
        ("@0", 0),
        ("@epoch:1", 20),
        ("@epoch:2", 40),
        ("@words:1000", 7),
        ("@words:961", 7),
        ("@words:1k", 7),
        ("@words:2k", 20),
        ("@tokens:2.5k", 7),
        ("@best", None),
        ("", None),
    ],
)
def test_name__names_the_checkpoint_kept_for_it(run: RunDirectory, given: str, step: int | None) -> None:
    named = named_model(store_of(run), f"{run.run_id}{given}")
    assert (named.run.path, named.step) == (run.path, step)
    assert named.name == (run.run_id if step is None else f"{run.run_id}@{step}")
    assert named.effective == run.completed_manifest().effective and named.is_permanent


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ("@8", ErrorCode.DATA_NOT_FOUND, "It has those of the steps 0, 7, 20, 40."),
        ("@epoch:3", ErrorCode.DATA_NOT_FOUND, "has kept no checkpoint 'epoch:3'"),
        ("@words:960", ErrorCode.DATA_NOT_FOUND, "has kept no checkpoint 'words:960'"),
        ("@words:1M", ErrorCode.DATA_NOT_FOUND, "has kept no checkpoint 'words:1M'"),
        ("@tokens:many", ErrorCode.INVALID_INPUT, "names no checkpoint: give a step"),
        ("@epoch:", ErrorCode.INVALID_INPUT, "names no checkpoint: give a step"),
        ("@", ErrorCode.INVALID_INPUT, "names no checkpoint: give a step"),
        ("@last", ErrorCode.INVALID_INPUT, "names no checkpoint: give a step"),
    ],
)
def test_name__of_no_checkpoint_is_refused_with_those_there_are(
    run: RunDirectory, given: str, code: ErrorCode, says: str
) -> None:
    with refused(code, says):
        named_model(store_of(run), f"{run.run_id}{given}")


@pytest.mark.parametrize("family", ["char_lstm", "gpt2", "bert", "llama"])
def test_checkpoint__has_its_own_weights_with_the_tokenizer_of_the_run(family: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, family)
    weights = keep_checkpoint(run, 5)
    model, tokenizer = load_named(named_model(store_of(run), f"{run.run_id}@5"))
    loaded: dict[str, torch.Tensor] = model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    assert tokenizer.manifest == trainer.load(run.path).tokenizer.manifest
    at_five = trainer.load(f"{run.path}@5")
    assert (at_five.run_id, at_five.checkpoint) == (run.run_id, 5)
    nats = at_five.score("the sun").nats
    assert nats != trainer.load(run.path).score("the sun").nats
    for name in ("manifest.json", "SHA256SUMS", "config.json", "model.safetensors"):
        (run.path / name).unlink()
    assert trainer.load(f"{run.path}@5").score("the sun").nats == nats, "also before the end of the run"


def test_damaged_checkpoint__is_refused_and_the_run_stays_usable(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gru")
    keep_checkpoint(run, 5)
    named = named_model(store_of(run), f"{run.run_id}@5")
    weights = checkpoint_folder(run, 5) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with refused(ErrorCode.CHECKPOINT_CORRUPT, "step 5 is damaged"):
        load_named(named)
    load_named(named_model(store_of(run), run.run_id))
    vocabulary = next(run.tokenizer.glob("*.json"))
    vocabulary.write_bytes(vocabulary.read_bytes() + b" ")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "were changed or deleted after its training"):
        load_named(named)


async def test_unfinished_run__has_the_checkpoints_it_has_saved(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    runs = RunStore(settings.app.artifacts_root)
    run = runs.create(record("gru-unfinished"))
    with refused(ErrorCode.DATA_NOT_FOUND, "`checkpoint_schedule`"):
        named_model(runs, "gru-unfinished@5")
    with refused(ErrorCode.DATA_NOT_FOUND, "has not saved a validated checkpoint yet"):
        named_model(runs, "gru-unfinished@best")
    store = CheckpointStore(run.checkpoints)
    store.save(checkpoint(5))
    with refused(ErrorCode.DATA_NOT_FOUND, "has not saved a validated checkpoint yet"):
        named_model(runs, "gru-unfinished@best")
    store.save(checkpoint(10, best_step=10))
    store.save(checkpoint(15, best_step=10))
    (run.checkpoints / "step-20").mkdir()
    best = named_model(runs, "gru-unfinished@best")
    assert (best.step, best.is_permanent) == (10, False)
    assert best.effective == run.record().effective
    with refused(ErrorCode.DATA_NOT_FOUND, "'gru-unfinished@10', which a cleanup removes", "init_from_run_id"):
        await resolve_request(tiny_request(init_from_run_id=best.name), CorpusStore(settings), settings)
    with refused(ErrorCode.DATA_NOT_FOUND, "has kept no checkpoint 'epoch:9'"):
        named_model(runs, "gru-unfinished@epoch:9")
    with refused(ErrorCode.RUN_NOT_READY, "has not finished training yet"):
        named_model(runs, "gru-unfinished")
