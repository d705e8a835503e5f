//! RoPE scaling in GGUF files: `linear` and `yarn` by metadata keys, `llama3` by a tensor of
//! frequency divisors, `longrope` by two tensors of them.
//!
//! The tensor replaces the four numbers that `config.json` needs. [`from_divisors`] recovers the
//! numbers and verifies them against the tensor.
//!
//! Reference: `llama-model.cpp` and `llama-context.cpp` of llama.cpp, `ggml_rope_yarn` of ggml.

use std::f64::consts::PI;

use crisol_hub::Gguf;

use super::keys::{Keys, NewKeys};
use crate::rope::{RopeScaling, yarn_temperature};
use crate::{Config, ModelError};

/// How llama.cpp reads the scaling of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GgufRope {
    /// From metadata keys.
    Keys,
    /// From metadata keys, or the tensor of divisors.
    KeysOrDivisors,
    /// From metadata keys, without YaRN's rounding, on which llama.cpp insists all the same
    /// (gpt-oss): no key says which a model was trained with.
    KeysUnrounded,
    /// From metadata keys; YaRN scales attention scores too (DeepSeek).
    ScoreTemperatures,
    /// From two tensors of factors, for short and for long texts (Phi-3).
    LongRope,
}

/// The tensors of `LongRoPE`'s factors, one per rotated pair.
pub(super) const SHORT_FACTORS: &str = "rope_factors_short.weight";
pub(super) const LONG_FACTORS: &str = "rope_factors_long.weight";

/// The tensor of divisors, one per rotated pair.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

/// Defaults of `beta_fast` and `beta_slow`.
const YARN_TURNS: (f64, f64) = (32.0, 1.0);

/// Relative tolerance of frequencies rounded to f32.
const ROUNDING: f64 = 1e-5;

/// Reads the scaling of a model with a context of `context` tokens.
pub(super) fn read(
    keys: &Keys<'_>,
    rope: GgufRope,
    context: usize,
) -> Result<RopeScaling, ModelError> {
    let number = |rest: &str| keys.number(&format!("rope.scaling.{rest}"));
    // `rope.scale_linear` is the older key; 0 means none, as in llama.cpp.
    let factor = number("factor")?.or(keys.number("rope.scale_linear")?).filter(|&f| f != 0.0);
    let scales_scores = rope == GgufRope::ScoreTemperatures;
    let kind = keys.text("rope.scaling.type")?.unwrap_or("linear");
    let amplitude = number("attn_factor")?.filter(|&x| x != 1.0).map(f64::from);
    if rope == GgufRope::LongRope {
        // The factor on rotated queries and keys is read with the tensors.
        return match (kind, factor) {
            ("none", _) | ("linear" | "longrope", None | Some(1.0)) => Ok(RopeScaling::None),
            _ => Err(keys
                .refuse("rope.scaling.type", &format!("\"{kind}\"; only LongRoPE is supported"))),
        };
    }
    if let Some(amplitude) = amplitude.filter(|_| kind != "yarn") {
        let cause = format!("{amplitude}, which is supported with yarn only");
        return Err(keys.refuse("rope.scaling.attn_factor", &cause));
    }
    Ok(match (kind, factor) {
        ("none", _) | ("linear", None | Some(1.0)) => RopeScaling::None,
        ("linear", Some(factor)) if scales_scores => {
            let cause = format!(
                "{factor}, and llama.cpp scales attention scores of this architecture with it; \
                 only yarn is supported"
            );
            return Err(keys.refuse("rope.scaling.factor", &cause));
        }
        ("linear", Some(factor)) => RopeScaling::Linear { factor: decimal(factor) },
        ("yarn", factor) => {
            let others =
                [("yarn_ext_factor", 1.0), ("yarn_attn_factor", 1.0), ("yarn_log_multiplier", 0.0)];
            for &(rest, plain) in if scales_scores { &others[..2] } else { &others } {
                if let Some(other) = number(rest)?.filter(|&x| x != plain) {
                    let cause = format!("{other}; only {plain} is supported");
                    return Err(keys.refuse(&format!("rope.scaling.{rest}"), &cause));
                }
            }
            let original = keys.optional_size("rope.scaling.original_context_length")?;
            let factor = factor.map_or(1.0, decimal);
            let (attention_factor, mscale, mscale_all_dim) = if scales_scores {
                let weight = number("yarn_log_multiplier")?.unwrap_or(0.0);
                read_temperatures(factor, decimal(weight), amplitude.unwrap_or(1.0))
                    .map_err(|cause| keys.refuse("rope.scaling.factor", &cause))?
            } else {
                (amplitude.map(|amplitude| amplitude * yarn_temperature(factor, 1.0)), 0.0, 0.0)
            };
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original.unwrap_or(context),
                beta_fast: number("yarn_beta_fast")?.map_or(YARN_TURNS.0, decimal),
                beta_slow: number("yarn_beta_slow")?.map_or(YARN_TURNS.1, decimal),
                truncate: rope != GgufRope::KeysUnrounded,
                attention_factor,
                mscale,
                mscale_all_dim,
            }
        }
        (other, _) => {
            let cause = format!("\"{other}\"; supported are linear and yarn");
            return Err(keys.refuse("rope.scaling.type", &cause));
        }
    })
}

/// Reads `LongRoPE`, if the file has its factors.
pub(super) fn read_long(
    gguf: &Gguf,
    keys: &Keys<'_>,
    context: usize,
) -> Result<RopeScaling, ModelError> {
    if [SHORT_FACTORS, LONG_FACTORS].iter().all(|name| gguf.shape(name).is_none()) {
        return Ok(RopeScaling::None);
    }
    let factors = |tensor| -> Result<Vec<f64>, ModelError> {
        Ok(gguf.read(tensor)?.into_iter().map(decimal).collect())
    };
    let original = keys.optional_size("rope.scaling.original_context_length")?.unwrap_or(context);
    let mut scaling = RopeScaling::LongRope {
        short_factor: factors(SHORT_FACTORS)?,
        long_factor: factors(LONG_FACTORS)?,
        original_max_position_embeddings: original,
        factor: context as f64 / original as f64,
        attention_factor: None,
    };
    let given = keys.number("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let derived = scaling.amplitude();
    if let RopeScaling::LongRope { attention_factor, .. } = &mut scaling
        && (derived - given).abs() > 1e-6
    {
        *attention_factor = Some(decimal(given));
    }
    Ok(scaling)
}

/// The decimal number of a `config.json` from its f32.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The scaling that divides the frequencies of base `theta` by `divisors`, if there is one.
pub(super) fn from_divisors(divisors: &[f32], theta: f64) -> Option<RopeScaling> {
    let dim = 2 * divisors.len();
    let fits = |scaling: &RopeScaling| {
        let expected = frequency_divisors(scaling, theta, dim);
        let alike = |(&a, b): (&f32, f64)| (f64::from(a) / b - 1.0).abs() < ROUNDING;
        scaling.problem(dim).is_none() && divisors.iter().zip(expected).all(alike)
    };
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    if [RopeScaling::None, RopeScaling::Linear { factor }].iter().any(&fits) {
        return Some(if factor == 1.0 {
            RopeScaling::None
        } else {
            RopeScaling::Linear { factor }
        });
    }
    let llama3 = |low: f64, high: f64, original: f64| RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original.round() as usize,
    };
    // Between low and high frequencies, 1/divisor is linear in the frequency: 1/factor at `low`
    // rotations over the original context, 1 at `high` rotations. Frequencies determine rotations
    // only relative to the context length, so one number is free. `low` is 1 in all published
    // models.
    let turns = |pair: usize| theta.powf(-2.0 * pair as f64 / dim as f64) / (2.0 * PI);
    let height = |pair: usize| {
        let inverse = 1.0 / f64::from(divisors[pair]);
        (inverse - 1.0 / factor) / (1.0 - 1.0 / factor)
    };
    let between: Vec<usize> = (0..divisors.len())
        .filter(|&pair| divisors[pair] > 1.0 && f64::from(divisors[pair]) < factor)
        .collect();
    let (original, high) = match between[..] {
        [] => {
            let first_low = divisors.iter().position(|&divisor| divisor > 1.0)?;
            let (above, below) = (turns(first_low.checked_sub(1)?), turns(first_low));
            // Any line between the two neighbours fits; take the middle.
            let original = (above * below).sqrt().recip();
            (original, 1.0 + (original * above - 1.0) / 2.0)
        }
        // One point: assume low 1 and high 4, as in all published models.
        [pair] => ((1.0 + 3.0 * height(pair)) / turns(pair), 4.0),
        [first, .., last] => {
            let slope = (height(first) - height(last)) / (turns(first) - turns(last));
            let low = turns(first) - height(first) / slope;
            (low.recip(), 1.0 + (slope * low).recip())
        }
    };
    let rounded = llama3(1.0, (high * 1e3).round() / 1e3, original);
    // The context length is an integer; rescale the other numbers to match.
    let scale = original.round() / original;
    [rounded, llama3(scale, high * scale, original)].into_iter().find(fits)
}

/// The divisor of every pair's frequency.
fn frequency_divisors(
    scaling: &RopeScaling,
    theta: f64,
    dim: usize,
) -> impl Iterator<Item = f64> + use<> {
    let plain = RopeScaling::None.inverse_frequencies(theta, dim, 1, 1);
    let stretched = scaling.inverse_frequencies(theta, dim, 1, 1);
    plain
        .into_iter()
        .zip(stretched)
        .map(|(plain, stretched)| f64::from(plain) / f64::from(stretched))
}

/// Writes the metadata keys of a config's scaling, and returns the tensors that it needs.
pub(super) fn write(
    keys: &mut NewKeys<'_>,
    config: &Config,
) -> Result<Vec<(&'static str, Vec<f32>)>, String> {
    let mut put = |rest: &str, number: f64| {
        keys.put(&format!("rope.scaling.{rest}"), number as f32);
    };
    let rope = config.family().gguf_rope();
    let scales_scores = rope == GgufRope::ScoreTemperatures;
    let rounds = rope != GgufRope::KeysUnrounded;
    match config.rope_scaling {
        RopeScaling::None if rope == GgufRope::LongRope => {
            let original = config.max_position_embeddings as u32;
            keys.put("rope.scaling.original_context_length", original);
        }
        RopeScaling::None => {}
        RopeScaling::Linear { factor } if !scales_scores => {
            put("factor", factor);
            keys.put("rope.scaling.type", "linear");
        }
        RopeScaling::Llama3 { .. } if rope == GgufRope::KeysOrDivisors => {
            let divisors = frequency_divisors(
                &config.rope_scaling,
                config.rope_theta,
                config.family().rotated(config),
            );
            return Ok(vec![(DIVISORS, divisors.map(|divisor| divisor as f32).collect())]);
        }
        RopeScaling::LongRope {
            ref short_factor,
            ref long_factor,
            original_max_position_embeddings,
            ..
        } if rope == GgufRope::LongRope => {
            put("attn_factor", config.rope_scaling.amplitude().into());
            let original = original_max_position_embeddings as u32;
            keys.put("rope.scaling.original_context_length", original);
            let factors = |list: &[f64]| list.iter().map(|&factor| factor as f32).collect();
            return Ok(vec![
                (LONG_FACTORS, factors(long_factor)),
                (SHORT_FACTORS, factors(short_factor)),
            ]);
        }
        // llama.cpp has keys for the betas, but reads them for other architectures only.
        RopeScaling::Yarn { truncate, beta_fast, beta_slow, .. }
            if truncate != rounds || (beta_fast, beta_slow) != YARN_TURNS =>
        {
            return Err(format!(
                "llama.cpp supports YaRN with beta_fast 32, beta_slow 1 and truncate {rounds} \
                 only, not with {beta_fast}, {beta_slow} and {truncate}"
            ));
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, mscale_all_dim, .. } => {
            put("factor", factor);
            let amplitude = f64::from(config.rope_scaling.amplitude());
            let more = if scales_scores {
                let (weight, more) = gguf_temperatures(factor, amplitude, mscale_all_dim)?;
                if weight != 0.0 {
                    put("yarn_log_multiplier", weight);
                }
                more
            } else {
                amplitude / yarn_temperature(factor, 1.0)
            };
            if (more - 1.0).abs() > 1e-6 {
                put("attn_factor", more);
            }
            let original = original_max_position_embeddings as u32;
            keys.put("rope.scaling.original_context_length", original);
            keys.put("rope.scaling.type", "yarn");
        }
        RopeScaling::Linear { .. }
        | RopeScaling::Dynamic { .. }
        | RopeScaling::Llama3 { .. }
        | RopeScaling::LongRope { .. } => {
            let kind = config.rope_scaling.to_json(config.rope_theta)["rope_type"].clone();
            let class = config.architecture().class();
            return Err(format!("llama.cpp has no {kind} rotary embeddings for {class}"));
        }
    }
    Ok(Vec::new())
}

// YaRN has two temperatures. config.json has the amplitude `a` of rotated queries and keys, and a
// factor `t(w)²` on all scores from `w = mscale_all_dim`, with `t(w) = 0.1 w ln(factor) + 1`. GGUF
// has `yarn_log_multiplier = w / 10` and `attn_factor`, both below `rope.scaling`. There, `a` is
// `attn_factor`, times `t(1)` if `w` is 0, and the factor on scores is `(a t(w))²`.

/// A temperature closer than this to its default is taken to be the default.
const TEMPERATURE_ROUNDING: f64 = 1e-6;

/// Converts the GGUF values to `attention_factor`, `mscale` and `mscale_all_dim`.
fn read_temperatures(
    factor: f64,
    log_multiplier: f64,
    attn_factor: f64,
) -> Result<(Option<f64>, f64, f64), String> {
    // Restores the decimal number of config.json from an f32.
    let weight = (log_multiplier * 1e7).round() / 1e6;
    let amplitude =
        if weight == 0.0 { attn_factor * yarn_temperature(factor, 1.0) } else { attn_factor };
    let plain = (amplitude - 1.0).abs() < TEMPERATURE_ROUNDING;
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
fn gguf_temperatures(
    factor: f64,
    amplitude: f64,
    mscale_all_dim: f64,
) -> Result<(f64, f64), String> {
    let temperature = yarn_temperature(factor, mscale_all_dim);
    let weight = if factor > 1.0 { mscale_for(factor, temperature / amplitude) } else { 0.0 };
    let plain = (amplitude - 1.0).abs() < TEMPERATURE_ROUNDING;
    if !weight.is_finite() || !(factor > 1.0 || plain) {
        return Err(format!(
            "llama.cpp cannot scale rotated queries and keys by {amplitude} and all scores by \
             the square of {temperature}"
        ));
    }
    Ok(if weight.abs() < TEMPERATURE_ROUNDING {
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

    fn frequencies(scaling: &RopeScaling, theta: f64, dim: usize) -> Vec<f32> {
        scaling.inverse_frequencies(theta, dim, 1, 1)
    }

    #[test]
    fn llama3_scaling_is_recovered_from_its_divisors() {
        let llama3 = |factor, low, high, original| RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        };
        // Llama 3.1 and 3.2.
        let published = [(llama3(8.0, 1.0, 4.0, 8192), 128), (llama3(32.0, 1.0, 4.0, 8192), 64)];
        for (scaling, dim) in published {
            let divisors: Vec<f32> =
                frequency_divisors(&scaling, 5e5, dim).map(|d| d as f32).collect();
            assert_eq!(from_divisors(&divisors, 5e5), Some(scaling));
        }
        // Other bases, and shapes with one pair or none between low and high frequencies.
        let others = [
            (llama3(8.0, 1.0, 4.0, 64), 1e4, 8),
            (llama3(4.0, 1.5, 2.5, 100), 1e4, 16),
            (llama3(4.0, 2.0, 2.1, 1000), 1e4, 8),
            (llama3(3.0, 0.7, 9.0, 333), 1e6, 128),
        ];
        for (scaling, theta, dim) in others {
            let divisors: Vec<f32> =
                frequency_divisors(&scaling, theta, dim).map(|d| d as f32).collect();
            let found = from_divisors(&divisors, theta).unwrap_or_else(|| panic!("{scaling:?}"));
            let (found, expected) =
                (frequencies(&found, theta, dim), frequencies(&scaling, theta, dim));
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found / expected - 1.0).abs() < 2e-5,
                    "{scaling:?}: {found} for {expected}"
                );
            }
        }
        assert_eq!(from_divisors(&[1.0; 8], 1e4), Some(RopeScaling::None));
        assert_eq!(from_divisors(&[2.0; 8], 1e4), Some(RopeScaling::Linear { factor: 2.0 }));
        for divisors in [&[1.0, 3.0, 2.0, 4.0][..], &[2.0, 1.0], &[f32::NAN; 4], &[0.0; 4], &[]] {
            assert!(
                from_divisors(divisors, 1e4)
                    .is_none_or(|scaling| divisors.is_empty() && scaling == RopeScaling::None)
            );
        }
    }

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
