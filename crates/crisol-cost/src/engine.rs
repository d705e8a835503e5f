//! Memory of Crisol's CPU engine by part: the peak of a training phase, and of inference.
//!
//! Everything is f32, except weights that inference keeps in the format of their file.
//! `docs/cost-cpu.md` has the sums and compares predictions with measurements.

use crate::memory::Memory;
use crate::phases::{Kind, Network, Phase, PhaseOptions};
use crate::units::Bytes;
use crate::{Attention, Block, FeedForward, ModelShape};

/// Bytes of an f32.
const F32: f64 = 4.0;

/// Limits of the engine, supplied by the crates that define them.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Gradient replicas of a network with this many parameters, at most.
    pub replicas: fn(usize) -> usize,
    /// Whether the packed weights of a network with this many parameters are cached.
    pub caches_packed_weights: fn(usize) -> bool,
    /// Bytes of a packed weight.
    pub packed_bytes: f64,
    /// Maximum logits of a shard that are kept for the backward pass.
    pub max_kept_logits: usize,
}

/// How a training phase uses the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Limits of the engine.
    pub limits: EngineLimits,
    /// Threads.
    pub threads: usize,
    /// Tokens of the longest shard.
    pub shard_tokens: usize,
    /// Number of shards in the largest batch.
    pub shards: usize,
    /// Whether shards differ in length, so that some have few rows.
    pub uneven: bool,
    /// Answers that the phase samples, if it does.
    pub sampling: Option<GenerationBatch>,
    /// Answers of the evaluation after training, if there is one.
    pub measured: Option<GenerationBatch>,
    /// Frozen weights under adapters, as stored; all networks share them.
    pub base: Bytes,
    /// Whether backward computes the inside of blocks again.
    pub recompute_blocks: bool,
    /// Bytes of a moment of the optimizer.
    pub moment_bytes: f64,
    /// The program with its data, and the copies made for checkpoints.
    pub program: Bytes,
}

/// Sequences that are generated concurrently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationBatch {
    /// Concurrent chunks, one per thread.
    pub chunks: usize,
    /// Concurrent sequences per chunk.
    pub slots: usize,
    /// Maximum prompt tokens of a chunk per forward pass.
    pub prompt_tokens: usize,
    /// Length of the longest sequence, prompt included.
    pub length: usize,
}

/// Positions per tile of the KV cache.
const TILE: usize = 16;

impl GenerationBatch {
    /// The KV caches of all sequences.
    fn cache(&self, shape: &ModelShape) -> Bytes {
        let positions = (self.chunks * self.slots * self.length.next_multiple_of(TILE)) as f64;
        let cached = |block: &Block| match block.attention {
            Attention::Grouped { kv_heads, head_dim, .. } => 2 * kv_heads * head_dim,
            // The latent vector serves as key and as value, in different layouts.
            Attention::Latent { kv_rank, rotated, .. } => 2 * kv_rank + rotated,
        };
        let numbers: usize = shape.blocks.iter().map(|(count, block)| count * cached(block)).sum();
        Bytes(F32 * positions * numbers as f64)
    }

    /// Logits of the next tokens, and the weights of one row while a token is drawn from it.
    fn logits(&self, shape: &ModelShape) -> Bytes {
        Bytes(F32 * (self.chunks * (self.slots + 1) * shape.vocab) as f64)
    }

    /// Activations of one chunk in a forward pass that frees each block's activations after it.
    fn activations(&self, shape: &ModelShape) -> Bytes {
        let widest =
            shape.blocks.iter().map(|(_, block)| saved_by_block(shape.hidden, block)).max();
        let rows = self.prompt_tokens.max(self.slots);
        Bytes(F32 * (rows * (widest.unwrap_or(0) + 2 * shape.hidden)) as f64)
    }
}

/// Values per token that the tape saves for the backward pass in one block, in the order of
/// operations.
fn saved_by_block(hidden: usize, block: &Block) -> usize {
    let attention = match block.attention {
        Attention::Grouped { heads, kv_heads, head_dim, .. } => {
            let projected = head_dim * (heads + 2 * kv_heads);
            let rotated = head_dim * (heads + kv_heads);
            projected + rotated + heads * head_dim + heads
        }
        Attention::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim } => {
            let (queries, values) = (heads * (unrotated + rotated), heads * value_dim);
            let projected = 2 * query_rank.unwrap_or(0) + queries + kv_rank + rotated;
            let cut_and_rotated = 2 * heads * rotated + 2 * kv_rank + 2 * rotated;
            let expanded = heads * unrotated + values;
            // Queries, keys and values, concatenated from their parts.
            let concatenated = 2 * queries + values;
            projected + cut_and_rotated + expanded + concatenated + values + heads
        }
    };
    // Gate, up and their product.
    let gated = |inner: usize| 3 * inner;
    let feed_forward = match block.feed_forward {
        FeedForward::Dense { inner } => gated(inner) + hidden,
        // Before and after the activation.
        FeedForward::Ungated { inner } => 2 * inner + hidden,
        FeedForward::Mixture { experts, per_token, inner, shared } => {
            // A selected expert has a copy of the token, its output, and the weighted output.
            let routed = experts + per_token * (1 + gated(inner) + 3 * hidden) + hidden;
            routed + if shared > 0 { gated(shared) + 2 * hidden } else { 0 }
        }
    };
    // Two norms, the output projection, two residual sums.
    5 * hidden + attention + feed_forward
}

/// Values per token over all blocks, plus embedding output, last norm, selected rows, and the first
/// gradients, which coexist with all activations. With recomputation, the outputs of all blocks and
/// the inside of the largest.
fn saved_per_token(shape: &ModelShape, recompute_blocks: bool) -> usize {
    let saved = |block: &Block| saved_by_block(shape.hidden, block);
    let all = shape.blocks.iter();
    let blocks: usize = if recompute_blocks {
        let outputs: usize = all.clone().map(|(count, _)| count * shape.hidden).sum();
        outputs + all.map(|(_, block)| saved(block)).max().unwrap_or(0)
    } else {
        all.map(|(count, block)| count * saved(block)).sum()
    };
    let last_inner = shape.blocks.last().map_or(0, |(_, block)| match block.feed_forward {
        FeedForward::Dense { inner } | FeedForward::Ungated { inner } => inner,
        FeedForward::Mixture { per_token, inner, shared, .. } => (per_token * inner).max(shared),
    });
    blocks + 3 * shape.hidden + 2 * shape.hidden + 2 * last_inner
}

/// Parameters that are the right operand of a GEMM.
fn gemm_parameters(shape: &ModelShape) -> f64 {
    let parts = shape.parameters();
    parts.total() - parts.vectors - shape.looked_up()
}

/// Adds a network's weights and their packed copies: `orientations` of them if the engine caches
/// packed weights. Larger networks pack one orientation if inference passes have few rows.
fn add_weights(
    memory: &mut Memory,
    shape: &ModelShape,
    limits: &EngineLimits,
    orientations: f64,
    few_rows: bool,
) {
    let all = shape.trained_parameters();
    memory.weights += Bytes(F32 * all);
    let orientations = match ((limits.caches_packed_weights)(all as usize), few_rows) {
        (true, _) => orientations,
        (false, true) => 1.0,
        (false, false) => 0.0,
    };
    let packed = if shape.adapter > 0 { all } else { gemm_parameters(shape) };
    memory.packed_weights += Bytes(limits.packed_bytes * orientations * packed);
}

/// Adds the frozen weights under adapters. Those of a small model in f32 have packed copies in both
/// orientations: forward, and backward to the inputs.
fn add_base(memory: &mut Memory, shape: &ModelShape, base: Bytes, limits: &EngineLimits) {
    let all = shape.parameters().total();
    memory.weights += base;
    if base.0 >= F32 * all && (limits.caches_packed_weights)(all as usize) {
        memory.packed_weights += Bytes(limits.packed_bytes * 2.0 * gemm_parameters(shape));
    }
}

/// The networks that a phase trains, and the frozen ones in memory during training.
fn networks(phase: Phase) -> (Vec<Network>, Vec<Network>) {
    let options = PhaseOptions { reference: 1.0, ..PhaseOptions::default() };
    let (mut trained, mut frozen) = (Vec::new(), Vec::new());
    let passes = phase.passes(options);
    for pass in passes.iter().filter(|pass| pass.kind == Kind::Train) {
        trained.push(pass.network);
    }
    for pass in &passes {
        // DPO's reference is freed before training begins: its log-probs are computed once.
        let freed = phase == Phase::Dpo && pass.network == Network::Reference;
        if !trained.contains(&pass.network) && !frozen.contains(&pass.network) && !freed {
            frozen.push(pass.network);
        }
    }
    (trained, frozen)
}

/// Peak memory of a training phase. AdamW and Muon need equally much: in place of the second
/// moment, Muon stores its update directions.
pub fn training(shape: &ModelShape, phase: Phase, options: &EngineOptions) -> Memory {
    let &EngineOptions {
        limits,
        threads,
        shard_tokens,
        shards,
        uneven,
        sampling,
        measured,
        base,
        recompute_blocks,
        moment_bytes,
        program,
    } = options;
    let shape_of = |network: &Network| match network {
        Network::Policy | Network::Reference => shape.clone(),
        Network::Reward | Network::Value => shape.scalar(),
    };
    let (trained, frozen) = networks(phase);
    let mut memory = Memory { program, ..Memory::default() };
    add_base(&mut memory, shape, base, &limits);
    for network in trained.iter().map(shape_of) {
        let parameters = network.trained_parameters();
        add_weights(&mut memory, &network, &limits, 2.0, sampling.is_some());
        let copies = (limits.replicas)(parameters as usize).min(shards);
        memory.gradients += Bytes(F32 * copies as f64 * parameters);
        memory.optimizer += Bytes(moment_bytes * 2.0 * parameters);
    }
    for network in frozen.iter().map(shape_of) {
        add_weights(&mut memory, &network, &limits, 1.0, uneven);
    }
    // Shards that run concurrently.
    let concurrent_shards =
        threads.min((limits.replicas)(shape.trained_parameters() as usize)).min(shards);
    let saved = saved_per_token(shape, recompute_blocks);
    let shard_activations = Bytes(F32 * (shard_tokens * saved) as f64);
    memory.activations = shard_activations * concurrent_shards as f64;
    if phase != Phase::Reward {
        let all = shard_tokens * shape.vocab;
        let saved_logits = if all > limits.max_kept_logits && !uneven {
            0
        } else {
            all.min(limits.max_kept_logits)
        };
        memory.logits = Bytes(F32 * (concurrent_shards * saved_logits) as f64);
    }
    // Generation reuses the shards' memory.
    let with_generation = |memory: Memory, sequences: GenerationBatch| {
        let chunk_activations = sequences.activations(shape);
        let (shared, unshared) = (
            concurrent_shards.min(sequences.chunks),
            sequences.chunks.saturating_sub(concurrent_shards),
        );
        let extra = Bytes((chunk_activations.0 - shard_activations.0).max(0.0)) * shared as f64
            + chunk_activations * unshared as f64;
        Memory {
            activations: memory.activations + extra,
            logits: memory.logits + sequences.logits(shape),
            kv_cache: sequences.cache(shape),
            ..memory
        }
    };
    let during = sampling.map_or(memory, |sampling| with_generation(memory, sampling));
    let Some(measured) = measured else { return during };
    let mut trained = Memory::default();
    add_base(&mut trained, shape, base, &limits);
    add_weights(&mut trained, shape, &limits, 2.0, true);
    let after = Memory {
        gradients: Bytes(0.0),
        optimizer: Bytes(0.0),
        weights: trained.weights,
        packed_weights: trained.packed_weights,
        ..memory
    };
    let after = with_generation(after, measured);
    if after.total() > during.total() { after } else { during }
}

/// Peak memory before the first update of a phase that samples: all weights, and sampling from the
/// policy.
pub fn before_updates(
    shape: &ModelShape,
    phase: Phase,
    sampling: GenerationBatch,
    options: &EngineOptions,
) -> Memory {
    let EngineOptions { limits, base, program, .. } = options;
    let mut memory = inference(shape, None, sampling, limits, *program);
    let (trained, frozen) = networks(phase);
    memory.weights = memory.weights * (trained.len() + frozen.len()) as f64;
    add_base(&mut memory, shape, *base, limits);
    memory
}

/// Peak memory of generation. `file_weights`: bytes of weights in the format of their file; `None`:
/// f32 as in training.
pub fn inference(
    shape: &ModelShape,
    file_weights: Option<Bytes>,
    sequences: GenerationBatch,
    limits: &EngineLimits,
    program: Bytes,
) -> Memory {
    let mut memory = Memory {
        activations: sequences.activations(shape) * sequences.chunks as f64,
        logits: sequences.logits(shape),
        kv_cache: sequences.cache(shape),
        program,
        ..Memory::default()
    };
    match file_weights {
        Some(bytes) => memory.weights = bytes,
        None => add_weights(&mut memory, shape, limits, 1.0, true),
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Head;

    fn shape(hidden: usize, head: Head) -> ModelShape {
        let attention =
            Attention::Grouped { heads: 4, kv_heads: 4, head_dim: hidden / 4, span: None };
        let block = Block {
            attention,
            feed_forward: FeedForward::Dense { inner: 3 * hidden },
            vectors: 2 * hidden,
        };
        ModelShape {
            hidden,
            vocab: 1000,
            head,
            blocks: vec![(2, block)],
            positions: 0,
            last_norm: hidden,
            adapter: 0,
        }
    }

    /// Limits that differ from Crisol's.
    const LIMITS: EngineLimits = EngineLimits {
        packed_bytes: 4.0,
        replicas: |parameters| if parameters < 1_000_000 { 4 } else { 1 },
        caches_packed_weights: |parameters| parameters < 1_000_000,
        max_kept_logits: 100_000,
    };

    const OPTIONS: EngineOptions = EngineOptions {
        limits: LIMITS,
        threads: 2,
        shard_tokens: 100,
        shards: 3,
        uneven: false,
        sampling: None,
        measured: None,
        base: Bytes(0.0),
        recompute_blocks: false,
        moment_bytes: 4.0,
        program: Bytes(1e6),
    };

    const SEQUENCES: GenerationBatch =
        GenerationBatch { chunks: 2, slots: 8, prompt_tokens: 60, length: 50 };

    /// By hand: embedding 1,000 × 64; per block 4 · 64² + 3 · 64 · 192 of matrices and 2 · 64 of
    /// norms; one final norm.
    #[test]
    fn parts_of_a_small_model() {
        let memory = training(&shape(64, Head::Tied), Phase::Pretrain, &OPTIONS);
        let (matrices, vectors) = (64_000.0 + 2.0 * (16_384.0 + 36_864.0), 2.0 * 128.0 + 64.0);
        let all = matrices + vectors;
        // Per token and block: 6 · 64 outside the attention; 6 · 64 plus one per head within; 3 ·
        // 192 in the MLP.
        let block = 12.0 * 64.0 + 4.0 + 3.0 * 192.0;
        // The ends, and the first gradients.
        let ends = 3.0 * 64.0 + 2.0 * 64.0 + 2.0 * 192.0;
        assert_eq!(memory.weights, Bytes(4.0 * all));
        assert_eq!(memory.packed_weights, Bytes(8.0 * matrices));
        assert_eq!(memory.gradients, Bytes(12.0 * all));
        assert_eq!(memory.optimizer, Bytes(8.0 * all));
        assert_eq!(memory.activations, Bytes(2.0 * 100.0 * 4.0 * (2.0 * block + ends)));
        assert_eq!(memory.logits, Bytes(2.0 * 4.0 * 100_000.0));
        assert_eq!(memory.named().map(|(_, bytes)| bytes.0).iter().sum::<f64>(), memory.total().0);
    }

    #[test]
    fn memory_grows_with_every_option() {
        let small = shape(64, Head::Untied);
        for phase in Phase::ALL {
            let total = |shape: &ModelShape, options: EngineOptions| {
                training(shape, phase, &options).total()
            };
            let base = total(&small, OPTIONS);
            assert!(total(&shape(128, Head::Untied), OPTIONS) > base, "{phase:?}");
            for more in [
                EngineOptions { shard_tokens: 101, uneven: true, ..OPTIONS },
                EngineOptions { shards: 4, ..OPTIONS },
                EngineOptions { threads: 3, ..OPTIONS },
                EngineOptions { sampling: Some(SEQUENCES), ..OPTIONS },
                EngineOptions {
                    measured: Some(GenerationBatch { length: 5000, ..SEQUENCES }),
                    ..OPTIONS
                },
                EngineOptions { program: Bytes(2e6), ..OPTIONS },
            ] {
                assert!(total(&small, more) > base, "{phase:?} with {more:?}");
            }
        }
    }

    /// By hand, as above: of 2 blocks, one is left, and the output of each.
    #[test]
    fn recomputation_and_short_moments_take_less() {
        let parts = |options| training(&shape(64, Head::Tied), Phase::Pretrain, &options);
        let all = parts(OPTIONS);
        let less = parts(EngineOptions { recompute_blocks: true, moment_bytes: 2.0, ..OPTIONS });
        let block = 12.0 * 64.0 + 4.0 + 3.0 * 192.0;
        let saved = Bytes(2.0 * 100.0 * 4.0 * (block - 2.0 * 64.0));
        assert_eq!(less.activations + saved, all.activations);
        assert_eq!(less.optimizer * 2.0, all.optimizer);
        let unchanged = Memory { activations: all.activations, optimizer: all.optimizer, ..less };
        assert_eq!(unchanged, all);
    }

    /// Large models pack weights only for decoding, and have one gradient replica.
    #[test]
    fn large_models_need_less_besides_their_weights() {
        let large = shape(256, Head::Untied);
        let even = training(&large, Phase::Sft, &OPTIONS);
        assert_eq!((even.packed_weights, even.gradients), (Bytes(0.0), even.weights));
        let uneven = training(&large, Phase::Sft, &EngineOptions { uneven: true, ..OPTIONS });
        assert_eq!(uneven.packed_weights, Bytes(0.0));
        let sampling = EngineOptions { sampling: Some(SEQUENCES), ..OPTIONS };
        // Policy and reference: all except the embedding tables and the norms.
        let grpo = training(&large, Phase::Grpo, &sampling);
        let one = 4.0 * (256_000.0 + 5.0 * 256.0);
        assert_eq!(grpo.packed_weights, Bytes(grpo.weights.0 / 2.0 - one));
    }

    #[test]
    fn phases_hold_the_networks_that_they_run() {
        let shape = shape(64, Head::Tied);
        let weights = |phase| {
            training(&shape, phase, &OPTIONS).weights
                / training(&shape, Phase::Sft, &OPTIONS).weights
        };
        assert_eq!([Phase::Pretrain, Phase::Dpo, Phase::Grpo].map(weights), [1.0, 1.0, 2.0]);
        // A scalar head is one row more than a tied head.
        assert!(
            (weights(Phase::Ppo) - 4.0).abs() < 0.01 && (weights(Phase::Reward) - 1.0).abs() < 0.01
        );
    }

    #[test]
    fn generation_keeps_keys_and_values_in_whole_tiles() {
        let shape = shape(64, Head::Tied);
        let memory = inference(&shape, Some(Bytes(5e5)), SEQUENCES, &LIMITS, Bytes(0.0));
        assert_eq!((memory.weights, memory.packed_weights), (Bytes(5e5), Bytes(0.0)));
        // 16 sequences of 64 positions, each with a key and a value of 64 numbers in two blocks.
        assert_eq!(memory.kv_cache, Bytes(4.0 * 16.0 * 64.0 * 2.0 * 128.0));
        assert!(
            inference(&shape, None, SEQUENCES, &LIMITS, Bytes(0.0)).packed_weights > Bytes(0.0)
        );
    }
}
