"""Losses of the texts of an experiment, against models that read one section at a time."""

import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.answers import log_probabilities, surprisals
from tests.support.cross_language import experiment_record
from tests.support.families import POSITIONS, model_of
from tests.support.reference import ReferenceModel
from tests.support.refusals import refused
from tests.support.tiny_models import NFC, char_tokenizer, floats, integers, small_model, tokenizer_of
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore, losses_path
from trainer.contracts.errors import ErrorCode
from trainer.contracts.experiments import Encoding, ExperimentText, ExperimentTexts, ScoringMode
from trainer.contracts.tokenizers import Normalization
from trainer.experiments.sections import TextLosses
from trainer.inference import section_scores
from trainer.inference.section_scores import known_characters, score_experiment_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

SECTIONS = ["abd eb", "aʒed", "b", "dɑbʒ be"]
CHAR, MASKED = (char_tokenizer(["abdeʃ "], mask_token=is_masked) for is_masked in (False, True))
WORDS = tokenizer_of("word", ["abd aed be", "abd be"])
UNK: tuple[ScoringMode, ...] = ("unk",)
MODEL = small_model(vocabulary_of(CHAR))


class Losses:
    """The losses of one text with each encoding, from files that a run keeps."""

    def __init__(
        self,
        folder: Path,
        sections: Sequence[str] = SECTIONS,
        modes: tuple[ScoringMode, ...] = ("skip", "assimilate"),
        normalization: Normalization = NFC,
    ) -> None:
        content = "\n".join(sections).encode()
        self.run, self.hash = folder, sha256(content).hexdigest()
        record = experiment_record(modes=modes)
        self.experiment: ExperimentDirectory = ExperimentStore(folder / "_".join(modes)).create(record)
        self.experiment.write_text("passages-kk", content)
        text = ExperimentText(
            text_id="passages-kk",
            kind="passages",
            language="kk",
            sections=len(sections),
            characters=1,
            sha256=self.hash,
        )
        self.experiment.write_texts(ExperimentTexts(normalization=normalization, texts=(text,)))

    def compute(self, model: LanguageModel = MODEL, tokenizer: Tokenizer = CHAR) -> "Losses":
        assert score_experiment_texts(model, tokenizer, self.run, self.experiment) == 1
        return self

    def of(self, encoding: Encoding = "raw") -> TextLosses:
        return TextLosses.load(losses_path(self.run, self.hash, encoding))

    def column(self, name: str, encoding: Encoding = "raw") -> list[int]:
        column: NDArray[np.int64] | NDArray[np.bool_] = getattr(self.of(encoding), name)
        return integers(column.astype(np.int64))

    def nats(self, encoding: Encoding = "raw") -> list[float]:
        return floats(torch.from_numpy(self.of(encoding).loss_nats))


def textbook(sections: Sequence[str], model: LanguageModel = MODEL) -> object:
    """Losses of sections from a zero state each, without [BOS]: the first character has none."""
    found: list[float] = []
    for ids in map(CHAR.encode, sections):
        answers = ReferenceModel(model, "lstm").log_probabilities(ids[:-1])
        found += [math.nan, *(-p[i] for p, i in zip(answers, ids[1:], strict=True))]
    return pytest.approx(found, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("batch_tokens", [8, 1 << 17])
def test_losses__are_those_of_each_section_from_a_zero_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    monkeypatch.setattr(section_scores, "_BATCH_TOKENS", batch_tokens)
    losses = Losses(tmp_path).compute()
    assert losses.nats() == textbook(SECTIONS)
    assert losses.column("section") == [number for number, text in enumerate(SECTIONS) for _ in text]
    assert losses.column("start") == [i for text in SECTIONS for i in range(len(text))]
    assert losses.column("end") == [i + 1 for text in SECTIONS for i in range(len(text))]
    assert losses.column("is_unknown") == [character in "ɑʒ" for text in SECTIONS for character in text]
    # ʒ is a voiced ʃ, and of the known vowels a is nearest to ɑ
    assert losses.nats("assimilated") == textbook([text.replace("ʒ", "ʃ").replace("ɑ", "a") for text in SECTIONS])
    assert not any(losses.column("is_unknown", "assimilated"))
    assert losses.column("start", "assimilated") == losses.column("start")


def test_section__that_would_combine_after_a_replacement_stays_as_it_is(tmp_path: Path) -> None:
    losses = Losses(tmp_path, ["be\u0334ɑ\u0303d"]).compute()
    assert losses.nats("assimilated") == pytest.approx(losses.nats(), abs=0, nan_ok=True)
    assert sum(losses.column("is_unknown", "assimilated")) == 3


def test_losses__that_exist_are_not_computed_again(tmp_path: Path) -> None:
    first = Losses(tmp_path, modes=UNK).compute()
    raw = first.of().loss_nats.tobytes()
    with pytest.raises(FileNotFoundError):
        first.of("assimilated")
    other = small_model(vocabulary_of(CHAR), layers=1)
    again = Losses(tmp_path).compute(other)
    assert again.of().loss_nats.tobytes() == raw
    unchanged, changed = len(SECTIONS[0]), SECTIONS[1].replace("ʒ", "ʃ")
    assert again.nats("assimilated")[1:unchanged] == again.nats()[1:unchanged]
    assert again.nats("assimilated")[unchanged:][: len(changed)] == textbook([changed], other)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sections").iterdir()}
    again.compute(other)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sections").iterdir()} == before


def test_character_of_several_bytes__has_the_sum_of_their_losses(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bpe", ["abd be"], byte_fallback=True)
    model, section = small_model(vocabulary_of(tokenizer)), "b€d"
    first, *euro, last = tokenizer.encode(section)
    losses = Losses(tmp_path, [section], modes=UNK).compute(model, tokenizer)
    of_bytes = surprisals(model, [first, *euro, last])
    assert len(euro) == len("€".encode()) == 3
    assert losses.column("end") == [1, 2, 3]
    assert losses.nats()[1:] == pytest.approx([sum(of_bytes[:3]), of_bytes[3]], rel=1e-5)


def test_masked_model__gives_each_token_but_the_first_its_score(tmp_path: Path) -> None:
    model, special = model_of("bert", vocabulary_of(MASKED)), MASKED.special_ids
    assert special.mask is not None
    expected: list[float] = []
    for ids in map(MASKED.encode, SECTIONS):
        expected.append(math.nan)
        for place in range(1, len(ids)):
            row = [special.start, *ids[:place], special.mask, *ids[place + 1 :], special.eos]
            expected.append(-log_probabilities(model, row)[place + 1][ids[place]])
    found = Losses(tmp_path, modes=UNK).compute(model, MASKED).nats()
    assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_transformer__scores_every_token_of_a_section_beyond_its_context(tmp_path: Path) -> None:
    model, section = model_of("gpt2", vocabulary_of(CHAR)), "abed dab ʃe" * 9
    found = Losses(tmp_path, [section], modes=UNK).compute(model).nats()
    assert len(found) == len(section) == 99
    assert found[1:POSITIONS] == pytest.approx(surprisals(model, CHAR.encode(section)[:POSITIONS]), rel=1e-4)
    assert not any(map(math.isnan, found[1:]))


def test_run__that_normalizes_differently_is_refused(tmp_path: Path) -> None:
    with refused(ErrorCode.MODEL_INCOMPATIBLE):
        Losses(tmp_path, normalization=Normalization(lowercase=True)).compute()


def test_known_characters__are_those_that_are_not_read_as_unknown() -> None:
    known = known_characters(CHAR, [["abʒ"], ["ʘ"]])
    assert known >= {"a", "b", "d", "e", "ʃ"}
    assert not known & {"ʒ", "ɑ", "ʘ"}


def test_tokenizer_of_words__replaces_no_character_and_may_find_no_token(tmp_path: Path) -> None:
    losses = Losses(tmp_path, ["abd ʒebe be", "  ", "be abd"]).compute(small_model(vocabulary_of(WORDS)), WORDS)
    assert losses.column("section") == [0, 0, 0, 2, 2]
    assert losses.column("is_unknown") == [0, 1, 0, 0, 0]
    assert losses.column("end") == [3, 8, 11, 2, 6]
    assert losses.nats("assimilated") == pytest.approx(losses.nats(), abs=0, nan_ok=True)
