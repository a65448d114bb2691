"""`mt develop`: every number is that of the checkpoint by itself, and words are acquired in the order of their use."""

import random
from math import fsum
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import trainer
from tests.support import settings_in, some_text, tiny_request, wait_for_status
from tests.support.batteries import PAIRS
from tests.support.checkpoints import keep_checkpoint
from tests.support.finished_runs import finished_run
from tests.support.lab import Lab
from tests.support.refusals import refused
from tests.support.run_shell import Shell
from tests.support.started_jobs import started_battery
from tests.support.waiting import PATIENCE_SECONDS, until, wait_until
from tests.support.worker_runs import training
from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.checkpoint_files import STATE, TextSeen, TrainingState, checkpoint_steps, scheduled_folder
from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import load_settings
from trainer.contracts.batteries import BatteryOptions, BatteryRequest, DevelopmentOptions
from trainer.contracts.development import Development, WordScores
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import split_corpus
from trainer.inference.model_files import load_run
from trainer.queue.batteries import kept_models, new_job
from trainer.queue.stores import Stores
from trainer.reports.development_tables import read_csv
from trainer.reports.report_text import ENGLISH
from trainer.training.checkpoint import CheckpointStore

STEPS = (0, 4, 16)


def newest(shell: Shell) -> BatteryDirectory:
    stored = BatteryStore(shell.artifacts)
    return stored.directory(stored.names()[0])


def labelled(shell: Shell, label: str) -> list[RunDirectory]:
    return [run for run in shell.runs.all() if run.record().effective.label == label]


def kept_by(run: RunDirectory) -> list[int]:
    return checkpoint_steps(scheduled_folder(run.checkpoints))


def held_out_lines(run: RunDirectory) -> list[str]:
    """The lines of the validation split that have text."""
    blocks = split_corpus(CorpusStore(load_settings()), run.record().effective).lines("validation")
    return [line for block in blocks for line in block.split("\n") if line.strip()]


@pytest.fixture(name="text", scope="module")
def text_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "development.txt"
    path.write_text("\n".join(f"the sea {line} THE sun," for line in some_text(240).splitlines()), encoding="utf-8")
    return path


def test_kept_models__are_read_once_while_a_run_keeps_more(tmp_path: Path) -> None:
    run, options = finished_run(tmp_path, "lstm"), BatteryOptions(development=DevelopmentOptions())
    stores, (first, *later) = Stores(settings_in(tmp_path)), STEPS
    runs = stores.runs
    keep_checkpoint(run, first, share=0.1)
    known = kept_models(run.run_id, options, runs)
    (scheduled_folder(run.checkpoints) / f"step-{first}" / STATE).unlink()
    for step in later:
        keep_checkpoint(run, step, share=0.2)
    found = kept_models(run.run_id, options, runs, known)
    assert [one.checkpoint for one in found] == [*STEPS] and found[:1] == known
    for models in ([run.run_id, run.run_id], [f"{run.run_id}@{first}"]):
        with refused(ErrorCode.INVALID_INPUT, "A development is that of one run over its checkpoints"):
            new_job(options, models, (), stores)


@pytest.mark.parametrize(
    ("family", "documents"),
    [("lstm", "line"), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("bert", "line"), ("gpt2", "stream")))],
)
def test_development__has_the_numbers_of_each_checkpoint_by_itself(
    family: str, documents: str, lab_shell: Shell, text: Path
) -> None:
    corpus = lab_shell.root / "data" / "corpus" / text.name
    corpus.write_bytes(text.read_bytes())
    run = finished_run(lab_shell.root, family, corpus=corpus, documents=documents)
    for step in STEPS:
        seen = TextSeen(words=10 * step, tokens=50 * step, words_in_step=10, tokens_in_step=50)
        keep_checkpoint(run, step, share=0.1 + step / 10, seen=seen)
    lab_shell.write("pairs.csv", PAIRS)
    words = ("develop", run.run_id, "--battery", "pairs.csv", "--eval", "validation", "--word", "sun", "--word", "Sea")
    development = lab_shell.read(Development, *words, "--word", "nowhere")
    assert [(one.step, one.words, one.tokens) for one in development.points] == [(s, 10 * s, 50 * s) for s in STEPS]
    assert development.missing_words == ("nowhere",)
    assert any("of the items stand in the training text" in ENGLISH.note(one) for one in development.notes)
    lines = held_out_lines(run)
    scores = read_csv(WordScores, (newest(lab_shell).path / "words.csv").read_text(encoding="utf-8"))
    for step in STEPS:
        loaded = trainer.load(f"{run.path}@{step}")
        [result] = loaded.battery("pairs.csv", has_controls=False).runs
        values = {(row.measure, row.name): row.value for row in development.curves if row.step == step}
        for group in result.groups:
            found = group.by("sum")
            name = group.battery if group.level == "battery" else f"{group.battery}: {group.name}"
            assert found is not None and values.get(("accuracy", name)) == found.accuracy
        metrics = lab_shell.read(EvalMetrics, "eval", f"{run.run_id}@{step}")
        assert values["loss", "validation"] == pytest.approx(metrics.loss, abs=1e-6)
        for wanted in ("sun", "sea"):
            nats = [
                word.surprisal
                for line in lines
                for word in loaded.score(line, detail_level="per_word").words or ()
                if word.text.lower().strip(",") == wanted and word.surprisal is not None
            ]
            [score] = [one for one in scores if (one.step, one.word) == (step, wanted)]
            assert score.n_contexts == len(nats)
            assert score.nats == pytest.approx(fsum(nats) / len(nats), abs=1e-4)
    out = str(lab_shell.folder / "results")
    lab_shell.type("battery", "export", newest(lab_shell).battery_id, out)
    lab_shell.type("battery", "recompute", out)
    assert "All numbers are those of result.json." in lab_shell.err
    assert not (Path(out) / "lines.json").exists(), "the held-out text stays here"
    table = Path(out) / "words.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",sun,", ",son,"), encoding="utf-8")
    lab_shell.type("battery", "recompute", out, code=1)
    assert "NOT those of result.json" in lab_shell.err


@pytest.mark.slow
def test_development__of_a_run_that_trains_is_continued_with_its_new_checkpoints(lab_shell: Shell) -> None:
    schedule = ("--set", "checkpoint_schedule={steps: log2}", "--set", "label=followed", "--set", "num_epochs=30")
    with lab_shell.start("train", *TINY_TEXT, *schedule) as started:
        wait_until(lambda: any(kept_by(run) for run in labelled(lab_shell, "followed")))
        [run] = labelled(lab_shell, "followed")
        words = ("develop", run.run_id, "--eval", "test", "--word", "abc")
        so_far = lab_shell.read(Development, *words)
        job, scored = newest(lab_shell), {one.step for one in so_far.points}
        times = {path: path.stat().st_mtime_ns for path in (job.path / "scores").iterdir()}
        again = lab_shell.read(Development, *words, "--follow")
        started.communicate(timeout=PATIENCE_SECONDS)
    kept = kept_by(run)
    assert [one.step for one in again.points] == kept
    later = lab_shell.read(Development, *words)
    assert newest(lab_shell).path == job.path and [one.step for one in later.points] == kept
    assert {path: path.stat().st_mtime_ns for path in times} == times, "what was measured stays"
    assert [one for one in later.curves if one.step in scored] == [*so_far.curves] and later.curves == again.curves
    lab_shell.write("pairs.csv", PAIRS)
    of_items = lab_shell.read(Development, "develop", run.run_id, "--battery", "pairs.csv")
    assert {one.measure for one in of_items.curves} == {"accuracy"}


async def test_development__of_a_run_that_ends_without_a_checkpoint_fails(lab: Lab) -> None:
    async with lab.queue() as queue:
        request = tiny_request(num_epochs=1000, checkpoint_schedule={"steps": [9000]})
        run_id = (await queue.train(request, user_id=None)).run_id
        await wait_for_status(queue, run_id, training)
        options = DevelopmentOptions(split="validation", follows=True)
        battery = await started_battery(queue, BatteryRequest(runs=(run_id,), development=options))
        await until(lambda: battery.state() == "running")
        await queue.states.cancel(run_id)
        await until(lambda: battery.state() == "failed")
    error = battery.status().error
    assert error is not None and error.message == f"The run '{run_id}' has ended without a kept checkpoint."


TINY_TEXT = (
    *("--corpus", "text", "--model", "char_lstm"),
    *("--set", "model.embedding_size=8", "--set", "model.hidden_size=8", "--set", "model.num_layers=1"),
    *("--set", "max_seq_len=16", "--set", "batch_size=4", "--set", "threads=1"),
)


@pytest.mark.slow
def test_words__are_acquired_in_the_order_of_their_use(lab_shell: Shell) -> None:
    later, planted = 256, {"the sun": 4, "on sea": 2, "all might": 4}
    others = dict.fromkeys(("he make", "to did", "his best", "very with", "was shining"), 1)
    corpus = lab_shell.root / "data" / "corpus" / "planted.txt"
    corpus.write_text("\n".join(f"q{n} {words}" for n in range(240) for words in planted), encoding="utf-8")
    run = finished_run(lab_shell.root, "gru", "word", corpus=corpus)
    model, tokenizer = load_run(run)
    store, generator = CheckpointStore(run.checkpoints), random.Random(1)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.005)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.1)
    for step in range(1, 2049):
        known = {words: share for words, share in planted.items() if words != "all might" or step > later} | others
        lines: list[str] = generator.choices([*known], [*known.values()], k=16)
        rows: list[list[int]] = [[tokenizer.special_ids.start, *tokenizer.encode(f"q{step} {line}")] for line in lines]
        ids = torch.tensor(rows)
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(model.forward(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()))
        optimizer.step()
        if step & (step - 1) == 0 or step in (384, 768, 1536):
            weights: dict[str, torch.Tensor] = model.state_dict()
            store.save_scheduled(TrainingState(request_hash="0" * 64, step=step), weights)
    words = [word for name in ("sun", "sea", "might") for word in ("--word", name)]
    found = lab_shell.read(Development, "develop", run.run_id, *words).acquisitions
    ages = {one.word: one.age_steps for one in found}
    assert all(age is not None for age in ages.values()), found
    sun, sea, might = (ages[word] or 0.0 for word in ("sun", "sea", "might"))
    assert 0 < sun < sea < later < might, "the frequent word comes first, and the planted one after it is planted"


def test_development__that_cannot_be_is_refused_at_once(lab_shell: Shell) -> None:
    run = finished_run(lab_shell.root, "rnn")
    assert "has kept no checkpoints: set `checkpoint_schedule`" in lab_shell.refuse("develop", run.run_id)
    keep_checkpoint(run, 1)
    assert "is a checkpoint: name its run here" in lab_shell.refuse("develop", f"{run.run_id}@1")
    assert "`development.split` must be" in lab_shell.refuse("develop", run.run_id, "--eval", "training")
    whole = finished_run(lab_shell.root, "qwen", test_fraction=0.0)
    keep_checkpoint(whole, 1)
    assert "has no test split" in lab_shell.refuse("develop", whole.run_id)
    assert "There is no battery 'nowhere.csv'" in lab_shell.refuse("develop", run.run_id, "--battery", "nowhere.csv")
