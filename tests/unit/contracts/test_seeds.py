"""The seeds of a request, and the ids of a group and of its runs."""

import pytest

from tests.support import tiny_request
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.contracts.seeds import RunGroup, group_id_of, is_group, read_seeds

GROUP = "char_lstm-20261126-0a1b2c3d"
NO_SEEDS: object = ()


@pytest.mark.parametrize(
    ("fields", "seeds"),
    [
        ({}, (42,)),
        ({"seed": 7}, (7,)),
        ({"seeds": 1}, (42,)),
        ({"seeds": 3}, (42, 43, 44)),
        ({"seeds": 2, "seed": 2**32 - 1}, (2**32 - 1, 0)),
        ({"seeds": [9, 1, 5], "seed": 7}, (9, 1, 5)),
    ],
)
def test_seeds__are_a_list_or_follow_one_another(fields: dict[str, object], seeds: tuple[int, ...]) -> None:
    assert tiny_request(**fields).all_seeds == seeds


WRONG: list[tuple[object, str]] = [
    (0, "greater than or equal to 1"),
    (101, "less than or equal to 100"),
    ([1, 2, 1], "each seed once"),
    (NO_SEEDS, "at least 1"),
    ([2**32], "less than"),
    (tuple(range(101)), "at most 100"),
    ("five", "integer"),
    (True, "integer"),
]


@pytest.mark.parametrize(("seeds", "said"), WRONG)
def test_wrong_seeds__are_refused(seeds: object, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        tiny_request(seeds=seeds)


def test_request_of_one_seed__equals_the_request_of_the_run() -> None:
    alone: TrainRequest = tiny_request(label="a", seed=8)
    assert tiny_request(label="a", seeds=[3, 8]).with_seed(8).model_dump_json(exclude_unset=True) == (
        alone.model_dump_json(exclude_unset=True)
    )


@pytest.mark.parametrize(("typed", "read"), [("5", 5), (" 5 ", 5), ("1,2, 30", [1, 2, 30]), ("0", 0)])
def test_typed_seeds__are_a_number_or_a_list(typed: str, read: object) -> None:
    assert read_seeds(typed) == read


@pytest.mark.parametrize("typed", ["", "x", "1,", "1;2", "-1", "1.5", "٣", "12345678901"])
def test_other_text__is_no_seeds(typed: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, "a number of seeds, or seeds such as 1,2,3", "seeds"):
        read_seeds(typed)


@pytest.mark.parametrize(
    ("run_id", "group_id"),
    [
        (f"{GROUP}-s42", GROUP),
        (f"{GROUP}-s4294967295", GROUP),
        (f"{GROUP}-s42-1f0e", GROUP),
        (GROUP, None),
        (f"{GROUP}-s", None),
        (f"{GROUP}-s42-1", None),
        ("char_lstm-1", None),
    ],
)
def test_group__is_known_from_the_id_of_a_run(run_id: str, group_id: str | None) -> None:
    assert group_id_of(run_id) == group_id
    assert len(run_id) <= 64


def test_group__names_its_runs() -> None:
    group = RunGroup(group_id=GROUP, seeds=(5, 3))
    assert (group.first_id, group.member_id(3)) == (f"{GROUP}-s5", f"{GROUP}-s3")
    assert (
        is_group(GROUP, [group.first_id]) == f"'{GROUP}' is a group of 1 run: name one of them, such as '{GROUP}-s5'."
    )
