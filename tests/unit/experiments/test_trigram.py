"""The trigram baseline against counting by hand."""

from collections import Counter
from math import exp, isnan, log

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from trainer.experiments import trigram
from trainer.experiments.trigram import Trigram


def test_trigram__of_a_short_text_is_that_by_hand() -> None:
    # "abab\nac": a 3, b 2, newline 1, c 1 of 7; after a: b 2, c 1; after b: a 1, newline 1; after ab: a 1, newline 1
    losses = Trigram(["abab", "ac"]).losses(["aba", "ca"])
    after_a, after_ab, after_c = 0.05 * 2 / 7 + 0.25 * 2 / 3, 0.05 * 3 / 7 + 0.25 * 1 / 2 + 0.70 * 1 / 2, 0.05 * 3 / 7
    expected = [None, after_a, after_ab, None, after_c]
    found: list[float] = losses.loss_nats.tolist()
    for loss, p in zip(found, expected, strict=True):
        assert isnan(loss) if p is None else loss == pytest.approx(-log(0.999 * p + 0.001 / 100))
    spans: list[list[int]] = np.stack([losses.section, losses.start, losses.end], axis=1).tolist()
    assert spans == [[0, 0, 1], [0, 1, 2], [0, 2, 3], [1, 0, 1], [1, 1, 2]]


LINES = st.lists(st.text(alphabet="abcd ", min_size=1, max_size=12), min_size=1, max_size=5)
SECTIONS = st.lists(st.text(alphabet="abcdez ʃ", max_size=9), max_size=5)


@for_all_pairs(LINES, SECTIONS)
def test_trigram__counts_as_plain_python(lines: list[str], sections: list[str]) -> None:
    text = "\n".join(lines)
    grams = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in (1, 2, 3)]
    expected: list[float | None] = []
    for section in sections:
        for k in range(len(section)):
            p = 0.0
            for n, weight in ((1, 0.05), (2, 0.25), (3, 0.70)):
                context = section[k + 1 - n : k]
                followers = sum(count for gram, count in grams[n - 1].items() if gram[:-1] == context)
                if k + 1 >= n and followers:
                    p += weight * grams[n - 1][context + section[k]] / followers
            expected.append(-log(0.999 * p + 0.001 / 100) if k else None)
    losses = Trigram(lines).losses(sections)
    found: list[float] = losses.loss_nats.tolist()
    assert [None if isnan(loss) else pytest.approx(loss) for loss in found] == expected
    unknown: list[bool] = losses.is_unknown.tolist()
    assert unknown == [character not in text for section in sections for character in section]


def test_trigram__probabilities_of_all_characters_sum_to_one() -> None:
    model = Trigram(["".join(map(chr, range(0x4E00, 0x4E00 + 150))) * 2])
    types = sorted(model.characters)
    losses = model.losses([types[0] + types[1] + follower for follower in types])
    nats: list[float] = losses.loss_nats[2::3].tolist()
    assert sum(exp(-loss) for loss in nats) == pytest.approx(1.0)


def test_trigram__reads_no_more_characters_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigram, "MAX_CHARACTERS", 5)
    lines = iter(["abc", "de", "f"])
    assert Trigram(lines).characters == {"a", "b", "c", "\n", "d"}
    assert list(lines) == ["f"]
