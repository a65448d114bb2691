"""Warm starts and shared tokenizers through queue, worker and child processes."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support import add_corpus, ended, settings_in, some_text, tiny_request, wait_for_status
from tests.support.lab import Lab
from tests.support.refusals import refused
from tests.support.tiny_models import lines_in
from tests.support.worker_runs import finished, with_redis
from trainer.artifacts.runs import RunDirectory
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.events import EvalCompleted
from trainer.contracts.generations import TrainingSample
from trainer.contracts.runs import RunManifest, TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import Split
from trainer.data.run_corpora import corpus_paths, read_text, split_corpus
from trainer.queue.resolve import TrainingPreview, preview_training, resolve_request
from trainer.reports.leak_notes import leak_warnings
from trainer.tokenizers import load_tokenizer
from trainer.training.inspect_corpus import inspect_corpus
from trainer.training.progress import CurveRow


async def test_warm_start__continues_from_its_parent_with_frozen_embeddings(lab: Lab) -> None:
    async with lab.queue() as queue:
        parent = await finished(queue, num_epochs=2)
        child = await finished(
            queue, init_from_run_id=parent.run_id, freeze_embeddings=True, sample_every_steps=4, learning_rate=0.01
        )
    told = parent.completed_manifest()
    manifest = child.completed_manifest()
    first_row = CurveRow.model_validate_json(child.loss_curve.read_bytes().splitlines()[0])
    assert (first_row.step, first_row.val_loss) == (0, told.metrics.best)
    assert manifest.metrics.initial == told.metrics.best
    assert (manifest.parent_run_id, manifest.effective.learning_rate) == (parent.run_id, 0.01)
    assert manifest.tokenizer == told.tokenizer
    [first, *_] = [event for event in child.reader().read_new() if isinstance(event, EvalCompleted)]
    assert (first.split, first.loss) == ("validation", told.metrics.best)
    before, after = load_file(parent.path / "model.safetensors"), load_file(child.path / "model.safetensors")
    assert {name for name in before if before[name].equal(after[name])} == {"embedding.weight"}
    lines = child.training_samples.read_bytes().splitlines()
    samples = [TrainingSample.model_validate_json(line) for line in lines]
    prompts = {sample.sample.prompt for sample in samples}
    assert "" in prompts and len(prompts) > 1
    steps = range(4, manifest.steps + 1, 4)
    assert [sample.step for sample in samples] == [step for step in steps for _ in range(4 * len(prompts))]
    assert "training_samples.jsonl" in {file.path for file in manifest.files}
    assert len(manifest.timings.epoch_seconds) == 1
    assert 0 < manifest.timings.epoch_seconds[0]
    assert (manifest.effective.data_num_workers, manifest.effective.data_pin_memory) == (0, False)


async def test_lines_that_trained_an_ancestor__are_leaks_of_a_warm_start(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(50), "other")
    async with lab.queue() as queue:
        first = await finished(queue)
        second = await finished(queue, init_from_run_id=first.run_id, corpus="other")
        child = await finished(queue, init_from_run_id=second.run_id, split_seed=7)
    trained_on = {line for run in (first, second, child) for line in lines_of(lab, run, "train")}
    told, manifest = child.record().leaks, child.completed_manifest()
    assert manifest.data is not None and manifest.data.leaks == told
    for split, leak in told.items():
        held_out = lines_of(lab, child, split)
        assert leak.lines == pytest.approx(sum(line in trained_on for line in held_out) / len(held_out))
        assert leak.lines > 0.5 and leak.ancestors == (second.run_id, first.run_id)
    [evaluated] = manifest.eval
    assert evaluated.leak == changed(told["test"], n_lines=None)
    for baseline in manifest.baselines.values():
        assert baseline.ancestors == (second.run_id, first.run_id) and baseline.uncounted == ()
    effective, corpora = child.record().effective, CorpusStore(lab.settings)
    ancestors = read_text(corpora, queue.runs.ancestors(effective))
    paths, tokenizer = corpus_paths(corpora, effective), load_tokenizer(child.tokenizer)
    checked = inspect_corpus(effective, paths, tokenizer, ancestors=ancestors)
    assert checked.leaks == told
    assert leak_warnings(child.record().effective, told)[1].endswith("equal corpora and splits hold out equal lines.")


def lines_of(lab: Lab, run: RunDirectory, split: Split) -> list[str]:
    return lines_in(split_corpus(CorpusStore(lab.settings), run.record().effective).lines(split))


BY_LOT: dict[str, object] = {
    **{"split_by": "position", "split_seed": 7},
    **{"holdout_fraction": 0.2, "test_fraction": 0.3, "max_seq_len": 24},
}
OF_OTHER_TEXTS: dict[str, object] = {"validation_corpus": "validated", "test_corpus": "tested"}


async def test_warm_start__holds_out_the_lines_that_its_parent_holds_out(lab: Lab) -> None:
    unseen = some_text(80).splitlines()
    for name, lines in (("validated", unseen[60:65]), ("tested", unseen[65:70]), ("changed", unseen[70:])):
        add_corpus(lab.folder, "\n".join(lines), name)

    async def preview(**fields: object) -> TrainingPreview:
        request = parse(TrainRequest, {"model_family": "char_lstm", "corpus": "text", **fields})
        return await preview_training(request, CorpusStore(lab.settings), lab.settings)

    parents: list[str] = []
    async with lab.queue() as queue:
        for held_out in (BY_LOT, OF_OTHER_TEXTS):
            parent = await finished(queue, **held_out)
            parents.append(parent.run_id)
            found, own = await preview(init_from_run_id=parent.run_id), parent.record().effective
            for field in (*BY_LOT, *OF_OTHER_TEXTS, "documents", "objective", "tokenizer"):
                taken: object = getattr(found.effective, field)
                wanted: object = getattr(own, field)
                assert taken == wanted, field
            assert {split: leak.lines for split, leak in found.leaks.items()} == {"validation": 0, "test": 0}
            told = {choice.field: choice for choice in found.chosen}
            assert held_out.keys() <= told.keys()
            assert {told[field].reason for field in held_out} == {f"as in its parent '{parent.run_id}'"}
            assert all(f"`{field}` {told[field].shown_value()}" in found.notes[0] for field in held_out)
            assert not found.request.model_fields_set & held_out.keys(), "the request stays what was given"
        given = await preview(init_from_run_id=parents[1], test_corpus="changed", split_seed=3)
        assert given.effective.test_corpus is not None and given.effective.test_corpus.name == "changed"
        assert given.effective.split_seed == 3
        elsewhere = await preview(init_from_run_id=parents[1], corpus="changed")
        assert elsewhere.effective.test_corpus is None
        add_corpus(lab.folder, "\n".join(unseen[70:]), "tested")
        cut = await preview(init_from_run_id=parents[1])
        assert cut.effective.test_corpus is None and cut.leaks["test"].lines == 1.0, "as the text has changed"


async def test_tokenizer_of_another_run__is_shared_by_its_id(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(80).replace("c", "z"), "other")
    async with lab.queue() as queue:
        first = (await lab.finished_run(queue)).completed_manifest()
        assert first.tokenizer is not None
        second = (await finished(queue, corpus="other", tokenizer_id=first.tokenizer.id)).completed_manifest()
    assert second.tokenizer == first.tokenizer
    assert first.model is not None and second.model is not None
    assert first.model.vocab_size == second.model.vocab_size
    assert unknown_tokens(first) == 0 < unknown_tokens(second), "z was not in the first text"
    assert second.effective.tokenizer_id == first.tokenizer.id


def unknown_tokens(manifest: RunManifest) -> int:
    assert manifest.data is not None
    return manifest.data.train.unknown_tokens


async def test_wrong_start__is_refused_before_anything_is_queued(lab: Lab) -> None:
    add_corpus(lab.folder, "мама мыла раму\n" * 9 + "и ушла\nдомой\n", "cyrillic")
    async with lab.queue() as queue:
        parent = await lab.finished_run(queue)
        cancelled = await queue.train(tiny_request(num_epochs=1000), user_id=None)
        await queue.states.cancel(cancelled.run_id)
        await wait_for_status(queue, cancelled.run_id, ended)
        other_letters: dict[str, object] = {"init_from_run_id": parent.run_id, "corpus": "cyrillic"}
        asked: list[tuple[dict[str, object], ErrorCode, str]] = [
            ({"init_from_run_id": "no-run"}, ErrorCode.RUN_NOT_FOUND, "`init_from_run_id` names no completed run."),
            ({"init_from_run_id": cancelled.run_id}, ErrorCode.RUN_NOT_READY, "has been cancelled"),
            ({"tokenizer_id": "char-0123456789abcdef"}, ErrorCode.TOKENIZER_NOT_FOUND, "no tokenizer"),
            (other_letters, ErrorCode.MODEL_INCOMPATIBLE, "does not know 86% of the characters of 'cyrillic'"),
        ]
        runs = {run.run_id for run in queue.runs.all()}
        for fields, code, sentence in asked:
            with refused(code, sentence):
                await queue.train(tiny_request(**fields), user_id=None)
        assert {run.run_id for run in queue.runs.all()} == runs


async def test_cuda__is_left_to_a_worker_on_another_machine(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    here = settings_in(tmp_path)
    settings = changed(here, **with_redis("redis://gpu-box:6379/0"))
    effective = await resolve_request(tiny_request(device="cuda:0"), CorpusStore(settings), settings)
    assert effective.device == "cuda:0"
