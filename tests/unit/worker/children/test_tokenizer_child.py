"""Training of a tokenizer: the vocabulary of several corpora, and statistics on held-out lines."""

from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.refusals import refused
from trainer.artifacts.tokenizers import TokenizerStore, resolve_tokenizer
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.queue.resolve import resolve_request
from trainer.reports.leak_notes import leak_warnings
from trainer.tokenizers.base import Tokenizer
from trainer.worker.children.tokenizer_child import make

Texts = dict[str, list[str]]


async def record_of(folder: Path, texts: Texts, **fields: object) -> TokenizerRecord:
    for name, lines in texts.items():
        add_corpus(folder, "\n".join(lines), name)
    request: dict[str, object] = {"method": "char", "corpora": list(texts), **fields}
    return await resolve_tokenizer(parse(TokenizerTrainRequest, request), CorpusStore(settings_in(folder)))


async def made(folder: Path, texts: Texts, **fields: object) -> Tokenizer:
    return make(await record_of(folder, texts, **fields), CorpusStore(settings_in(folder)), folder)


async def stored(folder: Path, texts: Texts, **fields: object) -> Tokenizer:
    """Train a tokenizer and store it with its request."""
    record = await record_of(folder, texts, **fields)
    tokenizer = make(record, CorpusStore(settings_in(folder)), folder)
    tokenizer.save(TokenizerStore(folder / "artifacts").create(record).path)
    return tokenizer


async def test_union__of_six_texts_has_ids_by_code_point(tmp_path: Path) -> None:
    forward = {"kk": "ˈɑq", "ky": "ʃ b", "tr": "aː", "uz": "ɡa", "tt": "be\u0301", "fi": "z\U000104b0"}
    # whichever lines are held out, each of their characters stands in another one
    tokenizer = await made(tmp_path, {name: [line, f"{line} {line}", f" {line}"] for name, line in forward.items()})
    expected = [" ", "a", "b", "q", "z", "é", "ɑ", "ɡ", "ʃ", "ˈ", "ː", "\U000104b0"]
    assert tokenizer.encode("".join(expected)) == list(range(4, 16))
    assert tokenizer.vocab_size == 16


@pytest.mark.parametrize("seed", [1, 2, 42])
async def test_statistics__are_those_of_lines_that_the_vocabulary_did_not_see(tmp_path: Path, seed: int) -> None:
    # each line has a character of its own, so those of the lines that are held out are unknown
    texts = {
        "one": [f"a {chr(0x4E00 + i)}" for i in range(30)],
        "two": [f"a a {chr(0x5E00 + i)}{chr(0x5E00 + i)}" for i in range(20)],
    }
    tokenizer = await made(tmp_path, texts, holdout_fraction=0.1, test_fraction=0.2, seed=seed)
    manifest, stats = tokenizer.manifest, tokenizer.manifest.stats
    one, two = 30 - 3 - 6, 20 - 2 - 4
    assert [(c.name, c.lines, c.chars) for c in manifest.corpus] == [("one", one, 3 * one), ("two", two, 6 * two)]
    assert tokenizer.vocab_size == 4 + 2 + one + two
    tokens, unknown = 3 * 3 + 6 * 2, 3 + 2 * 2
    assert (stats.holdout_lines, stats.token_count) == (3 + 2, tokens)
    assert stats.oov_rate == pytest.approx(unknown / tokens)
    assert stats.coverage == pytest.approx(1 - unknown / tokens)
    assert stats.char_coverage == pytest.approx(2 / 7)
    assert stats.avg_tokens_per_char == 1
    assert stats.avg_tokens_per_word == pytest.approx(tokens / (2 * 3 + 3 * 2))
    assert (manifest.holdout_fraction, manifest.seed) == (0.1, seed)


@pytest.mark.parametrize("test_fraction", [0.0, 0.1])
async def test_text__needs_a_line_for_each_split(tmp_path: Path, test_fraction: float) -> None:
    lines = ["ab", "cd", "ef"][: 2 + (test_fraction > 0)]
    stats = (await made(tmp_path, {"one": lines}, test_fraction=test_fraction)).manifest.stats
    assert (stats.holdout_lines, stats.token_count, stats.oov_rate) == (1, 2, 1.0)
    with refused(ErrorCode.CORPUS_EMPTY):
        await record_of(tmp_path, {"one": lines, "two": lines[1:]}, test_fraction=test_fraction)


async def test_equal_requests__make_equal_tokenizers_under_the_id_of_the_request(tmp_path: Path) -> None:
    record = await record_of(tmp_path, {"text": [f"line {i}" for i in range(50)]}, normalization={"lowercase": True})
    one, two = (make(record, CorpusStore(settings_in(tmp_path)), tmp_path) for _ in range(2))
    assert (one.manifest.stats, one.manifest.files) == (two.manifest.stats, two.manifest.files)
    assert one.manifest.tokenizer_id == two.manifest.tokenizer_id == record.tokenizer_id
    assert one.encode("LINE") == one.encode("line")


async def test_corpus_that_is_deleted_or_changed__is_not_found(tmp_path: Path) -> None:
    record = await record_of(tmp_path, {"text": ["ab", "cd", "ef"]})
    text = tmp_path / "data" / "corpus" / "text.txt"
    for change, sentence in (
        (lambda: text.write_text("x\ny"), "has changed since"),
        (text.unlink, "There is no corpus"),
    ):
        change()
        with pytest.raises(AppError, match=sentence) as caught:
            make(record, CorpusStore(settings_in(tmp_path)), tmp_path)
        assert caught.value.code is ErrorCode.DATA_NOT_FOUND
        assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("of_tokenizer", "of_run", "saw"),
    [
        ({}, {}, False),
        ({}, {"holdout_fraction": 0.05, "test_fraction": 0.1}, False),
        ({"test_fraction": 0.0}, {}, True),
        ({"seed": 7}, {}, True),
        ({"seed": 7}, {"split_seed": 7}, False),
        ({"split_by": "position"}, {"split_by": "position", "split_seed": 7}, False),
        ({"split_by": "position"}, {}, True),
        ({"documents": "stream"}, {"documents": "stream"}, False),
        ({"holdout_fraction": 0.2, "test_fraction": 0.3}, {"test_corpus": "other", "holdout_fraction": 0.4}, False),
        ({"corpora": ["other", "text"]}, {"test_corpus": "other"}, True),
        ({"corpora": ["other", "third"]}, {}, False),
    ],
)
async def test_run__is_marked_where_its_tokenizer_saw_text_that_it_holds_out(
    tmp_path: Path, of_tokenizer: dict[str, object], of_run: dict[str, object], saw: bool
) -> None:
    # each line has a character of its own, which the tokenizer knows if it was trained on the line
    names = ("text", "other", "third")
    texts = {name: [f"aa aa {chr(0x4E00 + 60 * n + i)}" for i in range(60)] for n, name in enumerate(names)}
    settings, corpora = settings_in(tmp_path), CorpusStore(settings_in(tmp_path))
    tokenizer = await stored(tmp_path, texts, **{"corpora": ["text"], **of_tokenizer})
    tokenizer_id = tokenizer.manifest.tokenizer_id
    fields: dict[str, object] = {"model_family": "lstm", "corpus": "text", "tokenizer_id": tokenizer_id, **of_run}
    effective = await resolve_request(parse(TrainRequest, fields), corpora, settings)
    paths = {field: corpora.find(corpus.name) for field, corpus in effective.corpora_by_field().items()}
    split = SplitCorpus(
        paths["corpus"],
        effective.tokenizer.normalization,
        SplitRule(effective.holdout_fraction, effective.test_fraction, effective.split_seed, effective.split_by),
        documents=effective.documents,
        test=paths.get("test_corpus"),
    )
    own = {c for part in ("validation", "test") for block in split.lines(part) for c in block} - set("a \n")
    known = [character for character in own if tokenizer.special_ids.unk not in tokenizer.encode(character)]
    assert effective.tokenizer_saw_held_out is saw is bool(known)
    assert len(leak_warnings(effective, {})) == saw


async def test_tokenizer_of_bytes__saw_nothing_although_it_was_trained_on_other_lines(tmp_path: Path) -> None:
    tokenizer = await stored(tmp_path, {"text": some_text().splitlines()}, corpora=["text"], method="byte", seed=7)
    fields: dict[str, object] = {"model_family": "lstm", "corpus": "text"}
    request = parse(TrainRequest, {**fields, "tokenizer_id": tokenizer.manifest.tokenizer_id})
    effective = await resolve_request(request, CorpusStore(settings_in(tmp_path)), settings_in(tmp_path))
    assert leak_warnings(effective, {}) == ()
