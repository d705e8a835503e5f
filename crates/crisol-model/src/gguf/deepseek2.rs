//! GGUF metadata of DeepSeek-V3 (`deepseek2`), as in `conversion/deepseek.py`, `deepseek2.cpp` and
//! `llama-context.cpp` of llama.cpp.

use crisol_hub::Metadata;

use super::keys::Keys;
use crate::config::Specifics;
use crate::deepseek_v3::{NORM_EPS, Shape};
use crate::rope::yarn_temperature;
use crate::{Config, ModelError};

/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID`.
const SIGMOID: usize = 2;

/// Reads the fields of [`Shape`].
pub(super) fn read(keys: &Keys<'_>, config: &mut Config) -> Result<(), ModelError> {
    if config.rms_norm_eps.to_bits() != NORM_EPS.to_bits() {
        let cause = format!("{}; only {NORM_EPS} is supported", config.rms_norm_eps);
        return Err(keys.refuse("attention.layer_norm_rms_epsilon", &cause));
    }
    // Multi-token-prediction layers.
    keys.expect_unset("nextn_predict_layers")?;
    if let Some(scale) = keys.number("attention.temperature_scale")?.filter(|&scale| scale != 0.0) {
        return Err(
            keys.refuse("attention.temperature_scale", &format!("{scale}, which is not supported"))
        );
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
    // Newer files split kv_b_proj into two tensors and describe the attention as multi-query over
    // the latent. Older files keep one tensor.
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
    let shape = Shape {
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
    config.specifics = Specifics::DeepseekV3(shape);
    Ok(())
}

/// Writes the fields. Errors where llama.cpp would compute something else.
pub(super) fn write(
    metadata: &mut Metadata,
    key: impl Fn(&str) -> String,
    config: &Config,
    shape: &Shape,
) -> Result<(), String> {
    if config.rms_norm_eps.to_bits() != NORM_EPS.to_bits() {
        return Err(format!(
            "llama.cpp computes all norms with rms_norm_eps, here {}, and DeepSeek-V3 those within \
             the attention with {NORM_EPS}",
            config.rms_norm_eps
        ));
    }
    if !shape.rope_interleave {
        return Err(
            "rope_interleave is false, but llama.cpp rotates adjacent elements of DeepSeek \
                    models"
                .into(),
        );
    }
    if shape.routed_scaling_factor == 0.0 {
        return Err("routed_scaling_factor is 0, which llama.cpp takes for 1".into());
    }
    // llama.cpp identifies smaller models of the family by these numbers of layers and tokens.
    let lite =
        matches!((config.num_hidden_layers, config.vocab_size), (26 | 27, _) | (48, 128_256));
    if lite && shape.q_lora_rank.is_some() {
        return Err(format!(
            "llama.cpp reads DeepSeek models of {} layers only without a q_lora_rank",
            config.num_hidden_layers
        ));
    }
    let &Shape { kv_lora_rank: rank, qk_nope_head_dim: nope, qk_rope_head_dim: rotated, .. } =
        shape;
    // Selecting all groups equals having no groups, and llama.cpp accepts only the latter.
    let groups =
        if shape.topk_group == shape.n_group { (1, 1) } else { (shape.n_group, shape.topk_group) };
    for (rest, size) in [
        // 0 means none; llama.cpp refuses a file without the key.
        ("attention.q_lora_rank", shape.q_lora_rank.unwrap_or(0)),
        ("attention.kv_lora_rank", rank),
        ("attention.key_length", rank + rotated),
        ("attention.value_length", rank),
        ("attention.key_length_mla", nope + rotated),
        ("attention.value_length_mla", shape.v_head_dim),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", rotated),
        ("feed_forward_length", config.intermediate_size),
        ("expert_feed_forward_length", shape.moe_intermediate_size),
        ("leading_dense_block_count", shape.first_k_dense_replace),
        ("expert_count", shape.n_routed_experts),
        ("expert_used_count", shape.num_experts_per_tok),
        ("expert_shared_count", shape.n_shared_experts),
        ("expert_group_count", groups.0),
        ("expert_group_used_count", groups.1),
        ("expert_gating_func", SIGMOID),
    ] {
        metadata.insert(key(rest), size as u32);
    }
    metadata.insert(key("expert_weights_scale"), shape.routed_scaling_factor);
    metadata.insert(key("expert_weights_norm"), shape.norm_topk_prob);
    Ok(())
}

// YaRN has two temperatures. config.json has the amplitude `a` of rotated queries and keys, and a
// factor `t(w)²` on all scores from `w = mscale_all_dim`, with `t(w) = 0.1 w ln(factor) + 1`. GGUF
// has `yarn_log_multiplier = w / 10` and `attn_factor`, both below `rope.scaling`. There, `a` is
// `attn_factor`, times `t(1)` if `w` is 0, and the factor on scores is `(a t(w))²`.

/// A temperature closer than this to its default is taken to be the default.
const ROUNDING: f64 = 1e-6;

/// Converts the GGUF values to `attention_factor`, `mscale` and `mscale_all_dim`.
pub(super) fn read_temperatures(
    factor: f64,
    log_multiplier: f64,
    attn_factor: f64,
) -> Result<(Option<f64>, f64, f64), String> {
    // Restores the decimal number of config.json from an f32.
    let weight = (log_multiplier * 1e7).round() / 1e6;
    let amplitude =
        if weight == 0.0 { attn_factor * yarn_temperature(factor, 1.0) } else { attn_factor };
    let plain = (amplitude - 1.0).abs() < ROUNDING;
    match (plain, weight != 0.0) {
        (true, false) => Ok((Some(1.0), 0.0, 0.0)),
        (true, true) if factor >= 1.0 => Ok((None, weight, weight)),
        (false, _) if factor > 1.0 => {
            let all = mscale_for(factor, amplitude * (0.1 * weight * factor.ln() + 1.0));
            Ok((Some(amplitude), 0.0, all))
        }
        _ => Err(format!("{factor}; llama.cpp's attention temperature is not supported with it")),
    }
}

/// The GGUF values: `yarn_log_multiplier` (0: omitted) and `attn_factor`.
pub(super) fn gguf_temperatures(
    factor: f64,
    amplitude: f64,
    mscale_all_dim: f64,
) -> Result<(f64, f64), String> {
    let temperature = yarn_temperature(factor, mscale_all_dim);
    let weight = if factor > 1.0 { mscale_for(factor, temperature / amplitude) } else { 0.0 };
    let plain = (amplitude - 1.0).abs() < ROUNDING;
    if !weight.is_finite() || !(factor > 1.0 || plain) {
        return Err(format!(
            "llama.cpp cannot scale rotated queries and keys by {amplitude} and all scores by \
             the square of {temperature}"
        ));
    }
    Ok(if weight.abs() < ROUNDING {
        (0.0, amplitude / yarn_temperature(factor, 1.0))
    } else {
        (0.1 * weight, amplitude)
    })
}

/// The `w` with `t(w) = temperature`.
fn mscale_for(factor: f64, temperature: f64) -> f64 {
    (temperature - 1.0) / (0.1 * factor.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Amplitude and factor on scores as llama.cpp computes them from the GGUF values.
    fn llama_cpp(factor: f64, log_multiplier: f64, attn_factor: f64) -> (f64, f64) {
        // `llama-context.cpp` takes the ratio of DeepSeek's two temperatures for 1.
        let adjusted =
            if log_multiplier == 0.0 { yarn_temperature(factor, 1.0) } else { 1.0 } * attn_factor;
        (adjusted, (adjusted * (1.0 + log_multiplier * factor.ln())).powi(2))
    }

    #[test]
    fn temperatures_equal_llama_cpp() {
        for factor in [1.0, 1.5, 8.0, 40.0] {
            let amplitudes = [1.0, 0.7, yarn_temperature(factor, 1.0), 1.3];
            for (amplitude, all) in
                amplitudes.into_iter().flat_map(|a| [0.0, 0.4, 0.707, 1.0].map(|all| (a, all)))
            {
                let written = gguf_temperatures(factor, amplitude, all);
                if factor == 1.0 && amplitude != 1.0 {
                    assert!(
                        written
                            .expect_err("nothing to make scores hotter by")
                            .contains("cannot scale")
                    );
                    continue;
                }
                let (log_multiplier, attn_factor) = written.expect("there are keys for it");
                let expected = (amplitude, yarn_temperature(factor, all).powi(2));
                let close = |(a, b): (f64, f64), what: &str| {
                    let fine =
                        (a / expected.0 - 1.0).abs() < 1e-5 && (b / expected.1 - 1.0).abs() < 1e-5;
                    assert!(fine, "{what}, factor {factor}: {a} and {b}, not {expected:?}");
                };
                close(llama_cpp(factor, log_multiplier, attn_factor), "written");
                let (given, mscale, all) =
                    read_temperatures(factor, log_multiplier, attn_factor).expect("as written");
                let amplitude = given
                    .unwrap_or(yarn_temperature(factor, mscale) / yarn_temperature(factor, all));
                close((amplitude, yarn_temperature(factor, all).powi(2)), "read");
            }
        }
        // DeepSeek-V3 and DeepSeek-V2.
        assert_eq!(read_temperatures(40.0, 0.1, 1.0), Ok((None, 1.0, 1.0)));
        assert_eq!(read_temperatures(40.0, 0.0707, 1.0), Ok((None, 0.707, 0.707)));
        assert!(
            read_temperatures(0.5, 0.1, 1.0).is_err() && read_temperatures(1.0, 0.0, 2.0).is_err()
        );
    }
}
