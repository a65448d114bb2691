"""bf16 on a CPU that cannot train the architecture in it: refused before queueing, with what would work."""

import sys
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, running, settings_in, some_text, tiny_request, wait_for_status
from tests.support.refusals import refused
from tests.support.stopped_runs import stopped_run
from tests.support.worker_runs import with_redis
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import EffectiveRequest, TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import preview_training, resolve_origin, resolve_request

REFUSED = (
    "`precision` must be 'fp32' or 'auto': this machine's CPU cannot train LSTM models in bf16."
    " GRU models work in bf16."
)
GRU = tiny_request(model_family="gru", tokenizer={"method": "char"}, precision="bf16")
LSTM = tiny_request(precision="bf16")
IN_BF16: dict[str, object] = {"precision": "bf16"}


@pytest.fixture(name="settings")
def settings_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine whose CPU has no bf16, which oneDNN needs for LSTMs."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    add_corpus(tmp_path, some_text())
    return settings_in(tmp_path)


async def resolved(request: TrainRequest, settings: Settings) -> EffectiveRequest:
    return await resolve_request(request, CorpusStore(settings), settings)


def trials(settings: Settings) -> int:
    return len(list(settings.app.data_root.glob("bf16_trials/*.json")))


@pytest.mark.slow
async def test_bf16__is_tried_once_and_refused_with_what_works(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time, no process can start, and none is needed; a resume is refused alike."""
    run = await stopped_run(tmp_path)
    assert (await resolved(GRU, settings)).precision == "bf16"
    assert trials(settings) == 1
    for _ in range(2):
        with refused(ErrorCode.INVALID_INPUT) as refusal:
            await resolved(LSTM, settings)
        assert (refusal.value.message, trials(settings)) == (REFUSED, 2)
        monkeypatch.setattr(sys, "executable", "/none")
    request = run.record().request.model_copy(update=IN_BF16)
    (run.path / "request.json").write_text(changed(run.record(), request=request).model_dump_json(), encoding="utf-8")
    with refused(ErrorCode.INVALID_INPUT) as refusal:
        await resolve_origin(run, CorpusStore(settings), settings)
    assert refusal.value.message.endswith(REFUSED)


async def test_bf16__is_tried_only_on_request_and_on_this_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is left to the worker, as if it were elsewhere."""
    elsewhere = changed(settings, **with_redis("redis://another-machine:6379/0"))
    assert (await resolved(LSTM, elsewhere)).precision == "bf16"
    monkeypatch.setattr(sys, "executable", "/none")
    for precision in ("auto", "fp32", "bf16"):
        assert (await resolved(tiny_request(precision=precision), settings)).precision == precision
    without_torch = [folder for folder in sys.path if "-packages" not in folder]
    monkeypatch.setattr(sys, "path", without_torch)
    assert (await resolved(LSTM, settings)).precision == "bf16"
    assert trials(settings) == 0


@pytest.mark.slow
async def test_bf16__is_refused_where_the_trial_cannot_be_stored(settings: Settings) -> None:
    (settings.app.data_root / "bf16_trials").write_text("", encoding="utf-8")
    with refused(ErrorCode.INVALID_INPUT, "cannot train LSTM models in bf16"):
        await resolved(LSTM, settings)


@pytest.mark.slow
async def test_worker__refuses_bf16_in_the_same_words_and_records_its_precision(settings: Settings) -> None:
    """As where a run was accepted on a machine that cannot try it for the worker's."""
    async with running(settings) as queue:
        preview = await preview_training(tiny_request(), queue.corpora, settings)
        in_bf16 = preview._replace(request=LSTM, effective=preview.effective.model_copy(update=IN_BF16))
        refused = await queue.accept(in_bf16, user_id=None)
        lstm = await queue.accept(preview, user_id=None)
        gru = await queue.train(GRU, user_id=None)
        for accepted in (refused, lstm, gru):
            await wait_for_status(queue, accepted.run_id, ended)
        failed, *completed = (queue.runs.get(accepted.run_id).manifest() for accepted in (refused, lstm, gru))
    assert failed is not None and failed.error == RunError.of(AppError(ErrorCode.INVALID_INPUT, REFUSED))
    assert [manifest and manifest.effective.precision for manifest in completed] == ["fp32", "bf16"]
