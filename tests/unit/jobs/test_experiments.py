"""Plans of experiments: what is wrong in one is said before anything starts."""

from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.cross_language import TINY, add_languages, plan, plan_with
from trainer.config.experiment_plan import plan_path, read_plan, recipes
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import CellKey, ExperimentRecord, ExperimentRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.experiments import Start, corpus_of, resolve_experiment, shared_tokenizer, training_request


@pytest.fixture(name="folder", autouse=True)
def folder_fixture(tmp_path: Path) -> Path:
    add_languages(tmp_path)
    return tmp_path


async def resolved(folder: Path, request: ExperimentRequest) -> ExperimentRecord:
    settings = settings_in(folder)
    return await resolve_experiment(request, CorpusStore(settings), settings, user_id=7)


async def refusal(folder: Path, request: ExperimentRequest) -> AppError:
    with pytest.raises(AppError) as refused:
        await resolved(folder, request)
    assert not (folder / "artifacts").exists()
    return refused.value


def two_models(*models: dict[str, object], **fields: object) -> ExperimentRequest:
    return plan(models={f"model-{n}": {"train": {**TINY, **train}} for n, train in enumerate(models)}, **fields)


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"model": "gru"}, "`primary_test.model` is 'gru', but this experiment has: lstm, trigram."),
        ({"kind": "passages"}, "`primary_test.kind` is 'passages', but this experiment has: held_out, shuffled."),
        ({"mode": "assimilate"}, "`primary_test.mode` is 'assimilate', but this experiment has: skip, unk."),
        ({"pairs": "across_branches"}, "but no branch has two languages: set `branch`, or 'all'."),
        ({"statistic": "pearson"}, "`primary_test` needs human ratings: name their file in `ratings`"),
    ],
)
async def test_primary_test__that_is_not_computed_is_refused(folder: Path, test: dict[str, str], told: str) -> None:
    refused = await refusal(folder, plan(primary_test=test, modes=["skip", "unk"]))
    assert refused.code is ErrorCode.INVALID_INPUT
    assert told in refused.message


async def test_primary_test__across_branches_needs_two_languages_of_one(folder: Path) -> None:
    ratings = folder / "data" / "corpus" / "ratings.csv"
    ratings.write_text("listener,language,mean_rating\nkk,tr,0.5\n", encoding="utf-8")
    add_corpus(folder, some_text(), "ky")
    languages = {"kk": {"branch": "kipchak"}, "ky": {"branch": "kipchak"}, "tr": {}}
    primary = {"pairs": "across_branches", "model": "lstm", "kind": "held_out", "mode": "unk"}
    record = await resolved(folder, plan(languages=languages, ratings="ratings.csv", primary_test=primary))
    assert record.request.primary_test.pairs == "across_branches"


def transfer(**fields: object) -> ExperimentRequest:
    second: dict[str, object] = {"first": "kk", "train": {"num_epochs": 2, "freeze_embeddings": True}, **fields}
    return plan(models={"lstm": {"has_shared_tokenizer": True, "train": TINY, "transfer": second}})


def test_recipes__are_read_by_their_names() -> None:
    requests = {name: read_plan(plan_path(name), {}) for name in recipes()}
    assert {name: request.name for name, request in requests.items()} == {name: name for name in requests}
    assert {"smoke", "turkic", "paper", "transfer", "seeds"} <= requests.keys()
    assert len(requests["turkic"].languages) == 7
    assert {name: len(request.seeds) for name, request in requests.items()} == {
        **{"turkic": 5, "transfer": 5, "seeds": 5},
        **{"paper": 1, "smoke": 1},  # too long, and no more than a check
    }
    assert requests["seeds"].trained_languages == ("kk", "ky", "tr")
    assert requests["seeds"].languages.keys() == {"kk", "ky", "tr", "az", "uz", "ug"}


def test_plan__for_other_languages_keeps_the_options_of_its_own() -> None:
    request = read_plan(plan_path("smoke"), {}, ["tr", "fi"])
    assert {code: options.branch for code, options in request.languages.items()} == {"tr": "oghuz", "fi": None}


def test_plan__without_seeds_has_five(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("name: mine\nlanguages: {kk: {}, tr: {}}\nmodels: {lstm: {train: {}}}\n", encoding="utf-8")
    assert read_plan(path, {}).seeds == (1, 2, 3, 4, 5)


def test_plan__is_read_from_its_path_and_changed_by_options(tmp_path: Path) -> None:
    path = tmp_path / "my plan.yaml"
    path.write_text("name: mine\nlanguages: {kk: {}, tr: {}}\nmodels: {lstm: {train: {}}}\n", encoding="utf-8")
    request = read_plan(plan_path(str(path)), {"seeds": [1, 2], "texts": {"shuffled": False}})
    assert (request.name, request.seeds, request.texts.shuffled, request.texts.held_out) == (
        "mine",
        (1, 2),
        False,
        True,
    )


@pytest.mark.parametrize(
    ("plan_name", "told"),
    [
        ("smok", "There is no plan 'smok'; did you mean `smoke`?"),
        ("x.yaml", "There is no plan 'x.yaml'; the recipes are paper, seeds, smoke, transfer, turkic."),
    ],
)
def test_unknown_plan__is_refused_with_the_recipes(plan_name: str, told: str) -> None:
    with pytest.raises(AppError) as refused:
        plan_path(plan_name)
    assert (refused.value.code, refused.value.message) == (ErrorCode.CONFIG_INVALID, told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: mine\n  languages: {}\n", "line 2"),
        ("name: mine\nlanguages: {kk: {}}\nmodels: {}\n", "`languages`"),
        ("name: mine\nlanguages: {kk: {}, tr: {}}\nmodels: {a: {train: {}}}\nseed: 1\n", "did you mean `seeds`?"),
        ("name: Mine\nlanguages: {kk: {}, tr: {}}\nmodels: {a: {train: {}}}\n", "`name`"),
        ("name: mine\nlanguages: {kk: {}, tr: {}}\nmodels: {a: {train: {}}}\nseeds: [2, 1]\n", "ascending"),
    ],
)
def test_mistake_in_a_plan__is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AppError) as refused:
        read_plan(path, {})
    assert refused.value.code is ErrorCode.CONFIG_INVALID
    assert told in refused.value.message


async def test_record__has_the_corpora_by_content_and_an_id_of_it(folder: Path) -> None:
    record = await resolved(folder, plan())
    assert record.user_id == 7
    assert record.experiment_id == f"small-{record.request_hash[:8]}"
    assert {code: corpus.name for code, corpus in record.corpora.items()} == {"kk": "kk", "tr": "tr"}
    assert record.passages == {}
    (folder / "data" / "corpus" / "all").mkdir()
    for code in ("kk", "tr"):
        (folder / "data" / "corpus" / f"{code}.txt").rename(folder / "data" / "corpus" / "all" / f"{code}.txt")
    elsewhere = await resolved(folder, plan(corpora="all"))
    assert elsewhere.experiment_id == record.experiment_id, "names of corpora do not count"
    several = [await resolved(folder, plan(corpora="all", seeds=seeds)) for seeds in ([1, 2], [1, 2, 3, 4, 5])]
    assert len({each.experiment_id for each in [record, *several]}) == 3, "the default counts, too"
    add_corpus(folder, some_text(), "all/kk")
    assert (await resolved(folder, plan(corpora="all"))).experiment_id != record.experiment_id


async def test_passages_and_ratings__are_part_of_the_record(folder: Path) -> None:
    (folder / "data" / "corpus" / "stories").mkdir()
    for code in ("kk", "tr"):
        add_corpus(folder, some_text(), f"stories/{code}")
    ratings = folder / "data" / "corpus" / "ratings.csv"
    ratings.write_text("listener,language,mean_rating\nkk,tr,0.5\n", encoding="utf-8")
    request = plan(texts={"passages": "stories"}, ratings="ratings.csv")
    record = await resolved(folder, request)
    assert [passages.name for passages in record.passages.values()] == ["stories/kk", "stories/tr"]
    assert record.ratings is not None and record.ratings.name == "ratings.csv"
    ratings.write_text("listener,language\nkk,tr\n", encoding="utf-8")
    assert (await refusal(folder, request)).code is ErrorCode.INVALID_INPUT
    (folder / "data" / "corpus" / "stories" / "tr.txt").unlink()
    missing = await refusal(folder, request)
    assert (missing.code, "There is no corpus 'tr'" in missing.message) == (ErrorCode.DATA_NOT_FOUND, True)


@pytest.mark.parametrize(
    ("request_", "code", "told"),
    [
        (plan(texts={"held_out": False}), ErrorCode.INVALID_INPUT, "`texts` names nothing to score"),
        (plan(models={"trigram": {"train": TINY}}), ErrorCode.INVALID_INPUT, "has the name of the baseline"),
        (plan_with({"seed": 3}), ErrorCode.INVALID_INPUT, "`models.lstm.train.seed` is set by the experiment"),
        (plan_with({"split_by": "line"}), ErrorCode.INVALID_INPUT, "`models.lstm.train.split_by` must be 'position'"),
        (plan_with({"test_fraction": 0}), ErrorCode.INVALID_INPUT, "held-out text needs a test split"),
        (plan_with({"num_epochs": 0}), ErrorCode.CONFIG_INVALID, "`models.lstm.train.num_epochs` must"),
        (plan_with({"model_family": "lstn"}), ErrorCode.UNSUPPORTED_BACKEND, "models.lstm.train.model_family"),
        (plan_with({"model_size": "large"}), ErrorCode.INVALID_MODEL_SIZE, "`models.lstm.train.model_size` must be"),
        (plan(languages={"kk": {}, "xx": {}}), ErrorCode.DATA_NOT_FOUND, "There is no corpus 'xx'"),
        (
            two_models({}, {"test_fraction": 0.3}),
            ErrorCode.INVALID_INPUT,
            "`models.model-1.train.test_fraction` is 0.3, but 0.2 for the first model",
        ),
        (
            two_models({}, {"tokenizer": {"method": "char", "normalization": {"lowercase": True}}}),
            ErrorCode.MODEL_INCOMPATIBLE,
            "The model 'model-1' normalizes text differently",
        ),
        (transfer(first="xx"), ErrorCode.INVALID_INPUT, "must be one of the trained languages: kk, tr."),
        (
            plan(languages={"kk": {}, "tr": {"is_trained": False}}),
            ErrorCode.INVALID_INPUT,
            "At least two languages need a model",
        ),
        (transfer(train={"corpus": "kk"}), ErrorCode.INVALID_INPUT, "`models.lstm.transfer.train.corpus` is set"),
        (transfer(train={"num_epochs": 0}), ErrorCode.CONFIG_INVALID, "`models.lstm.transfer.train.num_epochs` must"),
        (
            plan(models={"lstm": {"has_shared_tokenizer": True, "train": {**TINY, "tokenizer_id": "char-1"}}}),
            ErrorCode.INVALID_INPUT,
            "leave out `train.tokenizer_id`",
        ),
    ],
)
async def test_mistake__is_refused_before_anything_starts(
    folder: Path, request_: ExperimentRequest, code: ErrorCode, told: str
) -> None:
    error = await refusal(folder, request_)
    assert (error.code, told in error.message) == (code, True), error.message


async def test_corpus_with_one_line__is_named(folder: Path) -> None:
    add_corpus(folder, "one line of text only", "tr")
    error = await refusal(folder, plan())
    assert error.code is ErrorCode.CORPUS_EMPTY
    assert error.message.startswith("lstm tr: The corpus has 1 line with text")


async def test_held_out_text__may_be_a_file_of_its_own(folder: Path) -> None:
    for code in ("kk", "tr"):
        (folder / "data" / "corpus" / f"{code}.txt").unlink()
        (folder / "data" / "corpus" / code).mkdir()
        for split in ("train", "valid", "test"):
            add_corpus(folder, f"{some_text()}\nthe {split} text", f"{code}/{split}")
    record = await resolved(folder, plan_with({"test_fraction": 0.0}))
    assert record.corpora["kk"].name == "kk"


def test_trainings__of_two_phases_share_a_tokenizer_and_start_from_the_first() -> None:
    request = transfer()
    first, second = (
        training_request(request, CellKey("lstm", language, 1), start)
        for language, start in (("kk", Start("char-1")), ("tr", Start("char-1", "lstm-1")))
    )
    assert (first.tokenizer_id, first.tokenizer, first.init_from_run_id) == ("char-1", None, None)
    assert (first.num_epochs, first.freeze_embeddings) == (1, False)
    assert (second.tokenizer_id, second.tokenizer, second.init_from_run_id) == (None, None, "lstm-1")
    assert (second.num_epochs, second.freeze_embeddings) == (2, True)
    assert (second.corpus, second.seed, second.label) == ("tr", 1, "small lstm tr 1")


async def test_shared_tokenizer__is_that_of_the_plan_on_all_corpora(folder: Path) -> None:
    languages: dict[str, object] = {"kk": {"corpus": "tr"}, "tr": {"corpus": "kk"}}
    block: dict[str, object] = {"method": "bpe", "vocab_size": 300}
    models: dict[str, object] = {"lstm": {"has_shared_tokenizer": True, "train": {**TINY, "tokenizer": block}}}
    request = plan(languages=languages, models=models)
    tokenizer = shared_tokenizer(request, "lstm")
    assert (tokenizer.method, tokenizer.vocab_size, tokenizer.corpora) == ("bpe", 300, ("tr", "kk"))
    assert (await resolved(folder, request)).corpora["kk"].name == "tr"
    assert corpus_of(request, "kk") == "tr"
    without = {name: value for name, value in TINY.items() if name != "tokenizer"}
    default = plan(models={"lstm": {"has_shared_tokenizer": True, "train": without}})
    assert shared_tokenizer(default, "lstm").method == "char"


@pytest.mark.parametrize(
    ("given", "fractions"),
    [({}, (0.05, 0.1)), ({"test_fraction": 0.2}, (0.05, 0.2)), ({"model_family": "lstm"}, (0.1, 0.1))],
)
def test_shared_tokenizer__leaves_out_what_the_trainings_hold_out(
    given: dict[str, object], fractions: tuple[float, float]
) -> None:
    train: dict[str, object] = {"model_family": "char_lstm", "split_by": "position", "split_seed": 7, **given}
    tokenizer = shared_tokenizer(plan(models={"lstm": {"has_shared_tokenizer": True, "train": train}}), "lstm")
    assert (tokenizer.split, tokenizer.seed) == ("position", 7)
    assert (tokenizer.holdout_fraction, tokenizer.test_fraction) == fractions
