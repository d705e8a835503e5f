//! Invariants of the cost model on random models and plans.

use crisol_cost::hardware::{GPUS, Gpu, Mfu, Range};
use crisol_cost::memory::{self, Dtype, MemoryOptions, Optimizer, Recompute, USABLE, Zero};
use crisol_cost::phases::{Kind, Phase, PhaseOptions};
use crisol_cost::plan::{Plan, max_served_documents, serving};
use crisol_cost::units::{Dollars, Price, Tokens};
use crisol_cost::{Attention, Block, FeedForward, Head, ModelShape, Span};
use proptest::prelude::*;
use proptest::sample::select;

fn attention(chunks: bool) -> impl Strategy<Value = Attention> {
    let chunk =
        if chunks { proptest::option::of(64..4096_usize).boxed() } else { Just(None).boxed() };
    let grouped = (0..6_u32, 0..4_u32, 32..129_usize, chunk).prop_map(
        |(kv_heads, groups, head_dim, chunk)| {
            let kv_heads = 1 << kv_heads;
            let span = chunk.map(Span::Chunk);
            Attention::Grouped { heads: kv_heads << groups, kv_heads, head_dim, span }
        },
    );
    let latent = (
        (1..65_usize, proptest::option::of(32..1537_usize), 32..513_usize),
        (32..129_usize, 8..65_usize, 32..129_usize),
    )
        .prop_map(|((heads, query_rank, kv_rank), (unrotated, rotated, value_dim))| {
            Attention::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim }
        });
    prop_oneof![grouped, latent]
}

fn feed_forward() -> impl Strategy<Value = FeedForward> {
    prop_oneof![
        (64..20_000_usize).prop_map(|inner| FeedForward::Dense { inner }),
        (64..20_000_usize).prop_map(|inner| FeedForward::Ungated { inner }),
        (2..65_usize, 1..9_usize, 64..4096_usize, 0..4096_usize).prop_map(
            |(experts, per_token, inner, shared)| FeedForward::Mixture {
                experts,
                per_token: per_token.min(experts),
                inner,
                shared,
            }
        ),
    ]
}

fn shapes(chunks: bool) -> impl Strategy<Value = ModelShape> {
    let block = (attention(chunks), feed_forward(), 0..20_000_usize)
        .prop_map(|(attention, feed_forward, vectors)| Block { attention, feed_forward, vectors });
    let blocks = proptest::collection::vec((4..40_usize, block), 1..3);
    let head = select(vec![Head::Tied, Head::Untied]);
    (64..8193_usize, 256..200_000_usize, head, blocks).prop_map(|(hidden, vocab, head, blocks)| {
        ModelShape { hidden, vocab, head, blocks, positions: 0, last_norm: hidden, adapter: 0 }
    })
}

fn memory_options() -> impl Strategy<Value = MemoryOptions> {
    (
        select(Dtype::ALL.to_vec()),
        select(vec![Optimizer::AdamW, Optimizer::Muon]),
        select(vec![Recompute::None, Recompute::Selective, Recompute::Block]),
        select(vec![Zero::None, Zero::Optimizer, Zero::Gradients, Zero::Weights]),
        proptest::option::of(1..9_usize),
        (select(vec![1, 2, 3, 8, 64]), 1..9_usize, 16..20_000_usize),
    )
        .prop_map(
            |(dtype, optimizer, recompute, zero, lora_rank, (gpus, documents, length))| {
                MemoryOptions {
                    dtype,
                    optimizer,
                    recompute,
                    zero,
                    lora_rank,
                    gpus,
                    documents,
                    length,
                }
            },
        )
}

/// Plans that pass [`Plan::check`].
fn plans(chunks: bool) -> impl Strategy<Value = Plan> {
    let phase_options =
        (1..5_u32, 0..2_u8, any::<bool>()).prop_map(|(updates, reference, old_logprobs)| {
            PhaseOptions { updates, reference: f64::from(reference), old_logprobs }
        });
    (
        (shapes(chunks), select(Phase::ALL.to_vec()), phase_options),
        (1e6..1e13_f64, select(GPUS.to_vec()), proptest::option::of(0.01..0.9_f64)),
        memory_options(),
    )
        .prop_map(|((shape, phase, phase_options), (tokens, gpu, mfu), memory)| Plan {
            shape,
            phase,
            phase_options,
            tokens: Tokens(tokens),
            gpu,
            mfu: mfu.and_then(Mfu::new),
            price: Some(Price::per_hour(2.0)),
            memory,
        })
        .prop_filter("plans that contradict themselves", |plan| plan.check().is_ok())
}

/// The model with one of its sizes enlarged.
fn larger(shape: &ModelShape, what: usize, by: usize) -> ModelShape {
    let mut shape = shape.clone();
    match what {
        0 => shape.hidden += by,
        1 => shape.blocks[0].0 += by,
        2 => shape.vocab += by,
        _ => match &mut shape.blocks[0].1.feed_forward {
            FeedForward::Dense { inner }
            | FeedForward::Ungated { inner }
            | FeedForward::Mixture { inner, .. } => *inner += by,
        },
    }
    shape
}

/// Time, money, energy and memory, at both ends and the middle of their ranges.
fn costs(plan: &Plan) -> Vec<f64> {
    let estimate = plan.estimate();
    let money = estimate.money.expect("the plan has a price");
    let ends = |low: f64, typical: f64, high: f64| [low, typical, high];
    let (time, energy) = (estimate.gpu_time, estimate.energy);
    [
        ends(time.low.0, time.typical.0, time.high.0),
        ends(money.low.0, money.typical.0, money.high.0),
        ends(energy.low.0, energy.typical.0, energy.high.0),
        ends(estimate.work.flops.0, estimate.work.counted.0, estimate.memory.total().0),
    ]
    .concat()
}

/// `b >= a` up to rounding.
fn no_less(b: f64, a: f64) -> bool {
    b >= a * (1.0 - 1e-9)
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

proptest! {
    #[test]
    fn a_larger_model_never_costs_less(
        plan in plans(true),
        what in 0..4_usize,
        by in 1..5000_usize,
    ) {
        let more = Plan { shape: larger(&plan.shape, what, by), ..plan.clone() };
        for (more, less) in costs(&more).into_iter().zip(costs(&plan)) {
            prop_assert!(no_less(more, less), "{} after {}", more, less);
        }
        prop_assert!(more.estimate().max_documents <= plan.estimate().max_documents);
    }

    #[test]
    fn twice_the_tokens_are_twice_the_work(plan in plans(true)) {
        let more = Plan { tokens: plan.tokens * 2.0, ..plan.clone() };
        let (more, less) = (more.estimate(), plan.estimate());
        prop_assert!(near(more.work.flops / less.work.flops, 2.0));
        prop_assert!(near(more.gpu_time.typical / less.gpu_time.typical, 2.0));
        prop_assert_eq!(more.memory, less.memory);
    }

    // Without chunked attention: a short chunk at a document's end is cheaper than a full one.
    #[test]
    fn longer_documents_never_cost_less(plan in plans(false), by in 1..5000_usize) {
        let mut more = plan.clone();
        more.memory.length += by;
        for (more, less) in costs(&more).into_iter().zip(costs(&plan)) {
            prop_assert!(no_less(more, less), "{} after {}", more, less);
        }
    }

    #[test]
    fn more_documents_take_memory_and_no_time(plan in plans(true), by in 1..50_usize) {
        let mut more = plan.clone();
        more.memory.documents += by;
        let (more, less) = (more.estimate(), plan.estimate());
        prop_assert!(more.memory.total() > less.memory.total());
        prop_assert_eq!((more.gpu_time, more.memory.weights), (less.gpu_time, less.memory.weights));
        let states = |memory: &memory::Memory| (memory.gradients, memory.optimizer);
        prop_assert_eq!(states(&more.memory), states(&less.memory));
    }

    #[test]
    fn more_gpus_take_less_time_and_no_more_memory(plan in plans(true), by in 1..50_usize) {
        let mut more = plan.clone();
        more.memory.gpus += by;
        let passes = plan.phase.passes(plan.phase_options);
        let samples = passes.iter().any(|pass| pass.kind == Kind::Generate);
        let (before, after) = (plan.estimate(), more.estimate());
        prop_assert!(after.wall_time.typical < before.wall_time.typical);
        prop_assert!(no_less(before.memory.total().0, after.memory.total().0));
        prop_assert!(no_less(before.gpu_time.typical.0, after.gpu_time.typical.0));
        prop_assert!(samples || near(before.gpu_time.typical.0, after.gpu_time.typical.0));
        for estimate in [before, after] {
            let tokens = estimate.rate.typical * estimate.wall_time.typical;
            prop_assert!(near(tokens.0, plan.tokens.0));
        }
    }

    #[test]
    fn parts_add_up(plan in plans(true)) {
        let shape = &plan.shape;
        for parts in
            [shape.parameters(), shape.active_parameters(), shape.forward_flops(100.0)]
        {
            prop_assert!(near(parts.named().iter().map(|(_, part)| part).sum(), parts.total()));
        }
        let parts = plan.flops_by_part();
        let by_part: f64 = parts.iter().map(|(_, forward, backward)| forward.0 + backward.0).sum();
        let work = plan.work();
        prop_assert!(near(by_part * plan.tokens.0, work.flops.0));
        prop_assert!(work.sampling <= work.counted && no_less(work.flops.0, work.counted.0));
        let memory = plan.estimate().memory;
        prop_assert!(near(memory.named().iter().map(|(_, bytes)| bytes.0).sum(), memory.total().0));
    }

    /// The convention of MFU: attention is free up to a context of 4,096 tokens, and counted
    /// beyond.
    #[test]
    fn utilisation_counts_six_times_the_parameters(
        shape in shapes(false),
        length in 16..20_000_usize,
    ) {
        let plan = pretraining(shape, length);
        let six_n = 6.0 * plan.shape.matmul_parameters() * plan.tokens.0;
        let attention =
            |length: f64| 3.0 * plan.shape.forward_flops(length).attention * plan.tokens.0;
        let beyond = attention(length as f64) - attention((length as f64).min(4096.0));
        prop_assert!(near(plan.work().counted.0, six_n + beyond));
        prop_assert!(near(plan.work().flops.0, six_n + attention(length as f64)));
    }

    #[test]
    fn active_parameters_are_part_of_all(shape in shapes(true), batch in 1..500_usize) {
        let (all, active) = (shape.parameters(), shape.active_parameters());
        prop_assert!(active.total() <= all.total());
        prop_assert_eq!(active.total() < all.total(), active.experts < all.experts);
        // A batch of one reads its own experts, a large batch nearly all.
        let tied = if shape.head == Head::Tied { 0.0 } else { all.embedding };
        prop_assert!(near(shape.read_parameters(1.0), active.total() - tied));
        let read = shape.read_parameters(batch as f64);
        prop_assert!(no_less(read, active.total() - tied) && no_less(all.total() - tied, read));
    }

    /// Chunked attention, computed token by token.
    #[test]
    fn chunked_attention_is_counted_token_by_token(
        chunk in 1..300_usize,
        length in 1..1000_usize,
        hidden in 64..512_usize,
    ) {
        let (heads, kv_heads, head_dim) = (4, 2, 32);
        let shape = |span| ModelShape {
            hidden,
            vocab: 1000,
            head: Head::Tied,
            blocks: vec![(3, Block {
                attention: Attention::Grouped { heads, kv_heads, head_dim, span },
                feed_forward: FeedForward::Dense { inner: 128 },
                vectors: 0,
            })],
            positions: 0,
            last_norm: hidden,
            adapter: 0,
        };
        let (whole, chunked) = (shape(None), shape(Some(Span::Chunk(chunk))));
        let of_chunk = |at: usize| chunk.min(length - at / chunk * chunk);
        let pairs: usize = (0..length).map(of_chunk).sum();
        let one = chunked.document_flops(1, 0).0;
        let flops = chunked.document_flops(length, 0).0 - one * length as f64;
        let a_pair = (3 * 4 * heads * head_dim) as f64;
        prop_assert!((flops - a_pair * (pairs - length) as f64).abs() < 1e-6 * flops.max(1.0));
        let forward = |shape: &ModelShape| shape.forward_flops(length as f64).total();
        prop_assert!(forward(&chunked) <= forward(&whole));
        // A generated token attends to its chunk up to itself.
        let looked_at: f64 = (0..length).map(|at| (at % chunk) as f64 + 0.5).sum();
        let numbers = (3 * 2 * kv_heads * head_dim) as f64;
        prop_assert!(near(chunked.cache_read(length as f64) * length as f64, numbers * looked_at));
        prop_assert!(near(chunked.cached(length as f64), numbers * length.min(chunk) as f64));
        prop_assert!(near(whole.cached(length as f64), whole.cached_per_token() * length as f64));
        let generated = chunked.generation_flops(length as f64) * length as f64;
        let forward = chunked.document_flops(length, length).0;
        prop_assert!(near(generated, forward - a_pair * pairs as f64 / 2.0));
    }

    #[test]
    fn higher_zero_stages_never_need_more_memory(plan in plans(true)) {
        let memory = |zero| {
            let options = MemoryOptions { zero, ..plan.memory };
            memory::training(&plan.shape, plan.phase, plan.phase_options, &options)
        };
        let stages = [Zero::None, Zero::Optimizer, Zero::Gradients, Zero::Weights].map(memory);
        for pair in stages.windows(2) {
            prop_assert!(pair[1].total() <= pair[0].total());
        }
        // Stage 3 shards all states over all GPUs.
        let states = |memory: &memory::Memory| {
            memory.weights.0 + memory.gradients.0 + memory.optimizer.0
        };
        prop_assert!(near(states(&stages[3]) * plan.memory.gpus as f64, states(&stages[0])));
    }

    #[test]
    fn recomputation_saves_memory_and_costs_time(plan in plans(true)) {
        let memory = |recompute| {
            let options = MemoryOptions { recompute, ..plan.memory };
            memory::training(&plan.shape, plan.phase, plan.phase_options, &options).total()
        };
        let [full, block, none] = [Recompute::Block, Recompute::Selective, Recompute::None].map(memory);
        prop_assert!(full <= block && block < none, "{:?} {:?} {:?}", full, block, none);
        let time = |recompute| {
            let memory = MemoryOptions { recompute, ..plan.memory };
            Plan { memory, ..plan.clone() }.estimate().gpu_time.typical
        };
        // Recomputation takes time, unless the MFU is given.
        prop_assert_eq!(time(Recompute::Block) > time(Recompute::None), plan.mfu.is_none());
    }

    /// Recomputation repeats the forward pass of trained networks, not of a reference: 8/6, with
    /// LoRA 6/4.
    #[test]
    fn recomputation_costs_a_forward_pass(shape in shapes(true), length in 16..4097_usize) {
        let time = |phase, recompute, lora_rank| {
            let mut plan = Plan { phase, ..pretraining(shape.clone(), length) };
            plan.memory = MemoryOptions { recompute, lora_rank, ..plan.memory };
            plan.estimate().gpu_time.typical
        };
        for (phase, lora_rank, ratio) in [
            (Phase::Pretrain, None, 8.0 / 6.0),
            (Phase::Sft, Some(4), 6.0 / 4.0),
            (Phase::Reward, None, 8.0 / 6.0),
            (Phase::Dpo, None, 10.0 / 8.0),
            (Phase::Dpo, Some(4), 8.0 / 6.0),
        ] {
            let plain = time(phase, Recompute::None, lora_rank);
            let full = time(phase, Recompute::Block, lora_rank);
            prop_assert!(near(full / plain, ratio), "{:?}", phase);
            prop_assert_eq!(time(phase, Recompute::Selective, lora_rank), plain);
        }
    }

    #[test]
    fn lora_needs_less(mut plan in plans(true), rank in 1..9_usize) {
        if plan.phase == Phase::Pretrain {
            plan.phase = Phase::Sft;
        }
        let with = |lora_rank, dtype| {
            let memory = MemoryOptions { lora_rank, dtype, ..plan.memory };
            Plan { memory, ..plan.clone() }.estimate()
        };
        let (all, adapters) = (with(None, Dtype::Bf16), with(Some(rank), Dtype::Bf16));
        prop_assert!(adapters.memory.total() < all.memory.total());
        prop_assert!(adapters.work.flops < all.work.flops);
        prop_assert!(adapters.gpu_time.typical < all.gpu_time.typical);
        let mut last = adapters.memory.total();
        for dtype in [Dtype::Q8, Dtype::F8, Dtype::Q4] {
            let total = with(Some(rank), dtype).memory.total();
            prop_assert!(total < last);
            last = total;
        }
    }

    /// The backward pass of a frozen matrix needs one GEMM, of a trained one two; attention always
    /// needs two.
    #[test]
    fn lora_saves_weight_gradients_only(shape in shapes(true), length in 16..10_000_usize) {
        let mut plan = Plan { phase: Phase::Sft, ..pretraining(shape, length) };
        for (lora_rank, times) in [(None, 2.0), (Some(4), 1.0)] {
            plan.memory.lora_rank = lora_rank;
            for (name, forward, backward) in plan.flops_by_part() {
                let times = if name == "attention" { 2.0 } else { times };
                prop_assert!(near(backward.0, times * forward.0), "{}", name);
            }
        }
    }

    #[test]
    fn a_given_utilisation_gives_its_hours(mut plan in plans(true), share in 0.05..0.9_f64) {
        // Sampling is bound by bandwidth.
        if matches!(plan.phase, Phase::Grpo | Phase::Ppo) {
            plan.phase = Phase::Dpo;
        }
        plan.mfu = Mfu::new(share);
        let estimate = plan.estimate();
        let hours = estimate.work.counted.0 / (plan.gpu.peak.0 * share);
        prop_assert!(near(estimate.gpu_time.typical.0, hours));
        prop_assert!(near(estimate.gpu_time.low.0, hours / 1.1));
        prop_assert!(near(estimate.gpu_time.high.0, hours / 0.9));
    }

    #[test]
    fn ranges_are_in_order(plan in plans(true)) {
        fn ordered<T: PartialOrd>(range: &Range<T>) -> bool {
            range.low <= range.typical && range.typical <= range.high
        }
        let estimate = plan.estimate();
        prop_assert!(ordered(&estimate.gpu_time) && ordered(&estimate.wall_time));
        prop_assert!(ordered(&estimate.rate) && ordered(&estimate.mfu));
        prop_assert!(ordered(&estimate.energy) && ordered(&estimate.co2));
        let money = estimate.money.expect("the plan has a price");
        prop_assert!(ordered(&money));
        prop_assert!(near(money.high.0, 2.0 * estimate.gpu_time.high.hours()));
        let unpriced = Plan { price: None, ..plan };
        prop_assert_eq!(unpriced.estimate().money, None);
    }

    #[test]
    fn remedies_make_plans_fit(plan in plans(true)) {
        let estimate = plan.estimate();
        let fits = estimate.memory.total() <= estimate.available;
        prop_assert!(!fits || estimate.remedies.is_empty());
        for remedy in estimate.remedies {
            let changed = Plan { memory: remedy.changed, ..plan.clone() };
            prop_assert_eq!(changed.check(), Ok(()), "{}", &remedy.options);
            let estimate = changed.estimate();
            prop_assert_eq!(estimate.memory.total(), remedy.memory);
            prop_assert!(remedy.memory <= estimate.available && !remedy.options.is_empty());
        }
    }

    #[test]
    fn max_documents_is_exact(plan in plans(true)) {
        let estimate = plan.estimate();
        let total = |documents| {
            let memory = MemoryOptions { documents, ..plan.memory };
            Plan { memory, ..plan.clone() }.estimate().memory.total().0
        };
        let most = estimate.max_documents.unwrap_or(0);
        prop_assert!(most == 0 || no_less(estimate.available.0, total(most)));
        prop_assert!(no_less(total(most + 1), estimate.available.0));
    }

    #[test]
    fn serving_more_documents_is_faster_in_all_and_slower_for_each(
        shape in shapes(true),
        dtype in select(Dtype::ALL.to_vec()),
        gpu in select(GPUS.to_vec()),
        length in 16..20_000_usize,
    ) {
        let price = Some(Price::per_hour(2.0));
        let at = |documents| serving(&shape, dtype, &gpu, price, documents, length);
        let Some(most) = max_served_documents(&shape, dtype, &gpu, length) else {
            prop_assert_eq!(at(1), None);
            return Ok(());
        };
        let mut last: Option<f64> = None;
        for documents in [1, 2.min(most), most.div_ceil(2).max(2).min(most), most] {
            // The maximum is at the edge of rounding.
            let Some(served) = at(documents) else { prop_assert_eq!(documents, most); continue };
            let rate = served.rate;
            prop_assert!(rate.low < rate.typical && rate.typical < rate.high);
            // Not faster than reading weights and caches, nor than the peak rate.
            let weights = shape.read_parameters(documents as f64) * dtype.weight_bytes();
            prop_assert!(rate.high.0 < documents as f64 * gpu.bandwidth.0 / weights);
            prop_assert!(rate.high.0 * 2.0 * shape.matmul_parameters() < gpu.peak.0);
            let dollars = served.per_million.expect("there is a price");
            prop_assert!(near((dollars.low * (rate.high.0 / 1e6)).0, Dollars(2.0 / 3600.0).0));
            prop_assert!(dollars.low < dollars.typical && dollars.typical < dollars.high);
            if let Some(last) = last && documents > 1 {
                prop_assert!(no_less(rate.typical.0, last));
            }
            last = Some(rate.typical.0);
            let alone = at(1).expect("one fits if several do").rate.typical.0;
            prop_assert!(no_less(alone, rate.typical.0 / documents as f64));
        }
        prop_assert!(at(most + 2).is_none());
    }
}

/// Pre-training on one H100, without a given MFU or price.
fn pretraining(shape: ModelShape, length: usize) -> Plan {
    Plan {
        shape,
        phase: Phase::Pretrain,
        phase_options: PhaseOptions::default(),
        tokens: Tokens(1e9),
        gpu: *Gpu::named("h100").expect("a known GPU"),
        mfu: None,
        price: None,
        memory: MemoryOptions {
            dtype: Dtype::Bf16,
            optimizer: Optimizer::AdamW,
            recompute: Recompute::None,
            zero: Zero::None,
            lora_rank: None,
            gpus: 1,
            documents: 1,
            length,
        },
    }
}

#[test]
fn part_of_the_memory_is_left_to_the_driver() {
    let plan =
        pretraining(crisol_cost::known::named("smollm2-135m").expect("a known model").shape, 2048);
    let estimate = plan.estimate();
    assert_eq!(estimate.available, plan.gpu.memory * USABLE);
    assert!(estimate.remedies.is_empty());
}
