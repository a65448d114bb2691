/** Fields of the server's records that the page reads; tests/integration/test_page.py compares them with the contracts. */

export type RunState = "queued" | "running" | "paused" | "completed" | "failed" | "cancelled";
export type Points = [x: number, y: number][];
export type WaitReason = "turn" | "worker" | "gpu" | "cpu" | "memory" | "queue" | "disk_space" | "disk";
export type Phase = "reading" | "searching" | "training" | "evaluating";
export type StopCause =
  "crashed" | "stalled" | "starved" | "killed" | "disk_full" | "disk_unwritable" | "worker_ended";
export type Span = [start: number, end: number];

export interface RunError { code: string; message: string }
export interface JobStatus { status: RunState; created_at: string; error: RunError | null }
export interface JobPage { total: number; next_offset: number | null }

export interface Baseline {
  order: number; ngram_bits_per_char: number; bits_per_char: number; margin: number | null;
  counted_tokens: number; train_tokens: number;
}
export interface Trial {
  number: number; round: number; learning_rate: number; dropout: number | null; steps: number; val_loss: number | null;
}
export interface Search { variants: number; trials: Trial[] }
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
  model_family: string; model_size: string | null; objective: string; is_bidirectional: boolean;
  attempt: number; error: RunError | null; owner: string | null; created_at: string; finished_at: string | null; warnings: string[]; notes: string[];
  seed: number | null; group: RunGroup | null; last_checkpoint_step: number | null; params: number | null;
  learning_rate: number | null; grad_norm: number | null; gpu_memory_bytes: number[] | null; best_epoch: number | null;
  early_stopped: boolean | null; baseline: Baseline | null; search: Search | null;
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
  group_id: string; total_points: number; train: CurveBand; validation: CurveBand; grad_norm: CurveBand;
  learning_rate: CurveBand; tokens_per_second: CurveBand;
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
export interface KeptCheckpoint {
  step: number; epoch: number | null; words: number | null; tokens: number | null; bytes: number;
}
export interface RunFiles { kept: KeptCheckpoint[] }
export interface Sample { prompt: string; text: string; seed: number; stop_reason: string }


export type FinishReason = "eos" | "stop_sequence" | "max_new_tokens" | "context_full";
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
  status: JobState; error: RunError | null; outputs: string[] | null; stop_reason: FinishReason[] | null;
  prompt_tokens: number | null; unk_count: number | null; seed_used: number | null; logprobs: number[][] | null;
  tokens: string[][] | null; text_offsets: number[][] | null; top_logprobs: [token: string, logprob: number][][][] | null;
  notes: string[];
}

export type Measure = "sum" | "token" | "char" | "byte" | "end";

export interface Cell {
  kind: CellKind; model: string; language: string; seed: number; status: RunState; run_id: string | null;
}
export interface ExperimentStatus {
  experiment_id: string; name: string; status: RunState; message: string; cells: Cell[]; cells_done: number;
  n_cells: number; created_at: string; elapsed_seconds: number | null; error: RunError | null; is_valid: boolean | null;
  files: FileRecord[];
}
export interface TreeJoin { left: string[]; right: string[]; height: number }
export interface CurveRow {
  model: string; language: string; seed: number; run_id: string; phase: "single" | "first" | "second"; steps: number;
  early_stopped: boolean; best_val_loss: number | null; test_loss: number | null; test_perplexity: number | null;
  bits_per_char: number | null; auc: number | null;
}
export interface ExperimentResult { languages: string[]; curves: CurveRow[] }

export interface BatteryStatus {
  battery_id: string; status: RunState; message: string; runs: string[]; batteries: string[]; development_of: string | null;
  done: number; total: number; created_at: string; elapsed_seconds: number; error: RunError | null; files: FileRecord[];
}
export interface BatteryList { batteries: BatteryStatus[] }
export type Form = "text" | "count" | "tenths" | "hundredths" | "thousandths" | "share" | "accuracy" | "points" | "change" | "p"
  | "loss" | "per_char" | "surprisal" | "perplexity" | "rise" | "hundredths_share" | "count_change" | "loss_change"
  | "per_char_change" | "perplexity_change" | "effect";
export interface Writing {
  digits: number; is_percent: boolean; is_signed: boolean; is_grouped: boolean; unit: "nats" | "bits" | null;
}
export interface Quantity { value: number; form: Form }
export interface Note {
  kind: "note"; template: string; plural: string | null; values: Record<string, string | Quantity | Note>;
}
export interface Estimate {
  value: number | null; low: number | null; high: number | null; deviation: number | null; n_ties: number; is_own: boolean;
}
export interface Link { text: string | number; address: string }
export type ReportCell = string | number | Note | Estimate | Link | null;
export interface Column { title: Note; form: Form; shows: "all" | "value" | "interval"; is_detail: boolean }
export interface ReportTable {
  kind: "table"; name: string; title: Note; caption: Note | null; columns: Column[]; rows: ReportCell[][]; n_titles: number;
  scale: [low: number, high: number] | null; file: string | null; is_series: boolean;
}
export interface Series { name: string; values: (Estimate | null)[] }
export interface ReportAxis { title: Note; places: number[]; names: string[] }
export interface Figure {
  kind: "figure"; name: string; title: Note; text: Note; axes: ReportAxis[]; y: Note; form: Form; series: Series[];
  levels: number[]; n_left_out: number; file: string | null; addresses: string[]; joins: TreeJoin[];
  leaves: Record<string, string>;
}
export interface Choice { kind: "choice"; title: Note; tables: ReportTable[] }
export type ReportPart = ReportTable | Figure | Choice | Note;
export interface ReportSection { title: Note; parts: ReportPart[]; is_detail: boolean }
export interface Report { title: Note; sections: ReportSection[] }

export interface Accepted { run_id: string; group: RunGroup | null }
export interface RunRequest {
  request: Record<string, unknown>; parent_run_id: string | null; resumed_from_run_id: string | null;
  experiment_id: string | null;
}
export interface TrainingSample { step: number; sample: Sample }
export interface TrainingSamples { samples: TrainingSample[]; total: number }
export interface ExportedFile { name: string; bytes: number; sha256: string; url: string; expires_at: string }
export interface ExportStatus { status: RunState; file: ExportedFile | null; error: RunError | null }

export interface CorpusOverview {
  name: string; bytes: number; lines: number | null; languages: string[]; is_ipa: boolean | null; notes: string[];
}
export interface CorpusList { corpora: CorpusOverview[] }
export interface UploadStatus { upload_id: string; bytes: number; offset: number; corpus: CorpusOverview | null }

export type CellKind = "train" | "score" | "battery";
export interface BatteryOptions { measure: Measure; pll_within_word: boolean; has_controls: boolean }
export interface DevelopmentOptions { split: string; has_loss: boolean; has_words: boolean; follows: boolean }
export interface JobTable { kind: string; word: string; words: string; title: string; columns: [title: string, field: string][] }
export interface PageTables {
  jobs: JobTable[];
  states: RunState[]; final_states: RunState[]; resumable_states: RunState[]; families: string[]; max_compared: number;
  corpus_suffixes: string[]; max_unknown_char_share: number; loss_digits: number; surprisal_digits: number;
  perplexity_digits: number; share_digits: number; formats: Record<string, string>; checkpoint_formats: string[]; curve_formats: string[];
  battery_suffixes: string[]; battery_options: BatteryOptions; development_options: DevelopmentOptions; splits: string[];
  measures: Record<Measure, string>;
  writings: Record<Exclude<Form, "text">, Writing>;
}
