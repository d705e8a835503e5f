//! A plan of training on GPUs, and what it will take: compute, time, money, energy, memory.

use crate::hardware::{
    BANDWIDTH_SHARE, CO2_PER_KILOWATT_HOUR, DENSE_MFU, Gpu, MIXTURE_MFU, Mfu, OVERHEAD_OF_POWER,
    Range,
};
use crate::memory::{self, Dtype, Memory, MemoryOptions, Optimizer, Recompute, USABLE, Zero};
use crate::phases::{Kind, Pass, Phase, PhaseOptions};
use crate::units::{
    Bytes, Dollars, Flops, FlopsPerToken, Joules, Price, Seconds, TokenRate, Tokens,
};
use crate::{ModelShape, Parts};

/// What is to be trained, how, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The model.
    pub shape: ModelShape,
    /// What it goes through.
    pub phase: Phase,
    /// What is up to the recipe.
    pub phase_options: PhaseOptions,
    /// Tokens of the phase (see [`Phase`] for what they are).
    pub tokens: Tokens,
    /// The GPUs' kind.
    pub gpu: Gpu,
    /// Utilisation, if it is known.
    pub mfu: Option<Mfu>,
    /// What a second of a GPU costs, if it is known.
    pub price: Option<Price>,
    /// How memory is used; also how many GPUs there are, and how long documents are.
    pub memory: MemoryOptions,
}

/// A plan that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Adapters learn little of the world.
    #[error("pre-training needs all weights; adapters (--lora-rank) are for the phases after it")]
    AdaptersFromNothing,
    /// A rank of adapters above the width.
    #[error("a rank of {rank} is no low one: the model's width is {hidden}")]
    Rank {
        /// The rank.
        rank: usize,
        /// The width.
        hidden: usize,
    },
    /// Weights of few bits take no gradients.
    #[error(
        "weights in {dtype} cannot be trained themselves; give --lora-rank, or --dtype bf16, f16 or f32"
    )]
    Untrainable {
        /// Their type.
        dtype: &'static str,
    },
    /// There is nothing to cut states among.
    #[error("--zero {stage} cuts states among GPUs, but there is one only")]
    ZeroAlone {
        /// `ZeRO`'s number.
        stage: u8,
    },
}

/// Work of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// All operations, attention over the whole context included.
    pub flops: Flops,
    /// Those that utilisations count: 2N or 6N a token and pass, and attention beyond [`ORDINARY_CONTEXT`].
    pub counted: Flops,
    /// Of `counted`, those of sampling, whose time is bound by bandwidth.
    pub sampling: Flops,
    /// Forward passes that are computed again for the backward pass, which utilisations do not count.
    pub recomputed: Flops,
}

/// What a plan will take.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Operations.
    pub work: Work,
    /// Time of one GPU.
    pub gpu_time: Range<Seconds>,
    /// Time on the wall.
    pub wall_time: Range<Seconds>,
    /// The phase's tokens in a second.
    pub rate: Range<TokenRate>,
    /// Utilisation that this supposes.
    pub mfu: Range<Mfu>,
    /// Money, if a price is known.
    pub money: Option<Range<Dollars>>,
    /// Electricity, of the data centre as a whole.
    pub energy: Range<Joules>,
    /// Kilograms of CO₂ for it.
    pub co2: Range<f64>,
    /// Memory of each GPU.
    pub memory: Memory,
    /// Memory that a GPU has for it.
    pub available: Bytes,
    /// Most documents at a time with which a GPU can work.
    pub most_documents: Option<usize>,
    /// If it does not fit: what makes it fit.
    pub remedies: Vec<Remedy>,
}

/// A change of a plan after which it fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// The changes, as options on the command line.
    pub options: String,
    /// And what memory is used for then.
    pub changed: MemoryOptions,
    /// Memory of each GPU then.
    pub memory: Bytes,
}

/// Published utilisations leave attention over the context out (6·N·D), and belong to contexts of about this length: up to it, its
/// work is within the utilisation. Beyond, it is added.
pub const ORDINARY_CONTEXT: f64 = 4096.0;

/// A utilisation that is given holds for a good hour; over a whole run a tenth more or less is usual.
const GIVEN: f64 = 0.1;

/// Documents that are sampled at a time by each copy of the model, if memory allows it.
const SAMPLED_AT_ONCE: usize = 64;

impl Plan {
    /// Refuses contradictions.
    pub fn check(&self) -> Result<(), PlanError> {
        let MemoryOptions { lora_rank, dtype, zero, gpus, .. } = self.memory;
        match lora_rank {
            Some(_) if !self.phase.may_use_adapters() => Err(PlanError::AdaptersFromNothing),
            Some(rank) if rank > self.shape.hidden => {
                Err(PlanError::Rank { rank, hidden: self.shape.hidden })
            }
            None if !dtype.is_trained() => Err(PlanError::Untrainable { dtype: dtype.name() }),
            _ if zero != Zero::None && gpus == 1 => Err(PlanError::ZeroAlone { stage: zero as u8 }),
            _ => Ok(()),
        }
    }

    fn passes(&self) -> Vec<Pass> {
        self.phase.passes(self.phase_options)
    }

    fn length(&self) -> f64 {
        self.memory.length as f64
    }

    /// Operations of a token in a pass over documents of a length, forward and backward, by part.
    fn flops(&self, pass: &Pass, length: f64) -> (Parts, Parts) {
        pass.flops(&self.shape, length, self.memory.lora_rank.is_some())
    }

    /// Operations of a token by part, over all passes: forward and backward.
    pub fn flops_by_part(&self) -> [(&'static str, FlopsPerToken, FlopsPerToken); 8] {
        let (mut forward, mut backward) = (Parts::default(), Parts::default());
        for pass in self.passes() {
            let parts = self.flops(&pass, self.length());
            forward = forward.with(parts.0, |sum, part| sum + part);
            backward = backward.with(parts.1, |sum, part| sum + part);
        }
        let (forward, backward) = (forward.named(), backward.named());
        std::array::from_fn(|i| {
            (forward[i].0, FlopsPerToken(forward[i].1), FlopsPerToken(backward[i].1))
        })
    }

    /// Operations of all tokens.
    pub fn work(&self) -> Work {
        let mut work = Work {
            flops: Flops(0.0),
            counted: Flops(0.0),
            sampling: Flops(0.0),
            recomputed: Flops(0.0),
        };
        for pass in self.passes() {
            let (forward, backward) = self.flops(&pass, self.length());
            let ordinary = self.flops(&pass, self.length().min(ORDINARY_CONTEXT));
            // Shorter chunks at a document's end can make attention cheaper than in an ordinary context.
            let counted = |all: Parts, ordinary: Parts| {
                let beyond = (all.attention - ordinary.attention).max(0.0);
                FlopsPerToken(all.total() - all.attention + beyond) * self.tokens
            };
            let ahead = counted(forward, ordinary.0);
            work.flops += FlopsPerToken(forward.total() + backward.total()) * self.tokens;
            work.counted += ahead + counted(backward, ordinary.1);
            match pass.kind {
                Kind::Generate => work.sampling += ahead,
                Kind::Train if self.memory.recompute == Recompute::Full => work.recomputed += ahead,
                Kind::Forward | Kind::Train => {}
            }
        }
        work
    }

    /// Utilisation to expect of such work.
    fn utilisation(&self, work: &Work) -> Range<Mfu> {
        let share = |share: f64| Mfu::new(share.min(1.0)).expect("a positive share of at most one");
        if let Some(mfu) = self.mfu {
            let (low, high) =
                (share(mfu.share() * (1.0 - GIVEN)), share(mfu.share() * (1.0 + GIVEN)));
            return Range { low, typical: mfu, high };
        }
        let class = if self.shape.is_mixture() { MIXTURE_MFU } else { DENSE_MFU };
        // What is computed again takes time, but is not counted.
        let counted = work.counted - work.sampling;
        class.map(|mfu| share(mfu.share() * (counted / (counted + work.recomputed))))
    }

    /// Time of one GPU for all sampling, at a utilisation and a share of the bandwidth: weights and caches are read for every token of
    /// as many documents as are sampled at once. A model that leaves no room for them on one GPU is cut among all.
    fn sampling_time(&self, mfu: Mfu, bandwidth: f64) -> Seconds {
        let dtype = self.memory.dtype;
        let limit = self.gpu.memory * USABLE * self.memory.gpus as f64;
        let fits = memory::most_documents(limit, |documents| {
            memory::inference(&self.shape, dtype, documents, self.memory.length).total()
        });
        let at_once = fits.unwrap_or(1).min(SAMPLED_AT_ONCE) as f64;
        let step =
            decode_step(&self.shape, dtype, &self.gpu, at_once, self.length(), mfu, bandwidth);
        let samplings =
            self.passes().iter().filter(|pass| pass.kind == Kind::Generate).count() as f64;
        step * (samplings * self.tokens.0 / at_once)
    }

    /// What the plan will take.
    pub fn estimate(&self) -> Estimate {
        let work = self.work();
        let mfu = self.utilisation(&work);
        let time = |mfu: Mfu, bandwidth: f64| {
            (work.counted - work.sampling) / (self.gpu.peak * mfu.share())
                + self.sampling_time(mfu, bandwidth)
        };
        let gpu_time = Range {
            low: time(mfu.high, BANDWIDTH_SHARE.high),
            typical: time(mfu.typical, BANDWIDTH_SHARE.typical),
            high: time(mfu.low, BANDWIDTH_SHARE.low),
        };
        let wall_time = gpu_time.map(|time| time / self.memory.gpus as f64);
        let energy = gpu_time.map(|time| self.gpu.power * time * OVERHEAD_OF_POWER);
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
            most_documents: memory::most_documents(available, |documents| {
                self.memory_with(&MemoryOptions { documents, ..self.memory }).total()
            }),
            remedies: if memory.total() <= available { vec![] } else { self.remedies(available) },
        }
    }

    fn memory_with(&self, options: &MemoryOptions) -> Memory {
        memory::training(&self.shape, self.phase, self.phase_options, options)
    }

    /// Single changes after which the plan fits; if there is none, all that save memory together, also with adapters, and if that is not
    /// enough, with as many more GPUs as it takes.
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
            single.push(MemoryOptions { recompute: Recompute::Block, ..now });
        }
        if now.recompute != Recompute::Full {
            single.push(MemoryOptions { recompute: Recompute::Full, ..now });
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
        single.extend(self.adapted(&now));
        let found: Vec<Remedy> = single.iter().filter_map(remedy).collect();
        if !found.is_empty() {
            return found;
        }
        let zero = if now.gpus > 1 { Zero::Weights } else { now.zero };
        let together = MemoryOptions { documents: 1, recompute: Recompute::Full, zero, ..now };
        let more = (0..MAX_DOUBLINGS).map(|doublings| MemoryOptions {
            gpus: now.gpus.saturating_mul(2 << doublings),
            zero: Zero::Weights,
            ..together
        });
        let with_these = std::iter::once(together).chain(self.adapted(&together));
        let found: Vec<Remedy> = with_these.filter_map(|options| remedy(&options)).collect();
        if !found.is_empty() {
            return found;
        }
        more.into_iter().find_map(|options| remedy(&options)).into_iter().collect()
    }

    /// The same with adapters, and with frozen weights of 4 bits, where the phase allows it.
    fn adapted(&self, options: &MemoryOptions) -> Vec<MemoryOptions> {
        if !self.phase.may_use_adapters() {
            return Vec::new();
        }
        let lora_rank = options.lora_rank.or(Some(LORA_RANK.min(self.shape.hidden)));
        let adapted =
            [options.dtype, Dtype::Q4].map(|dtype| MemoryOptions { dtype, lora_rank, ..*options });
        adapted.into_iter().filter(|changed| changed != options).collect()
    }
}

/// Rank of adapters that is proposed.
const LORA_RANK: usize = 16;
/// GPUs are doubled this often before a plan is given up.
const MAX_DOUBLINGS: u32 = 16;

/// What differs between two plans, as options.
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

/// Time of one more token of each of `documents` documents, on average over their `length` tokens: what must be read, or what must be
/// computed, whichever takes longer.
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
        low: rate(class.low, BANDWIDTH_SHARE.low),
        typical: rate(class.typical, BANDWIDTH_SHARE.typical),
        high: rate(class.high, BANDWIDTH_SHARE.high),
    };
    let per_million = price.map(|price| rate.invert(|rate| price * (Tokens(1e6) / rate)));
    Some(Serving { documents, memory, rate, per_million })
}

/// Most documents of a length that one GPU can generate at a time.
pub fn most_served(shape: &ModelShape, dtype: Dtype, gpu: &Gpu, length: usize) -> Option<usize> {
    memory::most_documents(gpu.memory * USABLE, |documents| {
        memory::inference(shape, dtype, documents, length).total()
    })
}
