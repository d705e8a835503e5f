//! A training plan on GPUs, and its estimate: FLOPs, time, money, energy, memory.

use crate::hardware::{
    BANDWIDTH_UTILISATION, CO2_PER_KILOWATT_HOUR, DENSE_MFU, Gpu, MIXTURE_MFU, Mfu,
    POWER_USAGE_EFFECTIVENESS, Range,
};
use crate::memory::{self, Dtype, Memory, MemoryOptions, Optimizer, Recompute, USABLE, Zero};
use crate::phases::{Kind, Pass, Phase, PhaseOptions};
use crate::units::{
    Bytes, Dollars, Flops, FlopsPerToken, Joules, Price, Seconds, TokenRate, Tokens,
};
use crate::{ModelShape, Parts};

/// A training plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The model.
    pub shape: ModelShape,
    /// The training phase.
    pub phase: Phase,
    /// Phase settings.
    pub phase_options: PhaseOptions,
    /// Tokens of the phase; [`Phase`] defines which tokens count.
    pub tokens: Tokens,
    /// The GPU model.
    pub gpu: Gpu,
    /// MFU, if given.
    pub mfu: Option<Mfu>,
    /// Price of a GPU, if known.
    pub price: Option<Price>,
    /// Memory options, including the number of GPUs and the length of documents.
    pub memory: MemoryOptions,
}

/// A contradictory plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// LoRA cannot pre-train a model.
    #[error("pre-training needs all weights; adapters (--lora-rank) are for the phases after it")]
    LoraPretraining,
    /// A LoRA rank above the model's width.
    #[error("a LoRA rank of {rank} is not low; give at most the model's width, {hidden}")]
    LoraRankTooHigh {
        /// The rank.
        rank: usize,
        /// The model's width.
        hidden: usize,
    },
    /// Quantised weights cannot be trained.
    #[error(
        "weights in {dtype} cannot be trained themselves; give --lora-rank, or --dtype bf16, f16 \
         or f32"
    )]
    Untrainable {
        /// The weights' type.
        dtype: &'static str,
    },
    /// `ZeRO` needs several GPUs.
    #[error("--zero {stage} shards states over GPUs, but there is only one; give --gpus 2 or more")]
    ZeroOnOneGpu {
        /// The `ZeRO` stage.
        stage: u8,
    },
}

/// FLOPs of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// All FLOPs, including attention over the whole context.
    pub flops: Flops,
    /// FLOPs in the convention of MFU: 2N or 6N per token and pass, plus attention beyond
    /// [`REFERENCE_CONTEXT`].
    pub counted: Flops,
    /// The part of `counted` for sampling, which is bound by bandwidth.
    pub sampling: Flops,
    /// Recomputed forward passes, which MFU does not count.
    pub recomputed: Flops,
}

/// The estimate of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// FLOPs.
    pub work: Work,
    /// Total GPU time.
    pub gpu_time: Range<Seconds>,
    /// Wall-clock time.
    pub wall_time: Range<Seconds>,
    /// Tokens of the phase per second.
    pub rate: Range<TokenRate>,
    /// Assumed MFU.
    pub mfu: Range<Mfu>,
    /// Cost, if a price is known.
    pub money: Option<Range<Dollars>>,
    /// Electricity of the data centre.
    pub energy: Range<Joules>,
    /// Kilograms of CO₂.
    pub co2: Range<f64>,
    /// Memory per GPU.
    pub memory: Memory,
    /// Usable memory per GPU.
    pub available: Bytes,
    /// Maximum documents per GPU.
    pub max_documents: Option<usize>,
    /// Changes that make the plan fit, if it does not.
    pub remedies: Vec<Remedy>,
}

/// A change after which a plan fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// The change as command-line options.
    pub options: String,
    /// The changed memory options.
    pub changed: MemoryOptions,
    /// Memory per GPU after the change.
    pub memory: Bytes,
}

/// Published MFUs ignore attention scores (6·N·D) and refer to contexts of about this length.
/// Attention up to it is part of the MFU; the rest is added.
pub const REFERENCE_CONTEXT: f64 = 4096.0;

/// Relative uncertainty of a given MFU over a whole run.
const GIVEN_MFU_TOLERANCE: f64 = 0.1;

/// Maximum documents that one copy of the model samples together.
const MAX_SAMPLING_BATCH: usize = 64;

impl Plan {
    /// Refuses contradictory plans.
    pub fn check(&self) -> Result<(), PlanError> {
        let MemoryOptions { lora_rank, dtype, zero, gpus, .. } = self.memory;
        match lora_rank {
            Some(_) if !self.phase.may_use_adapters() => Err(PlanError::LoraPretraining),
            Some(rank) if rank > self.shape.hidden => {
                Err(PlanError::LoraRankTooHigh { rank, hidden: self.shape.hidden })
            }
            None if !dtype.is_trained() => Err(PlanError::Untrainable { dtype: dtype.name() }),
            _ if zero != Zero::None && gpus == 1 => {
                Err(PlanError::ZeroOnOneGpu { stage: zero as u8 })
            }
            _ => Ok(()),
        }
    }

    fn passes(&self) -> Vec<Pass> {
        self.phase.passes(self.phase_options)
    }

    fn length(&self) -> f64 {
        self.memory.length as f64
    }

    /// FLOPs per token of a pass over documents of a length, forward and backward, by part.
    fn flops(&self, pass: &Pass, length: f64) -> (Parts, Parts) {
        pass.flops(&self.shape, length, self.memory.lora_rank.is_some())
    }

    /// FLOPs per token over all passes by part: name, forward, backward.
    pub fn flops_by_part(&self) -> [(&'static str, FlopsPerToken, FlopsPerToken); 8] {
        let (mut forward, mut backward) = (Parts::default(), Parts::default());
        for pass in self.passes() {
            let parts = self.flops(&pass, self.length());
            forward = forward.zip_with(parts.0, |sum, part| sum + part);
            backward = backward.zip_with(parts.1, |sum, part| sum + part);
        }
        let (forward, backward) = (forward.named(), backward.named());
        std::array::from_fn(|i| {
            (forward[i].0, FlopsPerToken(forward[i].1), FlopsPerToken(backward[i].1))
        })
    }

    /// FLOPs of all tokens.
    pub fn work(&self) -> Work {
        let mut work = Work {
            flops: Flops(0.0),
            counted: Flops(0.0),
            sampling: Flops(0.0),
            recomputed: Flops(0.0),
        };
        for pass in self.passes() {
            let (forward, backward) = self.flops(&pass, self.length());
            let ordinary = self.flops(&pass, self.length().min(REFERENCE_CONTEXT));
            // A short chunk at a document's end can make attention cheaper than in an ordinary
            // context.
            let counted = |all: Parts, ordinary: Parts| {
                let extra = (all.attention - ordinary.attention).max(0.0);
                FlopsPerToken(all.total() - all.attention + extra) * self.tokens
            };
            let counted_forward = counted(forward, ordinary.0);
            work.flops += FlopsPerToken(forward.total() + backward.total()) * self.tokens;
            work.counted += counted_forward + counted(backward, ordinary.1);
            match pass.kind {
                Kind::Generate => work.sampling += counted_forward,
                Kind::Train if self.memory.recompute == Recompute::Block => {
                    work.recomputed += counted_forward;
                }
                Kind::Forward | Kind::Train => {}
            }
        }
        work
    }

    /// The MFU to expect.
    fn utilisation(&self, work: &Work) -> Range<Mfu> {
        let share = |share: f64| Mfu::new(share.min(1.0)).expect("a positive share of at most one");
        if let Some(mfu) = self.mfu {
            let (low, high) = (
                share(mfu.share() * (1.0 - GIVEN_MFU_TOLERANCE)),
                share(mfu.share() * (1.0 + GIVEN_MFU_TOLERANCE)),
            );
            return Range { low, typical: mfu, high };
        }
        let class = if self.shape.is_mixture() { MIXTURE_MFU } else { DENSE_MFU };
        // Recomputation takes time but does not count as model FLOPs.
        let counted = work.counted - work.sampling;
        class.map(|mfu| share(mfu.share() * (counted / (counted + work.recomputed))))
    }

    /// GPU time of all sampling at an MFU and a fraction of the bandwidth. Each step reads the
    /// weights once, and the cache of every document in the batch. A model that is too large for
    /// one GPU is sharded over all.
    fn sampling_time(&self, mfu: Mfu, bandwidth: f64) -> Seconds {
        let dtype = self.memory.dtype;
        let limit = self.gpu.memory * USABLE * self.memory.gpus as f64;
        let fits = memory::max_documents(limit, |documents| {
            memory::inference(&self.shape, dtype, documents, self.memory.length).total()
        });
        let batch = fits.unwrap_or(1).min(MAX_SAMPLING_BATCH) as f64;
        let step = decode_step(&self.shape, dtype, &self.gpu, batch, self.length(), mfu, bandwidth);
        let samplings =
            self.passes().iter().filter(|pass| pass.kind == Kind::Generate).count() as f64;
        step * (samplings * self.tokens.0 / batch)
    }

    /// The estimate of the plan.
    pub fn estimate(&self) -> Estimate {
        let work = self.work();
        let mfu = self.utilisation(&work);
        let time = |mfu: Mfu, bandwidth: f64| {
            (work.counted - work.sampling) / (self.gpu.peak * mfu.share())
                + self.sampling_time(mfu, bandwidth)
        };
        let gpu_time = Range {
            low: time(mfu.high, BANDWIDTH_UTILISATION.high),
            typical: time(mfu.typical, BANDWIDTH_UTILISATION.typical),
            high: time(mfu.low, BANDWIDTH_UTILISATION.low),
        };
        let wall_time = gpu_time.map(|time| time / self.memory.gpus as f64);
        let energy = gpu_time.map(|time| self.gpu.power * time * POWER_USAGE_EFFECTIVENESS);
        let kilograms = |energy: Joules, each: f64| energy.kilowatt_hours() * each;
        let memory = self.memory_with(&self.memory);
        let available = self.gpu.memory * USABLE;
        Estimate {
            work,
            gpu_time,
            wall_time,
            rate: wall_time.invert(|time| self.tokens / time),
            mfu,
            money: self.price.map(|price| gpu_time.map(|time| price * time)),
            energy,
            co2: Range {
                low: kilograms(energy.low, CO2_PER_KILOWATT_HOUR.low),
                typical: kilograms(energy.typical, CO2_PER_KILOWATT_HOUR.typical),
                high: kilograms(energy.high, CO2_PER_KILOWATT_HOUR.high),
            },
            memory,
            available,
            max_documents: memory::max_documents(available, |documents| {
                self.memory_with(&MemoryOptions { documents, ..self.memory }).total()
            }),
            remedies: if memory.total() <= available { vec![] } else { self.remedies(available) },
        }
    }

    fn memory_with(&self, options: &MemoryOptions) -> Memory {
        memory::training(&self.shape, self.phase, self.phase_options, options)
    }

    /// Single changes that make the plan fit. If there are none: all of them together, then also
    /// LoRA, then more GPUs.
    fn remedies(&self, available: Bytes) -> Vec<Remedy> {
        let now = self.memory;
        let remedy = |options: &MemoryOptions| {
            let memory = self.memory_with(options).total();
            (memory <= available).then(|| Remedy {
                options: changes(&now, options),
                changed: *options,
                memory,
            })
        };
        let mut single = Vec::new();
        if now.documents > 1 {
            single.push(MemoryOptions { documents: 1, ..now });
        }
        if now.recompute == Recompute::None {
            single.push(MemoryOptions { recompute: Recompute::Selective, ..now });
        }
        if now.recompute != Recompute::Block {
            single.push(MemoryOptions { recompute: Recompute::Block, ..now });
        }
        if now.gpus > 1 {
            let stages = [Zero::Optimizer, Zero::Gradients, Zero::Weights];
            single.extend(
                stages
                    .into_iter()
                    .filter(|&zero| zero > now.zero)
                    .map(|zero| MemoryOptions { zero, ..now }),
            );
        }
        if now.optimizer == Optimizer::AdamW {
            single.push(MemoryOptions { optimizer: Optimizer::Muon, ..now });
        }
        single.extend(self.with_lora(&now));
        let found: Vec<Remedy> = single.iter().filter_map(remedy).collect();
        if !found.is_empty() {
            return found;
        }
        let zero = if now.gpus > 1 { Zero::Weights } else { now.zero };
        let combined = MemoryOptions { documents: 1, recompute: Recompute::Block, zero, ..now };
        let more = (0..MAX_DOUBLINGS).map(|doublings| MemoryOptions {
            gpus: now.gpus.saturating_mul(2 << doublings),
            zero: Zero::Weights,
            ..combined
        });
        let without_more_gpus = std::iter::once(combined).chain(self.with_lora(&combined));
        let found: Vec<Remedy> = without_more_gpus.filter_map(|options| remedy(&options)).collect();
        if !found.is_empty() {
            return found;
        }
        more.into_iter().find_map(|options| remedy(&options)).into_iter().collect()
    }

    /// These options with LoRA, and with LoRA on 4-bit weights, if the phase allows it.
    fn with_lora(&self, options: &MemoryOptions) -> Vec<MemoryOptions> {
        if !self.phase.may_use_adapters() {
            return Vec::new();
        }
        let lora_rank = options.lora_rank.or(Some(REMEDY_LORA_RANK.min(self.shape.hidden)));
        let changed =
            [options.dtype, Dtype::Q4].map(|dtype| MemoryOptions { dtype, lora_rank, ..*options });
        changed.into_iter().filter(|changed| changed != options).collect()
    }
}

/// The proposed LoRA rank.
const REMEDY_LORA_RANK: usize = 16;
/// Maximum number of times that the GPUs are doubled.
const MAX_DOUBLINGS: u32 = 16;

/// The differences between two plans as command-line options.
fn changes(from: &MemoryOptions, to: &MemoryOptions) -> String {
    let mut options = Vec::new();
    if to.gpus != from.gpus {
        options.push(format!("--gpus {}", to.gpus));
    }
    if to.documents != from.documents || (to.gpus != from.gpus && from.documents > 1) {
        options.push(format!("--batch {}", to.documents * to.gpus));
    }
    if to.recompute != from.recompute {
        options.push(format!("--recompute {}", to.recompute.name()));
    }
    if to.zero != from.zero {
        options.push(format!("--zero {}", to.zero as u8));
    }
    if to.optimizer != from.optimizer {
        options.push(format!("--optimizer {}", to.optimizer.name()));
    }
    if let Some(rank) = to.lora_rank.filter(|_| to.lora_rank != from.lora_rank) {
        options.push(format!("--lora-rank {rank}"));
    }
    if to.dtype != from.dtype {
        options.push(format!("--dtype {}", to.dtype.name()));
    }
    options.join(" ")
}

/// Duration of a decoding step of `documents` documents, averaged over their `length` tokens:
/// memory traffic or arithmetic, whichever takes longer.
fn decode_step(
    shape: &ModelShape,
    dtype: Dtype,
    gpu: &Gpu,
    documents: f64,
    length: f64,
    mfu: Mfu,
    bandwidth: f64,
) -> Seconds {
    let weights = Bytes(shape.read_parameters(documents) * dtype.weight_bytes());
    let cache = Bytes(shape.cache_read(length) * dtype.activation_bytes());
    let reading = (weights + cache * documents) / (gpu.bandwidth * bandwidth);
    let flops = FlopsPerToken(shape.generation_flops(length)) * Tokens(documents);
    let computing = flops / (gpu.peak * mfu.share());
    if reading > computing { reading } else { computing }
}

/// Generation on one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// Documents at a time.
    pub documents: usize,
    /// Memory of it.
    pub memory: Memory,
    /// Tokens in a second, of all documents.
    pub rate: Range<TokenRate>,
    /// Dollars for 10⁶ generated tokens, if a price is known.
    pub per_million: Option<Range<Dollars>>,
}

/// Generation of `documents` documents of up to `length` tokens at a time; none if they do not fit.
pub fn serving(
    shape: &ModelShape,
    dtype: Dtype,
    gpu: &Gpu,
    price: Option<Price>,
    documents: usize,
    length: usize,
) -> Option<Serving> {
    let memory = memory::inference(shape, dtype, documents, length);
    if memory.total() > gpu.memory * USABLE {
        return None;
    }
    let class = if shape.is_mixture() { MIXTURE_MFU } else { DENSE_MFU };
    let rate = |mfu: Mfu, bandwidth: f64| {
        let step = decode_step(shape, dtype, gpu, documents as f64, length as f64, mfu, bandwidth);
        Tokens(documents as f64) / step
    };
    let rate = Range {
        low: rate(class.low, BANDWIDTH_UTILISATION.low),
        typical: rate(class.typical, BANDWIDTH_UTILISATION.typical),
        high: rate(class.high, BANDWIDTH_UTILISATION.high),
    };
    let per_million = price.map(|price| rate.invert(|rate| price * (Tokens(1e6) / rate)));
    Some(Serving { documents, memory, rate, per_million })
}

/// Most documents of a length that one GPU can generate at a time.
pub fn max_served_documents(
    shape: &ModelShape,
    dtype: Dtype,
    gpu: &Gpu,
    length: usize,
) -> Option<usize> {
    memory::max_documents(gpu.memory * USABLE, |documents| {
        memory::inference(shape, dtype, documents, length).total()
    })
}
