//! Memory of training and of generation on GPUs, part by part.
//!
//! The formulas are those of mixed-precision training with fused attention, as the common frameworks do it (Rajbhandari et al.
//! 2020, arXiv:1910.02054, section 3.1; Korthikanti et al. 2022, arXiv:2205.05198, section 4).

use crate::phases::{Network, Phase, PhaseOptions};
use crate::units::Bytes;
use crate::{Attention, Block, FeedForward, ModelShape};

/// Element type of weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, with a copy of trained weights in f32.
    Bf16,
    /// The same.
    F16,
    /// 8 bits, with scales.
    F8,
    /// 8 bits and a scale for every 32.
    Q8,
    /// 4 bits and a scale for every 32.
    Q4,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 6] =
        [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F8, Dtype::Q8, Dtype::Q4];

    /// Its name.
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

    /// Bytes of a stored weight.
    pub fn weight_bytes(self) -> f64 {
        match self {
            Dtype::F32 => 4.0,
            Dtype::Bf16 | Dtype::F16 => 2.0,
            Dtype::F8 => 1.0,
            Dtype::Q8 => 34.0 / 32.0,
            Dtype::Q4 => 18.0 / 32.0,
        }
    }

    /// Bytes of an activation, a gradient or a cached number beside such weights.
    pub(crate) fn activation_bytes(self) -> f64 {
        if self == Dtype::F32 { 4.0 } else { 2.0 }
    }

    /// Whether weights of this type can themselves be trained (others only carry adapters).
    pub fn is_trained(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::Bf16 | Dtype::F16)
    }
}

/// Which optimizer keeps what of each weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// Two moments of every weight, in f32.
    AdamW,
    /// One of matrices between hidden states, two of the rest.
    Muon,
}

impl Optimizer {
    /// All of them.
    pub const ALL: [Optimizer; 2] = [Optimizer::AdamW, Optimizer::Muon];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Optimizer::AdamW => "adamw",
            Optimizer::Muon => "muon",
        }
    }
}

/// What of a forward pass is computed again for the backward pass instead of kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing.
    None,
    /// Within each block, what is cheap: norms and activations, but no matrix product.
    Block,
    /// Each block from what went into it: one more forward pass.
    Full,
}

impl Recompute {
    /// All of them.
    pub const ALL: [Recompute; 3] = [Recompute::None, Recompute::Block, Recompute::Full];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Recompute::None => "none",
            Recompute::Block => "block",
            Recompute::Full => "full",
        }
    }
}

/// Which of a trained network's states are cut among all GPUs instead of being on each (`ZeRO`'s stages, arXiv:1910.02054).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zero {
    /// None of them.
    None,
    /// What the optimizer keeps.
    Optimizer,
    /// And gradients.
    Gradients,
    /// And weights.
    Weights,
}

/// How memory is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryOptions {
    /// Element type of weights.
    pub dtype: Dtype,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// What is computed again.
    pub recompute: Recompute,
    /// What is cut among GPUs.
    pub zero: Zero,
    /// Rank of adapters (`LoRA`, arXiv:2106.09685) on every matrix of the blocks, if they are what is trained.
    pub lora_rank: Option<usize>,
    /// GPUs.
    pub gpus: usize,
    /// Documents that a GPU works on at the same time.
    pub documents: usize,
    /// Tokens of each.
    pub length: usize,
}

/// Bytes on each GPU, or of the whole process on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Weights of all networks.
    pub weights: Bytes,
    /// Weights once more, laid out for products (the CPU only).
    pub layouts: Bytes,
    /// Gradients of what is trained.
    pub gradients: Bytes,
    /// Moments, and weights in f32.
    pub optimizer: Bytes,
    /// What the backward pass needs of the forward pass.
    pub activations: Bytes,
    /// Logits and their gradient.
    pub logits: Bytes,
    /// Keys and values of sampled answers.
    pub kv_cache: Bytes,
    /// The program with its data and what it copies to save it (the CPU only; GPUs see [`USABLE`]).
    pub program: Bytes,
}

impl Memory {
    /// Every part with its name.
    pub fn named(&self) -> [(&'static str, Bytes); 8] {
        [
            ("weights", self.weights),
            ("layouts", self.layouts),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("kv_cache", self.kv_cache),
            ("program", self.program),
        ]
    }

    /// All together.
    pub fn total(&self) -> Bytes {
        self.named().into_iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Share of a GPU's memory that a run can use: the rest goes to the driver's context, the libraries' buffers and fragments.
pub const USABLE: f64 = 0.92;

/// Parameters of adapters of a rank on every matrix of the blocks: rank · (rows + columns) each.
fn adapters(shape: &ModelShape, rank: usize) -> f64 {
    let of_block = |block: &Block| -> usize {
        block
            .matrices(shape.hidden)
            .into_iter()
            .map(|(count, [rows, cols])| count * rank * (rows + cols))
            .sum()
    };
    shape.blocks.iter().map(|(count, block)| (count * of_block(block)) as f64).sum()
}

/// Numbers of each token that a block's backward pass needs, with attention that keeps no scores. With [`Recompute::Block`] the outputs
/// of norms and of activations are computed again.
fn kept_by_block(hidden: usize, block: &Block, recompute: Recompute) -> f64 {
    let cheap = usize::from(recompute == Recompute::None);
    // What goes into the attention and into the feed-forward layer, each before and after its norm.
    let stream = 2 * hidden + cheap * 2 * hidden;
    let attention = match block.attention {
        // Queries, keys, values and what comes out.
        Attention::Grouped { heads, kv_heads, head_dim, .. } => 2 * head_dim * (heads + kv_heads),
        // And the short vectors that they are made of, each before and after its norm.
        Attention::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim } => {
            let expanded = 2 * heads * (unrotated + rotated) + 2 * heads * value_dim;
            (1 + cheap) * (query_rank.unwrap_or(0) + kv_rank) + expanded
        }
    };
    // Gate, up and their product.
    let gated = |inner: usize| (2 + cheap) * inner;
    let feed_forward = match block.feed_forward {
        FeedForward::Dense { inner } => gated(inner),
        // Each chosen expert has its copy of the token, and what it makes of it.
        FeedForward::Mixture { experts, per_token, inner, shared } => {
            experts + per_token * (gated(inner) + 2 * hidden) + gated(shared)
        }
    };
    (stream + attention + feed_forward) as f64
}

/// Numbers of each token that are kept, over all blocks, and in the block at work.
fn kept(shape: &ModelShape, recompute: Recompute) -> f64 {
    let of = |recompute| {
        shape
            .blocks
            .iter()
            .map(move |(count, block)| (*count, kept_by_block(shape.hidden, block, recompute)))
    };
    // What goes into the last norm, and what comes out.
    let ends = 2.0 * shape.hidden as f64;
    ends + match recompute {
        Recompute::Full => {
            let inputs = (shape.layers() * shape.hidden) as f64;
            inputs + of(Recompute::None).map(|(_, numbers)| numbers).fold(0.0, f64::max)
        }
        recompute => of(recompute).map(|(count, numbers)| count as f64 * numbers).sum(),
    }
}

/// Memory that a phase of training takes on each GPU.
pub fn training(
    shape: &ModelShape,
    phase: Phase,
    phase_options: PhaseOptions,
    options: &MemoryOptions,
) -> Memory {
    let MemoryOptions { dtype, lora_rank, zero, .. } = *options;
    let among = |stage: Zero| if zero >= stage { options.gpus as f64 } else { 1.0 };
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
        // With adapters, the reference is the model without them, and reward and value models are adapters of it too.
        let adapted = match lora_rank {
            Some(rank) if pass.network != Network::Reference => adapters(&network, rank),
            _ => 0.0,
        };
        if lora_rank.is_none() || seen.len() == 1 {
            memory.weights += stored(&network, dtype) / among(Zero::Weights);
        }
        memory.weights += Bytes(adapted * dtype.activation_bytes()) / among(Zero::Weights);
        if !trains {
            continue;
        }
        let trained = if lora_rank.is_some() { adapted } else { all };
        memory.gradients += Bytes(trained * dtype.activation_bytes()) / among(Zero::Gradients);
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
            Bytes(4.0 * (2.0 * trained - one_moment + copy)) / among(Zero::Optimizer);
    }
    memory.activations = Bytes(tokens * kept(shape, options.recompute) * dtype.activation_bytes());
    let logits = if phase == Phase::Reward { 1 } else { shape.vocab };
    // In f32, with their gradient.
    memory.logits = Bytes(tokens * logits as f64 * 2.0 * 4.0);
    if matches!(phase, Phase::Grpo | Phase::Ppo) {
        memory.kv_cache = cache(shape, dtype, options.documents, options.length);
    }
    memory
}

/// Weights under training. Those of few bits are the blocks' matrices; embedding, head, norms and routers keep 16 (as in `QLoRA`,
/// arXiv:2305.14314, and DeepSeek-V3, arXiv:2412.19437, section 3.3).
fn stored(shape: &ModelShape, dtype: Dtype) -> Bytes {
    let parts = shape.parameters();
    let matrices = parts.projections + parts.feed_forward + parts.experts;
    Bytes(matrices * dtype.weight_bytes() + (parts.total() - matrices) * dtype.activation_bytes())
}

/// Keys and values of so many documents of so many tokens.
fn cache(shape: &ModelShape, dtype: Dtype, documents: usize, length: usize) -> Bytes {
    Bytes(documents as f64 * shape.cached(length as f64) * dtype.activation_bytes())
}

/// Memory that generation takes with so many documents of so many tokens at a time. All weights are of the type, as in GGUF files.
pub fn inference(shape: &ModelShape, dtype: Dtype, documents: usize, length: usize) -> Memory {
    Memory {
        weights: Bytes(shape.parameters().total() * dtype.weight_bytes()),
        logits: Bytes((documents * shape.vocab) as f64 * 4.0),
        kv_cache: cache(shape, dtype, documents, length),
        ..Memory::default()
    }
}

/// Most documents at a time with which `memory` stays below `limit`, if even one does; it must grow with their number by the
/// same amount each.
pub fn most_documents(limit: Bytes, memory: impl Fn(usize) -> Bytes) -> Option<usize> {
    let (one, two) = (memory(1), memory(2));
    if one > limit {
        return None;
    }
    Some(1 + ((limit - one) / (two - one)).floor() as usize)
}
