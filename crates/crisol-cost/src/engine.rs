//! Memory that Crisol's own engine takes on the CPU, part by part: its peak within a phase of training, and for inference.
//!
//! Everything is f32, but for weights that inference leaves as they are stored. What is counted is what the engine keeps: see
//! `docs/cost-cpu.md` for the sums, and for predictions beside measurements.

use crate::memory::Memory;
use crate::phases::{Kind, Network, Phase, PhaseOptions};
use crate::units::Bytes;
use crate::{Attention, Block, FeedForward, Head, ModelShape};

/// Bytes of an f32.
const F32: f64 = 4.0;

/// Rules of the engine, from the crates that have them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Copies of the gradients of so many parameters, at most.
    pub replicas: fn(usize) -> usize,
    /// Whether so many parameters are kept laid out for products.
    pub keeps_layouts: fn(usize) -> bool,
    /// Logits of a shard up to which they are kept for the backward pass.
    pub kept_logits: usize,
}

/// How training uses the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Its rules.
    pub rules: Rules,
    /// Threads.
    pub threads: usize,
    /// Tokens of the longest shard.
    pub shard_tokens: usize,
    /// Shards of the largest batch.
    pub shards: usize,
    /// Whether shards differ in length, so that there are some with few rows.
    pub uneven: bool,
    /// Answers that the phase samples.
    pub sampling: Option<Sequences>,
    /// Answers by which the model is measured when its training is over.
    pub measured: Option<Sequences>,
    /// The program with its data and what it copies to save it.
    pub program: Bytes,
}

/// Sequences that are generated at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Chunks of them, each of which is one thread's work if there are enough.
    pub chunks: usize,
    /// Sequences of a chunk.
    pub slots: usize,
    /// Tokens of a chunk's prompts that go through the model at once.
    pub prompt_tokens: usize,
    /// Tokens of the longest sequence, prompt included.
    pub length: usize,
}

/// Positions come in tiles of so many.
const TILE: usize = 16;

impl Sequences {
    /// Keys and values of all of them.
    fn cache(&self, shape: &ModelShape) -> Bytes {
        let positions = (self.chunks * self.slots * self.length.next_multiple_of(TILE)) as f64;
        let kept = |block: &Block| match block.attention {
            Attention::Grouped { kv_heads, head_dim, .. } => 2 * kv_heads * head_dim,
            // The latent vector is key and value, each laid out in its way.
            Attention::Latent { kv_rank, rotated, .. } => 2 * kv_rank + rotated,
        };
        let numbers: usize = shape.blocks.iter().map(|(count, block)| count * kept(block)).sum();
        Bytes(F32 * positions * numbers as f64)
    }

    /// Logits of the next tokens, in the engine and in the sampler's hands.
    fn logits(&self, shape: &ModelShape) -> Bytes {
        Bytes(2.0 * F32 * (self.chunks * self.slots * shape.vocab) as f64)
    }

    /// What one chunk needs of a forward pass that forgets each block after it.
    fn activations(&self, shape: &ModelShape) -> Bytes {
        let widest = shape.blocks.iter().map(|(_, block)| kept_by_block(shape.hidden, block)).max();
        let rows = self.prompt_tokens.max(self.slots);
        Bytes(F32 * (rows * (widest.unwrap_or(0) + 2 * shape.hidden)) as f64)
    }
}

/// Numbers of each token that an operation of the tape leaves for the backward pass, over all operations of a block, in their order.
fn kept_by_block(hidden: usize, block: &Block) -> usize {
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
            // Queries, keys and values put together of their parts.
            let together = 2 * queries + values;
            projected + cut_and_rotated + expanded + together + values + heads
        }
    };
    // Gate, up and their product.
    let gated = |inner: usize| 3 * inner;
    let feed_forward = match block.feed_forward {
        FeedForward::Dense { inner } => gated(inner) + hidden,
        FeedForward::Mixture { experts, per_token, inner, shared } => {
            // A chosen expert has its copy of the token, what it makes of it, and that weighted.
            let routed = experts + per_token * (1 + gated(inner) + 3 * hidden) + hidden;
            routed + if shared > 0 { gated(shared) + 2 * hidden } else { 0 }
        }
    };
    // Two norms, the projection out of the attention, two sums.
    5 * hidden + attention + feed_forward
}

/// Numbers of each token over all blocks; what comes out of the embedding, the last norm and the choice of rows; and the first
/// gradients, which are there before anything of the forward pass is given back.
fn kept(shape: &ModelShape) -> usize {
    let blocks: usize =
        shape.blocks.iter().map(|(count, block)| count * kept_by_block(shape.hidden, block)).sum();
    let last_inner = shape.blocks.last().map_or(0, |(_, block)| match block.feed_forward {
        FeedForward::Dense { inner } => inner,
        FeedForward::Mixture { per_token, inner, shared, .. } => (per_token * inner).max(shared),
    });
    blocks + 3 * shape.hidden + 2 * shape.hidden + 2 * last_inner
}

/// Parameters that stand on the right of products.
fn multiplied(shape: &ModelShape) -> f64 {
    let parts = shape.parameters();
    let looked_up = if shape.head == Head::Tied { 0.0 } else { parts.embedding };
    parts.total() - parts.vectors - looked_up
}

/// A network's weights and what is laid out of them in so many ways if the engine keeps that; large ones are laid out forward for
/// products with few rows, if there are some.
fn weights(memory: &mut Memory, shape: &ModelShape, rules: &Rules, ways: f64, few_rows: bool) {
    let all = shape.parameters().total();
    memory.weights += Bytes(F32 * all);
    let ways = match ((rules.keeps_layouts)(all as usize), few_rows) {
        (true, _) => ways,
        (false, true) => 1.0,
        (false, false) => 0.0,
    };
    memory.layouts += Bytes(F32 * ways * multiplied(shape));
}

/// Networks that a phase trains, and frozen ones that it holds meanwhile.
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

/// Peak of a phase of training. AdamW and Muon take the same: where Muon keeps no second moment, it keeps its directions.
pub fn training(shape: &ModelShape, phase: Phase, options: &EngineOptions) -> Memory {
    let &EngineOptions {
        rules,
        threads,
        shard_tokens,
        shards,
        uneven,
        sampling,
        measured,
        program,
    } = options;
    let of = |network: &Network| match network {
        Network::Policy | Network::Reference => shape.clone(),
        Network::Reward | Network::Value => shape.scalar(),
    };
    let (trained, frozen) = networks(phase);
    let few_rows = uneven || sampling.is_some();
    let mut memory = Memory { program, ..Memory::default() };
    for network in trained.iter().map(of) {
        let parameters = network.parameters().total();
        weights(&mut memory, &network, &rules, 2.0, few_rows);
        let copies = (rules.replicas)(parameters as usize).min(shards);
        memory.gradients += Bytes(F32 * copies as f64 * parameters);
        memory.optimizer += Bytes(F32 * 2.0 * parameters);
    }
    for network in frozen.iter().map(of) {
        weights(&mut memory, &network, &rules, 1.0, uneven);
    }
    // Shards that are at work at the same time.
    let at_work = threads.min((rules.replicas)(shape.parameters().total() as usize)).min(shards);
    let of_shard = Bytes(F32 * (shard_tokens * kept(shape)) as f64);
    memory.activations = of_shard * at_work as f64;
    if phase != Phase::Reward {
        let all = shard_tokens * shape.vocab;
        let kept = if all > rules.kept_logits && !uneven { 0 } else { all.min(rules.kept_logits) };
        memory.logits = Bytes(F32 * (at_work * kept) as f64);
    }
    // The memory of a shard serves generation too.
    let also_generating = |memory: Memory, sequences: Sequences| {
        let of_chunk = sequences.activations(shape);
        let (larger, alone) =
            (at_work.min(sequences.chunks), sequences.chunks.saturating_sub(at_work));
        let beyond =
            Bytes((of_chunk.0 - of_shard.0).max(0.0)) * larger as f64 + of_chunk * alone as f64;
        Memory {
            activations: memory.activations + beyond,
            logits: memory.logits + sequences.logits(shape),
            kv_cache: sequences.cache(shape),
            ..memory
        }
    };
    let during = sampling.map_or(memory, |sampling| also_generating(memory, sampling));
    let Some(measured) = measured else { return during };
    let mut trained = Memory::default();
    weights(&mut trained, shape, &rules, 2.0, true);
    let after = Memory {
        gradients: Bytes(0.0),
        optimizer: Bytes(0.0),
        weights: trained.weights,
        layouts: trained.layouts,
        ..memory
    };
    let after = also_generating(after, measured);
    if after.total() > during.total() { after } else { during }
}

/// Peak of a phase that samples, before its first update: weights, and what sampling takes of the policy.
pub fn before_updates(
    shape: &ModelShape,
    phase: Phase,
    sampling: Sequences,
    options: &EngineOptions,
) -> Memory {
    let EngineOptions { rules, program, .. } = options;
    let mut memory = inference(shape, None, sampling, rules, *program);
    let (trained, frozen) = networks(phase);
    memory.weights = memory.weights * (trained.len() + frozen.len()) as f64;
    memory
}

/// Peak of generation. `stored`: bytes of weights that stay as a file stores them; none: f32, as in training.
pub fn inference(
    shape: &ModelShape,
    stored: Option<Bytes>,
    sequences: Sequences,
    rules: &Rules,
    program: Bytes,
) -> Memory {
    let mut memory = Memory {
        activations: sequences.activations(shape) * sequences.chunks as f64,
        logits: sequences.logits(shape),
        kv_cache: sequences.cache(shape),
        program,
        ..Memory::default()
    };
    match stored {
        Some(bytes) => memory.weights = bytes,
        None => weights(&mut memory, shape, rules, 1.0, true),
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(hidden: usize, head: Head) -> ModelShape {
        let attention =
            Attention::Grouped { heads: 4, kv_heads: 4, head_dim: hidden / 4, chunk: None };
        let block = Block {
            attention,
            feed_forward: FeedForward::Dense { inner: 3 * hidden },
            vectors: 2 * hidden,
        };
        ModelShape { hidden, vocab: 1000, head, blocks: vec![(2, block)] }
    }

    /// Of an engine with other numbers than Crisol's.
    const RULES: Rules = Rules {
        replicas: |parameters| if parameters < 1_000_000 { 4 } else { 1 },
        keeps_layouts: |parameters| parameters < 1_000_000,
        kept_logits: 100_000,
    };

    const OPTIONS: EngineOptions = EngineOptions {
        rules: RULES,
        threads: 2,
        shard_tokens: 100,
        shards: 3,
        uneven: false,
        sampling: None,
        measured: None,
        program: Bytes(1e6),
    };

    const SEQUENCES: Sequences = Sequences { chunks: 2, slots: 8, prompt_tokens: 60, length: 50 };

    /// By hand: 1,000 × 64 weights of tokens; in each block 4 · 64² + 3 · 64 · 192 of matrices and 2 · 64 of norms; one more norm.
    #[test]
    fn parts_of_a_small_model() {
        let memory = training(&shape(64, Head::Tied), Phase::Pretrain, &OPTIONS);
        let (matrices, vectors) = (64_000.0 + 2.0 * (16_384.0 + 36_864.0), 2.0 * 128.0 + 64.0);
        let all = matrices + vectors;
        // A token in a block: 6 · 64 beside the attention, which has 6 · 64 and a number for each head, and 3 · 192.
        let block = 12.0 * 64.0 + 4.0 + 3.0 * 192.0;
        // The ends, and the first gradients.
        let ends = 3.0 * 64.0 + 2.0 * 64.0 + 2.0 * 192.0;
        assert_eq!(memory.weights, Bytes(4.0 * all));
        assert_eq!(memory.layouts, Bytes(8.0 * matrices));
        assert_eq!(memory.gradients, Bytes(12.0 * all));
        assert_eq!(memory.optimizer, Bytes(8.0 * all));
        assert_eq!(memory.activations, Bytes(2.0 * 100.0 * 4.0 * (2.0 * block + ends)));
        assert_eq!(memory.logits, Bytes(2.0 * 4.0 * 100_000.0));
        assert_eq!(memory.named().map(|(_, bytes)| bytes.0).iter().sum::<f64>(), memory.total().0);
    }

    #[test]
    fn every_phase_takes_more_with_more_of_anything() {
        let small = shape(64, Head::Untied);
        for phase in Phase::ALL {
            let total = |shape: &ModelShape, options: EngineOptions| {
                training(shape, phase, &options).total()
            };
            let least = total(&small, OPTIONS);
            assert!(total(&shape(128, Head::Untied), OPTIONS) > least, "{phase:?}");
            for more in [
                EngineOptions { shard_tokens: 101, uneven: true, ..OPTIONS },
                EngineOptions { shards: 4, ..OPTIONS },
                EngineOptions { threads: 3, ..OPTIONS },
                EngineOptions { sampling: Some(SEQUENCES), ..OPTIONS },
                EngineOptions {
                    measured: Some(Sequences { length: 5000, ..SEQUENCES }),
                    ..OPTIONS
                },
                EngineOptions { program: Bytes(2e6), ..OPTIONS },
            ] {
                assert!(total(&small, more) > least, "{phase:?} with {more:?}");
            }
        }
    }

    /// Large models lay weights out only where products have few rows, and have one copy of the gradients.
    #[test]
    fn large_models_keep_less_beside_their_weights() {
        let large = shape(256, Head::Untied);
        let even = training(&large, Phase::Sft, &OPTIONS);
        let uneven = training(&large, Phase::Sft, &EngineOptions { uneven: true, ..OPTIONS });
        assert_eq!((even.layouts, even.gradients), (Bytes(0.0), even.weights));
        // All but the table of tokens and norms.
        assert_eq!(uneven.layouts, Bytes(uneven.weights.0 - 4.0 * (256_000.0 + 5.0 * 256.0)));
    }

    #[test]
    fn phases_hold_the_networks_that_they_run() {
        let shape = shape(64, Head::Tied);
        let weights = |phase| {
            training(&shape, phase, &OPTIONS).weights
                / training(&shape, Phase::Sft, &OPTIONS).weights
        };
        assert_eq!([Phase::Pretrain, Phase::Dpo, Phase::Grpo].map(weights), [1.0, 1.0, 2.0]);
        // Scalar heads have a row more than tied ones.
        assert!(
            (weights(Phase::Ppo) - 4.0).abs() < 0.01 && (weights(Phase::Reward) - 1.0).abs() < 0.01
        );
    }

    #[test]
    fn generation_keeps_keys_and_values_in_whole_tiles() {
        let shape = shape(64, Head::Tied);
        let memory = inference(&shape, Some(Bytes(5e5)), SEQUENCES, &RULES, Bytes(0.0));
        assert_eq!((memory.weights, memory.layouts), (Bytes(5e5), Bytes(0.0)));
        // 16 sequences of 64 positions, each with a key and a value of 64 numbers in two blocks.
        assert_eq!(memory.kv_cache, Bytes(4.0 * 16.0 * 64.0 * 2.0 * 128.0));
        assert!(inference(&shape, None, SEQUENCES, &RULES, Bytes(0.0)).layouts > Bytes(0.0));
    }
}
