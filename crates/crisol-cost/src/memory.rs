//! Memory of training and generation on GPUs, by part.
//!
//! Formulas for mixed-precision training with fused attention (Rajbhandari et al. 2020,
//! arXiv:1910.02054, section 3.1; Korthikanti et al. 2022, arXiv:2205.05198, section 4).

use crate::phases::{Network, Phase, PhaseOptions};
use crate::units::Bytes;
use crate::{Attention, Block, FeedForward, ModelShape};

/// Element type of weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits; trained weights have an f32 master copy.
    Bf16,
    /// 16 bits; trained weights have an f32 master copy.
    F16,
    /// 8 bits, with scales.
    F8,
    /// 8 bits and a scale for every 32.
    Q8,
    /// 4 bits and a scale for every 32.
    Q4,
}

impl Dtype {
    /// All types.
    pub const ALL: [Dtype; 6] =
        [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F8, Dtype::Q8, Dtype::Q4];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
            Dtype::F8 => "fp8",
            Dtype::Q8 => "q8_0",
            Dtype::Q4 => "q4_0",
        }
    }

    /// Bytes per weight, including scales.
    pub fn weight_bytes(self) -> f64 {
        match self {
            Dtype::F32 => 4.0,
            Dtype::Bf16 | Dtype::F16 => 2.0,
            Dtype::F8 => 1.0,
            Dtype::Q8 => 34.0 / 32.0,
            Dtype::Q4 => 18.0 / 32.0,
        }
    }

    /// Bytes per activation, gradient or cached value with weights of this type.
    pub(crate) fn activation_bytes(self) -> f64 {
        if self == Dtype::F32 { 4.0 } else { 2.0 }
    }

    /// Whether weights of this type can be trained; the others need LoRA.
    pub fn is_trained(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::Bf16 | Dtype::F16)
    }
}

/// The optimizer, by the state that it keeps per weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// Two f32 moments per weight.
    AdamW,
    /// One moment for hidden matrices, two for all other weights.
    Muon,
}

impl Optimizer {
    /// All optimizers.
    pub const ALL: [Optimizer; 2] = [Optimizer::AdamW, Optimizer::Muon];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Optimizer::AdamW => "adamw",
            Optimizer::Muon => "muon",
        }
    }
}

/// Activation recomputation (gradient checkpointing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing.
    None,
    /// Cheap operations within a block: norms and activations, no GEMMs.
    Selective,
    /// Whole blocks from their inputs: one additional forward pass.
    Block,
}

impl Recompute {
    /// All kinds.
    pub const ALL: [Recompute; 3] = [Recompute::None, Recompute::Selective, Recompute::Block];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Recompute::None => "none",
            Recompute::Selective => "selective",
            Recompute::Block => "block",
        }
    }
}

/// `ZeRO` stage: the states of a trained network that are sharded over the GPUs (arXiv:1910.02054).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zero {
    /// Stage 0: all states on every GPU.
    None,
    /// Stage 1: optimizer state.
    Optimizer,
    /// Stage 2: also gradients.
    Gradients,
    /// Stage 3: also weights.
    Weights,
}

/// Options that determine memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryOptions {
    /// Element type of weights.
    pub dtype: Dtype,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Activation recomputation.
    pub recompute: Recompute,
    /// `ZeRO` stage.
    pub zero: Zero,
    /// LoRA rank (arXiv:2106.09685) on every matrix of the blocks; `None`: full training.
    pub lora_rank: Option<usize>,
    /// Number of GPUs.
    pub gpus: usize,
    /// Documents per GPU and micro-batch.
    pub documents: usize,
    /// Tokens per document.
    pub length: usize,
}

/// Bytes per GPU, or of the whole process on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Weights of all networks.
    pub weights: Bytes,
    /// Cached packed copies of weights (CPU only).
    pub packed_weights: Bytes,
    /// Gradients of the trained weights.
    pub gradients: Bytes,
    /// Optimizer moments and f32 master weights.
    pub optimizer: Bytes,
    /// Activations saved for the backward pass.
    pub activations: Bytes,
    /// Logits and their gradient.
    pub logits: Bytes,
    /// KV cache of sampled answers.
    pub kv_cache: Bytes,
    /// The program, its data and its copies for checkpoints (CPU only; for GPUs see [`USABLE`]).
    pub program: Bytes,
}

impl Memory {
    /// All parts with their names (the JSON keys).
    pub fn named(&self) -> [(&'static str, Bytes); 8] {
        [
            ("weights", self.weights),
            ("layouts", self.packed_weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("kv_cache", self.kv_cache),
            ("program", self.program),
        ]
    }

    /// The sum of all parts.
    pub fn total(&self) -> Bytes {
        self.named().into_iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Fraction of a GPU's memory available to a run; the rest is driver context, library buffers and
/// fragmentation.
pub const USABLE: f64 = 0.92;

/// LoRA parameters with one adapter per matrix of the blocks: rank · (rows + columns) each.
fn lora_parameters(shape: &ModelShape, rank: usize) -> f64 {
    let block_parameters = |block: &Block| -> usize {
        block
            .matrices(shape.hidden)
            .into_iter()
            .map(|(count, [rows, cols])| count * rank * (rows + cols))
            .sum()
    };
    shape.blocks.iter().map(|(count, block)| (count * block_parameters(block)) as f64).sum()
}

/// Values per token that a block saves for the backward pass; fused attention saves no scores. With
/// [`Recompute::Selective`], outputs of norms and activations are recomputed.
fn saved_by_block(hidden: usize, block: &Block, recompute: Recompute) -> f64 {
    let cheap = usize::from(recompute == Recompute::None);
    // Inputs of attention and feed-forward layer, before and after their norms.
    let stream = 2 * hidden + cheap * 2 * hidden;
    let attention = match block.attention {
        // Queries, keys, values and outputs.
        Attention::Grouped { heads, kv_heads, head_dim, .. } => 2 * head_dim * (heads + kv_heads),
        // Plus the low-rank vectors, before and after their norms.
        Attention::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim } => {
            let expanded = 2 * heads * (unrotated + rotated) + 2 * heads * value_dim;
            (1 + cheap) * (query_rank.unwrap_or(0) + kv_rank) + expanded
        }
    };
    // Gate, up and their product.
    let gated = |inner: usize| (2 + cheap) * inner;
    let feed_forward = match block.feed_forward {
        FeedForward::Dense { inner } => gated(inner),
        FeedForward::Ungated { inner } => (1 + cheap) * inner,
        // Each selected expert has a copy of the token, and its output.
        FeedForward::Mixture { experts, per_token, inner, shared } => {
            experts + per_token * (gated(inner) + 2 * hidden) + gated(shared)
        }
    };
    (stream + attention + feed_forward) as f64
}

/// Values per token over all blocks; with [`Recompute::Block`], the inputs of all blocks plus one
/// block.
fn saved_per_token(shape: &ModelShape, recompute: Recompute) -> f64 {
    let of = |recompute| {
        shape
            .blocks
            .iter()
            .map(move |(count, block)| (*count, saved_by_block(shape.hidden, block, recompute)))
    };
    // Input and output of the last norm.
    let ends = 2.0 * shape.hidden as f64;
    ends + match recompute {
        Recompute::Block => {
            let inputs = (shape.layers() * shape.hidden) as f64;
            inputs + of(Recompute::None).map(|(_, numbers)| numbers).fold(0.0, f64::max)
        }
        recompute => of(recompute).map(|(count, numbers)| count as f64 * numbers).sum(),
    }
}

/// Memory per GPU of a training phase.
pub fn training(
    shape: &ModelShape,
    phase: Phase,
    phase_options: PhaseOptions,
    options: &MemoryOptions,
) -> Memory {
    let MemoryOptions { dtype, lora_rank, zero, .. } = *options;
    let shards = |stage: Zero| if zero >= stage { options.gpus as f64 } else { 1.0 };
    let tokens = (options.documents * options.length) as f64;
    let mut memory = Memory::default();
    let mut seen = Vec::new();
    let passes = phase.passes(phase_options);
    for pass in &passes {
        if seen.contains(&pass.network) {
            continue;
        }
        seen.push(pass.network);
        let network = pass.shape(shape);
        let all = network.parameters().total();
        let trains = matches!(pass.network, Network::Policy | Network::Value)
            || (pass.network == Network::Reward && phase == Phase::Reward);
        // With LoRA, the reference is the base model, and reward and value models are adapters on
        // it.
        let lora = match lora_rank {
            Some(rank) if pass.network != Network::Reference => lora_parameters(&network, rank),
            _ => 0.0,
        };
        if lora_rank.is_none() || seen.len() == 1 {
            memory.weights += training_weights(&network, dtype) / shards(Zero::Weights);
        }
        memory.weights += Bytes(lora * dtype.activation_bytes()) / shards(Zero::Weights);
        if !trains {
            continue;
        }
        let trained = if lora_rank.is_some() { lora } else { all };
        memory.gradients += Bytes(trained * dtype.activation_bytes()) / shards(Zero::Gradients);
        let one_moment = match (options.optimizer, lora_rank) {
            (Optimizer::AdamW, _) => 0.0,
            (Optimizer::Muon, None) => {
                let parts = network.parameters();
                all - parts.embedding - parts.head - parts.vectors
            }
            (Optimizer::Muon, Some(_)) => trained,
        };
        let copy = if dtype.activation_bytes() < 4.0 { trained } else { 0.0 };
        memory.optimizer +=
            Bytes(4.0 * (2.0 * trained - one_moment + copy)) / shards(Zero::Optimizer);
    }
    memory.activations =
        Bytes(tokens * saved_per_token(shape, options.recompute) * dtype.activation_bytes());
    let logits = if phase == Phase::Reward { 1 } else { shape.vocab };
    // In f32, with their gradient.
    memory.logits = Bytes(tokens * logits as f64 * 2.0 * 4.0);
    if matches!(phase, Phase::Grpo | Phase::Ppo) {
        memory.kv_cache = kv_cache(shape, dtype, options.documents, options.length);
    }
    memory
}

/// Weights during training. Types below 16 bits apply to the blocks' matrices; embedding, head,
/// norms and routers keep 16 bits (as in `QLoRA`, arXiv:2305.14314, and DeepSeek-V3,
/// arXiv:2412.19437, section 3.3).
fn training_weights(shape: &ModelShape, dtype: Dtype) -> Bytes {
    let parts = shape.parameters();
    let matrices = parts.projections + parts.feed_forward + parts.experts;
    Bytes(matrices * dtype.weight_bytes() + (parts.total() - matrices) * dtype.activation_bytes())
}

/// KV cache of `documents` documents with `length` tokens each.
fn kv_cache(shape: &ModelShape, dtype: Dtype, documents: usize, length: usize) -> Bytes {
    Bytes(documents as f64 * shape.cached(length as f64) * dtype.activation_bytes())
}

/// Memory of generating `documents` documents of `length` tokens. All weights have type `dtype`, as
/// in GGUF files.
pub fn inference(shape: &ModelShape, dtype: Dtype, documents: usize, length: usize) -> Memory {
    Memory {
        weights: Bytes(shape.parameters().total() * dtype.weight_bytes()),
        logits: Bytes((documents * shape.vocab) as f64 * 4.0),
        kv_cache: kv_cache(shape, dtype, documents, length),
        ..Memory::default()
    }
}

/// The maximum number of documents with `memory(documents) <= limit`, or `None` if one is too many.
/// `memory` must be linear.
pub fn max_documents(limit: Bytes, memory: impl Fn(usize) -> Bytes) -> Option<usize> {
    let (one, two) = (memory(1), memory(2));
    if one > limit {
        return None;
    }
    Some(1 + ((limit - one) / (two - one)).floor() as usize)
}
