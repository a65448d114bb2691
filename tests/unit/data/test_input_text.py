"""Input texts by the name of a corpus: found in the corpus folder, complete, and within the limit."""

from pathlib import Path

import pytest

from tests.support import settings_in
from tests.support.refusals import refused
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateRequest, ScoreRequest
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import load_input, read_text


@pytest.fixture(name="corpora")
def _corpora(tmp_path: Path) -> CorpusStore:
    folder = tmp_path / "data" / "corpus"
    folder.mkdir(parents=True)
    (folder / "poem.txt").write_bytes("\ufeffthe sea\r\n\n the s\u00fcn \n".encode())
    (folder / "bad.txt").write_bytes(b"ab\xff")
    (folder / "long.txt").write_bytes(b"a" * 100_001)
    (folder / "vast.txt").write_bytes("\U0001f600".encode() * 2_000_001)
    (tmp_path / "secret.txt").write_text("a secret", encoding="utf-8")
    (folder / "leak.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "gone.txt").symlink_to(tmp_path / "nothing.txt")
    return CorpusStore(settings_in(tmp_path))


def test_text__is_the_complete_file_or_that_of_the_request(corpora: CorpusStore) -> None:
    whole = "the sea\r\n\n the s\u00fcn \n"
    assert load_input(ScoreRequest(path="poem"), corpora).text == whole
    assert load_input(GenerateRequest(prompt_path="poem.txt"), corpora).prompt_text == whole
    for_score, for_generate = ScoreRequest(text="poem"), GenerateRequest(prompt_text="")
    assert load_input(for_score, corpora) is for_score
    assert load_input(for_generate, corpora) is for_generate


def load(field: str, name: str, corpora: CorpusStore) -> None:
    if field == "path":
        load_input(ScoreRequest(path=name), corpora)
    else:
        load_input(GenerateRequest(prompt_path=name), corpora)


@pytest.mark.parametrize("field", ["path", "prompt_path"])
def test_path_that_leads_out__has_one_sentence_whether_or_not_it_exists(
    corpora: CorpusStore, tmp_path: Path, field: str
) -> None:
    said = f"^`{field}` must be a name inside the corpus folder: no absolute path and no `..`\\.$"
    for name in ("../../secret.txt", "../../nothing.txt", str(tmp_path / "secret.txt"), "/nothing.txt", "leak", "gone"):
        with pytest.raises(AppError, match=said) as caught:
            load(field, name, corpora)
        assert caught.value.code is ErrorCode.INVALID_INPUT


CASES: list[tuple[str, str, ErrorCode, str]] = [
    ("path", "nix", ErrorCode.DATA_NOT_FOUND, "There is no corpus 'nix'"),
    ("path", "bad", ErrorCode.INVALID_INPUT, "'bad.txt' is not UTF-8: byte 2 cannot be decoded."),
    ("path", "vast", ErrorCode.PAYLOAD_TOO_LARGE, "'vast.txt' is too long: at most 2,000,000 char"),
    ("prompt_path", "long", ErrorCode.PAYLOAD_TOO_LARGE, "'long.txt' is too long: at most 100,000"),
]


@pytest.mark.parametrize(("field", "name", "code", "sentence"), CASES)
def test_named_text__that_cannot_be_taken_is_refused(
    corpora: CorpusStore, field: str, name: str, code: ErrorCode, sentence: str
) -> None:
    with refused(code, sentence):
        load(field, name, corpora)


def test_file_of_this_machine__may_be_as_long_as_the_limit_in_any_script(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("\U0001f600" * 100, encoding="utf-8")
    assert read_text(file, 100) == "\U0001f600" * 100
    with pytest.raises(AppError, match=r"^There is no file '/.*/none\.txt'\.$"):
        read_text(tmp_path / "none.txt", 100)
