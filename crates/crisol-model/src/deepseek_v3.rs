//! The DeepSeek-V3 block (DeepSeek-AI 2024, arXiv:2412.19437, section 2.1). Differences from Llama:
//! - Multi-head latent attention (MLA): a low-rank latent vector per token is up-projected to the
//!   keys and values of all heads. One rotated key per token is shared by all heads.
//! - From layer `first_k_dense_replace` on, the feed-forward layer is a mixture of experts.
//!
//! ```text
//! x ─ kv_a_proj ─► latent c [rows, kv_rank] ─ norm ─ kv_b_proj ─► k_nope, v of every head
//!             └──► k_rope   [rows, rope]     ─ RoPE ─► shared by all heads
//! x ─ q_proj (or q_a_proj ─ norm ─ q_b_proj) ─► q_nope, q_rope of every head
//!
//! score = (q_nope · k_nope + q_rope · k_rope) · scale
//! ```
//!
//! The cache holds `c` and `k_rope` only. Decoding absorbs `kv_b_proj` into queries and outputs, so
//! cached latents are never expanded.
//!
//! Routing: sigmoid scores plus a correction bias, top-k within the best groups. The bias affects
//! the selection, not the weights, and is not trained here.

use std::sync::Arc;

use crisol_engine::{Attention, HeadSlice, ParamId, ParamSpec, Params, Router, Tape, Var};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Config;
use crate::block::{Block, Linear, Mlp, Pass, PastKeyValues, Specs, weight};
use crate::config::MAX_SIZE;
use crate::mixture::{Mixture, WeightApplied, top_k};
use crate::rope::{RopeScaling, yarn_temperature};

/// Epsilon of the norms within the attention; the config has no field for it.
pub(crate) const NORM_EPS: f32 = 1e-6;

/// The DeepSeek-V3 fields of `config.json`, with transformers' defaults.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Rank of the query projection; `None`: full rank.
    pub q_lora_rank: Option<usize>,
    /// Rank of the shared key-value projection: width of the latent vector.
    pub kv_lora_rank: usize,
    /// Width of the unrotated part of a query or key.
    pub qk_nope_head_dim: usize,
    /// Width of the rotated part.
    pub qk_rope_head_dim: usize,
    /// Width of a value.
    pub v_head_dim: usize,
    /// Whether RoPE rotates adjacent elements (else the two halves of a head).
    pub rope_interleave: bool,
    /// Index of the first mixture-of-experts layer.
    pub first_k_dense_replace: usize,
    /// Routed experts per layer.
    pub n_routed_experts: usize,
    /// Experts selected per token.
    pub num_experts_per_tok: usize,
    /// Shared experts, computed as one MLP with this many times the width.
    pub n_shared_experts: usize,
    /// Inner width of an expert.
    pub moe_intermediate_size: usize,
    /// Groups of experts.
    pub n_group: usize,
    /// Groups from which a token's experts are selected.
    pub topk_group: usize,
    /// Whether the weights of the selected experts are normalised to sum 1.
    pub norm_topk_prob: bool,
    /// Scale of the weights.
    pub routed_scaling_factor: f32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            q_lora_rank: Some(1536),
            kv_lora_rank: 512,
            qk_nope_head_dim: 128,
            qk_rope_head_dim: 64,
            v_head_dim: 128,
            rope_interleave: true,
            first_k_dense_replace: 3,
            n_routed_experts: 256,
            num_experts_per_tok: 8,
            n_shared_experts: 1,
            moe_intermediate_size: 2048,
            n_group: 8,
            topk_group: 4,
            norm_topk_prob: true,
            routed_scaling_factor: 2.5,
        }
    }
}

impl Shape {
    pub(crate) fn problem(&self, config: &Config) -> Option<String> {
        let sizes = [
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
            ("n_routed_experts", self.n_routed_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("n_shared_experts", self.n_shared_experts),
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("n_group", self.n_group),
            ("topk_group", self.topk_group),
        ];
        for (name, size) in sizes {
            if size == 0 || size > MAX_SIZE {
                return Some(format!("{name} is {size}, not between 1 and {MAX_SIZE}"));
            }
        }
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let group = self.n_routed_experts / self.n_group;
        if heads != kv_heads {
            return Some(format!(
                "num_key_value_heads ({kv_heads}) is not num_attention_heads ({heads})"
            ));
        }
        if !self.n_routed_experts.is_multiple_of(self.n_group) || group < 2 {
            return Some(format!(
                "n_routed_experts ({}) are not {} groups (n_group) of two or more",
                self.n_routed_experts, self.n_group
            ));
        }
        if self.topk_group > self.n_group || self.num_experts_per_tok > self.topk_group * group {
            return Some(format!(
                "{} experts of {} groups (num_experts_per_tok, topk_group) cannot be chosen \
                 from {} groups of {group}",
                self.num_experts_per_tok, self.topk_group, self.n_group
            ));
        }
        let factor = self.routed_scaling_factor;
        (!factor.is_finite())
            .then(|| format!("routed_scaling_factor is {factor}, not a finite number"))
    }

    /// Adds the fields to a `config.json`.
    pub(crate) fn write(&self, config: &mut Value) {
        let fields = json!({
            "q_lora_rank": self.q_lora_rank,
            "kv_lora_rank": self.kv_lora_rank,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "v_head_dim": self.v_head_dim,
            "rope_interleave": self.rope_interleave,
            "first_k_dense_replace": self.first_k_dense_replace,
            "n_routed_experts": self.n_routed_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "n_shared_experts": self.n_shared_experts,
            "moe_intermediate_size": self.moe_intermediate_size,
            "n_group": self.n_group,
            "topk_group": self.topk_group,
            "norm_topk_prob": self.norm_topk_prob,
            "routed_scaling_factor": self.routed_scaling_factor,
        });
        if let (Value::Object(config), Value::Object(fields)) = (config, fields) {
            config.extend(fields);
        }
    }

    /// Widths of a token's keys and values in the cache.
    pub(crate) fn cache_width(&self) -> (usize, usize) {
        (self.kv_lora_rank + self.qk_rope_head_dim, self.kv_lora_rank)
    }

    fn qk_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Scale of the attention scores; YaRN multiplies it by the square of its temperature.
    fn softmax_scale(&self, scaling: RopeScaling) -> f32 {
        let temperature = match scaling {
            RopeScaling::Yarn { factor, mscale_all_dim, .. } if mscale_all_dim != 0.0 => {
                yarn_temperature(factor, mscale_all_dim)
            }
            _ => 1.0,
        };
        ((self.qk_dim() as f64).sqrt().recip() * temperature * temperature) as f32
    }
}

/// Parameters of one block.
#[derive(Debug)]
struct DeepseekV3 {
    shape: Shape,
    input_norm: ParamId,
    attention: LatentAttention,
    post_attention_norm: ParamId,
    feed_forward: FeedForward,
}

#[derive(Debug)]
enum FeedForward {
    Dense(Mlp),
    Mixture(Box<SharedMixture>),
}

pub(crate) fn specs(config: &Config, layer: usize, prefix: String) -> Vec<ParamSpec> {
    let shape = config.deepseek_v3();
    let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
    specs.norm("input_layernorm", config.hidden_size);
    LatentAttention::specs(config, shape, &mut specs);
    specs.norm("post_attention_layernorm", config.hidden_size);
    if layer < shape.first_k_dense_replace {
        specs.mlp(config);
    } else {
        SharedMixture::specs(config, shape, &mut specs);
    }
    specs.list
}

pub(crate) fn bind(config: &Config, params: &Params, layer: usize, prefix: &str) -> Arc<dyn Block> {
    let shape = config.deepseek_v3();
    Arc::new(DeepseekV3 {
        shape: shape.clone(),
        input_norm: weight(params, prefix, "input_layernorm"),
        attention: LatentAttention::bind(shape, params, prefix),
        post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
        feed_forward: if layer < shape.first_k_dense_replace {
            FeedForward::Dense(Mlp::bind(params, prefix, "mlp."))
        } else {
            FeedForward::Mixture(Box::new(SharedMixture::bind(shape, params, prefix)))
        },
    })
}

impl Block for DeepseekV3 {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let mixed = self.attention.forward(&self.shape, tape, pass, layer, normed);
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(tape, normed),
            FeedForward::Mixture(mixture) => mixture.forward(&self.shape, tape, normed),
        };
        tape.add(x, inner)
    }
}

/// Multi-head latent attention.
#[derive(Debug)]
struct LatentAttention {
    query: Query,
    /// `kv_a_proj_with_mqa`: to latent vector and rotated key.
    down: Linear,
    latent_norm: ParamId,
    /// `kv_b_proj`: from the latent vector to the unrotated key and the value of every head.
    up: ParamId,
    o: Linear,
}

#[derive(Debug)]
enum Query {
    Direct(Linear),
    Bottleneck { down: Linear, norm: ParamId, up: Linear },
}

impl LatentAttention {
    fn specs(config: &Config, shape: &Shape, specs: &mut Specs) {
        let (hidden, heads, bias) =
            (config.hidden_size, config.num_attention_heads, config.attention_bias);
        let (latent, queries) = (shape.kv_lora_rank, heads * shape.qk_dim());
        match shape.q_lora_rank {
            None => specs.linear("self_attn.q_proj", queries, hidden, false),
            Some(rank) => {
                specs.linear("self_attn.q_a_proj", rank, hidden, bias);
                specs.norm("self_attn.q_a_layernorm", rank);
                specs.linear("self_attn.q_b_proj", queries, rank, false);
            }
        }
        specs.linear("self_attn.kv_a_proj_with_mqa", latent + shape.qk_rope_head_dim, hidden, bias);
        specs.norm("self_attn.kv_a_layernorm", latent);
        specs.linear(
            "self_attn.kv_b_proj",
            heads * (shape.qk_nope_head_dim + shape.v_head_dim),
            latent,
            false,
        );
        specs.residual_linear("self_attn.o_proj", hidden, heads * shape.v_head_dim, bias);
    }

    fn bind(shape: &Shape, params: &Params, prefix: &str) -> LatentAttention {
        let linear = |name| Linear::bind(params, prefix, name);
        LatentAttention {
            query: match shape.q_lora_rank {
                None => Query::Direct(linear("self_attn.q_proj")),
                Some(_) => Query::Bottleneck {
                    down: linear("self_attn.q_a_proj"),
                    norm: weight(params, prefix, "self_attn.q_a_layernorm"),
                    up: linear("self_attn.q_b_proj"),
                },
            },
            down: linear("self_attn.kv_a_proj_with_mqa"),
            latent_norm: weight(params, prefix, "self_attn.kv_a_layernorm"),
            up: weight(params, prefix, "self_attn.kv_b_proj"),
            o: linear("self_attn.o_proj"),
        }
    }

    fn forward(
        &self,
        shape: &Shape,
        tape: &mut Tape<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
        x: Var,
    ) -> Var {
        let heads = pass.config.num_attention_heads;
        let &Shape {
            kv_lora_rank: latent_dim, qk_nope_head_dim: nope, qk_rope_head_dim: rope, ..
        } = shape;
        let cut = |x, heads, head_dim, first, width| HeadSlice { x, heads, head_dim, first, width };
        let q = match &self.query {
            Query::Direct(linear) => linear.forward(tape, x),
            Query::Bottleneck { down, norm, up } => {
                let low = down.forward(tape, x);
                let normed = tape.rms_norm(low, *norm, NORM_EPS);
                up.forward(tape, normed)
            }
        };
        let q_rotated =
            tape.concat_heads(heads, [Some(cut(q, heads, shape.qk_dim(), nope, rope)), None]);
        let q_rotated = tape.rope(q_rotated, &pass.rope, rope, &pass.rope_rows);
        let q_plain = cut(q, heads, shape.qk_dim(), 0, nope);

        let low = self.down.forward(tape, x);
        let latent =
            tape.concat_heads(1, [Some(cut(low, 1, latent_dim + rope, 0, latent_dim)), None]);
        let latent = tape.rms_norm(latent, self.latent_norm, NORM_EPS);
        let k_rotated =
            tape.concat_heads(1, [Some(cut(low, 1, latent_dim + rope, latent_dim, rope)), None]);
        let k_rotated = tape.rope(k_rotated, &pass.rope, rope, &pass.rope_rows);

        let v_dim = shape.v_head_dim;
        let scale = shape.softmax_scale(pass.config.rope_scaling);
        let mixed = match &mut pass.past {
            PastKeyValues::None => {
                let expanded = tape.linear(latent, self.up, None);
                let group = nope + v_dim;
                let q = [Some(q_plain), Some(cut(q_rotated, heads, rope, 0, rope))];
                let k = [
                    Some(cut(expanded, heads, group, 0, nope)),
                    Some(cut(k_rotated, 1, rope, 0, rope)),
                ];
                let v = [Some(cut(expanded, heads, group, nope, v_dim)), None];
                let [q, k, v] = [q, k, v].map(|parts| tape.concat_heads(heads, parts));
                let shape = Attention { heads, kv_heads: heads, qk_dim: nope + rope, v_dim, scale };
                tape.attention(q, k, v, shape, &pass.offsets)
            }
            PastKeyValues::Cached { cache, slots } => {
                // Absorption: scores q·(W c) = (Wᵀ q)·c, outputs Σ p·(W c) = W (Σ p·c). All heads
                // share one key, `[latent, k_rope]`, and one value, the latent.
                let group = nope + v_dim;
                let q_plain = tape.concat_heads(heads, [Some(q_plain), None]);
                let q_latent = tape.per_head_matmul(q_plain, self.up, group, 0..nope, false);
                let q = [
                    Some(cut(q_latent, heads, latent_dim, 0, latent_dim)),
                    Some(cut(q_rotated, heads, rope, 0, rope)),
                ];
                let k = [
                    Some(cut(latent, 1, latent_dim, 0, latent_dim)),
                    Some(cut(k_rotated, 1, rope, 0, rope)),
                ];
                let (q, k) = (tape.concat_heads(heads, q), tape.concat_heads(1, k));
                let qk_dim = latent_dim + rope;
                let shape = Attention { heads, kv_heads: 1, qk_dim, v_dim: latent_dim, scale };
                let mixed = tape.attention_cached(
                    q,
                    k,
                    latent,
                    shape,
                    &pass.offsets,
                    cache,
                    slots,
                    layer,
                    None,
                );
                tape.per_head_matmul(mixed, self.up, group, nope..group, true)
            }
        };
        self.o.forward(tape, mixed)
    }
}

/// Routed experts plus shared experts.
#[derive(Debug)]
struct SharedMixture {
    router: ParamId,
    /// `e_score_correction_bias`: added for the selection only; balances the load in pre-training.
    correction: ParamId,
    experts: Mixture,
    shared: Mlp,
}

impl SharedMixture {
    fn specs(config: &Config, shape: &Shape, specs: &mut Specs) {
        let (hidden, inner) = (config.hidden_size, shape.moe_intermediate_size);
        specs.linear("mlp.gate", shape.n_routed_experts, hidden, false);
        specs.vector("mlp.gate.e_score_correction_bias", shape.n_routed_experts);
        Mixture::specs(specs, "mlp.experts.", shape.n_routed_experts, hidden, inner);
        specs.gated("mlp.shared_experts.", hidden, inner * shape.n_shared_experts, false);
    }

    fn bind(shape: &Shape, params: &Params, prefix: &str) -> SharedMixture {
        let correction = format!("{prefix}mlp.gate.e_score_correction_bias");
        SharedMixture {
            router: weight(params, prefix, "mlp.gate"),
            correction: params.id(&correction).expect("parameters are made from the specs above"),
            experts: Mixture::bind(params, prefix, "mlp.experts.", shape.n_routed_experts),
            shared: Mlp::bind(params, prefix, "mlp.shared_experts."),
        }
    }

    fn forward(&self, shape: &Shape, tape: &mut Tape<'_>, x: Var) -> Var {
        let logits = tape.linear(x, self.router, None);
        let correction = tape.params().read(self.correction);
        let chosen: Vec<u32> = tape
            .read(logits)
            .chunks_exact(shape.n_routed_experts)
            .flat_map(|logits| choose(shape, logits, &correction))
            .collect();
        let router = Router { normalise: shape.norm_topk_prob, scale: shape.routed_scaling_factor };
        let weights = tape.expert_weights(logits, router, &chosen);
        let routed = self.experts.forward(tape, x, weights, &chosen, WeightApplied::Output);
        let shared = self.shared.forward(tape, x);
        tape.add(routed, shared)
    }
}

/// The experts of one token: top-k corrected scores within the best groups. A group's score is the
/// sum of its two largest.
fn choose(shape: &Shape, logits: &[f32], correction: &[f32]) -> Vec<u32> {
    let sigmoids = logits.iter().map(|z| 1.0 / (1.0 + (-z).exp()));
    let mut scores: Vec<f32> =
        sigmoids.zip(correction).map(|(s, correction)| s + correction).collect();
    let group = shape.n_routed_experts / shape.n_group;
    let group_score =
        |scores: &[f32]| top_k(scores, 2).into_iter().map(|expert| scores[expert]).sum::<f32>();
    let group_scores: Vec<f32> = scores.chunks_exact(group).map(group_score).collect();
    let selected = top_k(&group_scores, shape.topk_group);
    for (index, scores) in scores.chunks_exact_mut(group).enumerate() {
        if !selected.contains(&index) {
            scores.fill(f32::NEG_INFINITY);
        }
    }
    top_k(&scores, shape.num_experts_per_tok).into_iter().map(|expert| expert as u32).collect()
}
