"""Plans of experiments: recipes by their names, files, and the options that change them."""

from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.config.experiment_file import plan_path, read_plan
from trainer.contracts.errors import ErrorCode
from trainer.contracts.installation import recipes

MINE = "name: mine\nlanguages: {kk: {}, tr: {}}\nmodels: {lstm: {train: {}}}\n"


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    path = tmp_path / "my plan.yaml"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_recipes__are_read_by_their_names() -> None:
    requests = {name: read_plan(plan_path(name), {}) for name in recipes()}
    assert {name: request.name for name, request in requests.items()} == {name: name for name in requests}
    seeds = {"turkic": 5, "transfer": 5, "two-phase": 5, "paper": 1, "smoke": 1}  # too long, and no more than a check
    assert {name: len(request.seeds) for name, request in requests.items()} == seeds
    assert len(requests["turkic"].languages) == 7
    assert requests["two-phase"].trained_languages == ("kk", "ky", "tr")
    assert requests["two-phase"].languages.keys() == {"kk", "ky", "tr", "az", "uz", "ug"}


def test_recipe_of_two_phases__holds_its_authors_epochs() -> None:
    [model] = read_plan(plan_path("two-phase"), {}).models.values()
    assert model.transfer is not None
    assert (model.train["num_epochs"], model.transfer.train["num_epochs"]) == (5, 3)
    assert model.transfer.train["freeze_embeddings"] is True
    assert {"max_seq_len", "batch_size", "learning_rate", "lr_schedule", "warmup_steps"} <= model.train.keys()


def test_plan__for_other_languages_keeps_their_planned_options() -> None:
    request = read_plan(plan_path("smoke"), {}, ["tr", "fi"])
    assert {code: options.branch for code, options in request.languages.items()} == {"tr": "oghuz", "fi": None}


def test_plan__is_read_from_its_path_and_changed_by_options(file: Path) -> None:
    assert read_plan(file, {}).seeds == (1, 2, 3, 4, 5)
    request = read_plan(plan_path(str(file)), {"seeds": [1, 2], "texts": {"shuffled": False}})
    assert (request.name, request.seeds) == ("mine", (1, 2))
    assert (request.texts.shuffled, request.texts.held_out) == (False, True)


def test_unknown_plan__is_refused_with_the_recipes() -> None:
    for name, told in (
        ("smok", "did you mean `smoke`?"),
        ("x.yaml", "the recipes are paper, smoke, transfer, turkic, two-phase."),
    ):
        with refused(ErrorCode.CONFIG_INVALID, f"There is no plan '{name}'; {told}"):
            plan_path(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: mine\n  languages: {}\n", "line 2"),
        (MINE.replace(", tr: {}", ""), "`languages`"),
        (f"{MINE}seed: 1\n", "did you mean `seeds`?"),
        (MINE.replace("mine", "Mine"), "`name`"),
        (f"{MINE}seeds: [2, 1]\n", "ascending"),
        (MINE.replace("tr: {}", "tr: {batteries: [a, a]}"), "each battery once"),
    ],
)
def test_mistake_in_a_plan__is_named(file: Path, text: str, told: str) -> None:
    file.write_text(text, encoding="utf-8")
    with refused(ErrorCode.CONFIG_INVALID, told):
        read_plan(file, {})
