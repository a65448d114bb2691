"""The trial of a training's speed, which takes two seconds."""

import json
import subprocess
import sys

import pytest

from tests.support.families import effective_of
from tests.support.markers import slow_except
from tests.support.refusals import refused
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.training.speed import measured_speeds, tokens_per_second

FAMILIES = ["lstm", "bert", "gpt2"]
TINY: dict[str, object] = {"model_size": "tiny", "max_seq_len": 16, "batch_size": 4, "threads": 1}


@pytest.mark.parametrize("family", slow_except(FAMILIES, "bert"))
def test_trial__trains_every_kind_of_model_on_random_tokens(family: str) -> None:
    """Also a warm start, without its parent; a step has at least as many tokens as a row."""
    effective = effective_of(family, **TINY, tokenizer={"method": "char"})
    effective = changed(effective, minutes=2.0, init_from_run_id="parent", freeze_embeddings=True)
    assert tokens_per_second(effective, 40, 0.1) > 16


def test_trials__end_with_their_time_and_with_one_that_fails() -> None:
    """The first is measured in any case: without it, nothing could be chosen."""
    one = effective_of("gru", **TINY, tokenizer={"method": "char"})
    wrong = changed(one, threads=None, init_from_run_id=None, device="cuda")
    assert len(measured_speeds([one, one], 40, 0.0)) == 1
    assert len(measured_speeds([one, wrong, one], 40, 60.0)) == 1
    with refused(ErrorCode.CUDA_NOT_AVAILABLE):
        measured_speeds([wrong, one], 40, 60.0)


@pytest.mark.slow
@pytest.mark.process
def test_child_process__prints_a_speed_for_each_request() -> None:
    one = effective_of("gru", **TINY, tokenizer={"method": "char"}).model_dump_json()
    command = [sys.executable, "-m", "trainer.training.speed", "40", "2"]
    done = subprocess.run(command, input=f"[{one}, {one}]", capture_output=True, text=True, check=True)
    speeds: list[float] = json.loads(done.stdout)
    assert len(speeds) == 2 and min(speeds) > 0
