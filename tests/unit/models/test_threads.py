"""Numbers of threads: they change no bit, and the choice between one and two follows the machine's load."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support.families import config_of, model_of, vocabulary
from tests.support.properties import for_all_pairs
from tests.support.tiny_models import make_run
from trainer.contracts.base import changed
from trainer.contracts.events import Progress
from trainer.inference.scoring import sequence_surprisals
from trainer.models import build
from trainer.models.threads import MeasuredCount, ThreadChoice, products_are_equal
from trainer.training.loop import TrainingCallbacks

_RNN: dict[str, object] = {"embedding_size": 64, "hidden_size": 96, "num_layers": 2, "dropout": 0.1}
_SIZES: dict[str, object] = {"num_layers": 2, "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4}
LARGE_ENOUGH: dict[str, dict[str, object]] = {
    "char_lstm": _RNN,
    "gru": _RNN,
    "rnn": _RNN,
    "gpt2": _SIZES,
    "llama": _SIZES | {"num_key_value_heads": 2},
    "bert": _SIZES,
}
"""Sizes whose products, normalizations and sums torch divides among threads."""
LINES = ["".join(chr(97 + row * place % 23) for place in range(1, 80)) for row in range(1, 120)]
"""Lines of one length, of 23 characters: no product of these trainings has fewer than 16 rows or outputs."""


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("family", LARGE_ENOUGH)
def test_two_threads_or_one_or_both_in_turn__change_no_bit(family: str, tmp_path: Path) -> None:
    if not products_are_equal():
        pytest.skip("products of one and two threads differ on this CPU, so that the number is never changed")
    fields: dict[str, object] = {"model_family": family, "model": LARGE_ENOUGH[family], "tokenizer": {"method": "char"}}
    fields |= {"max_seq_len": 64, "batch_size": 16, "num_epochs": 1, "max_steps": 2, "holdout_fraction": 0.3}
    run = make_run(tmp_path, LINES, **fields)

    def weights_after(threads: tuple[int, int]) -> tuple[list[Tensor], float | None]:
        """Train with these threads in turn."""

        def change(numbers: Callable[[], Progress]) -> None:
            torch.set_num_threads(threads[numbers().step % 2])

        torch.set_num_threads(threads[0])
        trained = run.fresh_model()
        trained.threads_are_fixed = True
        result = run.train(trained, callbacks=TrainingCallbacks(on_step=change))
        return list(trained.parameters()), result.state.validation_loss_nats

    weights, loss = weights_after((1, 1))
    for threads in ((2, 2), (1, 2)):
        others, other_loss = weights_after(threads)
        assert other_loss == loss
        assert all(map(torch.equal, weights, others))
    model = model_of(family, vocabulary(40))
    model.threads_are_fixed = True
    ids = [[5 + (row * step) % 30 for step in range(20)] for row in range(1, 60)]
    torch.set_num_threads(1)
    one = sequence_surprisals(model, ids)
    torch.set_num_threads(2)
    assert all(map(torch.equal, one, sequence_surprisals(model, ids)))


@pytest.mark.parametrize(
    ("family", "vocabulary_size", "rows", "tokens", "threads"),
    [
        ("lstm", 40, 1, 640, 4),
        ("lstm", 40, 16, 640, 4),
        ("lstm", 40, 2, 640, 1),
        ("lstm", 40, 15, 640, 1),
        ("lstm", 40, 1, 9, 1),
        ("lstm", 10, 64, 640, 1),
        ("gpt2", 40, 640, 640, 1),
        ("gpt2", 40, 1 << 16, 1 << 16, 4),
    ],
)
def test_products_that_are_small_or_would_change__have_one_thread(
    family: str, vocabulary_size: int, rows: int, tokens: int, threads: int
) -> None:
    fields = {"lstm": {"hidden_size": 800}, "gpt2": {"hidden_size": 32, "num_layers": 1}}[family]
    model = build(changed(config_of(family)[0], **fields), vocabulary(vocabulary_size))
    torch.set_num_threads(4)
    with model.computing("scoring", rows, tokens):
        assert torch.get_num_threads() == threads
    model.threads_are_fixed = True
    with model.computing("scoring", rows, tokens):
        assert torch.get_num_threads() == 4
    model.to("meta").threads_are_fixed = False
    with model.computing("scoring", rows, tokens):
        assert torch.get_num_threads() == 4, "products of another device"


class Machine:
    """A machine whose speeds with one and with two threads at a time are known: `load(seconds)`."""

    def __init__(self, load: Callable[[float], tuple[float, float]]) -> None:
        self._load = load
        self.seconds, self.done, self.possible = 0.0, 0.0, 0.0

    def work(self, choice: MeasuredCount, amount: float, until: float) -> None:
        while self.seconds < until:
            speeds = self._load(self.seconds)
            took = amount / speeds[choice.count - 1]
            choice.add(amount, took)
            self.seconds += took
            self.done += amount
            self.possible += took * max(speeds)


@for_all_pairs(st.floats(1 / 12, 2), st.floats(0.005, 1))
def test_choice__does_more_than_0_8_of_what_the_better_number_can(gain: float, seconds_of_a_piece: float) -> None:
    machine = Machine(lambda seconds: (1000.0, 1000 * gain))
    machine.work(MeasuredCount(2), 1000 * seconds_of_a_piece, until=120)
    assert machine.done >= 0.8 * machine.possible


@pytest.mark.parametrize("busy", [(950.0, 100.0), (500.0, 400.0)])
def test_choice__follows_programs_that_begin_and_end(busy: tuple[float, float]) -> None:
    quiet = (1000.0, 1700.0)
    machine, choice = Machine(lambda seconds: busy if 60 <= seconds < 120 else quiet), MeasuredCount(2)
    shares: list[float] = []
    for end in (60, 120, 180):
        before = machine.done, machine.possible
        machine.work(choice, 20, until=end)
        shares.append((machine.done - before[0]) / (machine.possible - before[1]))
    assert min(shares) > 0.85
    assert choice.count == 2


def test_choice__of_small_fixed_and_other_numbers_equals_torch_or_is_one() -> None:
    choice = ThreadChoice()
    assert (choice.most, choice.mean) == (None, None)
    seen: list[int] = []
    for most, is_small, is_fixed in [(2, True, False), (4, False, False), (2, False, True), (4, True, False)]:
        torch.set_num_threads(most)
        with choice.computing(1, is_small=is_small, is_fixed=is_fixed):
            seen.append(torch.get_num_threads())
        assert torch.get_num_threads() == most
    assert seen == [1, 4, 2, 1]
    assert choice.most == 4
    assert choice.mean is not None and 1 <= choice.mean <= 4
    assert ThreadChoice().most is None


def test_two_threads_of_torch__are_tried_if_they_give_equal_bits() -> None:
    torch.set_num_threads(2)
    choice, seen = ThreadChoice(lambda: True), set[int]()
    while len(seen) < 2:  # the first period has one thread, the second is a trial of two
        with choice.computing(1, is_small=False, is_fixed=False):
            seen.add(torch.get_num_threads())
    assert choice.most == 2
    choice = ThreadChoice(lambda: False)
    with choice.computing(1, is_small=False, is_fixed=False):
        assert torch.get_num_threads() == 2
    with ThreadChoice().computing(1, is_small=False, is_fixed=False):
        assert torch.get_num_threads() in (1, 2), "one first, or two where the bits differ"
