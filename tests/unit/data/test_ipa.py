"""Conversion to IPA: golden sentences where turkic-translit is installed, and the comparison of two converters."""

import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.libraries import stand_ins
from tests.support.refusals import refused
from tests.support.turkic_lines import turkic_lines
from trainer.contracts.corpora import IpaCheck, IpaDifference
from trainer.contracts.errors import ErrorCode
from trainer.data.cleaning import ALPHABETS
from trainer.data.ipa import Convert, IpaComparison, load_epitran, load_turkic_translit

MODULES = {
    "turkic_translit/__init__.py": "",
    "turkic_translit/core.py": "def to_ipa(text, lang):\n    return f'{lang}:{text}e\u0301'\n",
    "epitran.py": "class Epitran:\n    def __init__(self, code):\n        self.code = code\n"
    "    def transliterate(self, text):\n        return f'{self.code}:{text}e\u0301'\n",
}
Load = Callable[[], Callable[[str], Convert]]
LOADERS: list[tuple[str, Load, str]] = [("turkic_translit.core", load_turkic_translit, "kk:a\u00e9")]
LOADERS += [("epitran", load_epitran, "kaz-Cyrl:a\u00e9")]


@pytest.mark.parametrize("language", ALPHABETS)
def test_golden_sentences__of_each_language_end_in_nfc(language: str) -> None:
    pytest.importorskip("turkic_translit", reason="needs the extra turkic")
    convert = load_turkic_translit()(language)
    found = [convert(line.text) for line in turkic_lines(language)]
    assert found == [line.ipa for line in turkic_lines(language)]
    assert all(unicodedata.is_normalized("NFC", line) for line in found)


@pytest.mark.parametrize(("module", "load", "expected"), LOADERS)
def test_library__is_called_with_its_code_and_missed_by_its_extra(
    module: str, load: Load, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_ins(tmp_path, MODULES):
        assert load()("kk")("a") == expected, "in NFC"
    monkeypatch.setitem(sys.modules, module, None)
    with refused(ErrorCode.UNSUPPORTED_BACKEND, "run `python scripts/setup.py --extra turkic`, or "):
        load()


def test_comparison__counts_words_and_segments_that_differ() -> None:
    ours = {"бала": "bɑlɑ", "мен": "men", "ел": "el"}.get
    other = {"бала": "bala", "мен": "mʲen", "ел": "el"}.get
    comparison = IpaComparison(lambda word: ours(word, ""), lambda word: other(word, ""), IpaCheck())
    comparison.add("бала, мен (бала)!\nел 12")
    wanted = (("ɑ", "a", 4, "бала"), ("", "ʲ", 1, "мен"))
    differences = tuple(IpaDifference(turkic_translit=o, epitran=e, count=n, word=w) for o, e, n, w in wanted)
    assert comparison.record() == IpaCheck(words=4, differing_words=3, differences=differences)


def test_comparison__continues_from_its_record() -> None:
    def count(start: IpaCheck, text: str) -> IpaCheck:
        comparison = IpaComparison(str.lower, str.upper, start)
        comparison.add(text)
        return comparison.record()

    assert count(count(IpaCheck(), "ab b"), "b c") == count(IpaCheck(), "ab b b c")
