"""What the queue carries: ids only (R13), checked again by whoever reads it."""

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.inference import InferenceKind


class TrainJobPayload(Frozen):
    run_id: Identifier


class InferenceJobPayload(Frozen):
    kind: InferenceKind
    run_id: Identifier
    request_id: Identifier


JobPayload = TrainJobPayload | InferenceJobPayload
