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

use crisol_engine::{
    Attention, Choice, GatedActivation, HeadSlice, ParamId, ParamSpec, Params, RopeStyle, Router,
    Scoring, Tape, Var,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::architectures::{Defaults, Family, Names, Specifics};
use crate::block::{Block, Linear, Mlp, Pass, PastKeyValues, Specs, weight};
use crate::config::{MAX_SIZE, parse_fields, refuse_windows};
use crate::gguf::{Expansion, GgufRope, Keys, NewKeys, TensorMapping};
use crate::layers::{AttentionShape, FeedForwardShape};
use crate::mixture::{ExpertNames, Mixture, WeightApplied};
use crate::rope::{RopeScaling, yarn_temperature};
use crate::{Config, ModelError};

/// Epsilon of the norms within the attention; the config has no field for it.
const NORM_EPS: f32 = 1e-6;

/// The DeepSeek-V3 fields of `config.json`, with transformers' defaults.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct DeepseekV3 {
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

impl Default for DeepseekV3 {
    fn default() -> DeepseekV3 {
        DeepseekV3 {
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

impl DeepseekV3 {
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

/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID` in GGUF files. Their metadata (`deepseek2`) is that of
/// `conversion/deepseek.py` and `deepseek2.cpp` of llama.cpp.
const SIGMOID: usize = 2;

impl Family for DeepseekV3 {
    fn names(&self) -> Names {
        Names { class: "DeepseekV3", model_type: "deepseek_v3", gguf: "deepseek2" }
    }

    fn defaults(&self) -> Defaults {
        // Replaced by `qk_rope_head_dim`, as in transformers.
        Defaults { max_position_embeddings: 4096, head_dim: Some(64), ..Defaults::default() }
    }

    fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        refuse_windows(text)?;
        let own: DeepseekV3 = parse_fields(text)?;
        config.head_dim = own.qk_rope_head_dim;
        config.specifics = Specifics::DeepseekV3(own);
        Ok(())
    }

    fn to_json(&self, _: &Config) -> Value {
        json!(self)
    }

    fn problem(&self, config: &Config) -> Option<String> {
        if self.qk_rope_head_dim != config.head_dim {
            if *self == DeepseekV3::default() {
                return Some("a DeepseekV3 config needs its attention and expert sizes".into());
            }
            return Some(format!(
                "head_dim is {}, not qk_rope_head_dim ({})",
                config.head_dim, self.qk_rope_head_dim
            ));
        }
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

    fn specs(&self, config: &Config, layer: usize, prefix: String) -> Vec<ParamSpec> {
        let mut specs = Specs::new(prefix, Some(config.num_hidden_layers));
        specs.norm("input_layernorm", config.hidden_size);
        LatentAttention::specs(config, self, &mut specs);
        specs.norm("post_attention_layernorm", config.hidden_size);
        if layer < self.first_k_dense_replace {
            specs.mlp(config);
        } else {
            SharedMixture::specs(config, self, &mut specs);
        }
        specs.list
    }

    fn bind(&self, _: &Config, params: &Params, layer: usize, prefix: &str) -> Arc<dyn Block> {
        Arc::new(DeepseekV3Block {
            own: self.clone(),
            input_norm: weight(params, prefix, "input_layernorm"),
            attention: LatentAttention::bind(self, params, prefix),
            post_attention_norm: weight(params, prefix, "post_attention_layernorm"),
            feed_forward: if layer < self.first_k_dense_replace {
                FeedForward::Dense(Mlp::bind(params, prefix, "mlp."))
            } else {
                FeedForward::Mixture(Box::new(SharedMixture::bind(self, params, prefix)))
            },
        })
    }

    fn rope_style(&self) -> RopeStyle {
        if self.rope_interleave { RopeStyle::Interleaved } else { RopeStyle::Halves }
    }

    fn attention(&self, config: &Config, _: usize) -> AttentionShape {
        AttentionShape::Latent {
            heads: config.num_attention_heads,
            query_rank: self.q_lora_rank,
            kv_rank: self.kv_lora_rank,
            unrotated: self.qk_nope_head_dim,
            rotated: self.qk_rope_head_dim,
            value_dim: self.v_head_dim,
        }
    }

    fn feed_forward(&self, config: &Config, layer: usize) -> FeedForwardShape {
        if layer < self.first_k_dense_replace {
            return FeedForwardShape::Dense { inner: config.intermediate_size };
        }
        FeedForwardShape::Mixture {
            experts: self.n_routed_experts,
            per_token: self.num_experts_per_tok,
            inner: self.moe_intermediate_size,
            shared: self.n_shared_experts * self.moe_intermediate_size,
        }
    }

    fn experts(&self) -> Option<(usize, usize)> {
        Some((self.n_routed_experts, self.num_experts_per_tok))
    }

    fn is_mtp_tensor(&self, config: &Config, tensor: &str) -> bool {
        let layer = tensor.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        // They follow the model's own.
        layer
            .and_then(|layer| layer.parse().ok())
            .is_some_and(|layer: usize| layer >= config.num_hidden_layers)
    }

    fn read_gguf(&self, keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
        if config.rms_norm_eps.to_bits() != NORM_EPS.to_bits() {
            let cause = format!("{}; only {NORM_EPS} is supported", config.rms_norm_eps);
            return Err(keys.refuse("attention.layer_norm_rms_epsilon", &cause));
        }
        // Multi-token-prediction layers.
        keys.expect_unset("nextn_predict_layers")?;
        if let Some(scale) =
            keys.number("attention.temperature_scale")?.filter(|&scale| scale != 0.0)
        {
            return Err(keys.refuse(
                "attention.temperature_scale",
                &format!("{scale}, which is not supported"),
            ));
        }
        match keys.optional_size("expert_gating_func")? {
            Some(SIGMOID) => {}
            // llama.cpp's default.
            None => {
                return Err(keys.refuse(
                    "expert_gating_func",
                    "not given, and its default is softmax; only sigmoid is supported",
                ));
            }
            Some(other) => {
                return Err(keys.refuse(
                    "expert_gating_func",
                    &format!("{other}; only {SIGMOID} (sigmoid) is supported"),
                ));
            }
        }
        let (rank, rotated) =
            (keys.size("attention.kv_lora_rank")?, keys.size("rope.dimension_count")?);
        // Newer files split kv_b_proj into two tensors and describe the attention as multi-query
        // over the latent. Older files keep one tensor.
        let split = keys.optional_size("attention.key_length_mla")?.filter(|&width| width > 0);
        let (key_dim, value_dim) = if let Some(key_dim) = split {
            keys.expect_size(
                "attention.key_length",
                rank + rotated,
                "the width of latent vector and rotated key together",
            )?;
            keys.expect_size("attention.value_length", rank, "the width of the latent vector")?;
            keys.expect_size("attention.head_count_kv", 1, "all heads share the latent vector")?;
            (key_dim, keys.size("attention.value_length_mla")?)
        } else {
            keys.expect_size(
                "attention.head_count_kv",
                config.num_attention_heads,
                "as many as of queries",
            )?;
            (keys.size("attention.key_length")?, keys.size("attention.value_length")?)
        };
        config.head_dim = rotated;
        // 0 means one group.
        let groups = keys.optional_size("expert_group_count")?.unwrap_or(0).max(1);
        let own = DeepseekV3 {
            q_lora_rank: keys.optional_size("attention.q_lora_rank")?.filter(|&rank| rank > 0),
            kv_lora_rank: rank,
            qk_nope_head_dim: key_dim.saturating_sub(rotated),
            qk_rope_head_dim: rotated,
            v_head_dim: value_dim,
            rope_interleave: true,
            first_k_dense_replace: keys.optional_size("leading_dense_block_count")?.unwrap_or(0),
            n_routed_experts: keys.size("expert_count")?,
            num_experts_per_tok: keys.size("expert_used_count")?,
            n_shared_experts: keys.size("expert_shared_count")?,
            moe_intermediate_size: keys.size("expert_feed_forward_length")?,
            n_group: groups,
            topk_group: if groups == 1 { 1 } else { keys.size("expert_group_used_count")? },
            norm_topk_prob: keys.flag("expert_weights_norm")?.unwrap_or(false),
            // 0 means no scaling.
            routed_scaling_factor: keys
                .number("expert_weights_scale")?
                .filter(|&scale| scale != 0.0)
                .unwrap_or(1.0),
        };
        config.specifics = Specifics::DeepseekV3(own);
        Ok(())
    }

    fn write_gguf(&self, keys: &mut NewKeys<'_>, config: &Config) -> Result<(), String> {
        if config.rms_norm_eps.to_bits() != NORM_EPS.to_bits() {
            return Err(format!(
                "llama.cpp computes all norms with rms_norm_eps, here {}, and DeepSeek-V3 those \
                 within the attention with {NORM_EPS}",
                config.rms_norm_eps
            ));
        }
        if !self.rope_interleave {
            return Err("rope_interleave is false, but llama.cpp rotates adjacent elements of \
                        DeepSeek models"
                .into());
        }
        if self.routed_scaling_factor == 0.0 {
            return Err("routed_scaling_factor is 0, which llama.cpp takes for 1".into());
        }
        // llama.cpp identifies smaller models of the family by these numbers of layers and tokens.
        let lite =
            matches!((config.num_hidden_layers, config.vocab_size), (26 | 27, _) | (48, 128_256));
        if lite && self.q_lora_rank.is_some() {
            return Err(format!(
                "llama.cpp reads DeepSeek models of {} layers only without a q_lora_rank",
                config.num_hidden_layers
            ));
        }
        let &DeepseekV3 {
            kv_lora_rank: rank,
            qk_nope_head_dim: nope,
            qk_rope_head_dim: rotated,
            ..
        } = self;
        // Selecting all groups equals having no groups, and llama.cpp accepts only the latter.
        let groups =
            if self.topk_group == self.n_group { (1, 1) } else { (self.n_group, self.topk_group) };
        keys.put_sizes(&[
            // 0 means none; llama.cpp refuses a file without the key.
            ("attention.q_lora_rank", self.q_lora_rank.unwrap_or(0)),
            ("attention.kv_lora_rank", rank),
            ("attention.key_length", rank + rotated),
            ("attention.value_length", rank),
            ("attention.key_length_mla", nope + rotated),
            ("attention.value_length_mla", self.v_head_dim),
            ("attention.head_count_kv", 1),
            ("rope.dimension_count", rotated),
            ("feed_forward_length", config.intermediate_size),
            ("expert_feed_forward_length", self.moe_intermediate_size),
            ("leading_dense_block_count", self.first_k_dense_replace),
            ("expert_count", self.n_routed_experts),
            ("expert_used_count", self.num_experts_per_tok),
            ("expert_shared_count", self.n_shared_experts),
            ("expert_group_count", groups.0),
            ("expert_group_used_count", groups.1),
            ("expert_gating_func", SIGMOID),
        ]);
        keys.put("expert_weights_scale", self.routed_scaling_factor);
        keys.put("expert_weights_norm", self.norm_topk_prob);
        Ok(())
    }

    /// Its graph multiplies by the attention's other weights alone.
    fn has_gguf_adapter(&self, module: &str) -> bool {
        !module.contains(".self_attn.") || module.ends_with(".o_proj")
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("self_attn.q_a_proj", "attn_q_a"),
            ("self_attn.q_a_layernorm", "attn_q_a_norm"),
            ("self_attn.q_b_proj", "attn_q_b"),
            ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
            ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
            ("self_attn.kv_b_proj", "attn_kv_b"),
            ("gate", "ffn_gate_inp"),
            ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
        ]
    }

    fn gguf_mapping(&self, config: &Config, _: &ParamSpec, tensor: &str) -> Option<TensorMapping> {
        let prefix = tensor.strip_suffix("attn_kv_b.weight")?;
        let [keys, values] = ["attn_k_b", "attn_v_b"].map(|part| format!("{prefix}{part}.weight"));
        let expansion = Expansion {
            heads: config.num_attention_heads,
            key: self.qk_nope_head_dim,
            value: self.v_head_dim,
            rank: self.kv_lora_rank,
        };
        Some(TensorMapping::Latent { keys, values, expansion })
    }

    fn gguf_rope(&self) -> GgufRope {
        GgufRope::ScoreTemperatures
    }
}

/// Parameters of one block.
#[derive(Debug)]
struct DeepseekV3Block {
    own: DeepseekV3,
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

impl Block for DeepseekV3Block {
    fn forward(&self, tape: &mut Tape<'_>, pass: &mut Pass<'_>, layer: usize, x: Var) -> Var {
        let eps = pass.config.rms_norm_eps;
        let normed = tape.rms_norm(x, self.input_norm, eps);
        let mixed = self.attention.forward(&self.own, tape, pass, layer, normed);
        let x = tape.add(x, mixed);
        let normed = tape.rms_norm(x, self.post_attention_norm, eps);
        let inner = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(tape, normed),
            FeedForward::Mixture(mixture) => mixture.forward(&self.own, tape, normed),
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
    fn specs(config: &Config, own: &DeepseekV3, specs: &mut Specs) {
        let (hidden, heads, bias) =
            (config.hidden_size, config.num_attention_heads, config.attention_bias);
        let (latent, queries) = (own.kv_lora_rank, heads * own.qk_dim());
        match own.q_lora_rank {
            None => specs.linear("self_attn.q_proj", queries, hidden, false),
            Some(rank) => {
                specs.linear("self_attn.q_a_proj", rank, hidden, bias);
                specs.norm("self_attn.q_a_layernorm", rank);
                specs.linear("self_attn.q_b_proj", queries, rank, false);
            }
        }
        specs.linear("self_attn.kv_a_proj_with_mqa", latent + own.qk_rope_head_dim, hidden, bias);
        specs.norm("self_attn.kv_a_layernorm", latent);
        specs.linear(
            "self_attn.kv_b_proj",
            heads * (own.qk_nope_head_dim + own.v_head_dim),
            latent,
            false,
        );
        specs.residual_linear("self_attn.o_proj", hidden, heads * own.v_head_dim, bias);
    }

    fn bind(own: &DeepseekV3, params: &Params, prefix: &str) -> LatentAttention {
        let linear = |name| Linear::bind(params, prefix, name);
        LatentAttention {
            query: match own.q_lora_rank {
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
        own: &DeepseekV3,
        tape: &mut Tape<'_>,
        pass: &mut Pass<'_>,
        layer: usize,
        x: Var,
    ) -> Var {
        let heads = pass.config.num_attention_heads;
        let &DeepseekV3 {
            kv_lora_rank: latent_dim,
            qk_nope_head_dim: nope,
            qk_rope_head_dim: rope,
            ..
        } = own;
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
            tape.concat_heads(heads, [Some(cut(q, heads, own.qk_dim(), nope, rope)), None]);
        let q_rotated = tape.rope(q_rotated, &pass.rope, rope, &pass.rope_rows);
        let q_plain = cut(q, heads, own.qk_dim(), 0, nope);

        let low = self.down.forward(tape, x);
        let latent =
            tape.concat_heads(1, [Some(cut(low, 1, latent_dim + rope, 0, latent_dim)), None]);
        let latent = tape.rms_norm(latent, self.latent_norm, NORM_EPS);
        let k_rotated =
            tape.concat_heads(1, [Some(cut(low, 1, latent_dim + rope, latent_dim, rope)), None]);
        let k_rotated = tape.rope(k_rotated, &pass.rope, rope, &pass.rope_rows);

        let v_dim = own.v_head_dim;
        let scale = own.softmax_scale(pass.config.rope_scaling);
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
                let shape = Attention::new(heads, heads, nope + rope, v_dim, scale);
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
                let shape = Attention::new(heads, 1, qk_dim, latent_dim, scale);
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

const EXPERTS: ExpertNames = ExpertNames::new("mlp.experts.");

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
    fn specs(config: &Config, own: &DeepseekV3, specs: &mut Specs) {
        let (hidden, inner) = (config.hidden_size, own.moe_intermediate_size);
        specs.linear("mlp.gate", own.n_routed_experts, hidden, false);
        specs.vector("mlp.gate.e_score_correction_bias", own.n_routed_experts);
        Mixture::specs(specs, EXPERTS, own.n_routed_experts, hidden, inner, false);
        specs.gated("mlp.shared_experts.", hidden, inner * own.n_shared_experts, false);
    }

    fn bind(own: &DeepseekV3, params: &Params, prefix: &str) -> SharedMixture {
        let correction = format!("{prefix}mlp.gate.e_score_correction_bias");
        SharedMixture {
            router: weight(params, prefix, "mlp.gate"),
            correction: params.id(&correction).expect("parameters are made from the specs above"),
            experts: Mixture::bind(
                params,
                prefix,
                EXPERTS,
                own.n_routed_experts,
                GatedActivation::Silu,
            ),
            shared: Mlp::bind(params, prefix, "mlp.shared_experts."),
        }
    }

    fn forward(&self, own: &DeepseekV3, tape: &mut Tape<'_>, x: Var) -> Var {
        let logits = tape.linear(x, self.router, None);
        let chosen = tape.choose_experts(
            logits,
            &Choice {
                k: own.num_experts_per_tok,
                correction: Some(self.correction),
                groups: own.n_group,
                kept_groups: own.topk_group,
            },
        );
        let router = Router {
            scoring: Scoring::Sigmoid,
            normalise: own.norm_topk_prob,
            scale: own.routed_scaling_factor,
        };
        let weights = tape.expert_weights(logits, router, &chosen);
        let routed = self.experts.forward(tape, x, weights, &chosen, WeightApplied::Output);
        let shared = self.shared.forward(tape, x);
        tape.add(routed, shared)
    }
}
