//! Options of sampling, and its random numbers. The device draws the tokens
//! ([`crisol_engine::Tape::draw_tokens`]).

use crisol_engine::Sampling;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::ModelError;

/// Sampling and stopping options.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Maximum new tokens per sequence.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 is greedy decoding.
    pub temperature: f32,
    /// Keep only the `k` most probable tokens.
    pub top_k: Option<usize>,
    /// Keep the smallest set of most probable tokens with at least this total probability (nucleus
    /// sampling, Holtzman et al. 2020, arXiv:1904.09751); applied after `top_k`.
    pub top_p: Option<f32>,
    /// Keep tokens with at least this multiple of the largest probability (Nguyen et al. 2024,
    /// arXiv:2407.01082); applied after `top_p`.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens already in prompt or answer
    /// (Keskar et al. 2019, arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Equal seeds give equal tokens.
    pub seed: u64,
    /// Tokens that end a sequence.
    pub stop_ids: Vec<u32>,
}

impl Default for SamplingOptions {
    fn default() -> SamplingOptions {
        SamplingOptions {
            max_new_tokens: 128,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
            stop_ids: Vec::new(),
        }
    }
}

impl SamplingOptions {
    /// Greedy decoding.
    pub fn greedy(max_new_tokens: usize, stop_ids: Vec<u32>) -> SamplingOptions {
        SamplingOptions { max_new_tokens, temperature: 0.0, stop_ids, ..SamplingOptions::default() }
    }

    /// What the device needs to draw tokens.
    pub(crate) fn sampling(&self) -> Sampling {
        let &SamplingOptions { temperature, top_k, top_p, min_p, repetition_penalty, .. } = self;
        Sampling { temperature, top_k, top_p, min_p, repetition_penalty }
    }

    pub(crate) fn validate(&self) -> Result<(), ModelError> {
        let invalid = |option, value, allowed| Err(ModelError::Sampling { option, value, allowed });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return invalid(
                "temperature",
                self.temperature.into(),
                "0 (greedy) or a positive number",
            );
        }
        if self.top_k == Some(0) {
            return invalid("top-k", 0.0, "at least 1");
        }
        for (option, p) in [("top-p", self.top_p), ("min-p", self.min_p)] {
            if let Some(p) = p.filter(|&p| !(p > 0.0 && p <= 1.0)) {
                return invalid(option, p.into(), "above 0 and at most 1");
            }
        }
        let penalty = self.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            return invalid("repetition-penalty", penalty.into(), "a positive number");
        }
        Ok(())
    }
}

/// Uniform in [0, 1) with 53 random bits.
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (-53f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_errors() {
        assert!(SamplingOptions::default().validate().is_ok());
        assert!(SamplingOptions::greedy(1, vec![]).validate().is_ok());
        for options in [
            SamplingOptions { temperature: -1.0, ..SamplingOptions::default() },
            SamplingOptions { temperature: f32::NAN, ..SamplingOptions::default() },
            SamplingOptions { top_k: Some(0), ..SamplingOptions::default() },
            SamplingOptions { top_p: Some(0.0), ..SamplingOptions::default() },
            SamplingOptions { top_p: Some(1.5), ..SamplingOptions::default() },
            SamplingOptions { min_p: Some(0.0), ..SamplingOptions::default() },
            SamplingOptions { min_p: Some(f32::NAN), ..SamplingOptions::default() },
            SamplingOptions { repetition_penalty: 0.0, ..SamplingOptions::default() },
            SamplingOptions { repetition_penalty: f32::INFINITY, ..SamplingOptions::default() },
        ] {
            assert!(options.validate().is_err(), "{options:?}");
        }
    }
}
