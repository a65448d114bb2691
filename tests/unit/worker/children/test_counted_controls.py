"""The control of a battery by counts, against n-grams in plain dictionaries."""

from collections import Counter
from math import log
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.batteries import battery_record
from tests.support.finished_runs import finished_run
from tests.unit.ngrams.brute_force import BruteForce, documents_of
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.batteries import TIE_NATS, BatteryItem, Outcome
from trainer.contracts.sequences import SequenceParts
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer
from trainer.training.baseline import unigrams_and_ngram
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.worker.children.counted_controls import CountedControls
from trainer.worker.children.evaluate_run import data_paths

RECORD, ITEMS = battery_record("pairs-1")
FAMILIES = ["lstm", "bert"]
"""A masked model has other special tokens, and its text is counted just as well."""


def run_of(folder: Path, family: str, run_id: str) -> RunDirectory:
    corpus = folder / "data" / "corpus" / "text.txt"
    if not corpus.exists():
        add_corpus(folder, "")
        corpus.write_text("\n".join(["the sun was shining on the sea", "he did his very best"] * 20), encoding="utf-8")
    return finished_run(folder, family, "char", corpus, run_id=run_id)


def corpus_of(folder: Path, run: RunDirectory) -> tuple[Tokenizer, TokenizedCorpus]:
    effective = run.record().effective
    return prepare(effective, *data_paths(settings_in(folder), effective), load_tokenizer(run.tokenizer))


def nats_by_hand(model: BruteForce, tokenizer: Tokenizer, sequence: SequenceParts) -> float:
    """The surprisal of the characters after the context of a sequence."""
    ids = [tokenizer.special_ids.start, *tokenizer.encode(sequence.text)]
    of_character = [
        -log(model.probability(tuple(ids[max(0, i - model.order + 1) : i]), ids[i])) for i in range(1, len(ids))
    ]
    return sum(of_character[len(sequence.context) :])


def outcome_by_hand(model: BruteForce, tokenizer: Tokenizer, item: BatteryItem) -> Outcome:
    good, bad = (nats_by_hand(model, tokenizer, sequence) for sequence in item.sequences)
    if abs(good - bad) < TIE_NATS:
        return "tie"
    return "right" if good < bad else "wrong"


@pytest.mark.parametrize("family", FAMILIES)
def test_counts__choose_as_those_in_dictionaries(tmp_path: Path, family: str) -> None:
    run = run_of(tmp_path, family, "one")
    found = CountedControls(RECORD, ITEMS, settings_in(tmp_path)).of(run)
    tokenizer, corpus = corpus_of(tmp_path, run)
    counted, special_ids = unigrams_and_ngram(corpus, tokenizer.vocab_size), tokenizer.special_ids
    predicted = set(range(tokenizer.vocab_size)) - {special_ids.bos, special_ids.pad, special_ids.mask}
    ids: list[int] = corpus.ids["train"].tolist()
    documents = documents_of(ids, special_ids)
    [counts] = found.values()
    assert counts.order == counted.ngram.order > 1
    for accuracy, engine in ((counts.unigram, counted.unigram), (counts.ngram, counted.ngram)):
        model = BruteForce(documents, engine.order, predicted, engine.discounts)
        outcomes = Counter(outcome_by_hand(model, tokenizer, item) for item in ITEMS)
        assert (accuracy.n_right, accuracy.n_wrong, accuracy.n_ties) == tuple(
            outcomes[outcome] for outcome in ("right", "wrong", "tie")
        )
    assert counts.ngram.n_right > counts.unigram.n_right, "unigrams know no order"


def test_counts__of_equal_texts_are_made_once_and_absent_without_the_text(tmp_path: Path) -> None:
    one, two = (run_of(tmp_path, "lstm", name) for name in ("one", "two"))
    controls = CountedControls(RECORD, ITEMS, settings_in(tmp_path))
    assert controls.of(one) is controls.of(two)
    (tmp_path / "data" / "corpus" / "text.txt").write_text(some_text(), encoding="utf-8")
    assert controls.of(two), "they are known already"
    assert CountedControls(RECORD, ITEMS, settings_in(tmp_path)).of(one) == {}
