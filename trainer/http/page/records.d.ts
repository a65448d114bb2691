/** Fields of the server's records that the page reads; tests/integration/test_page.py compares them with the contracts. */

export type RunState = "queued" | "running" | "paused" | "completed" | "failed" | "cancelled";
export type Points = [x: number, y: number][];
export type WaitReason = "turn" | "worker" | "gpu" | "cpu" | "memory" | "queue" | "disk_space" | "disk";
export type Phase = "reading" | "training" | "evaluating";
export type StopCause =
  "crashed" | "stalled" | "starved" | "killed" | "disk_full" | "disk_unwritable" | "worker_ended";
export type Span = [start: number, end: number];

export interface RunError { code: string; message: string }

export interface RunStatus {
  run_id: string; label: string | null; status: RunState; reachable: boolean; message: string;
  waits_for: WaitReason | null; phase: Phase | null; stopped_by: StopCause | null; progress: number;
  epoch: number; total_epochs: number; step: number; total_steps: number | null;
  train_loss: number | null; val_loss: number | null; best_val_loss: number | null; test_loss: number | null;
  best_val_margin: number | null;
  train_bits_per_char: number | null; val_bits_per_char: number | null; best_val_bits_per_char: number | null;
  bits_per_char: number | null; test_perplexity: number | null; unknown_char_share: number | null;
  tokens_per_second: number | null; eta_seconds: number | null; queue_position: number | null;
  device: string | null; precision: string | null; vocab_size: number | null; tokenizer_id: string | null;
  model_family: string; model_size: string | null; objective: string; attempt: number; error: RunError | null;
  owner: string | null; created_at: string; finished_at: string | null; warnings: string[];
  seed: number | null; group: RunGroup | null; params: number | null;
}

export interface RunGroup { group_id: string; seeds: number[] }
export interface Spread {
  n: number; mean: number; deviation: number | null; low: number | null; high: number | null; minimum: number; maximum: number;
}
export interface GroupStatus {
  group_id: string; label: string | null; status: RunState; message: string; progress: number; members: RunStatus[];
  model_family: string; model_size: string | null; n_completed: number; numbers: Record<string, Spread>;
}
export interface CurveBand { mean: Points; low: Points; high: Points }
export interface GroupCurve {
  group_id: string; train: CurveBand; validation: CurveBand; grad_norm: CurveBand; learning_rate: CurveBand; tokens_per_second: CurveBand;
  gpu_memory_bytes: CurveBand; tokens: Points; words: Points; seconds: Points;
}

export interface RunPage { runs: RunStatus[]; total: number }
export interface Curve {
  run_id: string; last_event_id: number; total_points: number; train: Points; validation: Points; grad_norm: Points;
  learning_rate: Points; tokens_per_second: Points; gpu_memory_bytes: Points; tokens: Points; words: Points; seconds: Points;
}
export interface MetricsProgress {
  ts: string; step: number; train_loss: number; val_loss: number | null; grad_norm: number; learning_rate: number;
  tokens_per_second: number; gpu_memory_bytes: number[] | null; tokens: number | null; words: number | null;
}
export interface FileRecord { path: string; bytes: number; sha256: string }
export interface ArtifactFiles { files: FileRecord[]; result_bytes: number }
export interface KeptCheckpoint { step: number }
export interface RunFiles { kept: KeptCheckpoint[] }
export interface Sample { prompt: string; text: string; seed: number; stop_reason: string }

export interface ComparedRun {
  run_id: string; label: string | null; model: string; objective: string; params: number | null; loss: number | null;
  perplexity: number | null; bits_per_char: number | null; top1_accuracy: number | null; top5_accuracy: number | null;
  tokens_per_second: number | null;
}
export interface Interval { low: number; high: number }
export interface Difference { field: string; run: string; other: string }
export interface Against {
  run_id: string; basis: "loss" | "bits_per_char" | null; rise: number | null; interval: Interval | null;
  verdict: "better" | "worse" | "equal" | "no_clear_difference" | "no_interval" | "not_comparable";
  is_regression: boolean; is_on_one_text: boolean; notes: string[]; differences: Difference[];
}
export interface Comparison { runs: ComparedRun[]; against: Against[] }

type JobState = "queued" | "running" | "completed" | "failed";
export interface LineScore { number: number; span: Span; n_tokens: number; nats: number; end_nats: number | null; n_chars: number }
export interface WordScore { text: string; span: Span; surprisal: number | null }
export interface ScoreResponse {
  status: JobState; error: RunError | null; method: string; nats: number | null;
  perplexity: number | null; mean_surprisal: number | null; bits_per_char: number | null; n_scored: number | null;
  unknown_chars: number | null; unknown_char_share: number | null; unknown_token: string | null; surprisal: (number | null)[] | null;
  rank: (number | null)[] | null; tokens: string[] | null; char_spans: Span[] | null;
  topk: [token: string, probability: number][][] | null; lines: LineScore[] | null; words: WordScore[] | null;
}
export interface GenerateResponse {
  status: JobState; error: RunError | null; outputs: string[] | null; stop_reason: string[] | null;
  prompt_tokens: number | null; unk_count: number | null; seed_used: number | null; logprobs: number[][] | null;
  tokens: string[][] | null; text_offsets: number[][] | null; top_logprobs: [token: string, logprob: number][][][] | null;
}
