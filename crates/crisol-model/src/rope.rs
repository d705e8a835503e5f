//! RoPE frequencies and context extension (`rope_parameters` in transformers 5, `rope_theta` and
//! `rope_scaling` in version 4).
//!
//! Pair i of a head rotates by `position · theta^(-2i/dim)`. Everything is computed in f32 in the
//! order of transformers' `modeling_rope_utils.py`, so that angles match those of training.

use std::f32::consts::PI;

use serde_json::{Map, Value, json};

/// A method of context extension.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// Unscaled.
    #[default]
    None,
    /// Divides all frequencies (position interpolation, Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Dynamic NTK: beyond `max_position_embeddings` the base grows with the document's length.
    Dynamic {
        /// Extension of the context as a multiple.
        factor: f64,
    },
    /// Llama 3.1: divides low frequencies, keeps high ones and interpolates between (Grattafiori et
    /// al. 2024, arXiv:2407.21783).
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Low frequencies make fewer rotations than this over the original context.
        low_freq_factor: f64,
        /// High frequencies make more rotations than this.
        high_freq_factor: f64,
        /// Context of pre-training in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN (Peng et al. 2023, arXiv:2309.00071): interpolates frequencies along a ramp over pairs,
    /// and scales cosines and sines.
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Context of pre-training in tokens.
        original_max_position_embeddings: usize,
        /// Pairs with more rotations over the original context are unscaled.
        beta_fast: f64,
        /// Pairs with fewer rotations are divided by `factor`.
        beta_slow: f64,
        /// Whether the ramp's ends are rounded to whole pairs.
        truncate: bool,
        /// Scale of cosines and sines; `None`: derived from the other fields.
        attention_factor: Option<f64>,
        /// DeepSeek: cosines and sines are scaled by t(mscale) / `t(mscale_all_dim)`; 0: not given.
        mscale: f64,
        /// See `mscale`.
        mscale_all_dim: f64,
    },
    /// `LongRoPE` (Ding et al. 2024, arXiv:2402.13753): divides each pair's frequency by its own
    /// factor, of one list for documents of up to the original context, of another for longer ones.
    LongRope {
        /// Factors of documents within the original context, one a pair.
        short_factor: Vec<f64>,
        /// Factors of longer documents, one a pair.
        long_factor: Vec<f64>,
        /// Context of pre-training in tokens.
        original_max_position_embeddings: usize,
        /// Extension of the context as a multiple.
        factor: f64,
        /// Scale of cosines and sines; `None`: derived from `factor` and the original context.
        attention_factor: Option<f64>,
    },
}

/// YaRN's attention temperature t: `0.1 · mscale · ln(factor) + 1`.
pub(crate) fn yarn_temperature(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// The inverse of every pair's frequency: `theta^(2i/dim)`.
fn periods(theta: f32, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim).step_by(2).map(move |i| theta.powf(i as f32 / dim as f32))
}

impl RopeScaling {
    /// Inverse frequencies of all pairs. `max`: the config's context; `length`: the document's
    /// length, which matters for dynamic scaling only.
    pub(crate) fn inverse_frequencies(
        &self,
        theta: f64,
        dim: usize,
        max: usize,
        length: usize,
    ) -> Vec<f32> {
        let plain = |theta: f32| periods(theta, dim).map(|period| 1.0 / period);
        let base = theta as f32;
        match *self {
            RopeScaling::None => plain(base).collect(),
            RopeScaling::Linear { factor } => plain(base).map(|f| f / factor as f32).collect(),
            RopeScaling::Dynamic { .. } if length <= max => plain(base).collect(),
            RopeScaling::Dynamic { factor } => {
                let stretch = factor as f32 * length as f32 / max as f32 - (factor - 1.0) as f32;
                let power = dim as f64 / (dim as f64 - 2.0);
                plain(base * stretch.powf(power as f32)).collect()
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings,
            } => {
                let original = original_max_position_embeddings as f32;
                let (longest, shortest) = (original / low as f32, original / high as f32);
                let stretched = |f: f32| {
                    let wavelength = 2.0 * PI / f;
                    if wavelength > longest {
                        f / factor as f32
                    } else if wavelength < shortest {
                        f
                    } else {
                        let smooth = (original / wavelength - low as f32) / (high - low) as f32;
                        (1.0 - smooth) * f / factor as f32 + smooth * f
                    }
                };
                plain(base).map(stretched).collect()
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                // The (fractional) pair with this number of rotations over the original context.
                let pair = |turns: f64| {
                    let original = original_max_position_embeddings as f64;
                    dim as f64 * (original / (turns * 2.0 * std::f64::consts::PI)).ln()
                        / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stretched = |(i, period): (usize, f32)| {
                    let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let unscaled = 1.0 - ramp;
                    1.0 / (factor as f32 * period) * (1.0 - unscaled) + 1.0 / period * unscaled
                };
                periods(base, dim).enumerate().map(stretched).collect()
            }
            RopeScaling::LongRope { ref short_factor, ref long_factor, .. } => {
                let stretched = self.stretches_beyond(max).is_some_and(|limit| length > limit);
                let factors = if stretched { long_factor } else { short_factor };
                let divided = |(period, factor): (f32, &f64)| 1.0 / (*factor as f32 * period);
                periods(base, dim).zip(factors).map(divided).collect()
            }
        }
    }

    /// The length beyond which a document's frequencies are others; `max`: the config's context.
    pub(crate) fn stretches_beyond(&self, max: usize) -> Option<usize> {
        match *self {
            RopeScaling::Dynamic { .. } => Some(max),
            RopeScaling::LongRope { original_max_position_embeddings, .. } => {
                Some(original_max_position_embeddings)
            }
            _ => None,
        }
    }

    /// The length beyond which generation computes all of a document's keys again.
    pub(crate) fn recomputes_beyond(&self) -> Option<usize> {
        match *self {
            RopeScaling::LongRope { original_max_position_embeddings, .. } => {
                Some(original_max_position_embeddings)
            }
            _ => None,
        }
    }

    /// The scale of cosines and sines.
    pub(crate) fn amplitude(&self) -> f32 {
        match *self {
            RopeScaling::Yarn { attention_factor: Some(factor), .. }
            | RopeScaling::LongRope { attention_factor: Some(factor), .. } => factor as f32,
            RopeScaling::Yarn { factor, mscale, mscale_all_dim, .. }
                if mscale != 0.0 && mscale_all_dim != 0.0 =>
            {
                (yarn_temperature(factor, mscale) / yarn_temperature(factor, mscale_all_dim)) as f32
            }
            RopeScaling::Yarn { factor, .. } => yarn_temperature(factor, 1.0) as f32,
            RopeScaling::LongRope { factor, original_max_position_embeddings, .. } => {
                let original = original_max_position_embeddings as f64;
                let amplitude =
                    if factor > 1.0 { (1.0 + factor.ln() / original.ln()).sqrt() } else { 1.0 };
                amplitude as f32
            }
            _ => 1.0,
        }
    }

    /// Maximum document length for a config with `max_position_embeddings = max`. Linear and
    /// dynamic scaling extend it by their factor.
    pub(crate) fn max_document_len(&self, max: usize) -> usize {
        match *self {
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => {
                (max as f64 * factor.max(1.0)) as usize
            }
            _ => max,
        }
    }

    /// What is wrong with the parameters, for heads of width `dim`.
    pub(crate) fn problem(&self, dim: usize) -> Option<String> {
        let positive = |name: &str, number: f64| {
            let fine = number.is_finite() && number > 0.0 && number <= MAX_VALUE;
            (!fine).then(|| {
                format!("{name} of rotary embeddings is {number}, not between 0 and {MAX_VALUE:.0}")
            })
        };
        match *self {
            RopeScaling::None => None,
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Dynamic { factor } => positive("factor", factor).or_else(|| {
                (dim <= 2).then(|| "\"dynamic\" rotary embeddings need heads of more than 2".into())
            }),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => positive("factor", factor)
                .or_else(|| positive("low_freq_factor", low_freq_factor))
                .or_else(|| positive("high_freq_factor", high_freq_factor))
                .or_else(|| {
                    positive(
                        "original_max_position_embeddings",
                        original_max_position_embeddings as f64,
                    )
                })
                .or_else(|| {
                    (high_freq_factor < low_freq_factor).then(|| {
                        format!(
                            "high_freq_factor ({high_freq_factor}) of rotary embeddings is below \
                             low_freq_factor ({low_freq_factor})"
                        )
                    })
                }),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                ..
            } => positive("factor", factor)
                .or_else(|| positive("beta_fast", beta_fast))
                .or_else(|| positive("beta_slow", beta_slow))
                .or_else(|| {
                    positive(
                        "original_max_position_embeddings",
                        original_max_position_embeddings as f64,
                    )
                }),
            RopeScaling::LongRope {
                ref short_factor,
                ref long_factor,
                original_max_position_embeddings,
                factor,
                ..
            } => {
                for (name, list) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                    if list.len() != dim / 2 {
                        return Some(format!(
                            "{name} of rotary embeddings has {} entries for {} rotated pairs",
                            list.len(),
                            dim / 2
                        ));
                    }
                    if let Some(problem) = list.iter().find_map(|&factor| positive(name, factor)) {
                        return Some(problem);
                    }
                }
                let original = original_max_position_embeddings as f64;
                positive("factor", factor)
                    .or_else(|| positive("original_max_position_embeddings", original))
                    // Not finite in an original context of one token.
                    .or_else(|| positive("attention_factor", f64::from(self.amplitude())))
            }
        }
    }

    /// The object `rope_parameters`, including `rope_theta`.
    pub(crate) fn to_json(&self, theta: f64) -> Value {
        match *self {
            RopeScaling::None => json!({ "rope_type": "default", "rope_theta": theta }),
            RopeScaling::Linear { factor } => {
                json!({ "rope_type": "linear", "rope_theta": theta, "factor": factor })
            }
            RopeScaling::Dynamic { factor } => {
                json!({ "rope_type": "dynamic", "rope_theta": theta, "factor": factor })
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "rope_theta": theta,
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor,
                mscale,
                mscale_all_dim,
            } => {
                let mut json = json!({
                    "rope_type": "yarn",
                    "rope_theta": theta,
                    "factor": factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                    "beta_fast": beta_fast,
                    "beta_slow": beta_slow,
                    "truncate": truncate,
                });
                if let Some(attention_factor) = attention_factor {
                    json["attention_factor"] = json!(attention_factor);
                }
                if mscale != 0.0 || mscale_all_dim != 0.0 {
                    json["mscale"] = json!(mscale);
                    json["mscale_all_dim"] = json!(mscale_all_dim);
                }
                json
            }
            RopeScaling::LongRope {
                ref short_factor,
                ref long_factor,
                original_max_position_embeddings,
                factor,
                attention_factor,
            } => {
                let mut json = json!({
                    "rope_type": "longrope",
                    "rope_theta": theta,
                    "factor": factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                    "short_factor": short_factor,
                    "long_factor": long_factor,
                });
                if let Some(attention_factor) = attention_factor {
                    json["attention_factor"] = json!(attention_factor);
                }
                json
            }
        }
    }

    /// Reads base and scaling from the fields of either transformers version. `kinds`: the known
    /// scalings; `max`: `max_position_embeddings`.
    pub(crate) fn read(
        fields: &RopeFields,
        kinds: &[&str],
        default_theta: f64,
        max: usize,
    ) -> Result<(f64, RopeScaling), String> {
        let (mut theta, mut scaling) =
            (fields.rope_theta.unwrap_or(default_theta), RopeScaling::None);
        if let Some(object) = fields.given() {
            if let Some(given) = object.number("rope_theta")? {
                theta = given;
            }
            scaling = object.scaling(kinds, fields.original_max_position_embeddings, max)?;
        }
        Ok((theta, scaling))
    }
}

/// Bounds every number: far above useful values, far below overflow.
const MAX_VALUE: f64 = 1e9;

/// The fields of `config.json` about RoPE.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct RopeFields {
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
    rope_scaling: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl RopeFields {
    /// The object with the scaling.
    fn given(&self) -> Option<ScalingObject<'_>> {
        let objects =
            [("rope_scaling", &self.rope_scaling), ("rope_parameters", &self.rope_parameters)];
        // transformers uses the first non-empty object as a whole.
        objects.into_iter().find_map(|(field, object)| {
            object
                .as_ref()
                .filter(|object| !object.is_empty())
                .map(|object| ScalingObject { field, object })
        })
    }

    /// The share of a head's columns that rotate, in either place.
    pub(crate) fn partial_rotary_factor(&self) -> Result<Option<f64>, String> {
        let given =
            self.given().map(|object| object.number("partial_rotary_factor")).transpose()?;
        Ok(given.flatten().or(self.partial_rotary_factor))
    }
}

struct ScalingObject<'a> {
    field: &'static str,
    object: &'a Map<String, Value>,
}

impl ScalingObject<'_> {
    fn number(&self, name: &str) -> Result<Option<f64>, String> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{name} in {} is {value}, not a number", self.field)),
            },
        }
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>, String> {
        let list = self.object.get(name).and_then(Value::as_array);
        let numbers = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| format!("{} has no {name}, a list of numbers", self.field))
    }

    fn required(&self, name: &str) -> Result<f64, String> {
        self.number(name)?.ok_or_else(|| format!("{} has no {name}", self.field))
    }

    /// Reads the scaling, one of `kinds`. `outside`: a top-level
    /// `original_max_position_embeddings`; `max`: the config's context.
    fn scaling(
        &self,
        kinds: &[&str],
        outside: Option<f64>,
        max: usize,
    ) -> Result<RopeScaling, String> {
        let field = self.field;
        if let Some((name, _)) = self.object.iter().find(|(_, value)| value.is_object()) {
            return Err(format!(
                "{field} has a scaling for {name} alone; only one for all layers is supported"
            ));
        }
        let original = || -> Result<usize, String> {
            let name = "original_max_position_embeddings";
            match outside.map_or_else(|| self.number(name), |outside| Ok(Some(outside)))? {
                None => Ok(max),
                Some(given) if given.fract() == 0.0 => Ok(given as usize),
                Some(given) => Err(format!("{name} of {field} is {given}, not a whole number")),
            }
        };
        let kind = ["rope_type", "type"]
            .iter()
            .find_map(|&name| self.object.get(name).filter(|v| !v.is_null()));
        let name = kind.map_or(Some("default"), Value::as_str);
        // transformers applies mscale_all_dim of DeepSeek-V3 with every scaling type, but published
        // models have it with YaRN only.
        if name != Some("default")
            && name != Some("yarn")
            && self.number("mscale_all_dim")?.unwrap_or(0.0) != 0.0
        {
            return Err(format!("{field} has mscale_all_dim, which is supported with yarn only"));
        }
        let name = name.filter(|name| kinds.contains(name));
        Ok(match name {
            Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: self.required("factor")? },
            Some("dynamic") => RopeScaling::Dynamic { factor: self.required("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: self.required("factor")?,
                low_freq_factor: self.required("low_freq_factor")?,
                high_freq_factor: self.required("high_freq_factor")?,
                original_max_position_embeddings: original()?,
            },
            Some("yarn") => {
                let original_max_position_embeddings = original()?;
                let ratio = || max as f64 / original_max_position_embeddings as f64;
                RopeScaling::Yarn {
                    factor: self.number("factor")?.unwrap_or_else(ratio),
                    original_max_position_embeddings,
                    // 0 counts as absent, as in transformers.
                    beta_fast: self
                        .number("beta_fast")?
                        .filter(|&beta| beta != 0.0)
                        .unwrap_or(32.0),
                    beta_slow: self.number("beta_slow")?.filter(|&beta| beta != 0.0).unwrap_or(1.0),
                    truncate: match self.object.get("truncate") {
                        None => true,
                        Some(Value::Bool(truncate)) => *truncate,
                        Some(other) => {
                            return Err(format!(
                                "truncate in {field} is {other}, not true or false"
                            ));
                        }
                    },
                    attention_factor: self.number("attention_factor")?,
                    mscale: self.number("mscale")?.unwrap_or(0.0),
                    mscale_all_dim: self.number("mscale_all_dim")?.unwrap_or(0.0),
                }
            }
            Some("longrope") => {
                let original_max_position_embeddings = original()?;
                let ratio = || max as f64 / original_max_position_embeddings as f64;
                RopeScaling::LongRope {
                    short_factor: self.numbers("short_factor")?,
                    long_factor: self.numbers("long_factor")?,
                    original_max_position_embeddings,
                    factor: self.number("factor")?.unwrap_or_else(ratio),
                    attention_factor: self.number("attention_factor")?,
                }
            }
            _ => {
                return Err(format!(
                    "{field} asks for {}; supported are {}",
                    kind.unwrap_or(&Value::Null),
                    kinds.join(", ")
                ));
            }
        })
    }
}
