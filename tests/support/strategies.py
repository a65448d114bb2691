"""Strategies for texts and split rules."""

import unicodedata

from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from trainer.contracts.tokenizers import SplitBy
from trainer.data.corpus import SplitRule

_BY: list[SplitBy] = ["line", "position"]
_known = unicodedata.ucd_3_2_0.combining
_new_marks = "".join(c for c in map(chr, range(0x20000)) if unicodedata.combining(c) and not _known(c))
_assigned = strategies.characters(exclude_categories=("Cs", "Cn"), exclude_characters=f"\x00\n{_new_marks}")
texts: SearchStrategy[str] = strategies.text(_assigned, max_size=40)
"""Of characters that every library's Unicode tables know."""
line_lists: SearchStrategy[list[str]] = strategies.lists(texts, max_size=12)
_any = strategies.characters(codec="utf-8", exclude_characters="\x00\n\r\ufeff")
_often = ["a", "a\r", "e\u0301", "\u00e9", "\u2028", "\r", "a\u0085b", "\U000104b0\u0361"]
any_line_lists: SearchStrategy[list[str]] = strategies.lists(
    strategies.one_of(strategies.text(_any, max_size=4), strategies.sampled_from(_often)), max_size=40
)
"""Lines of any characters, whatever they separate or combine with, and many that are equal to others."""
rules: SearchStrategy[SplitRule] = strategies.tuples(
    strategies.sampled_from([0.001, 0.05, 0.3, 0.49]),
    strategies.sampled_from([0.0, 0.1, 0.33, 0.49]),
    strategies.integers(0, 2**32 - 1),
    strategies.sampled_from(_BY),
).map(lambda values: SplitRule(*values))
_odd = strategies.sampled_from("\u0301\u0361\u0323\u1100\u1161\u11a8\u212b\u1e9e\ufeff\U0001f1f0\U0001f468\u200d\u0345")
_assigned_or_not = strategies.characters(codec="utf-8", exclude_characters="\x00\n")
_surrogates = strategies.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)
trained_on = strategies.text(strategies.one_of(_assigned_or_not, _odd), min_size=1, max_size=30)
anything = strategies.text(strategies.one_of(_assigned_or_not, _surrogates, _odd, strategies.just("\0")), max_size=30)
_specials = ["<s>", "</s>", "<unk>", "<pad>", "<mask>", "[PAD]", "[UNK]", "[CLS]", "##", "#", " ", "king", "Ж"]
specials_and_text: SearchStrategy[str] = strategies.lists(strategies.sampled_from(_specials)).map("".join)
