"""Options of `mt train`, `mt validate`, `mt selftest` and `mt corpus check`: each sets its field of the request."""

import json
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, environment_in, some_text
from trainer.commands.main import main


@pytest.fixture(autouse=True)
def folder_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    add_corpus(tmp_path, some_text())


def request_of(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["validate", *line.split(), "--json"]) == 0
    fields: dict[str, object] = json.loads(capsys.readouterr().out)
    return fields


def test_options__set_the_fields_that_they_are_named_for(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--corpus text --model lstm --size tiny --epochs 3 --max-steps 9 --batch-size 4 --learning-rate 0.01"
    more = " --seed 7 --tokenizer bpe --set tokenizer.vocab_size=60 --name first --early-stopping 4"
    more += " --set optimizer.name=muon --set lr_schedule=wsd --set decay_ratio=0.3 --set ema_decay=0.99"
    assert request_of(line + more, capsys) == {
        **{"corpus": "text", "model_family": "lstm", "model_size": "tiny", "label": "first", "seed": 7},
        **{"num_epochs": 3, "max_steps": 9, "batch_size": 4, "learning_rate": 0.01},
        "tokenizer": {"method": "bpe", "vocab_size": 60},
        "early_stopping": {"enabled": True, "patience": 4},
        **{"optimizer": {"name": "muon"}, "lr_schedule": "wsd", "decay_ratio": 0.3, "ema_decay": 0.99},
    }


def test_options__replace_the_values_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "configs" / "char_lstm_ipa.yaml"
    request = request_of(f"{file} --corpus text --epochs 2 --batch-size auto --early-stopping 0", capsys)
    assert (request["corpus"], request["num_epochs"], request["batch_size"]) == ("text", 2, "auto")
    assert request["early_stopping"] == {"enabled": False}
