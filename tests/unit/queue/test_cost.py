"""The cost preview: parameters against built models, memory and disk against a training, time from earlier runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from pydantic import SecretStr

from tests.support import ROOT, add_corpus, settings_in, some_text, tiny_request
from tests.support.families import effective_of, request_of, vocabulary
from tests.support.refusals import refused
from tests.support.tiny_models import tokenizer_of
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import RedisSettings
from trainer.config.tokenizer_request import record_of_run
from trainer.config.train_request import train_request
from trainer.contracts.base import changed
from trainer.contracts.cost import GIB, MIB, Cost, rough_count, rough_duration
from trainer.contracts.errors import ErrorCode
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.contracts.models import PRESETS, LlamaConfig, ModelConfig, NgramConfig, Objective
from trainer.contracts.runs import EffectiveRequest, RunManifest
from trainer.data.corpora import CorpusStore
from trainer.data.text import sample_text
from trainer.models import build
from trainer.ngrams import counts
from trainer.queue.cost import (
    Machine,
    TrainText,
    check_fits,
    count_ngrams,
    estimate,
    find_speed,
    measure_text,
    this_machine,
    train_share,
)
from trainer.queue.resolve import preview_training, resolve_request
from trainer.system.child_environment import tuned_environment
from trainer.system.hardware import cpu_name

EARLIER = ROOT / "tests" / "fixtures" / "finished_run"
PARENT = next((EARLIER / "artifacts" / "models").glob("char_lstm-*")).name
DEMO = next(BUNDLED_CORPORA.glob("demo*"))
CPU = Machine(on_cuda=False, has_bf16=True, memory_bytes=None, free_disk_bytes=1 << 50)
GPU = CPU._replace(on_cuda=True)
TEXT = TrainText(tokens=24_000, words=6_000)


def effective_with(family: str, size: str, **values: object) -> EffectiveRequest:
    """A request for a preset's sizes, in place of the smallest ones, and for AdamW."""
    fields: dict[str, object] = {"model": None, "model_size": size, "optimizer": {"name": "adamw"}, **values}
    return effective_of(family, **fields)


def built_parameters(config: ModelConfig, objective: Objective, vocab_size: int) -> int:
    """The parameters of the model itself, built without memory for them."""
    with torch.device("meta"):
        return build(config, vocabulary(vocab_size, mask=4), objective).parameter_count()


HEADS: list[tuple[str, Mapping[str, object]]] = [
    *((kind, {"tie_word_embeddings": tied, "bidirectional": both})
      for kind in ("lstm", "gru", "rnn") for tied in (False, True) for both in (False, True)),
    *((kind, {"tie_word_embeddings": tied}) for kind in ("llama", "qwen") for tied in (False, True)),
    ("bert", {"type_vocab_size": 5, "max_position_embeddings": 70}),
    ("gpt2", {"max_position_embeddings": 70}),
]  # fmt: skip
CASES = [(family, changes, size) for family, changes in HEADS for size in ("tiny", "small")]
CASES += [(family, {}, size) for family in sorted(PRESETS) for size in PRESETS[family]]


@pytest.mark.parametrize(("family", "changes", "size"), CASES)
def test_parameters__are_those_of_a_model_with_any_head(family: str, changes: Mapping[str, object], size: str) -> None:
    is_masked = family == "bert" or changes.get("bidirectional") is True
    objective = "masked_lm" if is_masked else "causal_lm"
    effective = effective_of(family, model=changes or None, model_size=size, objective=objective)
    for vocab_size in (13, 8_001):
        expected = built_parameters(effective.model, effective.objective, vocab_size)
        assert effective.model.parameter_count(vocab_size) == expected


def test_memory__has_each_part_of_a_step() -> None:
    """Four bytes for each weight, gradient, moment, activation and logit (logits four times)."""

    def memory(**values: object) -> int:
        return estimate(effective_with("llama", "tiny", **values), 1000, TEXT, CPU).memory_bytes

    model = effective_with("llama", "tiny").model
    assert isinstance(model, LlamaConfig)
    params, activations = model.parameter_count(1000), model.activation_count(24)
    of_row = 4 * 24 * (activations + 4 * 1000)
    sgd, adam, adamw = (memory(batch_size=64, optimizer={"name": name}) for name in ("sgd", "adam", "adamw"))
    assert memory(batch_size=4096) == memory(batch_size=1000)  # as many rows as the text has
    assert adam == adamw == sgd + 8 * params
    of_tokens = 2 * 1000 * model.hidden_size  # embedding and head
    assert memory(batch_size=64, optimizer={"name": "muon"}) == sgd + 4 * params + 4 * of_tokens  # a matrix has one
    assert memory(batch_size=64, ema_decay=0.9) == adamw + 4 * params
    assert memory(batch_size=65) - memory(batch_size=64) == of_row
    frozen = memory(batch_size=64, init_from_run_id="parent", freeze_embeddings=True)
    assert memory(batch_size=64) - frozen == 4 * 3 * 1000 * model.hidden_size  # its gradient and its two moments
    again = memory(batch_size=64, compute={"gradient_checkpointing": True})
    assert memory(batch_size=64) - again == 4 * 64 * 24 * (activations - activations // model.num_layers)


def test_memory__of_a_large_model_covers_the_reading_of_its_checkpoint() -> None:
    effective = effective_with("gpt2", "paper", batch_size=1)
    params = effective.model.parameter_count(100)
    on_cpu, on_gpu = (estimate(effective, 100, TEXT, machine).memory_bytes for machine in (CPU, GPU))
    assert on_gpu == 4 * 4 * 3 * params
    assert 200 * MIB < on_cpu - on_gpu < 600 * MIB  # the process itself, with torch


def test_memory__of_a_tiny_model_of_a_long_text_covers_the_counting() -> None:
    effective = effective_with("gru", "tiny", batch_size=1)
    gigabyte, terabyte = (TEXT._replace(tokens=tokens) for tokens in (1e9, 1e12))
    few, many, more = (estimate(effective, 50, text, CPU).memory_bytes for text in (TEXT, gigabyte, terabyte))
    assert 400 * MIB < many - few < 600 * MIB and many == more, "of a long text a sample is counted"
    on_gpu = [estimate(effective, 50, text, GPU).memory_bytes for text in (TEXT, gigabyte)]
    assert on_gpu[0] == on_gpu[1], "which is counted by the CPU"


def cost_of(**values: object) -> Cost:
    return estimate(effective_with("gru", "tiny", **values), 50, TEXT, CPU)


@pytest.mark.parametrize(
    ("values", "checkpoints"),
    [
        *(({"num_epochs": 1}, 1), ({"num_epochs": 2}, 2), ({"num_epochs": 9}, 3)),
        *(({"num_epochs": 1, "checkpoint_every_steps": 2}, 3), ({"num_epochs": 9, "max_steps": 1}, 1)),
        ({"num_epochs": 1, "checkpoint_schedule": [0, 1]}, 2),  # the weights of three steps
        ({"num_epochs": 1, "checkpoint_schedule": {"words": [0, 1]}}, 2),
        ({"num_epochs": 1, "checkpoint_schedule": {"words": ["1k", "3k"], "tokens": None}}, 2),
    ],
)
def test_disk__is_the_sum_of_the_checkpoints_at_once_and_the_model(values: dict[str, object], checkpoints: int) -> None:
    cost = cost_of(**values)
    assert (cost.disk_bytes / 4 - cost.params) / (3 * cost.params) == checkpoints
    kept = 3 if "checkpoint_schedule" in values else 0
    assert (cost.kept_checkpoints, cost.kept_bytes) == (kept, 4 * kept * cost.params)


def test_steps__are_whole_batches_of_all_epochs_up_to_the_maximum() -> None:
    assert cost_of(batch_size=8, num_epochs=3).steps == 3 * 125  # 24,000 tokens are 1,000 rows of 24
    assert cost_of(batch_size=7, num_epochs=3).steps == 3 * 143
    assert cost_of(batch_size=8, num_epochs=3, gradient_accumulation=4).steps == 3 * 32
    assert cost_of(batch_size=8, num_epochs=3, max_steps=20).steps == 20


@pytest.mark.parametrize(
    ("size", "machine", "precision", "steps", "pays"),
    [
        *(("small", CPU, "auto", 10_000, True), ("small", CPU, "fp32", 10_000, True)),
        *(("tiny", CPU, "auto", 10_000, False), ("small", CPU._replace(has_bf16=False), "auto", 10_000, False)),
        ("small", GPU, "auto", 10_000, False),  # has half the width already
        ("small", GPU, "fp32", 10_000, True),
        ("small", CPU, "auto", 10, False),
    ],
)
def test_bf16__pays_for_wide_models_and_long_trainings_where_there_is_bf16(
    size: str, machine: Machine, precision: str, steps: int, pays: bool
) -> None:
    request = effective_with("qwen", size, precision=precision, max_steps=steps, num_epochs=1000)
    cost = estimate(request, 100, TEXT, machine)
    assert cost.bf16_pays is ("bf16" in cost.lines()[-1]) is pays


def test_lines__name_estimated_and_unknown_figures() -> None:
    cost = Cost(params=1_234_567, memory_bytes=3 * GIB // 2, disk_bytes=5 * MIB, steps=12_345, is_exact=False)
    assert cost.lines() == [
        "It has about 1,230,000 parameters and needs about 1.5 GiB of memory and 5.0 MiB of disk."
        " How long 12,300 steps take is known some seconds after the start: no comparable run has finished here yet."
    ]
    [line] = changed(cost, is_exact=True, seconds=400.0, steps=1).lines()
    assert "1,234,567 parameters" in line
    assert line.endswith("Training for 1 step takes about 7 minutes, judged by an earlier run here.")
    [line] = changed(cost, seconds=120.0, is_given_time=True).lines()
    assert "It takes the given 2 minutes, or less" in line and "the worker measures its speed first" in line
    [line] = changed(cost, seconds=120.0, is_measured=True).lines()
    assert line.endswith("takes about 2 minutes, judged by a measurement of two seconds.")
    [line] = changed(cost, kept_checkpoints=12, kept_bytes=96 * MIB).lines()
    assert " and 5.0 MiB of disk. It keeps 12 checkpoints: 96.0 MiB. How long " in line


def test_figures__are_rough() -> None:
    assert [rough_count(n) for n in (0, 7, 999, 1234, 98_765)] == ["0", "7", "999", "1,230", "98,800"]
    durations = [rough_duration(s) for s in (0.1, 90, 150, 7199, 7300, 200_000)]
    assert durations == ["1 s", "90 s", "2 minutes", "120 minutes", "2 hours", "2 days"]


TRAINING = """
import re, sys
from pathlib import Path
from tests.support.tiny_models import make_run
from trainer.queue.cost import Machine, TrainText, estimate

lines = [f"{i} and {i * i} are numbers" for i in range(400)]
run = make_run(Path(sys.argv[1]), lines, model_family="gpt2", model=None, model_size="small", batch_size=8,
               max_seq_len=128, max_steps=1, threads=2)
run.train(run.fresh_model())
taken = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024
machine = Machine(on_cuda=False, has_bf16=False, memory_bytes=None, free_disk_bytes=0)
text = TrainText(run.corpus.sizes["train"].tokens, run.corpus.words["train"])
cost = estimate(run.effective, run.tokenizer.vocab_size, text, machine)
saved = sum(file.stat().st_size for file in (run.folder / "checkpoints").rglob("*"))
print(cost.memory_bytes / taken, cost.disk_bytes / saved)
"""


@pytest.mark.process
@pytest.mark.slow
def test_estimate__is_near_the_use_of_a_training(tmp_path: Path) -> None:
    command, environment = [sys.executable, "-c", TRAINING, str(tmp_path)], tuned_environment(settings_in(tmp_path))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    memory, disk = map(float, done.stdout.split())
    assert 1 / 1.3 < memory < 1.5
    assert 1 < disk < 1.4  # beside the checkpoint the weights themselves are stored


async def previewed(folder: Path, **fields: object) -> Cost:
    settings = settings_in(folder)
    return (await preview_training(tiny_request(**fields), CorpusStore(settings), settings)).cost


async def test_preview__counts_the_checkpoints_by_the_words_of_the_corpus(tmp_path: Path) -> None:
    """Four fifths of the words are for training, and two epochs read them twice."""
    words = 0.8 * len(DEMO.read_text(encoding="utf-8").split())
    schedule = {"words": [round(words * epochs) for epochs in (0.5, 1.5, 2.5)]}
    cost = await previewed(tmp_path, corpus="demo", num_epochs=2, checkpoint_schedule=schedule)
    assert cost.kept_checkpoints == 3  # two of the three, and the last step


async def test_preview__of_a_run_with_a_stored_tokenizer_is_exact(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    run = RunStore(tmp_path / "artifacts").get(PARENT)
    record = record_of_run(run.record(), read_manifest(run.tokenizer))
    TokenizerStore(tmp_path / "artifacts").store_copy(record, run.tokenizer, [])
    tokenizer = record.tokenizer_id
    warm = await previewed(tmp_path, init_from_run_id=PARENT, model=None)
    given, guess = await previewed(tmp_path, tokenizer_id=tokenizer), await previewed(tmp_path)
    assert warm.is_exact and given.is_exact and not guess.is_exact
    assert warm.params == given.params == 810
    assert abs(guess.params - 810) < 100


@pytest.mark.parametrize("size", ["unigram", "trigram", "base"])
async def test_preview__of_an_ngram_model_is_near_the_ngrams_of_the_text(tmp_path: Path, size: str) -> None:
    """Those of every fifth line are left out; a line has a mark at both ends, of which the first is not counted."""
    request = train_request({"model_family": "ngram", "model_size": size, "corpus": "demo"})
    settings = settings_in(tmp_path)
    cost = (await preview_training(request, CorpusStore(settings), settings)).cost
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    marked = [f"^{line}$" for number, line in enumerate(lines) if number % 5]
    orders = range(1, {"unigram": 1, "trigram": 3, "base": 7}[size] + 1)
    ngrams = {line[end - n : end] for line in marked for end in range(2, len(line) + 1) for n in orders if n <= end}
    assert cost.params == pytest.approx(len(ngrams), rel=0.1)
    assert cost.disk_bytes == pytest.approx(12 * cost.params, rel=0.01)
    assert (cost.steps, cost.seconds) == (1, None)
    assert 400 * MIB < cost.memory_bytes < 500 * MIB


def test_ngrams__are_at_most_as_many_as_a_model_keeps() -> None:
    letters = "".join(map(chr, range(0x4E00, 0x9000)))
    assert count_ngrams(letters, len(letters), 1e6, 7) == counts.MAX_NGRAMS
    assert count_ngrams("abab", 4, 1.0, 2) == len({"a", "b"}) + len({"ab", "ba", "b"})  # the last one is cut
    assert count_ngrams("abcabc", 2, 1.0, 1) == 1, "a token is as long as three letters"


async def test_time__comes_from_the_run_here_that_is_nearest_in_size(tmp_path: Path) -> None:
    """810 parameters trained 2,000 tokens in 40 seconds: twice the parameters take twice as long."""
    add_corpus(tmp_path, some_text(2000))
    unknown = await previewed(tmp_path, num_epochs=50)
    manifest = RunStore(EARLIER / "artifacts").get(PARENT).manifest()
    assert manifest is not None and manifest.data is not None
    _add_run(tmp_path, manifest, "char_lstm-20261120-0", seconds=40)
    known = await previewed(tmp_path, num_epochs=50)
    bounded = await previewed(tmp_path, num_epochs=50, max_seconds=3)
    assert (unknown.seconds, bounded.seconds) == (None, 3)
    assert known.seconds == pytest.approx(known.steps * 40 / manifest.steps * known.params / 810, rel=0.1)
    effective = await resolve_request(tiny_request(), CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    store = RunStore(tmp_path / "artifacts")
    epochs = len(manifest.timings.epoch_seconds)
    speed = find_speed(effective, 2 * 810, store, on_cuda=False)
    assert speed == pytest.approx(epochs * manifest.data.train.tokens / 40 / 2, rel=0.1)
    assert find_speed(changed(effective, threads=7), 810, store, on_cuda=False) is None
    assert find_speed(effective, 810, store, on_cuda=True) is None
    counted = changed(effective, model_family="ngram", model=NgramConfig(max_order=2))
    _add_run(tmp_path, changed(manifest, effective=counted, steps=1), "ngram-20261120-0", seconds=40)
    speed_of_all = manifest.data.train.tokens / 40
    assert [find_speed(counted, params, store, on_cuda=False) for params in (9, 810)] == [speed_of_all] * 2
    _add_run(tmp_path, manifest, "char_lstm-20261120-1", seconds=1, params=81)
    _add_run(tmp_path, manifest, "char_lstm-20261120-3", seconds=30, cpu="another")
    _add_run(tmp_path, manifest, "char_lstm-20261120-4", seconds=0.1)
    _add_run(tmp_path, manifest, "char_lstm-20261120-5", seconds=30, steps=0)
    for name, content in (("char_lstm-20261120-6", "{"), ("char_lstm-20261120-7", None)):
        _add_run(tmp_path, manifest, name, seconds=30)
        broken = tmp_path / "artifacts" / "models" / name / "manifest.json"
        broken.unlink() if content is None else broken.write_text(content)
    assert find_speed(effective, 2 * 810, store, on_cuda=False) == speed


def _add_run(
    folder: Path, manifest: RunManifest, run_id: str, seconds: float, cpu: str = "", steps: int = 1, params: int = 810
) -> None:
    """A copy of a run of this machine, with another duration."""
    assert manifest.environment is not None and manifest.model is not None
    target = shutil.copytree(EARLIER / "artifacts" / "models" / PARENT, folder / "artifacts" / "models" / run_id)
    copy = changed(
        manifest,
        environment=changed(manifest.environment, cpu=cpu or cpu_name()),
        timings=changed(manifest.timings, train_seconds=seconds),
        steps=steps * manifest.steps,
        model=changed(manifest.model, params=params),
    )
    (target / "manifest.json").write_text(copy.model_dump_json())


@pytest.mark.parametrize(
    ("method", "documents", "fields"),
    [
        ("char", "line", {}),
        ("word", "line", {}),
        ("bpe", "line", {"vocab_size": 8000}),
        ("bpe", "line", {"vocab_size": 1000}),
        ("bpe", "line", {"vocab_size": 256}),
        ("wordpiece", "line", {"vocab_size": 4000}),
        ("sentencepiece", "line", {"vocab_size": 8000}),
        ("char", "stream", {}),
        ("bpe", "stream", {"vocab_size": 8000}),
    ],
)
def test_vocabulary__is_estimated_from_the_text(method: str, documents: str, fields: dict[str, object]) -> None:
    """Near the vocabulary that a run trains, and near the number of tokens of the corpus."""
    splits: dict[str, object] = {"test_fraction": 0.1, "holdout_fraction": 0.01}
    effective = effective_of("lstm", tokenizer={"method": method, **fields}, documents=documents, **splits)
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    tokenizer = tokenizer_of(method, lines, lines[:9], documents=documents, **fields)
    tokens = len(tokenizer.encode_documents("\n".join(lines)))
    found, _ = measure_text(effective, effective.tokenizer, sample_text(DEMO), None)
    assert found.size == pytest.approx(tokenizer.vocab_size, rel=0.15 if method in ("char", "word") else 0.8)
    assert found.min_size <= found.size
    assert found.tokens_per_byte * DEMO.stat().st_size == pytest.approx(tokens, rel=0.35)


def test_vocabulary__of_words_is_bounded_and_leaves_rare_words_out() -> None:
    def size(**tokenizer: object) -> int:
        effective = effective_of("lstm", tokenizer={"method": "word", **tokenizer})
        return measure_text(effective, effective.tokenizer, sample_text(DEMO), None).vocabulary.size

    assert size(vocab_size=100) == 100
    assert size(min_frequency=3) < 0.7 * size()


def test_train_share__is_the_rest_beside_the_held_out_splits() -> None:
    def share(**fields: object) -> float:
        return train_share(request_of("lstm", holdout_fraction=0.2, test_fraction=0.3, **fields))

    assert share() == pytest.approx(0.5)
    assert share(validation_corpus="held") == pytest.approx(0.7)
    assert share(validation_corpus="held", test_corpus="held") == 1


def test_machine__is_known_where_the_worker_is_on_it(tmp_path: Path) -> None:
    effective = RunStore(EARLIER / "artifacts").get(PARENT).record().effective
    settings = settings_in(tmp_path)
    elsewhere = changed(settings, redis=RedisSettings(url=SecretStr("redis://elsewhere")))
    here, there = this_machine(effective, settings), this_machine(effective, elsewhere)
    gpu = this_machine(changed(effective, device="cuda:1"), settings)
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert here.memory_bytes is not None and here.memory_bytes <= installed
    assert here.free_disk_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert (there.memory_bytes, there.has_bf16, there.on_cuda) == (None, False, False)
    assert (gpu.memory_bytes, gpu.has_bf16, gpu.on_cuda) == (None, True, True)


def test_refusal__names_needed_and_available_memory_and_disk() -> None:
    cost = Cost(params=1, memory_bytes=6 * GIB, disk_bytes=3 * GIB, steps=1)
    check_fits(cost, CPU)
    check_fits(cost, CPU._replace(memory_bytes=4 * GIB, free_disk_bytes=2 * GIB))
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "at least 4.0 GiB of memory, and this machine has 3.0: make"):
        check_fits(cost, CPU._replace(memory_bytes=3 * GIB))
    with refused(ErrorCode.INSUFFICIENT_STORAGE, "at least 2,048.0 MiB, and the disk has 1,024.0 free: make room, or"):
        check_fits(cost, CPU._replace(memory_bytes=9 * GIB, free_disk_bytes=GIB))
    with refused(ErrorCode.INSUFFICIENT_STORAGE, "smaller, or keep fewer checkpoints with `checkpoint_schedule`."):
        check_fits(changed(cost, kept_checkpoints=2), CPU._replace(free_disk_bytes=GIB))
