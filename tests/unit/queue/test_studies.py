"""Studies before they start: settings as they are resolved, and what is wrong in a request."""

from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.refusals import refused
from tests.support.studies import RATES, TRAIN, resolved_study, study_record, study_request
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.studies import StudyStore
from trainer.config.experiment_file import read_study
from trainer.config.studies import full_runs, of_trial, planned
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.studies import StudyRecord
from trainer.data.corpora import CorpusStore
from trainer.data.line_keys import lines_of_corpus
from trainer.queue.studies import check_budget

Fields = dict[str, object]
LOW: Fields = {"learning_rate": 0.01}
MASKED: Fields = {**TRAIN, "objective": "masked_lm", "tokenizer": {"method": "char", "mask_token": True}}
MASKED |= {"model": {"hidden_size": 8, "bidirectional": True}}
SPACE: Fields = {"learning_rate": {"low": 0.001, "high": 0.1, "scale": "log"}, "batch_size": [2, 4]}


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    add_corpus(tmp_path, some_text())
    return tmp_path


async def resolved(folder: Path, **fields: object) -> StudyRecord:
    return await resolved_study(settings_in(folder), study_request(**fields), user_id=7)


def train(**fields: object) -> Fields:
    return {name: value for name, value in {**TRAIN, **fields}.items() if value is not None}


async def test_settings__are_resolved_with_what_all_share_and_locked(folder: Path) -> None:
    record = await resolved(folder)
    assert [one.effective.learning_rate for one in record.variants] == [0.1, 0.01, 0.001, 0.0001, 0.00001]
    assert {(one.effective.test, one.effective.seed, one.effective.max_steps) for one in record.variants} == {
        ("locked", 42, 4)
    }
    assert (record.study_id, record.user_id) == (f"rates-{record.request_hash[:8]}", 7)
    add_corpus(folder, some_text(), "copy")
    ids = [(await resolved(folder, **fields)).study_id for fields in ({"train": train(corpus="copy")}, {"seeds": 3})]
    assert ids[0] == record.study_id != ids[1], "names of corpora do not count"
    other = await resolved_study(settings_in(folder), study_request(), user_id=8)
    assert other.study_id != record.study_id, "another person has another study"


async def test_usual_space__has_the_values_of_the_rules_first(folder: Path) -> None:
    given = train(model_family="gpt2", model=None, model_size="tiny", tokenizer=None)
    record = await resolved(folder, train=given, settings={}, variants=5)
    first, *others = record.variants
    rules = {one.field: one.value for one in first.chosen}
    assert rules["learning_rate"] == first.effective.learning_rate
    assert rules["model.dropout"] == first.effective.model.dropout
    assert all(
        rules["learning_rate"] / 3 <= one.effective.learning_rate <= 3 * rules["learning_rate"] for one in others
    )
    assert len({one.effective.learning_rate for one in record.variants}) == 5
    dropouts = [one.effective.model.dropout for one in record.variants]
    assert len({*dropouts}) == 5 and all(0 <= dropout <= 0.7 for dropout in dropouts)
    of_rate = await resolved(folder, train={**given, "model": {"dropout": 0.3, "attention_dropout": 0.1}}, settings={})
    assert {one.effective.model.dropout for one in of_rate.variants} == {0.3}
    assert [*of_rate.variants[0].train] == ["learning_rate"]
    of_dropout = await resolved(folder, train={**given, "learning_rate": 0.01}, settings={})
    assert {one.effective.learning_rate for one in of_dropout.variants} == {0.01}
    assert [*of_dropout.variants[0].train] == ["model"]


async def test_space__is_drawn_and_each_setting_checked(folder: Path) -> None:
    record = await resolved(folder, settings={}, space=SPACE, variants=6)
    assert [one.name for one in record.variants] == [f"v{number}" for number in range(1, 7)]
    assert all(0.001 <= one.effective.learning_rate <= 0.1 for one in record.variants)
    assert {one.effective.batch_size for one in record.variants} == {2, 4}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train": train(learning_rat=1)}, "unknown field `train.learning_rat`; did you mean `learning_rate`?"),
        ({"settings": {"a": {}, "b": {"learning_rate": -1}}}, "`settings.b.learning_rate`"),
        ({"settings": {}, "space": {"dropout": [0.1, 0.2]}}, "unknown field `space.dropout`"),
    ],
)
async def test_wrong_field__of_a_training_is_told_with_its_place(folder: Path, fields: Fields, said: str) -> None:
    with refused(ErrorCode.CONFIG_INVALID, said):
        await resolved(folder, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"settings": {}, "space": {"learning_rate": [0.001, 1e-3, 0.01], "model.dropout": [0.0, 0]}},
            [(1, "v1", ("v2", "v3", "v4")), (5, "v5", ("v6",))],
        ),
        (
            {"settings": {"a": LOW, "b": {"learning_rate": 0.1}, "c": {**LOW, "tokenizer": {"method": "char"}}}},
            [(1, "a", ("c",)), (2, "b", ())],
        ),
    ],
)
async def test_equal_settings__are_trained_once(
    folder: Path, fields: Fields, expected: list[tuple[int, str, tuple[str, ...]]]
) -> None:
    record = await resolved(folder, **fields)
    assert [(one.number, one.name, one.equals) for one in record.variants] == expected
    assert full_runs(record) == 2 * 2 + 2, "two finalists with two seeds, and two for the test"
    keys = planned(record, {})
    assert {key.variant: of_trial(record, key).label for key in keys} == {
        number: f"rates {name} final-v{number}-2" for number, name, _ in expected
    }
    status = StudyStore(folder / "artifacts").create(record).status()
    assert status.notes == tuple(
        f"{equal} is equal to {name}: trained once." for _, name, others in expected for equal in others
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"settings": {"a": {}}}, "`settings` has one setting, so there is nothing to choose."),
        (
            {"settings": {}, "space": {"learning_rate": [0.1]}},
            "`space` has one setting, so there is nothing to choose.",
        ),
        (
            {"settings": {}, "train": train(learning_rate=0.1, model={"hidden_size": 8, "dropout": 0.1})},
            "`train` gives the learning rate and the dropout, so there is nothing to choose:",
        ),
        (
            {"settings": {}, "train": {"corpus": "text", "model_family": "ngram"}},
            "`train.model_family` is 'ngram', which has neither a learning rate nor a dropout",
        ),
        (
            {"settings": {"a": {}, "b": {"lr_schedule": "constant", "min_learning_rate": 0.1}}},
            "`settings.b.min_learning_rate` has no effect with `lr_schedule` 'constant'",
        ),
        ({"train": train(seed=1)}, "`train.seed` is set by the study itself: leave it out."),
        ({"settings": {"a": {}, "b": {"test": "open"}}}, "`settings.b.test` is set by the study itself"),
        (
            {"runs": 8},
            "`runs` is 8, but the study needs 6 runs at its end (2 finalists x 2 seeds, and 2 for the test), and at"
            " least 3 before, to choose the finalists: give more, or fewer `finalists`, `seeds` or `test_seeds`.",
        ),
        (
            {"train": train(test_fraction=0.0)},
            "`train.test_fraction` is 0, so there is no test split: give a share, or `read_test: false`.",
        ),
        (
            {"settings": {"a": {}, "b": {"holdout_fraction": 0.3}}},
            "`settings.b` 'b' is measured on another text than 'a': give both the same `holdout_fraction`.",
        ),
        (
            {"settings": {"a": {}, "b": {"model": {"bidirectional": True}, "objective": "masked_lm"}}},
            "'b' predicts other tokens than 'a', so their losses say nothing about which one is better.",
        ),
        (
            {"train": MASKED, "settings": {"a": {}, "b": {"mlm_probability": 0.05}}},
            "'b' predicts other tokens than 'a', so their losses say nothing about which one is better.",
        ),
        (
            {"settings": {"a": {}, "b": {"tokenizer": {"method": "char", "normalization": {"lowercase": True}}}}},
            "`settings.b` 'b' reads the text in another form than 'a': give both the same `normalization`.",
        ),
        (
            {"train": train(split_by="position"), "settings": {"a": {}, "b": {"documents": "stream"}}},
            "`settings.b` 'b' reads the text in another form than 'a': give both the same `documents`.",
        ),
        (
            {"settings": {"a": {"learning_rate": 0.01}, "b": {"learning_rate": 1e-2}, "c": {**LOW, "tags": ["c"]}}},
            "`settings` has equal settings only ('a', 'b', 'c'), so there is nothing to choose: give settings that"
            " differ.",
        ),
        (
            {"settings": {}, "space": {"learning_rate": [0.1, 0.10]}},
            "`space` has equal settings only ('v1', 'v2'), so there is nothing to choose: give settings that differ.",
        ),
    ],
)
async def test_mistake__is_told_in_a_sentence_before_anything_starts(folder: Path, fields: Fields, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        await resolved(folder, **fields)
    assert not (folder / "artifacts" / "studies").exists()


def test_minutes__must_be_enough_for_the_end_if_the_time_is_known() -> None:
    record = study_record(minutes=5.0)
    check_budget(record)
    cost = changed(record.variants[0].cost, seconds=60.0)
    timed = changed(record, variants=tuple(changed(one, cost=cost) for one in record.variants))
    with refused(
        ErrorCode.INVALID_INPUT,
        "`minutes` is 5, but the 6 runs at the end of the study (2 finalists x 2 seeds, and 2 for the test) take about"
        " 6 minutes: give more",
    ):
        check_budget(timed)
    check_budget(changed(timed, request=changed(timed.request, minutes=6.0)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"settings": RATES, "space": SPACE}, "give `settings` or `space`, not both"),
        ({"space": {"learning_rate": {"low": 0.1, "high": 0.01}}}, "`low` must be below `high`"),
        ({"space": {"learning_rate": {"low": 0, "high": 1, "scale": "log"}}}, "`low` must be above 0 with `scale` log"),
        ({"nmae": "x"}, "unknown field `nmae`; did you mean `name`?"),
        ({"variants": 1}, "`variants` must be greater than or equal to 2"),
    ],
)
def test_file__with_a_mistake_is_refused_with_its_field(tmp_path: Path, fields: Fields, said: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: rates\ntrain: {corpus: text}\n", encoding="utf-8")
    with refused(ErrorCode.CONFIG_INVALID, said):
        read_study(file, fields)


async def test_locked_corpus__is_no_hindrance_as_the_study_unlocks_its_own_runs(folder: Path) -> None:
    settings = settings_in(folder)
    LookLedger.of(settings).lock(lines_of_corpus(CorpusStore(settings).find("text")), None)
    record = await resolved(folder)
    assert {one.effective.test for one in record.variants} == {"locked"}
