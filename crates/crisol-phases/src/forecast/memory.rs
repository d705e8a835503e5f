//! Forecast of a phase's peak memory: the engine's formulas ([`crisol_cost::engine`]) applied to
//! the recipe's settings, the model's shape and the sizes of the data files. Texts are not
//! tokenised for it, so their lengths in tokens are estimates.

use crisol_cost::ModelShape;
use crisol_cost::engine::{EngineLimits, EngineOptions, GenerationBatch, before_updates, training};
use crisol_cost::memory::Memory;
use crisol_cost::phases::Phase;
use crisol_cost::units::Bytes;
use crisol_engine::{MAX_SAVED_LOGITS, MomentFormat, Params, Precision, Replicas};
use crisol_hub::PORTION;
use crisol_model::{Config, ModelFiles, PREFILL_TOKENS, generation_concurrency};

use crate::behaviours::{ANSWER_TOKENS, held_out_files};
use crate::cost_shape::cost_shape;
use crate::data::{DataSource, Size};
use crate::recipe::{Recompute, RunSettings, Split};
use crate::settings::{PhaseSettings, ReplaySettings, RolloutSettings};
use crate::store::MAX_IN_MEMORY;

/// Bytes of English per token; larger vocabularies have more.
const BYTES_PER_TOKEN: usize = 3;

/// Memory of the program without a tokenizer or data. This and the constants below were measured on
/// x86-64 Linux with glibc (`docs/cost.md`).
pub const PROGRAM: Bytes = Bytes(12.5e6);
/// Memory for reading text: tokenizer, templates, tokenising threads.
const TEXT: f64 = 8e6;
/// Bytes per token of a vocabulary.
const TOKENIZER: f64 = 1000.0;
/// Bytes per byte of a data file: text, records and ids. Freed memory stays with the process.
const PER_BYTE: f64 = 4.3;
/// Bytes per record that is more than raw text: fields, roles, flags.
const PER_RECORD: f64 = 1200.0;
/// Bytes and records of streamed files that are in memory: two chunks.
const STREAMED_BYTES: usize = 4 << 20;
const STREAMED_RECORDS: usize = 2048;
/// Bytes per example of such a file: its end and rows, and its entry in the batches.
const PER_EXAMPLE: usize = 36;
/// Bytes of the tokenizer's output per token, and texts whose output is in memory.
const PER_ENCODED_TOKEN: usize = 120;
const ENCODED_TEXTS: usize = 2;

/// Limits of the engine that decide its memory.
pub fn limits(precision: Precision) -> EngineLimits {
    EngineLimits {
        packed_bytes: match precision {
            Precision::F32 => 4.0,
            Precision::Bf16 => 2.0,
        },
        replicas: Replicas::count_for,
        caches_packed_weights: Params::would_cache_packed,
        max_kept_logits: MAX_SAVED_LOGITS,
    }
}

/// Peak memory of a phase on a model of this shape.
pub fn memory(
    settings: &PhaseSettings,
    run: &RunSettings,
    config: &Config,
    data: &DataSource,
    threads: usize,
) -> Memory {
    let (phase, options) = engine_options(settings, run, config, data, threads);
    training(&cost_shape(config), phase, &options)
}

/// Peak memory of a phase before its first update, if that update may never come: GRPO has nothing
/// to train while rewards are equal within every group. `None` for all other phases.
pub fn memory_before_updates(
    settings: &PhaseSettings,
    run: &RunSettings,
    config: &Config,
    data: &DataSource,
    threads: usize,
) -> Option<Memory> {
    match settings {
        PhaseSettings::Reason(s) if s.skip_zero_spread && s.cold_start.data.is_empty() => {}
        _ => return None,
    }
    let (phase, options) = engine_options(settings, run, config, data, threads);
    Some(before_updates(&cost_shape(config), phase, options.sampling?, &options))
}

/// Workload of a phase, for the formulas of the engine.
fn engine_options(
    settings: &PhaseSettings,
    run: &RunSettings,
    config: &Config,
    data: &DataSource,
    threads: usize,
) -> (Phase, EngineOptions) {
    let shape = cost_shape(config);
    let context = config.max_document_len();
    let files = Files { data, context };
    let replay = |settings: &ReplaySettings| (files.size(&settings.data), settings.tokens);
    let supervised = |names: &[String], tokens: usize| {
        let size = files.size(names);
        let (document, longest) = (files.tokens(size.mean()), files.tokens(size.longest));
        // A batch is full when the next document does not fit.
        let batch = tokens.saturating_sub(document / 2).max(document);
        Work { phase: Phase::Sft, size, document, longest, batch, replay: <_>::default() }
    };
    let pairs = |phase, names: &[String], pairs: usize, replay| {
        let size = files.size(names);
        // A prompt with one answer is about two thirds of a line, and a pair has two of them.
        let pair = |bytes: usize| 2 * files.tokens(bytes * 2 / 3);
        let document = pair(size.mean());
        Work { phase, size, document, longest: pair(size.longest), batch: pairs * document, replay }
    };
    let mut sampling = None;
    let mut rollouts = |phase, names: &[String], rollout: &RolloutSettings, replay| {
        let size = files.size(names);
        let answers = rollout.prompts * rollout.group_size;
        let longest = files.answered(size.longest, rollout.max_new_tokens);
        let prompt = files.tokens(size.mean());
        sampling = Some(sequences(answers, rollout.group_size, prompt, longest, threads));
        let document = files.answered(size.mean(), rollout.max_new_tokens);
        let batch = answers.div_ceil(rollout.minibatches.max(1)) * document;
        Work { phase, size, document, longest, batch, replay }
    };
    let work = match settings {
        PhaseSettings::Pretrain(s) => {
            Work { phase: Phase::Pretrain, ..supervised(&s.data, s.batch_tokens) }
        }
        PhaseSettings::Sft(s) => supervised(&s.data, s.batch_tokens),
        PhaseSettings::Reward(s) => pairs(Phase::Reward, &s.data, s.batch_pairs, <_>::default()),
        PhaseSettings::Dpo(s) => pairs(Phase::Dpo, &s.data, s.batch_pairs, replay(&s.replay)),
        PhaseSettings::Ppo(s) => rollouts(Phase::Ppo, &s.data, &s.rollout, replay(&s.replay)),
        PhaseSettings::Reason(s) => {
            let cold_start = files.size(&s.cold_start.data);
            let work = rollouts(Phase::Grpo, &s.data, &s.rollout, replay(&s.replay));
            Work { size: work.size.merge(cold_start), ..work }
        }
    };
    let (replayed, replay_tokens) = work.replay;
    let longest = work.longest.max(files.tokens(replayed.longest));
    let batch = work.batch + if replayed.bytes > 0 { replay_tokens } else { 0 };
    let shard_tokens = longest.max(run.shard_tokens.min(batch));
    let generates = work.phase != Phase::Reward && run.evaluate != Split::None;
    let options = EngineOptions {
        limits: limits(run.precision),
        threads,
        shard_tokens,
        // The last document that does not fit leaves half of its length free.
        shards: batch
            .div_ceil(run.shard_tokens.saturating_sub(work.document / 2).max(work.document).max(1)),
        uneven: true,
        sampling,
        measured: generates.then(|| files.heldout_generation(run.evaluate, threads)).flatten(),
        base: base_weights(config, &shape),
        recompute_blocks: run.recompute == Recompute::Block,
        moment_bytes: moment_bytes(settings),
        program: program(&shape, data, work.phase, work.size.merge(replayed)),
    };
    (work.phase, options)
}

/// Bytes of a moment, in the mean over networks, which are equally large.
fn moment_bytes(settings: &PhaseSettings) -> f64 {
    let optimizers = settings.optimizers();
    let bytes = optimizers.iter().map(|optimizer| match optimizer.moments {
        MomentFormat::F32 => 4.0,
        MomentFormat::Bf16 => 2.0,
    });
    bytes.sum::<f64>() / optimizers.len() as f64
}

/// Frozen weights under an adapter, in the format of their file.
fn base_weights(config: &Config, shape: &ModelShape) -> Bytes {
    let Some(adapted) = &config.adapter else { return Bytes(0.0) };
    let bytes = ModelFiles::open(&adapted.base).and_then(|files| files.inference_bytes());
    // Files that cannot be read are reported when they are loaded.
    Bytes(bytes.map_or(4.0 * shape.parameters().total(), |bytes| bytes as f64))
}

/// Data and batches of a phase.
struct Work {
    phase: Phase,
    /// Size of its data, without the replay.
    size: Size,
    /// Mean tokens of a document, or of a pair.
    document: usize,
    /// Tokens of the longest.
    longest: usize,
    /// Tokens of a batch.
    batch: usize,
    /// Size of the replayed data, and its tokens per batch.
    replay: (Size, usize),
}

/// Data files, with documents cut at a context.
struct Files<'a> {
    data: &'a DataSource,
    context: usize,
}

impl Files<'_> {
    fn size(&self, names: &[String]) -> Size {
        names.iter().fold(Size::default(), |size, name| size.merge(self.data.size(name)))
    }

    fn tokens(&self, bytes: usize) -> usize {
        bytes.div_ceil(BYTES_PER_TOKEN).min(self.context)
    }

    fn answered(&self, bytes: usize, new_tokens: usize) -> usize {
        (self.tokens(bytes) + new_tokens).min(self.context)
    }

    /// The generation of the largest held-out file.
    fn heldout_generation(&self, split: Split, threads: usize) -> Option<GenerationBatch> {
        let sizes = held_out_files(self.data, split).map(|file| self.data.size(&file));
        let largest = sizes.max_by_key(|size| size.bytes)?;
        let longest = self.answered(largest.longest, ANSWER_TOKENS);
        let prompt = self.tokens(largest.mean());
        Some(sequences(largest.records, 1, prompt, longest, threads))
    }
}

/// The generation of `answers` answers, `group` to each prompt.
fn sequences(
    answers: usize,
    group: usize,
    prompt: usize,
    longest: usize,
    threads: usize,
) -> GenerationBatch {
    let (chunks, slots) = generation_concurrency(answers, threads);
    let prompt_tokens = (slots.div_ceil(group.max(1)) * prompt).min(PREFILL_TOKENS);
    GenerationBatch { chunks, slots, prompt_tokens, length: longest }
}

/// The program, its data, and the copies that a save makes: portions of both moments of a tensor.
fn program(shape: &ModelShape, data: &DataSource, phase: Phase, size: Size) -> Bytes {
    let held = data.resident_bytes();
    // Prompts of rollouts are all in memory.
    let whole = matches!(phase, Phase::Grpo | Phase::Ppo);
    let (bytes, records) = if whole {
        (size.bytes, size.records)
    } else {
        (size.bytes.min(STREAMED_BYTES), size.records.min(STREAMED_RECORDS))
    };
    // The streamed part includes its tokens; those of the rest are stored, up to a limit.
    let rest = (size.bytes - bytes) / BYTES_PER_TOKEN;
    let stored = 4 * rest.min(MAX_IN_MEMORY) + PER_EXAMPLE * (size.records - records);
    let records = if phase == Phase::Pretrain { 0 } else { records };
    let encoded = size.longest * ENCODED_TEXTS.min(size.records) / BYTES_PER_TOKEN;
    let text = TEXT
        + TOKENIZER * shape.vocab as f64
        + PER_BYTE * bytes as f64
        + PER_RECORD * records as f64
        + (stored + encoded * PER_ENCODED_TOKEN + held) as f64;
    // Tensors of adapters are small.
    let largest_saved = if shape.adapter > 0 { 0 } else { shape.vocab * shape.hidden };
    PROGRAM + Bytes(text + 2.0 * 4.0 * largest_saved.min(PORTION) as f64)
}
