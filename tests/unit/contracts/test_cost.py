"""Cost estimates of a training, against real models and a real training."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support import ROOT, settings_in
from tests.support.families import effective_of, vocabulary
from trainer.config.presets import batch_rows
from trainer.contracts.cost import GIB, Cost, about_seconds, rough
from trainer.contracts.models import PRESETS, Architecture, ModelConfig, Objective
from trainer.contracts.runs import EffectiveRequest
from trainer.jobs.estimate import Machine, TextSize, estimate, step_seconds
from trainer.models import build
from trainer.system.child_environment import tuned_environment

CPU = Machine(on_cuda=False, has_bf16=True, memory_bytes=None, free_disk_bytes=None)
GPU = CPU._replace(on_cuda=True)
TEXT = TextSize(train=24_000, validation=240, test=2_400)
MIB = 1 << 20


def effective_with(family: str, size: str, **values: object) -> EffectiveRequest:
    """A request for a preset's sizes, in place of the smallest ones."""
    return effective_of(family, model=None, model_size=size, **values)


def built_parameters(config: ModelConfig, objective: Objective, vocab_size: int) -> int:
    """The parameters that the model itself has, made without memory for them."""
    with torch.device("meta"):
        return build(config, vocabulary(vocab_size, mask=4), objective).parameter_count()


@pytest.mark.parametrize("size", ["tiny", "small", "base", "paper"])
@pytest.mark.parametrize("family", sorted(PRESETS))
def test_parameters__are_those_of_the_model(family: Architecture, size: str) -> None:
    effective = effective_with(family, size)

    for vocab_size in (13, 8_001):
        expected = built_parameters(effective.model, effective.objective, vocab_size)
        assert effective.model.size(vocab_size, 24).parameters == expected


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *((kind, {"tie_word_embeddings": tied, "bidirectional": both})
          for kind in ("lstm", "gru", "rnn") for tied in (False, True) for both in (False, True)),
        *((kind, {"tie_word_embeddings": tied}) for kind in ("llama", "qwen") for tied in (False, True)),
        ("bert", {"type_vocab_size": 5, "max_position_embeddings": 70}),
        ("gpt2", {"max_position_embeddings": 70}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_parameters__are_those_of_the_model_with_either_head_and_in_both_directions(
    family: str, changes: dict[str, object], size: str
) -> None:
    objective = "masked_lm" if changes.get("bidirectional") or family == "bert" else "causal_lm"
    effective = effective_of(family, model=changes, model_size=size, objective=objective)

    expected = built_parameters(effective.model, effective.objective, 37)
    assert effective.model.size(37, 24).parameters == expected


def test_memory__has_each_part_of_a_step() -> None:
    """With rows so long that a step takes more than saving: 4 bytes times weights, gradients, moments, activations."""

    def memory(**values: object) -> int:
        return estimate(effective_with("llama", "tiny", **values), 1000, TEXT, CPU).memory_bytes

    def of(**optimizer: object) -> int:
        return memory(batch_size=64, optimizer=optimizer)

    size = effective_with("llama", "tiny").model.size(1000, 24)
    assert memory(batch_size=4096) == memory(batch_size=1000)  # as many rows as the text has
    a_row = 4 * 24 * (size.kept + 4 * 1000)  # the logits four times
    assert of(name="adam") == of(name="adamw") == of(name="sgd") + 8 * size.parameters
    assert memory(batch_size=65) - memory(batch_size=64) == a_row
    assert of(name="sgd") - memory(batch_size=1, optimizer={"name": "sgd"}) <= 63 * a_row
    frozen = memory(batch_size=64, init_from_run_id="parent", freeze_embeddings=True)
    assert memory(batch_size=64) - frozen == 4 * 3 * size.embedding  # its gradient and its two moments
    again = memory(batch_size=64, compute={"gradient_checkpointing": True})
    assert memory(batch_size=64) - again == 4 * 64 * 24 * (size.kept - size.kept_between)


def test_memory__of_a_large_model_is_that_of_reading_back_its_checkpoint() -> None:
    """Weights and optimizer four times: themselves, as bytes to write, as bytes read back, as read back."""
    effective = effective_with("gpt2", "paper", batch_size=1)
    params = effective.model.size(100, 24).parameters

    on_cpu, on_gpu = (estimate(effective, 100, TEXT, machine).memory_bytes for machine in (CPU, GPU))

    assert on_gpu == 4 * 4 * 3 * params
    assert 200 * MIB < on_cpu - on_gpu < 600 * MIB  # the process itself, with torch


def test_disk__is_that_of_the_checkpoints_that_are_there_at_once_and_of_the_model() -> None:
    def checkpoints(**values: object) -> float:
        effective = effective_with("gru", "tiny", **values)
        cost = estimate(effective, 50, TEXT, CPU)
        return (cost.disk_bytes / 4 - cost.params) / (3 * cost.params)

    assert checkpoints(num_epochs=1) == 1
    assert checkpoints(num_epochs=2) == 2
    assert checkpoints(num_epochs=9) == 3
    assert checkpoints(num_epochs=1, checkpoint_every_steps=2) == 3
    assert checkpoints(num_epochs=9, max_steps=1) == 1
    assert checkpoints(num_epochs=1, checkpoint_schedule=[0, 1]) == 2, (
        "the weights of three steps beside one checkpoint"
    )


def test_steps__are_whole_batches_of_all_epochs_up_to_the_most() -> None:
    def steps(**values: object) -> int:
        return estimate(effective_with("gru", "tiny", **values), 50, TEXT, CPU).steps

    assert steps(batch_size=8, num_epochs=3) == 3 * 125  # 24,000 tokens are 1,000 rows of 24
    assert steps(batch_size=7, num_epochs=3) == 3 * 143
    assert steps(batch_size=8, num_epochs=3, gradient_accumulation=4) == 3 * 32
    assert steps(batch_size=8, num_epochs=3, max_steps=20) == 20


def test_time__grows_with_the_work_and_ends_with_its_budget() -> None:
    def seconds(slowness: float = 1.0, **values: object) -> float:
        effective = effective_with("llama", "small", batch_size=32, **values)
        return estimate(effective, 1000, TEXT, CPU, slowness=slowness).seconds

    start = seconds(slowness=0)
    assert seconds(3.0) - start == pytest.approx(3 * (seconds() - start))
    assert seconds(num_epochs=100) > 5 * seconds(num_epochs=10)
    assert seconds(num_epochs=100, max_seconds=2) - start < seconds(num_epochs=100) / 10
    assert seconds(eval_every_steps=1) > 1.05 * seconds()
    assert seconds(compute={"gradient_checkpointing": True}) > seconds()


def test_step__is_faster_on_a_gpu_and_with_threads_and_slower_in_both_directions() -> None:
    effective = effective_with("lstm", "base")
    more_threads: dict[str, object] = {"threads": 2}
    one = step_seconds(effective, 500, on_cuda=False)
    two = step_seconds(effective.model_copy(update=more_threads), 500, on_cuda=False)
    gpu = step_seconds(effective, 500, on_cuda=True)
    both = effective_of("lstm both", model={"bidirectional": True}, model_size="base")

    assert gpu < two < one
    assert step_seconds(both, 500, on_cuda=False) > 2 * one


def test_batch__auto_is_by_device() -> None:
    automatic = effective_with("gpt2", "tiny", batch_size="auto")

    assert [batch_rows(automatic, on_cuda=on_cuda) for on_cuda in (False, True)] == [8, 32]
    assert batch_rows(effective_with("gpt2", "tiny", batch_size=5), on_cuda=True) == 5


@pytest.mark.parametrize(
    ("size", "machine", "precision", "pays"),
    [
        ("small", CPU, "auto", True),
        ("small", CPU, "fp32", True),
        ("tiny", CPU, "auto", False),
        ("small", CPU._replace(has_bf16=False), "auto", False),
        ("small", GPU, "auto", False),  # has half the width already
        ("small", GPU, "fp32", True),
    ],
)
def test_bf16__pays_where_the_model_is_wide_and_the_machine_has_it(
    size: str, machine: Machine, precision: str, pays: bool
) -> None:
    cost = estimate(effective_with("qwen", size, precision=precision), 100, TEXT, machine)

    assert cost.bf16_pays is pays
    assert ("bf16" in cost.lines()[-1]) is pays


def test_lines__say_how_sure_they_are() -> None:
    cost = Cost(params=1_234_567, memory_bytes=3 * GIB // 2, disk_bytes=1, steps=12_345, seconds=400, is_exact=False)
    known: dict[str, object] = {"is_exact": True, "compared_runs": 2}

    assert cost.lines() == [
        "It needs about 1,230,000 parameters, about 1.5 GiB of memory, and about 7 minutes for 12,300 steps"
        " (a rough guess)."
    ]
    [line] = cost.model_copy(update=known).lines()
    assert "1,234,567 parameters" in line and "(as 2 earlier runs here took)" in line


def test_figures__are_rough() -> None:
    assert [rough(n) for n in (0, 7, 999, 1234, 98_765)] == ["0", "7", "999", "1,230", "98,800"]
    said = [about_seconds(s) for s in (0.1, 90, 150, 7199, 7300, 200_000)]
    assert said == ["1 s", "90 s", "2 minutes", "120 minutes", "2 hours", "2 days"]


TRAINING = """
import re, sys
from pathlib import Path
from tests.support.tiny_models import make_run
from trainer.jobs.estimate import Machine, TextSize, estimate

lines = [f"{i} and {i * i} are numbers" for i in range(400)]
run = make_run(Path(sys.argv[1]), lines, model_family="gpt2", model=None, model_size="small", batch_size=8,
               max_seq_len=128, max_steps=1, threads=2)
run.train(run.fresh_model())
taken = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024
machine = Machine(on_cuda=False, has_bf16=False, memory_bytes=None, free_disk_bytes=None)
text = TextSize(run.corpus.sizes["train"].tokens, 1, 1)
print(estimate(run.effective, run.tokenizer.vocab_size, text, machine).memory_bytes / taken)
saved = sum(file.stat().st_size for file in (run.folder / "checkpoints").rglob("*"))
print(estimate(run.effective, run.tokenizer.vocab_size, text, machine).disk_bytes / saved)
"""


@pytest.mark.slow
@pytest.mark.process
def test_estimate__is_near_what_a_training_takes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path)]
    environment = tuned_environment(settings_in(tmp_path))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    memory, disk = map(float, done.stdout.split())

    assert 1 / 1.3 < memory < 1.5
    assert 1 < disk < 1.4  # beside the checkpoint the weights themselves are kept
