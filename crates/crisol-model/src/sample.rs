//! Choosing the next token from logits: greedy, repetition penalty, temperature, top-k, top-p, min-p, in transformers' order.

use crisol_engine::softmax_weights;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::ModelError;

/// How tokens are chosen and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Most tokens to generate per sequence.
    pub max_new_tokens: usize,
    /// Logits are divided by this; 0 always takes the most probable token.
    pub temperature: f32,
    /// Choose among the `k` most probable tokens only.
    pub top_k: Option<usize>,
    /// Choose among the fewest most probable tokens whose probabilities sum to at least this only (nucleus
    /// sampling, Holtzman et al. 2020, arXiv:1904.09751); applied after `top_k`.
    pub top_p: Option<f32>,
    /// Choose among the tokens that are at least this many times as probable as the most probable one only (Nguyen et al. 2024,
    /// arXiv:2407.01082); applied after `top_p`.
    pub min_p: Option<f32>,
    /// Logits of tokens that the prompt or the answer has already are divided by this if positive, else multiplied (Keskar et al.
    /// 2019, arXiv:1909.05858); 1: not at all.
    pub repetition_penalty: f32,
    /// Same seed, same tokens.
    pub seed: u64,
    /// A sequence ends after one of these.
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
    /// Always the most probable token.
    pub fn greedy(max_new_tokens: usize, stop_ids: Vec<u32>) -> SamplingOptions {
        SamplingOptions { max_new_tokens, temperature: 0.0, stop_ids, ..SamplingOptions::default() }
    }

    pub(crate) fn validate(&self) -> Result<(), ModelError> {
        let wrong = |option, value, allowed| Err(ModelError::Sampling { option, value, allowed });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong(
                "temperature",
                self.temperature.into(),
                "0 (greedy) or a positive number",
            );
        }
        if self.top_k == Some(0) {
            return wrong("top-k", 0.0, "at least 1");
        }
        for (option, share) in [("top-p", self.top_p), ("min-p", self.min_p)] {
            if let Some(p) = share.filter(|&p| !(p > 0.0 && p <= 1.0)) {
                return wrong(option, p.into(), "above 0 and at most 1");
            }
        }
        let penalty = self.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            return wrong("repetition-penalty", penalty.into(), "a positive number");
        }
        Ok(())
    }
}

/// Draws tokens; keeps its scratch memory between draws.
pub(crate) struct Sampler<'a> {
    options: &'a SamplingOptions,
    /// exp(logit − largest), scaled by temperature.
    weights: Vec<f32>,
    /// Ids of the tokens to choose from, where only some are.
    kept: Vec<u32>,
    /// Logits with the repetition penalty, and which have it.
    penalised: Vec<f32>,
    is_penalised: Vec<bool>,
}

impl Sampler<'_> {
    pub(crate) fn new(options: &SamplingOptions) -> Sampler<'_> {
        Sampler {
            options,
            weights: Vec::new(),
            kept: Vec::new(),
            penalised: Vec::new(),
            is_penalised: Vec::new(),
        }
    }

    /// A token and its log-probability under softmax(logits / temperature), *before* a penalty changes and top-k, top-p and min-p cut
    /// the distribution: the quantity that training computes for the same token, so that the importance
    /// ratio starts at 1. Greedy choices are scored at temperature 1. `before` are the sequence's tokens so far.
    pub(crate) fn draw<'t>(
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

    /// The token by the weights that were computed from these logits.
    fn pick(&mut self, logits: &[f32], largest: f32, total: f64, rng: &mut ChaCha8Rng) -> usize {
        if self.options.temperature == 0.0 {
            // The first among equals; a sum that is finite has a largest logit.
            logits.iter().position(|&logit| logit == largest).unwrap_or_default()
        } else {
            self.choose(total, uniform(rng))
        }
    }

    /// Copies logits; those of tokens before, once each, with the penalty.
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

    /// The token at the fraction `at` of the (possibly cut) distribution's total weight.
    fn choose(&mut self, total: f64, at: f64) -> usize {
        let (weights, kept) = (&self.weights, &mut self.kept);
        let &SamplingOptions { top_k, top_p, min_p, .. } = self.options;
        if top_k.is_none() && top_p.is_none() && min_p.is_none() {
            return walk(weights.iter().copied().enumerate(), at * total);
        }
        kept.clear();
        kept.extend(0..weights.len() as u32);
        let weight = |id: u32| weights[id as usize];
        // Most probable first; among equals the lowest id, so that the order is total.
        let order = |&a: &u32, &b: &u32| weight(b).total_cmp(&weight(a)).then(a.cmp(&b));
        let cut = top_k.filter(|&k| k < weights.len());
        if let Some(k) = cut {
            kept.select_nth_unstable_by(k - 1, order);
            kept.truncate(k);
        } else if let Some(p) = top_p {
            // All tokens below this together have less than 1 - p of the weight, so none is in the nucleus; most need no sorting.
            let least = (1.0 - f64::from(p)) * total / weights.len() as f64;
            kept.retain(|&id| f64::from(weight(id)) >= least);
        } else if let Some(p) = min_p {
            let largest = weights.iter().copied().fold(0.0, f32::max);
            kept.retain(|&id| weight(id) >= p * largest);
        }
        kept.sort_unstable_by(order);
        let sum = |kept: &[u32]| kept.iter().map(|&id| f64::from(weight(id))).sum::<f64>();
        if let Some(p) = top_p {
            let enough = f64::from(p) * if cut.is_some() { sum(kept) } else { total };
            let mut so_far = 0.0;
            let nucleus = kept.iter().position(|&id| {
                so_far += f64::from(weight(id));
                so_far >= enough
            });
            kept.truncate(nucleus.map_or(kept.len(), |last| last + 1));
        }
        if let Some(p) = min_p {
            // The most probable token stays whatever was cut, so ratios to it need no normalisation.
            let least = p * kept.first().map_or(0.0, |&id| weight(id));
            kept.truncate(kept.iter().position(|&id| weight(id) < least).unwrap_or(kept.len()));
        }
        walk(kept.iter().map(|&id| (id as usize, weight(id))), at * sum(kept))
    }
}

/// The first token at which the running sum of weights exceeds `target`.
fn walk(weights: impl Iterator<Item = (usize, f32)>, target: f64) -> usize {
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

    /// Shares of each token in 40000 draws; checks each log-probability on the way.
    fn shares(options: &SamplingOptions) -> Vec<f64> {
        const DRAWS: usize = 40_000;
        let scale =
            if options.temperature == 0.0 { 1.0 } else { 1.0 / f64::from(options.temperature) };
        let expected = softmax(scale);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sampler = Sampler::new(options);
        let mut shares = vec![0.0; LOGITS.len()];
        for _ in 0..DRAWS {
            let (id, logprob) = sampler.draw(&LOGITS, [].iter(), &mut rng).expect("finite logits");
            assert!((f64::from(logprob) - expected[id as usize].ln()).abs() < 1e-6);
            shares[id as usize] += 1.0 / DRAWS as f64;
        }
        shares
    }

    fn assert_close(shares: &[f64], expected: &[f64]) {
        for (share, expected) in shares.iter().zip(expected) {
            // Five standard deviations of a share of 40000 draws.
            assert!(
                (share - expected).abs() < 5.0 * (0.25f64 / 40_000.0).sqrt(),
                "{shares:?} {expected:?}"
            );
        }
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        for temperature in [0.5, 1.0, 2.0] {
            let options = SamplingOptions { temperature, ..SamplingOptions::default() };
            assert_close(&shares(&options), &softmax(1.0 / f64::from(temperature)));
        }
    }

    #[test]
    fn greedy_takes_the_largest() {
        let greedy = SamplingOptions::greedy(1, vec![]);
        assert_close(&shares(&greedy), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let tie = Sampler::new(&greedy)
            .draw(&[0.0, 2.0, 2.0], [].iter(), &mut rng)
            .expect("finite logits");
        assert_eq!(tie.0, 1);
    }

    #[test]
    fn top_k_and_top_p_cut_and_renormalise() {
        let p = softmax(1.0);
        let two = [0.0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0.0, 0.0];
        let top_k = SamplingOptions { top_k: Some(2), ..SamplingOptions::default() };
        assert_close(&shares(&top_k), &two);
        // The most probable token alone has less than this, the first two more.
        let middle = (p[1] + p[2] / 2.0) as f32;
        let top_p = SamplingOptions { top_p: Some(middle), ..SamplingOptions::default() };
        assert_close(&shares(&top_p), &two);
        // Top-p counts within what top-k left: of the first two tokens, the first alone has 73 %.
        let both =
            SamplingOptions { top_k: Some(2), top_p: Some(0.7), ..SamplingOptions::default() };
        assert_close(&shares(&both), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let all =
            SamplingOptions { top_k: Some(99), top_p: Some(1.0), ..SamplingOptions::default() };
        assert_close(&shares(&all), &p);
    }

    /// What is left unsorted of a large vocabulary would not have been kept.
    #[test]
    fn a_nucleus_is_the_fewest_tokens_with_its_share() {
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
            sampler.choose(total, 0.5);
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
            assert_eq!(sampler.kept.len(), nucleus.min(probable), "{options:?}");
        }
    }

    #[test]
    fn min_p_keeps_what_is_nearly_as_probable_as_the_most_probable() {
        let p = softmax(1.0);
        let two = [0.0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0.0, 0.0];
        // Just below and just above the ratio of the second to the first.
        let ratio = (p[2] / p[1]) as f32;
        let below = SamplingOptions { min_p: Some(0.99 * ratio), ..SamplingOptions::default() };
        assert_close(&shares(&below), &two);
        let above = SamplingOptions { min_p: Some(1.01 * ratio), ..SamplingOptions::default() };
        assert_close(&shares(&above), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn tokens_that_were_there_are_penalised_once() {
        let greedy = |logits: &[f32], penalty, before: &[u32]| {
            let options = SamplingOptions {
                repetition_penalty: penalty,
                ..SamplingOptions::greedy(1, vec![])
            };
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            Sampler::new(&options).draw(logits, before.iter(), &mut rng).expect("finite logits")
        };
        let logits = [4.0, 3.0, -1.0];
        assert_eq!(greedy(&logits, 1.3, &[]).0, 0);
        // 4 / 1.3 is still more than 3, however often the token was there; 4 / 1.4 is less.
        assert_eq!(greedy(&logits, 1.3, &[0, 0, 0]).0, 0);
        assert_eq!(greedy(&logits, 1.4, &[0]).0, 1);
        // What is negative becomes more so: -2 is less than -1.5.
        assert_eq!(greedy(&[-1.0, -1.5], 2.0, &[0]).0, 1);
        // The log-probability is the model's own.
        assert_eq!(greedy(&logits, 1.4, &[0]).1, greedy(&logits, 0.5, &[1]).1);
    }

    #[test]
    fn broken_logits_and_options_are_errors() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for options in [SamplingOptions::default(), SamplingOptions::greedy(1, vec![])] {
            for broken in [[0.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NAN, f32::NAN]] {
                let drawn = Sampler::new(&options).draw(&broken, [].iter(), &mut rng);
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
