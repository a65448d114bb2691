"""One tiny config per architecture on a text of 100 sequences: each is trained, kept, and scores the odd lines."""

import math
from pathlib import Path
from typing import get_args

import pytest

from tests.support import ROOT, add_corpus, settings_in
from tests.support.families import FAMILIES, OTHERS
from tests.support.markers import slow_except
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.contracts.models import Architecture, RnnConfig, TransformerConfig
from trainer.contracts.scores import ScoreRequest, ScoreResponse
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import CorpusPaths
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models import build
from trainer.queue.resolve import resolve_request
from trainer.tokenizers.base import vocabulary_of
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import prepare
from trainer.training.device import resolve, seed_everything
from trainer.training.loop import train

FIXTURES = ROOT / "tests" / "fixtures"
SEQUENCES = FIXTURES / "datasets" / "sequences.txt"
LINES = SEQUENCES.read_text(encoding="utf-8").splitlines()
_ALL: tuple[Architecture, ...] = get_args(Architecture)
ARCHITECTURES = [name for name in _ALL if name in FAMILIES and name not in OTHERS]
LONGEST = 64


def test_fixtures__are_a_hundred_sequences_and_a_config_per_architecture() -> None:
    words = [len(line.split()) for line in LINES]
    assert 95 <= sum(map(bool, words)) <= 105
    assert 45 <= sum(words) / sum(map(bool, words)) <= 55
    assert "" in LINES and any(line.isspace() for line in LINES)
    assert (min(filter(None, words)), max(words)) == (1, LONGEST)
    assert {path.stem for path in (FIXTURES / "configs").iterdir()} == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", slow_except(ARCHITECTURES, "lstm", "gpt2", "bert"))
async def test_config__trains_and_its_model_scores_every_odd_line(architecture: Architecture, tmp_path: Path) -> None:
    add_corpus(tmp_path, SEQUENCES.read_text(encoding="utf-8"), "sequences")
    settings = settings_in(tmp_path)
    request = read_experiment(read_yaml(FIXTURES / "configs" / f"{architecture}.yaml"), {}).request()
    effective = await resolve_request(request, CorpusStore(settings), settings)
    tokenizer, corpus = prepare(effective, CorpusPaths(SEQUENCES), tmp_path / "cache")
    seed_everything(effective.seed)
    model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
    result = train(model, corpus, effective, resolve(effective), CheckpointStore(tmp_path / "checkpoints"))
    sizes = effective.model
    assert (sizes.hidden_size, sizes.num_layers) == (64, 2)
    assert isinstance(sizes, RnnConfig) or (isinstance(sizes, TransformerConfig) and sizes.num_attention_heads == 2)
    assert effective.batch_size == (8 if isinstance(sizes, RnnConfig) else 4)
    assert sum(size.lines for size in corpus.sizes.values()) == sum(map(bool, map(str.split, LINES)))
    assert result.state.step == 12
    assert result.test is not None and result.test.loss_nats < math.log(tokenizer.vocab_size)
    odd = [line for line in LINES if len(line.split()) in (0, 1, LONGEST)]
    queued = ScoreResponse(request_id="r", run_id="r", status="queued")
    [scored] = score_texts(model, tokenizer, [ScoringJob.of(tokenizer, ScoreRequest(text="\n".join(odd)), queued)])
    assert scored.n_scored == sum(len(tokenizer.encode(line)) for line in odd if line.strip())
    assert scored.mean_surprisal is not None and math.isfinite(scored.mean_surprisal)
