"""Trainings on a GPU; `pytest -m gpu --junitxml=FILE` records the device and the figures."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.tiny_models import make_run
from tests.support.trainings import TEXT, after, losses, observed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA"),
]
Record = Callable[[str, object], None]
VALUES: dict[str, object] = {"device": "cuda", "num_epochs": 4, "log_every_steps": 1, "checkpoint_every_steps": 5}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_gpu__trains_in_each_precision(tmp_path: Path, precision: str, record_property: Record) -> None:
    told = observed(make_run(tmp_path, TEXT, **VALUES, precision=precision))
    found = losses(told.rows)
    memory = told.progress[-1].gpu_memory_bytes
    record_property("device", torch.cuda.get_device_name())
    record_property("losses", f"{found[0]:.4f} … {found[-1]:.4f}")
    record_property("gpu_memory_bytes", memory)
    assert all(math.isfinite(loss) for loss in found) and found[-1] < found[0]
    assert memory is not None and len(memory) == 1 and memory[0] > 0


def test_gpu__starts_as_the_cpu_does_in_fp32(tmp_path: Path, record_property: Record) -> None:
    """The first steps only: the GPU adds in another order, and the differences grow."""
    folders = [tmp_path / device for device in ("cpu", "cuda")]
    for folder in folders:
        folder.mkdir()
    exact: dict[str, object] = {"compute": {"tf32": False}, "precision": "fp32"}
    cpu, gpu = [
        losses(observed(make_run(folder, TEXT, **VALUES | exact | {"device": folder.name})).rows)[:5]
        for folder in folders
    ]
    record_property("device", torch.cuda.get_device_name())
    record_property("difference", max(abs(a - b) for a, b in zip(cpu, gpu, strict=True)))
    assert gpu == pytest.approx(cpu, rel=1e-3)


def test_gpu__keeps_the_scale_of_fp16_over_a_pause(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    fp16: dict[str, object] = {**VALUES, "precision": "fp16"}
    uninterrupted = losses(observed(make_run(whole, TEXT, **fp16)).rows)
    before = observed(make_run(halves, TEXT, **fp16), should_stop=after(7, "pause"))
    rest = observed(make_run(halves, TEXT, **fp16), resume=True)
    assert losses([*before.rows, *rest.rows]) == pytest.approx(uninterrupted, rel=1e-2)
