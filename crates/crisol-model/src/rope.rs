//! Rotary frequencies, and how models stretch them over longer contexts than they were pre-trained on: what
//! `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before) say in `config.json`.
//!
//! All is computed in f32 in transformers' order of operations (`modeling_rope_utils.py`), so that angles are those that a
//! checkpoint was trained with.

use std::f32::consts::PI;

use serde_json::{Map, Value, json};

/// How rotary frequencies are stretched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// All frequencies divided (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// By this.
        factor: f64,
    },
    /// Nothing up to `max_position_embeddings`; beyond it the base grows with the document's length ("dynamic NTK").
    Dynamic {
        /// How many times as long a context may be.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, those between blended (Grattafiori et al. 2024, arXiv:2407.21783).
    Llama3 {
        /// Divides low frequencies.
        factor: f64,
        /// Frequencies below so many turns in the original context are low.
        low_freq_factor: f64,
        /// Those above so many are high.
        high_freq_factor: f64,
        /// The context of pre-training.
        original_max_position_embeddings: usize,
    },
    /// YaRN (Peng et al. 2023, arXiv:2309.00071): frequencies blended like Llama 3's but along a ramp over pairs, and cosines and
    /// sines scaled.
    Yarn {
        /// Divides low frequencies.
        factor: f64,
        /// The context of pre-training.
        original_max_position_embeddings: usize,
        /// Pairs that turn more often than this in the original context are kept.
        beta_fast: f64,
        /// Those that turn less often are divided by `factor`.
        beta_slow: f64,
        /// Whether the ramp's ends are rounded to whole pairs.
        truncate: bool,
        /// The factor on cosines and sines; it follows from the others where it is not given.
        attention_factor: Option<f64>,
        /// DeepSeek's weights of the two factors whose ratio is on cosines and sines; 0: not given.
        mscale: f64,
        /// The other.
        mscale_all_dim: f64,
    },
}

/// YaRN's temperature of the attention for a stretched context: `0.1 · mscale · ln(factor) + 1`.
pub(crate) fn yarn_temperature(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// `theta^(2i/dim)` for every pair.
fn periods(theta: f32, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim).step_by(2).map(move |i| theta.powf(i as f32 / dim as f32))
}

impl RopeScaling {
    /// Inverse frequencies of all pairs for documents of up to `max` tokens (of exactly `length`, where it is more and they
    /// depend on it).
    pub(crate) fn inverse_frequencies(
        self,
        theta: f64,
        dim: usize,
        max: usize,
        length: usize,
    ) -> Vec<f32> {
        let plain = |theta: f32| periods(theta, dim).map(|period| 1.0 / period);
        let base = theta as f32;
        match self {
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
                // The pair that turns so many times in the original context.
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
                    let kept = 1.0 - ramp;
                    1.0 / (factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
                };
                periods(base, dim).enumerate().map(stretched).collect()
            }
        }
    }

    /// The factor on cosines and sines.
    pub(crate) fn amplitude(self) -> f32 {
        match self {
            RopeScaling::Yarn { attention_factor: Some(factor), .. } => factor as f32,
            RopeScaling::Yarn { factor, mscale, mscale_all_dim, .. }
                if mscale != 0.0 && mscale_all_dim != 0.0 =>
            {
                (yarn_temperature(factor, mscale) / yarn_temperature(factor, mscale_all_dim)) as f32
            }
            RopeScaling::Yarn { factor, .. } => yarn_temperature(factor, 1.0) as f32,
            _ => 1.0,
        }
    }

    /// How many tokens a document may have where the config's `max_position_embeddings` is `max`: scalings that stretch a
    /// context by themselves go on from what the model was trained on.
    pub(crate) fn longest(self, max: usize) -> usize {
        match self {
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => {
                (max as f64 * factor.max(1.0)) as usize
            }
            _ => max,
        }
    }

    /// What is wrong with it, for a model whose context is `max`.
    pub(crate) fn problem(self, dim: usize) -> Option<String> {
        let positive = |name: &str, number: f64| {
            let fine = number.is_finite() && number > 0.0 && number <= MOST;
            (!fine).then(|| {
                format!("{name} of rotary embeddings is {number}, not between 0 and {MOST:.0}")
            })
        };
        match self {
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
        }
    }

    /// The object `rope_parameters`, with the base in it.
    pub(crate) fn to_json(self, theta: f64) -> Value {
        match self {
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
        }
    }

    /// Base (`default_theta` where none is given) and scaling from the places where either version of transformers writes them; `max` is
    /// `max_position_embeddings`.
    pub(crate) fn read(
        fields: &RopeFields,
        default_theta: f64,
        max: usize,
    ) -> Result<(f64, RopeScaling), String> {
        let (mut theta, mut scaling) =
            (fields.rope_theta.unwrap_or(default_theta), RopeScaling::None);
        let places =
            [("rope_scaling", &fields.rope_scaling), ("rope_parameters", &fields.rope_parameters)];
        // Where both are given, transformers takes the older one as a whole.
        let given = places.into_iter().find_map(|(field, object)| {
            object
                .as_ref()
                .filter(|object| !object.is_empty())
                .map(|object| Object { field, object })
        });
        if let Some(object) = given {
            if let Some(given) = object.number("rope_theta")? {
                theta = given;
            }
            scaling = object.scaling(fields.original_max_position_embeddings, max)?;
        }
        if let Some(part) = fields.partial_rotary_factor.filter(|&part| part != 1.0) {
            return Err(format!("partial_rotary_factor is {part}; only 1 is supported"));
        }
        Ok((theta, scaling))
    }
}

/// Bounds every number of a scaling: far above what makes sense, far below what overflows.
const MOST: f64 = 1e9;

/// The fields of `config.json` that this file reads.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct RopeFields {
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
    rope_scaling: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

struct Object<'a> {
    field: &'static str,
    object: &'a Map<String, Value>,
}

impl Object<'_> {
    fn number(&self, name: &str) -> Result<Option<f64>, String> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{name} in {} is {value}, not a number", self.field)),
            },
        }
    }

    fn required(&self, name: &str) -> Result<f64, String> {
        self.number(name)?.ok_or_else(|| format!("{} has no {name}", self.field))
    }

    /// The scaling, for a model whose `original_max_position_embeddings` may stand outside and whose context is `max`.
    fn scaling(&self, outside: Option<f64>, max: usize) -> Result<RopeScaling, String> {
        let field = self.field;
        if let Some((name, _)) = self.object.iter().find(|(_, value)| value.is_object()) {
            return Err(format!(
                "{field} has one of its own for {name}; only one for all layers is supported"
            ));
        }
        if let Some(part) =
            self.object.get("partial_rotary_factor").filter(|part| part.as_f64() != Some(1.0))
        {
            return Err(format!("{field} has partial_rotary_factor {part}; only 1 is supported"));
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
        // DeepSeek-V3 in transformers makes scores hotter by it with every scaling, but no model is known that has it with another.
        if name != Some("default")
            && name != Some("yarn")
            && self.number("mscale_all_dim")?.unwrap_or(0.0) != 0.0
        {
            return Err(format!("{field} has mscale_all_dim, which is supported with yarn only"));
        }
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
                    // 0 counts as not given, as in transformers.
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
            _ => {
                return Err(format!(
                    "{field} asks for {}; supported are default, linear, dynamic, llama3 and yarn",
                    kind.unwrap_or(&Value::Null)
                ));
            }
        })
    }
}
