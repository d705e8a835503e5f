//! Published figures compared with the formulas.

use crisol_cost::hardware::{Gpu, Mfu};
use crisol_cost::memory::{self, Dtype, Memory, MemoryOptions, Optimizer, Recompute, USABLE, Zero};
use crisol_cost::phases::{Phase, PhaseOptions};
use crisol_cost::plan::Plan;
use crisol_cost::runs::PUBLIC_RUNS;
use crisol_cost::units::{Bytes, Tokens};
use crisol_cost::{Attention, Block, FeedForward, Head, ModelShape, known};

/// bf16 training by AdamW on one GPU, with one document of 2,048 tokens.
const PLAIN: MemoryOptions = MemoryOptions {
    dtype: Dtype::Bf16,
    optimizer: Optimizer::AdamW,
    recompute: Recompute::None,
    zero: Zero::None,
    lora_rank: None,
    gpus: 1,
    documents: 1,
    length: 2048,
};

fn shape(name: &str) -> ModelShape {
    known::named(name).expect("a known model").shape
}

/// `LLaMA` 65B (arXiv:2302.13971, table 2).
fn llama_65b() -> ModelShape {
    let block = Block {
        attention: Attention::Grouped { heads: 64, kv_heads: 64, head_dim: 128, span: None },
        feed_forward: FeedForward::Dense { inner: 22_016 },
        vectors: 2 * 8192,
    };
    ModelShape {
        hidden: 8192,
        vocab: 32_000,
        head: Head::Untied,
        blocks: vec![(80, block)],
        positions: 0,
        last_norm: 8192,
        adapter: 0,
    }
}

fn plan(name: &str, phase: Phase, gpu: &str, memory: MemoryOptions) -> Plan {
    Plan {
        shape: shape(name),
        phase,
        phase_options: PhaseOptions::default(),
        tokens: Tokens(1e9),
        gpu: *Gpu::named(gpu).expect("a known GPU"),
        mfu: None,
        price: None,
        memory,
    }
}

fn sft(shape: &ModelShape, options: &MemoryOptions) -> Memory {
    memory::training(shape, Phase::Sft, PhaseOptions::default(), options)
}

/// Weights, gradients and optimizer state.
fn states(memory: &Memory) -> Bytes {
    memory.weights + memory.gradients + memory.optimizer
}

/// Asserts that `actual` deviates from `published` by at most the fraction `tolerance`.
fn assert_near(actual: f64, published: f64, tolerance: f64) {
    let deviation = (actual / published - 1.0).abs();
    assert!(deviation <= tolerance, "{actual}, but {published} was published");
}

/// 16 bytes per parameter, and figure 1 of `ZeRO`: 7.5 G parameters on 64 GPUs (arXiv:1910.02054).
#[test]
fn zero_stages_equal_the_papers_figure() {
    let shape = shape("llama-2-7b");
    let parameters = shape.parameters().total();
    let stages = [Zero::None, Zero::Optimizer, Zero::Gradients, Zero::Weights];
    for (zero, gigabytes) in stages.into_iter().zip([120.0, 31.4, 16.6, 1.9]) {
        let memory = sft(&shape, &MemoryOptions { zero, gpus: 64, ..PLAIN });
        assert_near(states(&memory).0 / parameters * 7.5, gigabytes, 0.015);
    }
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        assert_eq!(states(&sft(&shape, &MemoryOptions { dtype, ..PLAIN })).0, 16.0 * parameters);
    }
}

/// `LLaMA` 65B (`QLoRA`, arXiv:2305.14314): "more than 780 GB" for 16-bit fine-tuning without f32
/// master weights (12 bytes per parameter), and one 48 GB GPU in 4 bits. Section 2 gives 5,048 MB
/// for the weights of the 7B model, slightly more than here.
#[test]
fn qloras_memory() {
    let large = llama_65b();
    assert_eq!(large.parameters().total(), 65_285_660_672.0);
    assert_near(states(&sft(&large, &PLAIN)).0 * 12.0 / 16.0, 780e9, 0.01);

    let options = MemoryOptions {
        dtype: Dtype::Q4,
        lora_rank: Some(16),
        recompute: Recompute::Block,
        length: 512,
        ..PLAIN
    };
    let limit = Bytes(48e9) * USABLE;
    assert!(sft(&large, &options).total() < limit);
    for dtype in [Dtype::Bf16, Dtype::Q8] {
        assert!(sft(&large, &MemoryOptions { dtype, ..options }).total() > limit);
    }

    let small = sft(&shape("llama-2-7b"), &options).weights;
    assert!((0.8 * 5.048e9..5.048e9).contains(&small.0), "{small:?}");
}

/// Trainable parameters that `peft` prints for LoRA on all matrices.
#[test]
fn lora_parameters_equal_peft() {
    for (name, rank, parameters) in [
        ("llama-2-7b", 16, 39_976_960.0),
        ("llama-2-7b", 64, 159_907_840.0),
        ("llama-3-8b", 16, 41_943_040.0),
    ] {
        let memory = sft(&shape(name), &MemoryOptions { lora_rank: Some(rank), ..PLAIN });
        assert_eq!(memory.gradients.0 / 2.0, parameters, "{name}");
        assert_eq!(memory.optimizer.0 / 12.0, parameters, "{name}");
    }
}

/// Trainable parameters with latent attention and mixtures, matrix by matrix.
#[test]
fn lora_parameters_of_deepseek_v3() {
    let (hidden, rank) = (7168, 2);
    let attention: [[usize; 2]; 5] = [
        [hidden, 1536],
        [1536, 128 * 192],
        [hidden, 512 + 64],
        [512, 128 * 256],
        [128 * 128, hidden],
    ];
    let gated = |inner: usize| [[hidden, inner], [hidden, inner], [inner, hidden]];
    let of = |matrices: &[[usize; 2]]| {
        matrices.iter().map(|[rows, columns]| rank * (rows + columns)).sum()
    };
    let (attention, dense, expert): (usize, usize, usize) =
        (of(&attention), of(&gated(18_432)), of(&gated(2048)));
    let all = 61 * attention + 3 * dense + 58 * 257 * expert;
    let memory = sft(&shape("deepseek-v3"), &MemoryOptions { lora_rank: Some(rank), ..PLAIN });
    assert_eq!(memory.gradients.0 / 2.0, all as f64);
}

/// Muon keeps one moment of hidden matrices: 12 bytes per parameter instead of 16.
#[test]
fn muon_keeps_one_moment() {
    let shape = shape("llama-2-7b");
    let parts = shape.parameters();
    let memory = sft(&shape, &MemoryOptions { optimizer: Optimizer::Muon, ..PLAIN });
    let between = parts.projections + parts.feed_forward;
    assert_eq!(states(&memory).0, 12.0 * between + 16.0 * (parts.total() - between));
}

/// 34·h bytes per token and layer (Korthikanti et al., arXiv:2205.05198, equation 1 without scores,
/// which fused attention does not save), for an MLP of four times the width. A gated MLP of 8/3 has
/// as many parameters. Full recomputation: the input, 2·h.
#[test]
fn activations_of_a_layer() {
    let layers = |count, recompute| {
        let mut shape = shape("llama-2-7b");
        shape.blocks[0].0 = count;
        sft(&shape, &MemoryOptions { recompute, ..PLAIN }).activations.0 / PLAIN.length as f64
    };
    let of_one = |recompute| layers(9, recompute) - layers(8, recompute);
    assert_near(of_one(Recompute::None), 34.0 * 4096.0, 0.1);
    assert_eq!(of_one(Recompute::Block), 2.0 * 4096.0);
    let block = of_one(Recompute::Selective);
    assert!(of_one(Recompute::Block) < block && block < 0.8 * of_one(Recompute::None), "{block}");
}

/// The low-rank vectors of latent attention have norms, whose outputs are saved unless recomputed.
#[test]
fn activations_of_latent_attention() {
    let shape = shape("deepseek-v3");
    let (hidden, experts, chosen) = (7168, 256, 8);
    let attention = 2 * 128 * 192 + 2 * 128 * 128;
    let short = 1536 + 512;
    let whole = |stream: usize, short: usize, gated: usize| {
        let dense = stream * hidden + short + attention + gated * 18_432;
        let mixture = stream * hidden
            + short
            + attention
            + experts
            + chosen * (gated * 2048 + 2 * hidden)
            + gated * 2048;
        (3 * dense + 58 * mixture + 2 * hidden) as f64
    };
    for (recompute, numbers) in
        [(Recompute::None, whole(4, 2 * short, 3)), (Recompute::Selective, whole(2, short, 2))]
    {
        let memory = sft(&shape, &MemoryOptions { recompute, ..PLAIN });
        assert_eq!(memory.activations.0, 2.0 * numbers * PLAIN.length as f64);
    }
}

/// Bytes of KV cache per token in bf16, and training FLOPs per token at 4,096 tokens with causal
/// attention (arXiv:2505.09343, tables 1 and 2).
#[test]
fn deepseeks_tables() {
    for (name, cached, giga_flops) in
        [("deepseek-v3", 70_272.0, 250.0), ("llama-3.1-405b", 516_096.0, 2448.0)]
    {
        let shape = shape(name);
        assert_eq!(2.0 * shape.cached_per_token(), cached);
        let forward = shape.forward_flops(4096.0);
        assert_near(3.0 * (forward.total() - forward.attention / 2.0) / 1e9, giga_flops, 0.03);
    }
}

/// DeepSeek-V3's MFU at 4,096 tokens with full and causal attention (arXiv:2505.09343, table 4),
/// against the MFU that the hours of the whole run imply.
#[test]
fn deepseeks_utilisation() {
    let run = PUBLIC_RUNS.iter().find(|run| run.model == "deepseek-v3").expect("a public run");
    let mfu = run.implied_mfu().expect("a possible run").share();
    let (shape, forward) = (run.shape(), run.shape().forward_flops(4096.0));
    let matrices = 2.0 * shape.matmul_parameters();
    assert_near(mfu * forward.total() / matrices, 0.4373, 0.01);
    assert_near(mfu * (forward.total() - forward.attention / 2.0) / matrices, 0.3894, 0.01);
}

/// Hours and CO₂ of Llama 2's model card.
#[test]
fn llama_2s_model_card() {
    for (run, tonnes) in PUBLIC_RUNS.iter().zip([31.22, 62.44, 291.42]) {
        let memory = MemoryOptions { length: 4096, ..PLAIN };
        let mfu = run.implied_mfu();
        let plan =
            Plan { mfu, tokens: run.tokens, ..plan(run.model, Phase::Pretrain, run.gpu, memory) };
        let estimate = plan.estimate();
        assert_near(estimate.gpu_time.typical.hours(), run.gpu_hours, 1e-9);
        assert_near(estimate.co2.typical / 1e3, tonnes, 0.01);
    }
}

/// Hours of a model card that is not used for calibration (Llama 3.1, 15 T tokens). The smallest
/// model took more than twice the upper estimate.
#[test]
fn llama_3_1s_model_card() {
    for (name, hours, low, high) in [
        ("llama-3-8b", 1.46e6, 2.0, 3.0),
        ("llama-3-70b", 7.0e6, 1.0, 2.0),
        ("llama-3.1-405b", 30.84e6, 1.0, 1.2),
    ] {
        let memory = MemoryOptions { length: 4096, ..PLAIN };
        let estimate =
            Plan { tokens: Tokens(15e12), ..plan(name, Phase::Pretrain, "h100", memory) }
                .estimate();
        let ratio = hours / estimate.gpu_time.typical.hours();
        assert!((low..high).contains(&ratio), "{name}: {ratio} of what is expected");
        assert!(Mfu::new(estimate.mfu.typical.share() / ratio).is_some());
    }
}

/// With LoRA, all networks of PPO share the base model. Reward and value model are two more
/// adapters, one of them trained.
#[test]
fn ppo_with_lora_keeps_one_base_model() {
    let shape = shape("llama-2-7b");
    let options = MemoryOptions { lora_rank: Some(16), ..PLAIN };
    let of = |phase| memory::training(&shape, phase, PhaseOptions::default(), &options);
    let (sft, dpo, ppo) = (of(Phase::Sft), of(Phase::Dpo), of(Phase::Ppo));
    assert_eq!(dpo, sft);
    assert_eq!(ppo.weights.0 - sft.weights.0, 2.0 * 2.0 * 39_976_960.0);
    assert_eq!(ppo.gradients.0, 2.0 * sft.gradients.0);
    assert_eq!(ppo.optimizer.0, 2.0 * sft.optimizer.0);

    // Without LoRA: two trained networks at 16 bytes per parameter, and two frozen ones at 2.
    let of = |phase| memory::training(&shape, phase, PhaseOptions::default(), &PLAIN);
    let (all, scalar) = (shape.parameters().total(), shape.scalar().parameters().total());
    assert_eq!(states(&of(Phase::Ppo)).0, 18.0 * all + 18.0 * scalar);
    assert_eq!(states(&of(Phase::Dpo)).0, 18.0 * all);
    assert_eq!(states(&of(Phase::Grpo)).0, 16.0 * all);
    let reward = of(Phase::Reward);
    assert_eq!(states(&reward).0, 16.0 * scalar);
    assert_eq!(reward.logits.0, 8.0 * PLAIN.length as f64);
}

/// Several GPUs together sample from a model that is too large for one, with the usual batch.
#[test]
fn several_gpus_sample_together() {
    let hours = |gpus| {
        let memory = MemoryOptions { gpus, length: 4096, ..PLAIN };
        plan("llama-2-70b", Phase::Grpo, "a100", memory).estimate().gpu_time.typical.hours()
    };
    assert!(hours(1) > 5.0 * hours(8), "{} {}", hours(1), hours(8));
    assert_eq!(hours(8), hours(16));
}

/// Layers with chunked attention cache one chunk.
#[test]
fn chunked_attention_caches_one_chunk() {
    let scout = shape("llama-4-scout");
    let cache = |length| memory::inference(&scout, Dtype::Bf16, 1, length).kv_cache.0;
    let a_token_and_layer = 2.0 * 2.0 * 8.0 * 128.0;
    assert_eq!(cache(8192), 48.0 * 8192.0 * a_token_and_layer);
    assert_eq!(cache(262_144), (12.0 * 262_144.0 + 36.0 * 8192.0) * a_token_and_layer);
}

/// Decoding with latent attention multiplies in the latent space.
#[test]
fn latent_vectors_are_not_expanded() {
    let shape = shape("deepseek-v3");
    let length = 4096.0;
    let attention = 61.0 * 128.0 * (2.0 * 512.0 + 64.0) * length / 2.0;
    assert_eq!(shape.generation_flops(length), 2.0 * (shape.matmul_parameters() + attention));
}

#[test]
fn lora_that_does_not_fit_is_quantised() {
    let memory = MemoryOptions { lora_rank: Some(16), recompute: Recompute::Block, ..PLAIN };
    let estimate = plan("llama-2-13b", Phase::Sft, "rtx4090", memory).estimate();
    let options: Vec<&str> =
        estimate.remedies.iter().map(|remedy| remedy.options.as_str()).collect();
    assert_eq!(options, ["--dtype q4_0"]);
}

/// Full fine-tuning of Llama 2 7B: 108 GB of states exceed one 80 GB GPU; they fit on eight with
/// `ZeRO` stage 1.
#[test]
fn llama_2_7b_fits_on_eight_gpus() {
    let one = plan("llama-2-7b", Phase::Sft, "a100", PLAIN).estimate();
    assert_near(states(&one.memory).0, 108e9, 0.01);
    assert!(
        one.memory.total() > one.available
            && !one.remedies.is_empty()
            && one.remedies.iter().all(|remedy| remedy.changed != PLAIN)
    );
    let eight = MemoryOptions { zero: Zero::Optimizer, gpus: 8, ..PLAIN };
    let eight = plan("llama-2-7b", Phase::Sft, "a100", eight).estimate();
    assert!(eight.memory.total() <= eight.available);
}
