"""Experiments before they start: corpora by content, shared tokenizers, and what is wrong in a plan."""

from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.cross_language import TINY, WITH_BATTERIES, add_batteries, add_languages, plan, plan_with
from tests.support.refusals import refused
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.looks import LookLedger
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.experiments import CellKey, ExperimentRecord, ExperimentRequest
from trainer.data.corpora import CorpusStore
from trainer.data.line_keys import TextLines, keys_of
from trainer.queue.experiments import Start, corpus_of, resolve_experiment, shared_tokenizer, training_request
from trainer.queue.resolve import resolve_request

Fields = dict[str, object]


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    add_languages(tmp_path)
    return tmp_path


def add_ratings(folder: Path) -> Path:
    ratings = folder / "data" / "corpus" / "ratings.csv"
    ratings.write_text("listener,language,mean_rating\nkk,tr,0.5\n", encoding="utf-8")
    return ratings


async def resolved(folder: Path, request: ExperimentRequest) -> ExperimentRecord:
    settings = settings_in(folder)
    record, _ = await resolve_experiment(request, CorpusStore(settings), settings, user_id=7)
    return record


async def refuses(folder: Path, request: ExperimentRequest, code: ErrorCode, said: str) -> None:
    with refused(code, said):
        await resolved(folder, request)
    assert not (folder / "artifacts").exists()


def two_models(*models: Fields, **fields: object) -> ExperimentRequest:
    return plan(models={f"model-{n}": {"train": {**TINY, **train}} for n, train in enumerate(models)}, **fields)


def primary(**test: str) -> ExperimentRequest:
    return plan(primary_test=test, modes=["skip", "unk"])


async def test_primary_test__across_branches_needs_two_languages_of_one(folder: Path) -> None:
    add_corpus(folder, some_text(), "ky")
    languages = {"kk": {"branch": "kipchak"}, "ky": {"branch": "kipchak"}, "tr": {}}
    test = {"pairs": "across_branches", "model": "lstm", "kind": "held_out", "mode": "unk"}
    record = await resolved(folder, plan(languages=languages, ratings=add_ratings(folder).name, primary_test=test))
    assert record.request.primary_test.pairs == "across_branches"


def transfer(**fields: object) -> ExperimentRequest:
    second: Fields = {"first": "kk", "train": {"num_epochs": 2, "freeze_embeddings": True}, **fields}
    return plan(models={"lstm": {"has_shared_tokenizer": True, "train": TINY, "transfer": second}})


async def test_record__has_the_corpora_by_content_and_an_id_of_it(folder: Path) -> None:
    record, corpora = await resolved(folder, plan()), folder / "data" / "corpus"
    assert (record.user_id, record.experiment_id, record.passages) == (7, f"small-{record.request_hash[:8]}", {})
    assert {code: corpus.name for code, corpus in record.corpora.items()} == {"kk": "kk", "tr": "tr"}
    (corpora / "all").mkdir()
    for code in ("kk", "tr"):
        (corpora / f"{code}.txt").rename(corpora / "all" / f"{code}.txt")
    elsewhere = await resolved(folder, plan(corpora="all"))
    assert elsewhere.experiment_id == record.experiment_id, "names of corpora do not count"
    several = [await resolved(folder, plan(corpora="all", seeds=seeds)) for seeds in ([1, 2], [1, 2, 3, 4, 5])]
    assert len({each.experiment_id for each in [record, *several]}) == 3, "the default counts, too"
    languages = {"kk": {"branch": "kipchak", "corpus": "udhr"}, "tr": {"branch": "oghuz"}}
    begun = await resolved(folder, plan(corpora="al", languages=languages))
    assert {code: corpus.name for code, corpus in begun.corpora.items()} == {"kk": "udhr_ipa", "tr": "all/tr"}
    assert (begun.request.languages["kk"].corpus, begun.request.corpora) == ("udhr_ipa", "all")
    add_corpus(folder, some_text(), "all/kk")
    assert (await resolved(folder, plan(corpora="all"))).experiment_id != record.experiment_id


async def test_passages__with_lines_of_a_locked_text_are_refused(folder: Path) -> None:
    (folder / "data" / "corpus" / "stories").mkdir()
    lines = [f"a line of the stories, number {number}" for number in range(6)]
    for code in ("kk", "tr"):
        add_corpus(folder, "\n".join(lines[::-1]), f"stories/{code}")
    ledger = LookLedger.of(settings_in(folder))
    ledger.lock(TextLines(("a" * 64,), keys_of(["another text"])), None)
    request = plan(texts={"passages": "stories"})
    assert (await resolved(folder, request)).passages
    ledger.lock(TextLines(("b" * 64,), keys_of(lines)), None)
    with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
        await resolved(folder, request)


async def test_passages_and_ratings__are_part_of_the_record(folder: Path) -> None:
    (folder / "data" / "corpus" / "stories").mkdir()
    for code in ("kk", "tr"):
        add_corpus(folder, some_text(), f"stories/{code}")
    ratings, request = add_ratings(folder), plan(texts={"passages": "stories"}, ratings="ratings.csv")
    record = await resolved(folder, request)
    assert [passages.name for passages in record.passages.values()] == ["stories/kk", "stories/tr"]
    assert record.ratings is not None and record.ratings.name == "ratings.csv"
    ratings.write_text("listener,language\nkk,tr\n", encoding="utf-8")
    await refuses(folder, request, ErrorCode.INVALID_INPUT, "must name the columns")
    (folder / "data" / "corpus" / "stories" / "tr.txt").unlink()
    await refuses(folder, request, ErrorCode.DATA_NOT_FOUND, "There is no corpus 'tr'")


async def test_batteries__count_by_content_and_travel_with_the_experiment(folder: Path) -> None:
    files, request, settings = add_batteries(folder), plan(languages=WITH_BATTERIES), settings_in(folder)
    record, items = await resolve_experiment(request, CorpusStore(settings), settings, user_id=7)
    assert {code: [info.name for info in infos] for code, infos in record.batteries.items()} == {
        "kk": ["kk_words"],
        "tr": ["tr_words"],
    }
    for code, [info] in record.batteries.items():
        assert info.sha256 == sha256(sha256(files[code].read_bytes()).digest()).hexdigest()
    both: Fields = {code: {"batteries": ["kk_words", "tr_words"]} for code in ("kk", "tr")}
    _, of_both = await resolve_experiment(plan(languages=both), CorpusStore(settings), settings, user_id=7)
    assert of_both == items, "a battery of several languages is scored once"
    files["kk"].write_text("good,bad\nabd,bda\n", encoding="utf-8")
    other = await resolved(folder, request)
    assert len({record.request_hash, other.request_hash, (await resolved(folder, plan())).request_hash}) == 3
    accepted = ExperimentStore(settings.app.artifacts_root).create(record, items)
    assert accepted.items() == [*items] and len(items) == 24
    assert accepted.items_file not in accepted.report_files()


async def test_battery__that_gives_no_accuracy_is_named_with_its_language(folder: Path) -> None:
    regions = folder / "data" / "batteries" / "regions.csv"
    regions.parent.mkdir()
    regions.write_text("item,condition,region,text\n1,a,1,ab\n1,b,1,ba\n", encoding="utf-8")
    for name, code, told in (
        ("nothing", ErrorCode.DATA_NOT_FOUND, "`languages.tr.batteries`: There is no battery 'nothing'"),
        ("regions", ErrorCode.INVALID_INPUT, "`languages.tr.batteries`: 'regions' has no formulas"),
    ):
        await refuses(folder, plan(languages={"kk": {}, "tr": {"batteries": [name]}}), code, told)


def shared(train: Fields) -> ExperimentRequest:
    return plan(models={"lstm": {"has_shared_tokenizer": True, "train": train}})


def ngrams(options: Fields, **fields: object) -> ExperimentRequest:
    return plan(models={"ngram": {"train": {"model_family": "ngram"}, **options}}, **fields)


LOWERCASE: Fields = {"tokenizer": {"method": "char", "normalization": {"lowercase": True}}}
TRAIN = "`models.lstm.train."
MISTAKES: dict[ErrorCode, list[tuple[ExperimentRequest, str]]] = {
    ErrorCode.INVALID_INPUT: [
        (plan(texts={"held_out": False}), "`texts` names nothing to score"),
        (plan(models={"trigram": {"train": TINY}}), "has the name of the baseline"),
        (plan_with({"seed": 3}), f"{TRAIN}seed` is set by the experiment"),
        (plan_with({"split_by": "line"}), f"{TRAIN}split_by` must be 'position'"),
        (plan_with({"test_fraction": 0}), "held-out text needs a test split"),
        (two_models({}, {"test_fraction": 0.3}), "`models.model-1.train.test_fraction` is 0.3, but 0.2 for the first"),
        (transfer(first="xx"), "must be one of the trained languages: kk, tr."),
        (
            ngrams({"transfer": {"first": "kk"}}),
            "`models.ngram.transfer` is for models with weights: an n-gram model st",
        ),
        (ngrams({}, development={}), "`models.ngram.train.model_family` is 'ngram', which keeps no checkpoint"),
        (plan(languages={"kk": {}, "tr": {"is_trained": False}}), "At least two languages need a model"),
        (transfer(train={"corpus": "kk"}), "`models.lstm.transfer.train.corpus` is set"),
        (primary(model="gru"), "`primary_test.model` is 'gru', but this experiment has: lstm, trigram."),
        (primary(kind="passages"), "`primary_test.kind` is 'passages', but this experiment has: held_out, shuffled."),
        (primary(mode="assimilate"), "`primary_test.mode` is 'assimilate', but this experiment has: skip, unk."),
        (primary(pairs="across_branches"), "but no branch has two languages: set `branch`, or 'all'."),
        (primary(statistic="pearson"), "`primary_test` needs human ratings: name their file in `ratings`"),
        (shared({**TINY, "tokenizer_id": "char-1"}), "leave out `train.tokenizer_id`"),
    ],
    ErrorCode.CONFIG_INVALID: [
        (plan_with({"num_epochs": 0}), f"{TRAIN}num_epochs` must"),
        (transfer(train={"num_epochs": 0}), "`models.lstm.transfer.train.num_epochs` must"),
    ],
    ErrorCode.UNSUPPORTED_BACKEND: [(plan_with({"model_family": "lstn"}), "models.lstm.train.model_family")],
    ErrorCode.INVALID_MODEL_SIZE: [(plan_with({"model_size": "large"}), f"{TRAIN}model_size` must be")],
    ErrorCode.DATA_NOT_FOUND: [(plan(languages={"kk": {}, "xx": {}}), "There is no corpus 'xx'")],
    ErrorCode.TEST_LOCKED: [
        (plan_with({"test": "locked"}), f"{TRAIN}test` is 'locked', but this experiment measures held-out text"),
    ],
    ErrorCode.MODEL_INCOMPATIBLE: [(two_models({}, LOWERCASE), "The model 'model-1' normalizes text differently")],
}


@pytest.mark.parametrize("code", MISTAKES)
async def test_mistake__is_refused_before_anything_starts(folder: Path, code: ErrorCode) -> None:
    for request, told in MISTAKES[code]:
        await refuses(folder, request, code, told)


async def test_corpus_with_one_line__is_named(folder: Path) -> None:
    add_corpus(folder, "one line of text only", "tr")
    await refuses(folder, plan(), ErrorCode.CORPUS_EMPTY, "`languages.tr.corpus`: The corpus has 1 line with text")


async def test_held_out_text__may_be_a_separate_file(folder: Path) -> None:
    for code in ("kk", "tr"):
        (folder / "data" / "corpus" / f"{code}.txt").unlink()
        (folder / "data" / "corpus" / code).mkdir()
        for split in ("train", "valid", "test"):
            add_corpus(folder, f"{some_text()}\nthe {split} text", f"{code}/{split}")
    record = await resolved(folder, plan_with({"test_fraction": 0.0}))
    assert record.corpora["kk"].name == "kk"


async def test_shared_tokenizer__is_trained_by_the_plan_on_all_corpora(folder: Path) -> None:
    languages: Fields = {"kk": {"corpus": "tr"}, "tr": {"corpus": "kk"}}
    block: Fields = {"method": "bpe", "vocab_size": 300}
    request = changed(shared({**TINY, "tokenizer": block}), languages=plan(languages=languages).languages)
    tokenizer = shared_tokenizer(request, "lstm")
    assert (tokenizer.method, tokenizer.vocab_size, tokenizer.corpora) == ("bpe", 300, ("tr", "kk"))
    assert (await resolved(folder, request)).corpora["kk"].name == "tr"
    assert corpus_of(request, "kk") == "tr"
    without = {name: value for name, value in TINY.items() if name != "tokenizer"}
    assert shared_tokenizer(shared(without), "lstm").method == "char"


@pytest.mark.parametrize(
    ("given", "fractions"),
    [({}, (0.1, 0.1)), ({"test_fraction": 0.2}, (0.1, 0.2)), ({"holdout_fraction": 0.05}, (0.05, 0.1))],
)
def test_shared_tokenizer__leaves_out_the_held_out_splits(given: Fields, fractions: tuple[float, float]) -> None:
    train: Fields = {"model_family": "char_lstm", "split_by": "position", "split_seed": 7, **given}
    tokenizer = shared_tokenizer(shared(train), "lstm")
    assert (tokenizer.split, tokenizer.seed) == ("position", 7)
    assert (tokenizer.holdout_fraction, tokenizer.test_fraction) == fractions


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"tokenizer": {"method": "bpe"}}, {"method": "bpe", "vocab_size": 480}),  # of 60 % of 400,000 characters
        ({"tokenizer": {"method": "bpe", "vocab_size": 60}}, {"method": "bpe", "vocab_size": 60}),
        ({"model_family": "gpt2", "model": None, "model_size": "tiny", "tokenizer": None}, {"method": "char"}),
    ],
)
async def test_languages__of_a_model_have_equal_tokenizers(folder: Path, train: Fields, expected: Fields) -> None:
    """The shortest text chooses them: the other one alone would have subwords, and twice as many or more."""
    add_corpus(folder, "abcdefg\n" * 50_000, "kk")
    add_corpus(folder, "hijklmn\n" * 400_000, "tr")
    record = await resolved(folder, plan_with(train))
    for language in ("kk", "tr"):
        request = training_request(record.request, CellKey("lstm", language, 1), Start())
        corpora, settings = CorpusStore(settings_in(folder)), settings_in(folder)
        effective = await resolve_request(request, corpora, settings)
        tokenizer: Fields = effective.tokenizer.model_dump(include=set(expected))
        assert tokenizer == expected
