"""One attempt at a run: texts that are refused or short, the length of the training, the baseline."""

from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, tiny_request
from tests.support.attempts import accepted, attempt
from tests.support.baselines import WORSE
from tests.support.families import CAUSAL, FAMILIES, effective_of
from tests.support.refusals import refused
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.events import MetricsProgress
from trainer.contracts.runs import EffectiveRequest, RunManifest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.reports.leak_notes import leak_warnings
from trainer.worker.children.train_run import is_unidirectional

LINES, LINE_TOKENS = 20, 8
TEXT = "\n".join(f"abc {number:03d}" for number in range(LINES)).encode()
TRAINED = 16 * LINE_TOKENS
"""Of 20 lines two are held out for validation and two for the test."""


async def resolved(folder: Path, text: bytes = TEXT, /, **fields: object) -> EffectiveRequest:
    add_corpus(folder, "")
    (folder / "data" / "corpus" / "text.txt").write_bytes(text)
    settings = settings_in(folder)
    return await resolve_request(tiny_request(**fields), CorpusStore(settings), settings)


async def trained(folder: Path, **fields: object) -> tuple[RunDirectory, RunManifest]:
    """Run a training in this process and return the run with its end."""
    values: dict[str, object] = tiny_request(**fields).model_dump(exclude_unset=True, exclude_none=True)
    run = await accepted(folder, TEXT.decode(), values)
    manifest = attempt(run, folder)
    assert manifest is not None
    return run, manifest


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", ErrorCode.CORPUS_EMPTY),
        (b"caf\xe9\n" * 99, ErrorCode.INVALID_INPUT),
    ],
)
async def test_text_that_cannot_be_trained_on__is_refused(tmp_path: Path, text: bytes, code: ErrorCode) -> None:
    with refused(code):
        await resolved(tmp_path, text)


@pytest.mark.process
@pytest.mark.parametrize("family", ["char_lstm", "gpt2", "bert"])
async def test_text__that_is_shorter_than_a_row_is_trained_on_as_it_is(tmp_path: Path, family: str) -> None:
    """A row holds the complete training split; the padding behind it changes no loss."""
    of_family = {} if family == "char_lstm" else FAMILIES[family]  # without dropout, whose draws padding changes
    fields: dict[str, object] = {"tokenizer": {"method": "char"}, "num_epochs": 2, **of_family}
    _, exact = await trained(tmp_path / "exact", **fields, max_seq_len=TRAINED)
    _, padded = await trained(tmp_path / "padded", **fields, max_seq_len=2 * TRAINED)
    assert (exact.status, padded.status, padded.steps) == ("completed", "completed", 2)
    assert padded.data == exact.data
    if family == "char_lstm":  # the weights of other families depend on the length of a row, or their masks do
        assert padded.metrics.test == pytest.approx(exact.metrics.test, rel=1e-4)


@pytest.mark.process
async def test_training_split__of_one_sequence_is_enough(tmp_path: Path) -> None:
    _, manifest = await trained(tmp_path, max_seq_len=TRAINED, max_steps=1)
    assert manifest.status == "completed"


@pytest.mark.process
async def test_max_steps_alone__is_the_length_of_a_training(tmp_path: Path) -> None:
    """A step has 4 rows of 16 tokens, and the text 9 rows: an epoch is 3 steps, and 20 steps begin 7 epochs."""
    run, manifest = await trained(tmp_path, max_steps=20, num_epochs=None)
    assert (manifest.status, manifest.steps) == ("completed", 20)
    progress = [event for event in run.reader().read_new() if isinstance(event, MetricsProgress)]
    assert (progress[-1].epoch, progress[-1].total_epochs) == (7, 7)


@pytest.mark.process
@pytest.mark.parametrize("test_fraction", [0.1, 0.0], ids=["test", "validation"])
async def test_training__stores_the_baseline_of_its_splits(tmp_path: Path, test_fraction: float) -> None:
    run, manifest = await trained(tmp_path, max_steps=1, max_seq_len=8, test_fraction=test_fraction)
    reported = "test" if test_fraction else "validation"
    assert set(manifest.baselines) == {"validation", reported}
    assert run.follow().refresh().counted_val_loss == manifest.baselines["validation"].ngram_loss, (
        "known from the start"
    )
    baseline, metrics = manifest.reported_baseline, run.evaluation()
    assert baseline is not None and metrics.baseline == run.follow().refresh().baseline == baseline
    assert baseline.bits_per_char == pytest.approx(metrics.bits_per_char)
    [summary] = manifest.eval
    assert summary.lines == metrics.lines and summary.lines.ngram_nats is not None
    ngram_loss = sum(summary.lines.ngram_nats) / sum(summary.lines.tokens)
    assert baseline.ngram_loss == pytest.approx(ngram_loss)
    assert manifest.data is not None
    warnings = (*leak_warnings(manifest.effective, manifest.data.leaks), *baseline.warnings())
    assert (
        run.follow().refresh().warnings == warnings
        and baseline.warnings() == changed(WORSE, shortfall="time").warnings()
    ), "one step learns nothing"


def test_sides__are_one_for_all_but_bert_and_two_directions() -> None:
    one_sided = [name for name in FAMILIES if is_unidirectional(effective_of(name).model)]
    assert one_sided == CAUSAL
