"""Each mistake on the command line gets one sentence of its own and exit code 2, and changes nothing."""

import re
import shlex
import shutil
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT, processes, some_text, twin
from tests.support.markers import slow_repeats
from tests.support.run_shell import Shell, enter
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import ErrorCode
from trainer.export.archive import export_archive

FIXTURES = ROOT / "tests" / "fixtures"
RUN = "char_lstm-20261122-74f34df5"
"""A completed run of an earlier release."""
TEXTS: dict[str, bytes] = {
    "latin.txt": "caf\xe9 au lait".encode("latin-1"),
    "cut.txt": "ab\u017e".encode()[:-1],
    "wide.txt": some_text().encode("utf-16"),
    "nul.txt": b"a\nb\0\n",
    "empty.txt": b"",
    "blank.txt": b"\n \n\t\n",
    "bom.txt": b"\xef\xbb\xbf",
    "two.txt": b"a\nb\n",
    "big.txt": b"a b\n" * 300,
    "long.txt": b"a" * 2_000_001,
    "fine.txt": some_text().encode(),
    "blank.tsv": b"\n\n",
    "three.tsv": b"a\tb\na\t\tc\n",
    "bytes.tsv": b"a\tb\xff\n",
    "map.html": b"",
    "tags.txt": b"<?xml version='1.0'?>\n<text>a b</text>\n" * 9,
    "tags.sfm": b"\\ref 1\n\\tx a b\n",
    "pairs.csv": b"good,bad\na b,b a\n",
    "texts/kk.txt": b"bdlmn " * 20,
    "texts/tr.txt": b"bdlmn " * 20,
}
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
FILES: dict[str, bytes] = {
    "list.yaml": b"- a\n",
    "blank.yaml": b"# nothing\n",
    "twice.yaml": b"a: 1\nb: 2\na: 3\n",
    "tab.yaml": b"a:\n\tb: 1\n",
    "open.yaml": b"a: [1, 2\n",
    "bomb.yaml": BOMB.encode(),
    "huge.yaml": b"#" * 300_000,
    "latin.yaml": "a: \xe9\n".encode("latin-1"),
    "wide.yaml": "a: b\n".encode("utf-16"),
    "nul.yaml": b"a: b\0\n",
    "old.yaml": b"%YAML 1.1\n---\na: yes\n",
    "code.yaml": b"a: !!python/object/apply:os.system [ls]\n",
}
STORED: dict[str, bytes] = {
    "text.txt": some_text().encode(),
    "one.txt": b"a\n",
    "short.txt": b"b a b\n\na , c\nd a\n",
    "spoiled.txt": b"abc\n\xe9t\xe9\n",
    "folder/notes.md": b"no text",
}


class Mistake(NamedTuple):
    """A row of mistakes.tsv, which says what its columns are."""

    code: str
    command: str
    sentence: str
    given: str = ""

    @property
    def file(self) -> str:
        return next((word for word in self.command.split() if word.endswith(".yaml")), "")


def mistakes() -> list[Mistake]:
    table = re.sub(r"\bRUN\b", RUN, (FIXTURES / "mistakes.tsv").read_text(encoding="utf-8"))
    found = [Mistake(*line.split("\t")) for line in table.splitlines() if not line.startswith("#")]
    long = Mistake("RUN_NOT_FOUND", f"config {'a' * 65}", f"There is no run '{'a' * 64}': check its name")
    many = Mistake("CONFIG_INVALID", f"train --corpus text --set max_steps={'9' * 5000}", "holds a value that cannot")
    text = Mistake("PAYLOAD_TOO_LARGE", f"score {RUN} {'x' * 10_001} --heatmap f.png", "at most 10,000 characters")
    return [*found, long, many, text]


MISTAKES = mistakes()


@pytest.fixture(name="workplace", scope="module")
def workplace_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, good and bad texts, and good and bad files."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(FIXTURES / "finished_run" / "artifacts", folder / "artifacts")
    run = RunStore(folder / "artifacts").get(RUN)
    export_archive(run, folder / "run.tar")
    twin(run, "lstm-2")
    corpora = folder / "data" / "corpus"
    files = TEXTS | FILES | {f"data/corpus/{name}": content for name, content in STORED.items()}
    config = (FIXTURES / "blocks.yaml").read_text(encoding="utf-8")
    files["fine.yaml"] = config.encode()
    for mistake in MISTAKES:
        if " → " in mistake.given:
            old, new = mistake.given.replace("\\n", "\n").split(" → ")
            assert config.count(old) == 1, mistake
            files[mistake.file] = config.replace(old, new).encode()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (corpora / "broken.txt").symlink_to(folder / "gone.txt")
    (corpora / "leak.txt").symlink_to(folder / "fine.txt")
    (folder / "a-folder.yaml").mkdir()
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    return folder


@pytest.fixture(name="sentences", scope="module")
def sentences_fixture() -> dict[str, str]:
    """The expected part of each sentence that was shown so far."""
    return {}


@pytest.fixture(name="shell")
def shell_fixture(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return enter(monkeypatch, capsys, workplace, workplace)


def everything(folder: Path) -> dict[str, tuple[int, int, str]]:
    """The files under the roots of data and artifacts by name, with times and contents; of the others the names."""
    paths = [path for root in ("data", "artifacts") for path in sorted((folder / root).rglob("*"))]
    found = {
        str(path.relative_to(folder)): (
            path.lstat().st_size,
            path.lstat().st_mtime_ns,
            sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in paths
    }
    return found | {path.name: (0, 0, "") for path in folder.iterdir()}


@pytest.mark.parametrize(
    "mistake",
    slow_repeats(MISTAKES, lambda mistake: " ".join(mistake.command.split()[:2])),
    ids=[f"{m.command[:60]} {m.sentence[:20]}" for m in MISTAKES],
)
def test_mistake__is_one_sentence_and_exit_2_and_nothing_changed(
    mistake: Mistake, shell: Shell, sentences: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if mistake.given.startswith("["):
        shell.write("mt.toml", mistake.given.replace("\\n", "\n"))
    elif mistake.given and " → " not in mistake.given:
        monkeypatch.setenv(*mistake.given.split("="))
    words = shlex.split(mistake.command)
    before = everything(shell.folder)
    try:
        err = shell.refuse(*words)
        body = shell.error(*words)
        assert shell.err == ""
        assert everything(shell.folder) == before
    finally:
        (shell.folder / "mt.toml").unlink(missing_ok=True)
    assert err.startswith("mt: ") and mistake.sentence in err
    assert str(shell.folder) not in err + shell.out and str(ROOT) not in err + shell.out
    assert body.code == ErrorCode[mistake.code]
    assert f"mt: {body.message}\n" == err or "--" in err  # for a program, a field has its own name
    assert processes(shell.folder) == []
    assert sentences.setdefault(err, mistake.sentence) == mistake.sentence, "no two mistakes have one sentence"


def test_validate__names_where_each_file_is_broken_and_queues_nothing(shell: Shell) -> None:
    broken = [mistake for mistake in MISTAKES if " → " in mistake.given or mistake.file in FILES]
    # the field by its path, or the file and the line in it; one sentence is given by the requirements
    place = re.compile(r"`[a-z]+(_[a-z]+)*(\.[a-z0-9_]+)*`|'[a-z]+\.yaml'|'architecture' in model config")
    before, sentences = everything(shell.folder), set[str]()
    for mistake in broken:
        err = shell.refuse(*shlex.split(mistake.command.replace("train ", "validate ")))
        assert mistake.sentence in err and place.search(err), mistake
        sentences.add(err)
    assert len(sentences) == len(broken) >= 60
    assert (everything(shell.folder), processes(shell.folder)) == (before, [])


def test_mistake__in_an_empty_folder_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = enter(monkeypatch, capsys, tmp_path, tmp_path)
    for command in ("train --corpus nix", "score no-run x", "tokenizer train", "status x"):
        shell.refuse(*command.split())
    assert list(tmp_path.iterdir()) == []
