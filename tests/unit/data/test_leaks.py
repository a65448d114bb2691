"""Leaks between splits: shares of held-out lines and n-grams in the training split, compared with sets of strings."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from tests.support.tiny_models import NFC, write
from trainer.contracts.base import changed
from trainer.contracts.runs import Leak, Leaks, Shares
from trainer.contracts.tokenizers import DocumentMode
from trainer.data.corpus import Split, SplitCorpus, SplitRule
from trainer.data.leaks import MAX_SAMPLE, find_leaked, measure_leak, measure_leaks, measure_running_leak
from trainer.data.run_corpora import ReadText

RULE = SplitRule(holdout_fraction=0.2, test_fraction=0.3, seed=7, by="position")
WORDS, CHARACTERS = 13, 50


def leaks_of(folder: Path, train: Sequence[str], test: Sequence[str], documents: DocumentMode = "line") -> Leaks:
    corpus, rule = write(folder, train), RULE._replace(holdout_fraction=0.0)
    split = SplitCorpus(corpus, NFC, rule, documents=documents, test=write(folder, test, "test.txt"))
    return measure_leaks(split, documents, seed=1)


def grams(
    texts: Iterable[str], documents: DocumentMode
) -> tuple[list[str], list[tuple[str, ...]], list[str], list[str]]:
    """The lines that are not blank, the n-grams of words and of characters, and the words of each line, of texts."""
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    documents_of = [*texts] if documents == "line" else ["\n".join(texts)]
    words = [text.split() for text in documents_of]
    return (
        lines,
        [tuple(each[n : n + WORDS]) for each in words for n in range(len(each) - WORDS + 1)],
        [text[n : n + CHARACTERS] for text in documents_of for n in range(len(text) - CHARACTERS + 1)],
        [plain for line in lines if (plain := "".join(words_of(line)))],
    )


def share(held_out: Sequence[object], training: Sequence[object]) -> float | None:
    known = set(training)
    return sum(unit in known for unit in held_out) / len(held_out) if held_out else None


words_and_signs = ["a", "bé", "ccc", "🙂d", "\u3000", "  ", "\u0451", "A.", "❤\ufe0f", "can't", "कि", "ma˥", "ma˩"]
line = st.lists(st.sampled_from(words_and_signs), max_size=40).map(" ".join)
some_lines = st.lists(line, max_size=8).map(lambda lines: [*lines, "bé"])


@pytest.mark.parametrize("documents", ["line", "stream"])
def test_leaks__are_the_shares_that_sets_of_strings_give(documents: DocumentMode) -> None:
    @for_all_pairs(some_lines, some_lines)
    def check(train: list[str], test: list[str]) -> None:
        test = [*test, *train[:2], " ".join(train)]  # so that something leaks
        if documents == "line":
            train, test = ([text for text in lines if text.strip()] for lines in (train, test))
        with TemporaryDirectory() as folder:
            found = leaks_of(Path(folder), train, test, documents)["test"]
        held_out, training = grams(test, documents), grams(train, documents)
        shares = [share(held_out[0], training[0]), share(held_out[1], training[1]), share(held_out[2], training[2])]
        assert [found.lines, found.words, found.characters] == pytest.approx(shares)
        assert found.plain_lines == pytest.approx(share(held_out[3], training[3]))

    check()


@pytest.mark.parametrize("documents", ["line", "stream"])
def test_leak_of_a_text__is_of_all_that_a_run_and_its_ancestors_have_read(documents: DocumentMode) -> None:
    @for_all_pairs(some_lines, some_lines)
    def check(train: list[str], text: list[str]) -> None:
        joined, last = " ".join(train), text[-3:]
        text = [*text, *train[:2], joined]
        if documents == "line":
            train, text, last = ([one for one in lines if one.strip()] for lines in (train, text, last))
        with TemporaryDirectory() as name:
            folder = Path(name)
            own, parent = (
                SplitCorpus(
                    write(folder, trained_on),
                    NFC,
                    SplitRule(0.0, 0.0, 1, "position"),
                    documents=documents,
                    validation=write(folder, validation, "validation.txt"),
                )
                for trained_on, validation in ((train, last), ([joined], ["of the parent", *train[-1:]]))
            )
            found = measure_leak(["\n".join(text)], ReadText((own, parent), ("parent",), ("gone",)), documents, seed=1)
        assert (found.ancestors, found.unsearched, found.validation is None) == (("parent",), ("gone",), False)
        in_text = grams(text, documents)
        for shares, read in ((found, (train, [joined])), (found.validation, (last, ["of the parent", *train[-1:]]))):
            assert shares is not None
            known = [grams(lines, documents) for lines in read]
            wanted = [share(in_text[kind], [unit for of_one in known for unit in of_one[kind]]) for kind in range(4)]
            assert [shares.lines, shares.words, shares.characters, shares.plain_lines] == pytest.approx(wanted)

    check()


def test_leaks__the_same_text_in_every_role_leaks_completely(tmp_path: Path) -> None:
    lines = [" ".join(f"w{n * k}" for k in range(20)) for n in range(1, 30)]
    corpus = write(tmp_path, lines)
    same = SplitCorpus(corpus, NFC, RULE, validation=corpus, test=corpus)
    shares = Shares(lines=1, plain_lines=1, words=1, characters=1)
    complete = Leak(lines=1, plain_lines=1, words=1, characters=1)
    assert measure_leaks(SplitCorpus(corpus, NFC, SplitRule(0.0, 0.0, 1)), "line", seed=1) == {}
    assert measure_leaks(same, "line", seed=1) == {
        "validation": complete,
        "test": changed(complete, validation=shares),
    }


def test_leaks__last_lines_of_a_stream_that_repeat_earlier_ones_are_found(tmp_path: Path) -> None:
    first = [f"{n} and some other words of its own" for n in range(80)]
    corpus = SplitCorpus(write(tmp_path, [*first, "new", *first[:19]]), NFC, RULE, documents="stream")
    found = measure_leaks(corpus, "stream", seed=1)
    assert found["test"].lines == 19 / 30  # the other lines stand in the text once
    assert found["validation"] == Leak(lines=0, plain_lines=0, words=0, characters=0)


def test_leaks__equal_lines_that_are_drawn_together_do_not_leak(tmp_path: Path) -> None:
    lines = [f"line {n % 40}" for n in range(400)]
    drawn = SplitCorpus(write(tmp_path, lines), NFC, RULE._replace(by="line"))
    cut = SplitCorpus(write(tmp_path, lines), NFC, RULE)
    assert {leak.lines for leak in measure_leaks(drawn, "line", seed=1).values()} == {0.0}
    assert {leak.lines for leak in measure_leaks(cut, "line", seed=1).values()} == {1.0}


def test_leaks__short_lines_that_differ_in_case_signs_and_spaces_only_are_counted(tmp_path: Path) -> None:
    held_out = ["Where is it?", "who's there !", "İki el", "not this one", "?!"]
    found = leaks_of(tmp_path, ["WHERE IS IT!", "whos  there", "iki el", "there"], held_out)["test"]
    assert (found.lines, found.words, found.characters) == (0.0, None, None)
    assert found.plain_lines == 2 / 4  # one has letters of its own, and one no letters
    assert found.is_large


def test_leak_of_running_texts__has_the_words_that_are_complete_lines(tmp_path: Path) -> None:
    @for_all_pairs(some_lines, some_lines)
    def check(train: list[str], texts: list[str]) -> None:
        train = [*train, "a line of the one that was read", "it is too short"]
        texts = [*texts, f"Of another: {train[-2].upper()} {train[-1]}; {' '.join(train)}"]
        with TemporaryDirectory() as name:
            folder = Path(name)
            rule, validation = SplitRule(0.0, 0.0, 1, "position"), write(folder, train[-2:], "validation.txt")
            corpus = SplitCorpus(write(folder, [t for t in train if t.strip()]), NFC, rule, validation=validation)
            found = measure_running_leak([t for t in texts if t.strip()], ReadText((corpus,)), "line", seed=1)
        assert found.covered == pytest.approx(covered(texts, train))
        assert found.validation is not None
        assert found.validation.covered == pytest.approx(covered(texts, train[-2:]))

    check()


def test_leak_of_running_texts__is_none_without_words(tmp_path: Path) -> None:
    corpus = SplitCorpus(write(tmp_path, ["read"]), NFC, SplitRule(0.0, 0.0, 1))
    found = measure_running_leak(["?!"], ReadText((corpus,)), "line", seed=1)
    assert (found.lines, found.covered, found.is_large) == (0.0, None, False)


def test_leaks__of_a_long_split_are_those_of_a_sample(tmp_path: Path) -> None:
    test = [str(n) for n in range(4 * MAX_SAMPLE)]
    found, again = (leaks_of(tmp_path, test[:MAX_SAMPLE], test)["test"] for _ in range(2))
    standard_error = math.sqrt(0.25 * 0.75 / MAX_SAMPLE)
    assert found.lines == pytest.approx(0.25, abs=5 * standard_error)
    assert (found, found.words, found.characters) == (again, None, None)


def test_leaks__of_characters_are_for_text_with_few_ngrams_of_words(tmp_path: Path) -> None:
    enough = [" ".join(f"w{n}" for n in range(line, line + WORDS)) for line in range(MAX_SAMPLE)]
    many_leak, few_leak = (leaks_of(tmp_path, enough, test)["test"] for test in (enough, enough[1:]))
    assert (many_leak.lines, many_leak.words, many_leak.characters) == (1, 1, None)
    assert (few_leak.lines, few_leak.words, few_leak.characters) == (1, 1, 1)


def test_leaked_texts__have_all_their_words_in_a_line() -> None:
    words = ["a", "Bé", "be\u0301", "🙂d", "x,", "❤\ufe0f", "क", "कि", "می\u200cخواهم", "👩\u200d🚀", "t͡ʃ"]
    text_lists = st.lists(st.lists(st.sampled_from(words), max_size=40).map(" ".join), min_size=1, max_size=6)

    @for_all_pairs(text_lists, text_lists)
    def check(texts: list[str], training: list[str]) -> None:
        planted = [f"{training[0].upper()}!", "; ".join(training[-1].split()[:3])]
        lines = [words_of(text) for text in training]
        read: list[tuple[Split, str]] = [("train", "\n".join(training)), ("validation", "zz\n" + training[-1])]
        in_texts = find_leaked([*texts, *planted], [*read, ("train", "zz")], 4)
        wanted = [words_of(text) for text in [*texts, *planted]]
        of_splits: tuple[tuple[Split, list[list[str]]], ...] = (("train", lines), ("validation", lines[-1:]))
        for split, known in of_splits:
            found = in_texts[split]
            assert found.whole == [any(contains(of_line, words) for of_line in known) for words in wanted]
            for has_ngram, words in zip(found.ngram, wanted, strict=True):
                ngrams = [words[n : n + 4] for n in range(len(words) - 3)]
                assert has_ngram == any(contains(of_line, ngram) for of_line in known for ngram in ngrams)

    check()


@pytest.mark.parametrize(
    ("text", "training"),
    [
        ("cafe\u0301", "«Café»"),
        ("किताब", "यह किताब, है"),
        ("t͡ʃoˑ", "ʔa t͡ʃoˑ"),
        ("ที่นี่", "(ที่นี่)"),
        ("می‌خواهم", "من می‌خواهم!"),
        ("i ❤ you", "I ❤\ufe0f you"),
    ],
)
def test_leaked_words__keep_marks_and_joiners(text: str, training: str) -> None:
    assert find_leaked([text], [("train", training)], 1)["train"] == ([True], [True])


@pytest.mark.parametrize(
    ("text", "training"), [("क ब", "कि बा"), ("t", "t͡ʃ"), ("می", "می\u200cخواهم"), ("ท", "ที่"), ("ma˥", "ma˩")]
)
def test_leaked_words__are_no_parts_of_words(text: str, training: str) -> None:
    assert find_leaked([text], [("train", training)], 1)["train"] == ([False], [False])


def words_of(text: str) -> list[str]:
    """Runs of letters, each with the marks and joiners after it, in folded case and composed."""
    words = [""]
    for sign in unicodedata.normalize("NFC", text.casefold()):
        is_mark = unicodedata.category(sign).startswith("M") or sign in "\u200c\u200d˥˩"
        if sign.isalnum() or (is_mark and words[-1]):
            words[-1] += sign
        else:
            words.append("")
    return [word for word in words if word]


def contains(line: Sequence[str], words: Sequence[str]) -> bool:
    size = len(words)
    return size > 0 and any([*line[n : n + size]] == [*words] for n in range(len(line) - size + 1))


def covered(texts: Sequence[str], lines: Sequence[str]) -> float:
    """The share of the words of texts in runs of at most 24 words that have 20 letters and are those of a line."""
    known = {"".join(words_of(line)) for line in lines}
    flags: list[bool] = []
    for text in texts:
        words = words_of(text)
        is_covered = [False] * len(words)
        for first in range(len(words)):
            for past in range(first + 1, min(len(words), first + 24) + 1):
                letters = "".join(words[first:past])
                if len(letters) >= 20 and letters in known:
                    is_covered[first:past] = [True] * (past - first)
        flags += is_covered
    return sum(flags) / len(flags)
