//! Sampling a token from logits: repetition penalty, temperature, top-k, top-p and min-p, in
//! transformers' order.

use crisol_engine::softmax_weights;
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

/// Samples tokens; reuses its buffers between calls.
pub(crate) struct Sampler<'a> {
    options: &'a SamplingOptions,
    /// exp((logit − largest) / temperature).
    weights: Vec<f32>,
    /// Candidate ids, where only some tokens are candidates.
    candidates: Vec<u32>,
    /// Logits after the repetition penalty, and which tokens have it.
    penalised: Vec<f32>,
    is_penalised: Vec<bool>,
}

impl Sampler<'_> {
    pub(crate) fn new(options: &SamplingOptions) -> Sampler<'_> {
        Sampler {
            options,
            weights: Vec::new(),
            candidates: Vec::new(),
            penalised: Vec::new(),
            is_penalised: Vec::new(),
        }
    }

    /// Samples a token. Returns its id and its log-probability under softmax(logits / temperature),
    /// *before* penalty, top-k, top-p and min-p. Training computes the same quantity, so importance
    /// ratios start at 1. Greedy choices are scored at temperature 1. `before`: the sequence's
    /// tokens so far.
    pub(crate) fn sample<'t>(
        &mut self,
        logits: &[f32],
        before: impl Iterator<Item = &'t u32>,
        rng: &mut ChaCha8Rng,
    ) -> Result<(u32, f32), ModelError> {
        let greedy = self.options.temperature == 0.0;
        let scale = if greedy { 1.0 } else { self.options.temperature.recip() };
        self.weights.resize(logits.len(), 0.0);
        let (largest, total) = softmax_weights(logits, scale, &mut self.weights);
        if !total.is_finite() {
            return Err(ModelError::NotFinite);
        }
        let token = if self.options.repetition_penalty == 1.0 {
            self.pick(logits, largest, total, rng)
        } else {
            let mut penalised = std::mem::take(&mut self.penalised);
            self.penalise(logits, before, &mut penalised);
            let (largest, total) = softmax_weights(&penalised, scale, &mut self.weights);
            let token = self.pick(&penalised, largest, total, rng);
            self.penalised = penalised;
            token
        };
        let logprob = f64::from((logits[token] - largest) * scale) - total.ln();
        Ok((token as u32, logprob as f32))
    }

    /// Picks the token from `weights`, computed from these logits.
    fn pick(&mut self, logits: &[f32], largest: f32, total: f64, rng: &mut ChaCha8Rng) -> usize {
        if self.options.temperature == 0.0 {
            // Ties go to the lowest id. A finite sum implies a largest logit.
            logits.iter().position(|&logit| logit == largest).unwrap_or_default()
        } else {
            self.sample_filtered(total, uniform(rng))
        }
    }

    /// Copies the logits and penalises each token of `before` once.
    fn penalise<'t>(
        &mut self,
        logits: &[f32],
        before: impl Iterator<Item = &'t u32>,
        penalised: &mut Vec<f32>,
    ) {
        penalised.clear();
        penalised.extend(logits);
        self.is_penalised.clear();
        self.is_penalised.resize(logits.len(), false);
        let penalty = self.options.repetition_penalty;
        for &id in before {
            let done = std::mem::replace(&mut self.is_penalised[id as usize], true);
            let logit = &mut penalised[id as usize];
            if !done {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// The token at fraction `u` of the (possibly truncated) distribution's total weight.
    fn sample_filtered(&mut self, total: f64, u: f64) -> usize {
        let (weights, candidates) = (&self.weights, &mut self.candidates);
        let &SamplingOptions { top_k, top_p, min_p, .. } = self.options;
        if top_k.is_none() && top_p.is_none() && min_p.is_none() {
            return inverse_cdf(weights.iter().copied().enumerate(), u * total);
        }
        candidates.clear();
        candidates.extend(0..weights.len() as u32);
        let weight = |id: u32| weights[id as usize];
        // Descending probability; ties by id make the order total.
        let order = |&a: &u32, &b: &u32| weight(b).total_cmp(&weight(a)).then(a.cmp(&b));
        let cut = top_k.filter(|&k| k < weights.len());
        if let Some(k) = cut {
            candidates.select_nth_unstable_by(k - 1, order);
            candidates.truncate(k);
        } else if let Some(p) = top_p {
            // Tokens below this hold less than 1 - p of the weight together, so none is in the
            // nucleus. This avoids sorting most of the vocabulary.
            let threshold = (1.0 - f64::from(p)) * total / weights.len() as f64;
            candidates.retain(|&id| f64::from(weight(id)) >= threshold);
        } else if let Some(p) = min_p {
            let largest = weights.iter().copied().fold(0.0, f32::max);
            candidates.retain(|&id| weight(id) >= p * largest);
        }
        candidates.sort_unstable_by(order);
        let sum =
            |candidates: &[u32]| candidates.iter().map(|&id| f64::from(weight(id))).sum::<f64>();
        if let Some(p) = top_p {
            let threshold = f64::from(p) * if cut.is_some() { sum(candidates) } else { total };
            let mut so_far = 0.0;
            let nucleus = candidates.iter().position(|&id| {
                so_far += f64::from(weight(id));
                so_far >= threshold
            });
            candidates.truncate(nucleus.map_or(candidates.len(), |last| last + 1));
        }
        if let Some(p) = min_p {
            // The most probable token is never cut, so ratios to it need no normalisation.
            let threshold = p * candidates.first().map_or(0.0, |&id| weight(id));
            candidates.truncate(
                candidates
                    .iter()
                    .position(|&id| weight(id) < threshold)
                    .unwrap_or(candidates.len()),
            );
        }
        inverse_cdf(candidates.iter().map(|&id| (id as usize, weight(id))), u * sum(candidates))
    }
}

/// The first token at which the cumulative weight exceeds `target`.
fn inverse_cdf(weights: impl Iterator<Item = (usize, f32)>, target: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (id, weight) in weights {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = id;
            if sum > target {
                break;
            }
        }
    }
    last
}

/// Uniform in [0, 1) with 53 random bits.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (-53f64).exp2()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 0.0, -1.0];

    fn softmax(scale: f64) -> Vec<f64> {
        let weights: Vec<f64> = LOGITS.iter().map(|&x| (f64::from(x) * scale).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    /// Frequency of each token in 40000 draws; also checks each log-probability.
    fn frequencies(options: &SamplingOptions) -> Vec<f64> {
        const DRAWS: usize = 40_000;
        let scale =
            if options.temperature == 0.0 { 1.0 } else { 1.0 / f64::from(options.temperature) };
        let expected = softmax(scale);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sampler = Sampler::new(options);
        let mut frequencies = vec![0.0; LOGITS.len()];
        for _ in 0..DRAWS {
            let (id, logprob) =
                sampler.sample(&LOGITS, [].iter(), &mut rng).expect("finite logits");
            assert!((f64::from(logprob) - expected[id as usize].ln()).abs() < 1e-6);
            frequencies[id as usize] += 1.0 / DRAWS as f64;
        }
        frequencies
    }

    fn assert_close(frequencies: &[f64], expected: &[f64]) {
        for (frequency, expected) in frequencies.iter().zip(expected) {
            // Five standard deviations of a frequency over 40000 draws.
            assert!(
                (frequency - expected).abs() < 5.0 * (0.25f64 / 40_000.0).sqrt(),
                "{frequencies:?} {expected:?}"
            );
        }
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        for temperature in [0.5, 1.0, 2.0] {
            let options = SamplingOptions { temperature, ..SamplingOptions::default() };
            assert_close(&frequencies(&options), &softmax(1.0 / f64::from(temperature)));
        }
    }

    #[test]
    fn greedy_takes_the_largest() {
        let greedy = SamplingOptions::greedy(1, vec![]);
        assert_close(&frequencies(&greedy), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let tie = Sampler::new(&greedy)
            .sample(&[0.0, 2.0, 2.0], [].iter(), &mut rng)
            .expect("finite logits");
        assert_eq!(tie.0, 1);
    }

    #[test]
    fn top_k_and_top_p_cut_and_renormalise() {
        let p = softmax(1.0);
        let two = [0.0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0.0, 0.0];
        let top_k = SamplingOptions { top_k: Some(2), ..SamplingOptions::default() };
        assert_close(&frequencies(&top_k), &two);
        // Between the probability of the first token and that of the first two.
        let middle = (p[1] + p[2] / 2.0) as f32;
        let top_p = SamplingOptions { top_p: Some(middle), ..SamplingOptions::default() };
        assert_close(&frequencies(&top_p), &two);
        // Top-p applies within top-k: of the first two tokens, the first alone has 73 %.
        let both =
            SamplingOptions { top_k: Some(2), top_p: Some(0.7), ..SamplingOptions::default() };
        assert_close(&frequencies(&both), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let all =
            SamplingOptions { top_k: Some(99), top_p: Some(1.0), ..SamplingOptions::default() };
        assert_close(&frequencies(&all), &p);
    }

    /// Tokens that the pre-filter drops are not in the nucleus.
    #[test]
    fn the_nucleus_is_the_smallest_set_with_its_probability() {
        let logits: Vec<f32> =
            (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 400.0).collect();
        for (p, min_p, top_k) in
            [(0.3, None, None), (0.95, None, Some(9000)), (0.999, Some(0.01), None)]
        {
            let options =
                SamplingOptions { top_p: Some(p), min_p, top_k, ..SamplingOptions::default() };
            let mut sampler = Sampler::new(&options);
            sampler.weights.resize(logits.len(), 0.0);
            let (_, total) = softmax_weights(&logits, 1.0, &mut sampler.weights);
            sampler.sample_filtered(total, 0.5);
            let mut sorted = sampler.weights.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let mut so_far = 0.0;
            let nucleus = sorted.iter().position(|&w| {
                so_far += f64::from(w);
                so_far >= f64::from(p) * total
            });
            let nucleus = 1 + nucleus.expect("less than all of it");
            let probable =
                sorted.iter().filter(|&&w| w >= min_p.unwrap_or(0.0) * sorted[0]).count();
            assert_eq!(sampler.candidates.len(), nucleus.min(probable), "{options:?}");
        }
    }

    #[test]
    fn min_p_keeps_tokens_near_the_largest_probability() {
        let p = softmax(1.0);
        let two = [0.0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0.0, 0.0];
        // Just below and just above the ratio of the second to the first.
        let ratio = (p[2] / p[1]) as f32;
        let below = SamplingOptions { min_p: Some(0.99 * ratio), ..SamplingOptions::default() };
        assert_close(&frequencies(&below), &two);
        let above = SamplingOptions { min_p: Some(1.01 * ratio), ..SamplingOptions::default() };
        assert_close(&frequencies(&above), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn repeated_tokens_are_penalised_once() {
        let greedy = |logits: &[f32], penalty, before: &[u32]| {
            let options = SamplingOptions {
                repetition_penalty: penalty,
                ..SamplingOptions::greedy(1, vec![])
            };
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            Sampler::new(&options).sample(logits, before.iter(), &mut rng).expect("finite logits")
        };
        let logits = [4.0, 3.0, -1.0];
        assert_eq!(greedy(&logits, 1.3, &[]).0, 0);
        // 4 / 1.3 still exceeds 3, however often the token occurred; 4 / 1.4 does not.
        assert_eq!(greedy(&logits, 1.3, &[0, 0, 0]).0, 0);
        assert_eq!(greedy(&logits, 1.4, &[0]).0, 1);
        // Negative logits decrease: -2 is below -1.5.
        assert_eq!(greedy(&[-1.0, -1.5], 2.0, &[0]).0, 1);
        // The log-probability ignores the penalty.
        assert_eq!(greedy(&logits, 1.4, &[0]).1, greedy(&logits, 0.5, &[1]).1);
    }

    #[test]
    fn broken_logits_and_options_are_errors() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for options in [SamplingOptions::default(), SamplingOptions::greedy(1, vec![])] {
            for broken in [[0.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NAN, f32::NAN]] {
                let drawn = Sampler::new(&options).sample(&broken, [].iter(), &mut rng);
                assert!(matches!(drawn, Err(ModelError::NotFinite)), "{broken:?}");
            }
        }
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
