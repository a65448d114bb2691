"""Cost estimates from a sample of the corpus and from earlier runs, and refusals before a run is queued."""

import os
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support import ROOT, add_corpus, settings_in, some_text, tiny_request
from tests.support.tiny_models import tokenizer_of
from trainer.artifacts.runs import RunStore
from trainer.config.settings import RedisSettings
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunManifest
from trainer.data.corpora import BUNDLED, CorpusStore
from trainer.jobs.cost import (
    guessed,
    kinds,
    preview_cost,
    refuse,
    sample_of,
    slowness_of_runs,
    text_size,
    this_machine,
)
from trainer.jobs.estimate import Machine
from trainer.jobs.resolve import resolve_request
from trainer.system.hardware import cpu_name

EARLIER = ROOT / "tests" / "fixtures" / "finished_run"
PARENT = "char_lstm-20261121-8c2c43e4"
DEMO = next(BUNDLED.glob("demo*"))
CPU = Machine(on_cuda=False, has_bf16=False, memory_bytes=None, free_disk_bytes=None)


async def previewed(folder: Path, **fields: object) -> Cost:
    settings = settings_in(folder)
    corpora = CorpusStore(settings)
    return await preview_cost(await resolve_request(tiny_request(**fields), corpora, settings), corpora, settings)


async def test_preview__of_a_run_with_a_stored_tokenizer_is_exact(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    store = RunStore(tmp_path / "artifacts")
    [tokenizer] = {manifest.tokenizer.id for run in store.all() if (manifest := run.manifest()) and manifest.tokenizer}
    shutil.copytree(store.get(PARENT).tokenizer, tmp_path / "artifacts" / "tokenizers" / tokenizer)

    warm = await previewed(tmp_path, init_from_run_id=PARENT, model=None)
    given = await previewed(tmp_path, tokenizer_id=tokenizer)
    guess = await previewed(tmp_path)

    assert warm.is_exact and given.is_exact and not guess.is_exact
    assert warm.params == given.params == 810
    assert abs(guess.params - 810) < 100


async def test_time__is_taken_from_runs_of_this_machine_that_are_like_it(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text(2000))
    unknown = await previewed(tmp_path, num_epochs=50)
    manifest = RunStore(EARLIER / "artifacts").get(PARENT).manifest()
    assert manifest is not None
    store = RunStore(tmp_path / "artifacts")
    for number, seconds in enumerate((30.0, 40.0, 50.0)):
        _add_run(tmp_path, manifest, f"char_lstm-20261120-{number}", seconds=seconds)
    known = await previewed(tmp_path, num_epochs=50)

    assert (unknown.compared_runs, known.compared_runs) == (0, 3)
    each = known.seconds / known.steps
    assert each == pytest.approx(40 / manifest.steps, rel=0.5)  # a step of that run's was like one of this one
    assert each > 5 * unknown.seconds / unknown.steps

    effective = await resolve_request(tiny_request(), CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    other_threads: dict[str, object] = {"threads": 7}
    assert len(slowness_of_runs(effective, 18, store, CPU)) == 3
    assert slowness_of_runs(effective.model_copy(update=other_threads), 18, store, CPU) == []
    assert slowness_of_runs(effective, 18, store, CPU._replace(on_cuda=True)) == []
    _add_run(tmp_path, manifest, "char_lstm-20261120-3", seconds=30, cpu="another")
    _add_run(tmp_path, manifest, "char_lstm-20261120-4", seconds=0.1)
    _add_run(tmp_path, manifest, "char_lstm-20261120-5", seconds=30, steps=0)
    shutil.copytree(store.get("char_lstm-20261120-5").path, tmp_path / "artifacts" / "models" / "char_lstm-20261120-6")
    (tmp_path / "artifacts" / "models" / "char_lstm-20261120-6" / "manifest.json").write_text("{")
    (tmp_path / "artifacts" / "models" / "char_lstm-20261120-5" / "manifest.json").unlink()
    assert len(slowness_of_runs(effective, 18, store, CPU)) == 3


def _add_run(
    folder: Path, manifest: RunManifest, run_id: str, *, seconds: float, cpu: str = "", steps: int | None = None
) -> None:
    """A run as it was, on this machine, but for how long it took."""
    assert manifest.environment is not None
    source = EARLIER / "artifacts" / "models" / PARENT
    target = shutil.copytree(source, folder / "artifacts" / "models" / run_id)
    here: dict[str, object] = {"cpu": cpu or cpu_name()}
    took: dict[str, object] = {"train_seconds": seconds}
    changes: dict[str, object] = {
        "environment": manifest.environment.model_copy(update=here),
        "timings": manifest.timings.model_copy(update=took),
        "steps": manifest.steps if steps is None else steps,
    }
    (target / "manifest.json").write_text(manifest.model_copy(update=changes).model_dump_json())


@pytest.mark.parametrize("method", ["char", "word", "bpe", "wordpiece", "sentencepiece"])
async def test_vocabulary__is_guessed_from_the_text(tmp_path: Path, method: str) -> None:
    """Near that of the tokenizer that a run makes, and the tokens of the text near those that there are."""
    settings = settings_in(tmp_path)
    request = tiny_request(corpus="demo", model_family="lstm", tokenizer={"method": method}, test_fraction=0.1)
    effective = await resolve_request(request, CorpusStore(settings), settings)
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    tokenizer = tokenizer_of(method, lines, lines[:9])

    found = guessed(effective, sample_of(DEMO))
    tokens = len(tokenizer.encode_documents(lines))

    assert found.size == pytest.approx(tokenizer.vocab_size, rel=0.15 if method in ("char", "word") else 0.6)
    assert found.least_size <= found.size
    assert found.tokens_per_byte * DEMO.stat().st_size == pytest.approx(tokens, rel=0.2)
    sizes = text_size(effective, found.tokens_per_byte)
    assert sizes.test == pytest.approx(0.1 * tokens, rel=0.2)
    assert sizes.train + sizes.validation + sizes.test == pytest.approx(tokens, rel=0.2)


async def test_vocabulary__of_words_is_bounded_and_counts_the_rare_ones_out(tmp_path: Path) -> None:
    async def guess(**tokenizer: object) -> int:
        settings = settings_in(tmp_path)
        request = tiny_request(corpus="demo", model_family="lstm", tokenizer={"method": "word", **tokenizer})
        return guessed(await resolve_request(request, CorpusStore(settings), settings), sample_of(DEMO)).size

    assert await guess(vocab_size=100) == 100
    assert await guess(min_frequency=3) < 0.7 * await guess()


async def test_text__of_its_own_leaves_the_corpus_to_training(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text(), "held")
    settings = settings_in(tmp_path)
    request = tiny_request(corpus="demo", validation_corpus="held", test_corpus="held")
    effective = await resolve_request(request, CorpusStore(settings), settings)

    sizes = text_size(effective, 2.0)

    assert sizes.train == 2 * DEMO.stat().st_size
    assert sizes.validation == sizes.test == 2 * len(some_text().encode())


def test_kinds__grow_as_the_halves_of_a_text_show() -> None:
    assert kinds(["same"] * 100, 1000) == 1
    assert kinds([str(i) for i in range(100)], 1000) == pytest.approx(100_000)
    assert kinds([str(i) for i in range(100)], 0.5) == pytest.approx(50)
    assert kinds("x", 8) == 8
    assert kinds([*"ab", *"cd", *"ab"[:0], "a", "b", "c", "d"], 2) == 4


def test_sample__is_bounded_and_lies_over_all_the_text(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"{name} " * 200_000)

    sample = sample_of(folder)

    assert sample.bytes < 300_000
    assert set(sample.text.split()) == {"a", "b", "c"}
    assert sample_of(DEMO).bytes == DEMO.stat().st_size


def test_machine__is_known_where_the_worker_is_on_it(tmp_path: Path) -> None:
    effective = RunStore(EARLIER / "artifacts").get(PARENT).record().effective
    settings = settings_in(tmp_path)
    elsewhere = settings.model_copy(update=_elsewhere())
    on_cuda: dict[str, object] = {"device": "cuda:1"}

    here = this_machine(effective, settings)
    there = this_machine(effective, elsewhere)
    gpu = this_machine(effective.model_copy(update=on_cuda), settings)

    assert here.memory_bytes is not None and here.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )
    assert here.free_disk_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert (there.memory_bytes, there.has_bf16, there.on_cuda) == (None, False, False)
    assert (gpu.memory_bytes, gpu.has_bf16, gpu.on_cuda) == (None, True, True)


def _elsewhere() -> dict[str, object]:
    return {"redis": RedisSettings(url=SecretStr("redis://elsewhere"))}


def test_refusal__says_how_much_it_needs_and_how_much_there_is() -> None:
    gib = 1 << 30
    cost = Cost(params=1, memory_bytes=6 * gib, disk_bytes=3 * gib, steps=1, seconds=1)

    refuse(cost, CPU)
    refuse(cost, CPU._replace(memory_bytes=4 * gib, free_disk_bytes=2 * gib))  # may be enough
    with pytest.raises(AppError) as memory:
        refuse(cost, CPU._replace(memory_bytes=3 * gib))
    with pytest.raises(AppError) as disk:
        refuse(cost, CPU._replace(memory_bytes=9 * gib, free_disk_bytes=gib))

    assert memory.value.code is ErrorCode.MODEL_INCOMPATIBLE
    assert memory.value.message == (
        "This training needs at least 4.0 GiB of memory, and this machine has 3.0:"
        " make `batch_size`, `max_seq_len` or `model_size` smaller."
    )
    assert disk.value.code is ErrorCode.INSUFFICIENT_STORAGE
    assert disk.value.message == (
        "The checkpoints of this training need at least 2,048.0 MiB, and the disk has 1,024.0 free:"
        " make room, or `model_size` smaller."
    )
