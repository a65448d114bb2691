"""Trial of bf16 training on this CPU; the CPU's flags do not tell whether it works."""

import sys

import torch
from pydantic import TypeAdapter

from trainer.config.presets import Bf16Trial, resolve
from trainer.contracts.models import Architecture
from trainer.contracts.runs import CorpusRef, TrainRequest
from trainer.contracts.tokenizers import SpecialIds
from trainer.models import build
from trainer.tokenizers.base import Vocabulary

_LENGTH = 8
_VOCABULARY = Vocabulary(16, SpecialIds(pad=0, unk=1, bos=2, eos=3))


def try_bf16(architecture: Architecture) -> Bf16Trial:
    """Train a tiny model of an architecture in bf16 on the CPU, and a GRU if that fails."""
    trains = _trains(architecture)
    return Bf16Trial(architecture=architecture, trains=trains, gru_trains=trains or _trains("gru"))


def _trains(architecture: Architecture) -> bool:
    """Run one forward and one backward pass; torch's generator is restored."""
    effective = resolve(
        TrainRequest(model_family=architecture, model_size="tiny", corpus="none", max_seq_len=_LENGTH),
        corpus=CorpusRef(name="none", sha256="0" * 64, bytes=1),
    )
    before = torch.get_rng_state()
    try:
        model = build(effective.model, _VOCABULARY, effective.objective)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.forward(torch.zeros(1, _LENGTH, dtype=torch.long))
        torch.autograd.backward([logits.float().logsumexp(-1).sum()])
    except RuntimeError:  # oneDNN without AVX-512: "could not create a primitive descriptor for the LSTM"
        return False
    finally:  # initial weights and dropout are drawn
        torch.set_rng_state(before)
    return True


if __name__ == "__main__":
    _adapter: TypeAdapter[Architecture] = TypeAdapter(Architecture)
    sys.stdout.write(try_bf16(_adapter.validate_python(sys.argv[1])).model_dump_json())
