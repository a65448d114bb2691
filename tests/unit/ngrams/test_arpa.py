"""ARPA files, read by a reader of plain Python and by KenLM where it is installed."""

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pytest

from tests.support.tiny_models import POEM
from tests.unit.ngrams.brute_force import as_ids, documents_of
from tests.unit.ngrams.texts import LINES, MODE_NAMES, MODES, VOCAB_SIZE, drawn_texts, model_of, tokens_of
from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams.arpa import arpa_lines, escaped
from trainer.ngrams.counts import count_ngrams
from trainer.ngrams.kneser_ney import Discounts, KneserNey, closed_form, tables_of

FIXTURES = Path(__file__).parents[2] / "fixtures"
NAMES = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "\n", "a", " ", "\\", "<s>", "ә", "\x07"]


class _KenLm(Protocol):
    """The part of kenlm.Model that the tests use."""

    def score(self, sentence: str, bos: bool, eos: bool) -> float: ...


class _KenLmModule(Protocol):
    def Model(self, path: str) -> _KenLm: ...


class Arpa(NamedTuple):
    """An ARPA file: logarithms to base 10 by n-gram."""

    probabilities: dict[tuple[str, ...], float]
    backoffs: dict[tuple[str, ...], float]
    order: int

    @staticmethod
    def of(lines: Sequence[str]) -> "Arpa":
        found = Arpa({}, {}, sum(line.startswith("ngram ") for line in lines))
        sizes = [int(line.partition("=")[2]) for line in lines if line.startswith("ngram ")]
        for line in lines:
            probability, _, rest = line.partition("\t")
            words, _, backoff = rest.partition("\t")
            if rest:
                gram = tuple(words.split(" "))
                assert gram not in found.probabilities
                found.probabilities[gram] = float(probability)
                found.backoffs[gram] = float(backoff or 0)
        assert [sum(len(gram) == n for gram in found.probabilities) for n in range(1, found.order + 1)] == sizes
        return found

    def log10(self, context: tuple[str, ...], word: str) -> float:
        """Return log p(word | context) as the format defines it (Doug Paul's ARPA back-off models)."""
        if (*context, word) in self.probabilities or not context:
            return self.probabilities[*context, word]
        return self.backoffs.get(context, 0.0) + self.log10(context[1:], word)


def words_of(document: Sequence[int], special: SpecialIds) -> list[str]:
    names = [escaped(name) for name in NAMES]
    names[special.unk] = "<unk>"
    words = [names[token] for token in document]
    return words if special.newline is not None else ["<s>", *words[1:-1], "</s>"]


@pytest.mark.parametrize("special", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("order", [1, 2, 3, 7])
def test_arpa__has_the_probabilities_of_the_model(special: SpecialIds, order: int) -> None:
    model = model_of(tokens_of(drawn_texts(60, 5, seed=1), special), special, order)
    arpa = Arpa.of(list(arpa_lines(model, NAMES)))
    assert arpa.order == order
    held_out = tokens_of(drawn_texts(20, 6, seed=2), special)
    losses: list[float] = model.losses_nats(as_ids(held_out, VOCAB_SIZE)).tolist()
    found: list[float] = []
    for document in documents_of(held_out, special):
        words = words_of(document, special)
        contexts = [tuple(words[max(0, i - order + 1) : i]) for i in range(1, len(words))]
        found += [-arpa.log10(context, word) * log(10) for context, word in zip(contexts, words[1:], strict=True)]
    assert found == pytest.approx(losses, rel=1e-7)


def test_arpa__of_a_short_text_by_hand() -> None:
    # lines "a" and "a a": bigrams <s> a 2, a </s> 2, a a 1; a is after 2 tokens and </s> after 1 of the 3 bigrams;
    # all discounts of the model: 0.3, 0.9, 1.2 and 0.35, 1.0, 1.35; 9 tokens are predicted
    lines = list(arpa_lines(model_of([2, 5, 3, 2, 5, 5, 3], LINES, 2), NAMES))
    left = 0.4 / 9  # (0.3 + 0.9) / 3 is left for the uniform distribution
    a, end = 1.1 / 3 + left, 0.7 / 3 + left
    after_start, after_a = 1.0 / 2, 1.35 / 3
    log10s = {line.split("\t")[1]: line.split("\t")[0] for line in lines if "\t" in line}
    expected = {"a": a, "</s>": end, "<unk>": left, "<s> a": 0.5 + after_start * a, "a a": 0.65 / 3 + after_a * a}
    expected["a </s>"] = 1.0 / 3 + after_a * end
    for words, probability in expected.items():
        assert 10 ** float(log10s[words]) == pytest.approx(probability, rel=1e-8)
    assert lines[:5] == ["\\data\\", "ngram 1=10", "ngram 2=3", "", "\\1-grams:"]
    assert log10s["<s>"] == "-99"
    assert lines[-1] == "\\end\\"


def test_names__are_escaped_and_stay_different() -> None:
    names = [" ", "\t", "\u2003", "\\", "\\u0020", "<s>", "</s>", "<unk>", "a b", "\U000e0001", "\x00", "ab"]
    found = [escaped(name) for name in names]
    assert found == [
        *("\\u0020", "\\u0009", "\\u2003", "\\\\", "\\\\u0020", "\\u003cs>", "\\u003c/s>", "\\u003cunk>"),
        *("a\\u0020b", "\U000e0001", "\\u0000", "ab"),
    ]
    assert [name.encode("ascii", "backslashreplace").decode("unicode_escape") for name in found] == names


def test_kenlm__trains_the_same_model() -> None:
    # `lmplz -o 3 --discount_fallback` of KenLM 0.3.0 printed these discounts; those of unigrams are not the closed
    # form, as KenLM takes the last n-gram of an order by its occurrences there
    discounts: tuple[Discounts, ...] = ((0.142857, 1.92857, 1.85714), (0.6, 1.25, 1.32), (0.734807, 0.714088, 2.16022))
    names = ["<unk>", "<s>", "</s>", *sorted(set("".join(POEM)))]
    special = SpecialIds(unk=0, bos=1, eos=2)
    tokens = [token for line in POEM for token in (1, *map(names.index, line), 2)]
    found = count_ngrams(as_ids(tokens, len(names)), len(names), special, 3)
    for counts, expected in zip((found.continuations[1], found.occurrences[2]), discounts[1:], strict=True):
        assert closed_form(counts) == pytest.approx(expected, rel=1e-5)
    model = KneserNey(tables_of(found, 3), discounts, len(names), special)
    written = Arpa.of(list(arpa_lines(model, names)))
    of_kenlm = Arpa.of((FIXTURES / "kenlm_poem.arpa").read_text(encoding="utf-8").splitlines())
    assert written.probabilities.pop(("<s>",)) == -99
    assert of_kenlm.probabilities.pop(("<s>",)) == 0
    assert written.probabilities == pytest.approx(of_kenlm.probabilities, abs=2e-6)
    assert written.backoffs == pytest.approx(of_kenlm.backoffs, abs=2e-6)


@pytest.mark.parametrize("special", MODES, ids=MODE_NAMES)
def test_kenlm__reads_the_same_probabilities(special: SpecialIds, tmp_path: Path) -> None:
    kenlm: _KenLmModule = pytest.importorskip("kenlm", reason="needs kenlm, which pip compiles with cmake")
    model = model_of(tokens_of(drawn_texts(60, 5, seed=1), special), special, 5)
    file = tmp_path / "model.arpa"
    file.write_text("\n".join(arpa_lines(model, NAMES)) + "\n", encoding="utf-8")
    read = kenlm.Model(str(file))
    held_out = tokens_of(drawn_texts(20, 6, seed=2), special)
    nats = 0.0
    for document in documents_of(held_out, special):
        words = words_of(document, special)
        if special.newline is None:
            nats -= read.score(" ".join(words[1:-1]), bos=True, eos=True) * log(10)
        else:  # the first newline is given
            both = [read.score(" ".join(part), bos=False, eos=False) for part in (words, words[:1])]
            nats -= (both[0] - both[1]) * log(10)
    assert nats == pytest.approx(float(np.sum(model.losses_nats(as_ids(held_out, VOCAB_SIZE)))), rel=1e-6)
