"""Strategies for arbitrary text and tokenizers trained on it."""

from hypothesis import strategies as st

_odd = st.sampled_from("\u0301\u0361\u0323\u1100\u1161\u11a8\u212b\u1e9e\ufeff\U0001f1f0\U0001f468\u200d\u0345")
_assigned_or_not = st.characters(codec="utf-8", exclude_characters="\x00\n")
_surrogates = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)
trained_on = st.text(st.one_of(_assigned_or_not, _odd), min_size=1, max_size=30)
anything = st.text(st.one_of(_assigned_or_not, _surrogates, _odd, st.just("\0")), max_size=30)
