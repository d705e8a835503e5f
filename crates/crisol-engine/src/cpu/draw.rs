//! Drawing tokens from logits, by inverse transform sampling of what the filters leave:
//!
//! ```text
//! logits ─penalty─► softmax at the temperature ─► top-k ─► top-p ─► min-p ─► weights w
//! token   the first at which w0 + w1 + … exceeds u · Σ w
//! ```

use super::device::Cpu;
use super::math::softmax_weights;
use super::parallel;
use crate::draw::{Draw, Drawn, Sampling};

/// Logits below which another task does not pay: about 30 µs of work.
const TASK_LOGITS: usize = 32 * 1024;

/// Draws tokens one after the other; reuses its buffers between calls.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// exp((logit − largest) / temperature).
    weights: Vec<f32>,
    /// Candidate ids, where only some tokens are candidates.
    candidates: Vec<u32>,
    /// Logits after the repetition penalty.
    penalised: Vec<f32>,
    drawn: Vec<Drawn>,
}

/// Draws from `logits`, `[rows, vocab]`, in up to `tasks` tasks with a sampler each. `None` if a
/// row is not finite.
pub(crate) fn draw_tokens(
    cpu: &Cpu,
    logits: &[f32],
    vocab: usize,
    sampling: &Sampling,
    draws: &[Draw<'_>],
    samplers: &mut Vec<Sampler>,
    tasks: usize,
) -> Option<Vec<Drawn>> {
    let tasks = tasks.min(draws.len()).min(1 + draws.len() * vocab / TASK_LOGITS);
    if samplers.len() < tasks {
        samplers.resize_with(tasks, Sampler::default);
    }
    let samplers = &mut samplers[..tasks];
    parallel::for_each(cpu, samplers, &|task, sampler| {
        let range = draws.len() * task / tasks..draws.len() * (task + 1) / tasks;
        sampler.drawn.clear();
        for draw in &draws[range] {
            let logits = &logits[draw.row * vocab..][..vocab];
            let Some(drawn) = sampler.draw(logits, sampling, draw) else { break };
            sampler.drawn.push(drawn);
        }
    });
    let mut drawn = Vec::with_capacity(draws.len());
    for sampler in samplers {
        drawn.extend(&sampler.drawn);
    }
    (drawn.len() == draws.len()).then_some(drawn)
}

impl Sampler {
    /// Draws from one row of logits.
    fn draw(&mut self, logits: &[f32], sampling: &Sampling, draw: &Draw<'_>) -> Option<Drawn> {
        let scale = if sampling.is_greedy() { 1.0 } else { sampling.temperature.recip() };
        self.weights.resize(logits.len(), 0.0);
        let (largest, total) = softmax_weights(logits, scale, &mut self.weights);
        if !total.is_finite() {
            return None;
        }
        let token = if sampling.repetition_penalty == 1.0 {
            self.pick(logits, largest, total, sampling, draw.uniform)
        } else {
            let mut penalised = std::mem::take(&mut self.penalised);
            penalise(logits, sampling.repetition_penalty, draw.seen, &mut penalised);
            let (largest, total) = softmax_weights(&penalised, scale, &mut self.weights);
            let token = self.pick(&penalised, largest, total, sampling, draw.uniform);
            self.penalised = penalised;
            token
        };
        let logprob = f64::from((logits[token] - largest) * scale) - total.ln();
        Some(Drawn { id: token as u32, logprob: logprob as f32 })
    }

    /// Picks the token from `weights`, computed from these logits.
    fn pick(
        &mut self,
        logits: &[f32],
        largest: f32,
        total: f64,
        sampling: &Sampling,
        u: f64,
    ) -> usize {
        if sampling.is_greedy() {
            // Ties go to the lowest id. A finite sum implies a largest logit.
            logits.iter().position(|&logit| logit == largest).unwrap_or_default()
        } else {
            self.pick_filtered(total, sampling, u)
        }
    }

    /// The token at fraction `u` of the (possibly truncated) distribution's total weight.
    fn pick_filtered(&mut self, total: f64, sampling: &Sampling, u: f64) -> usize {
        let (weights, candidates) = (&self.weights, &mut self.candidates);
        let &Sampling { top_k, top_p, min_p, .. } = sampling;
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

/// Copies the logits and penalises each token of `seen` once: from its own logit, however often it
/// occurs.
fn penalise(logits: &[f32], penalty: f32, seen: [&[u32]; 2], penalised: &mut Vec<f32>) {
    penalised.clear();
    penalised.extend(logits);
    for id in seen.into_iter().flatten().map(|&id| id as usize) {
        let logit = logits[id];
        penalised[id] = if logit > 0.0 { logit / penalty } else { logit * penalty };
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 0.0, -1.0];
    /// Every token, as the model says.
    const ALL: Sampling = Sampling {
        temperature: 1.0,
        top_k: None,
        top_p: None,
        min_p: None,
        repetition_penalty: 1.0,
    };
    const GREEDY: Sampling = Sampling { temperature: 0.0, ..ALL };

    fn draw(logits: &[f32], sampling: &Sampling, uniform: f64, seen: &[u32]) -> Option<Drawn> {
        let draw = Draw { row: 0, uniform, seen: [&[], seen] };
        Sampler::default().draw(logits, sampling, &draw)
    }

    fn softmax(scale: f64) -> Vec<f64> {
        let weights: Vec<f64> = LOGITS.iter().map(|&x| (f64::from(x) * scale).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    /// Frequency of each token in 40000 draws; also checks each log-probability.
    fn frequencies(sampling: &Sampling) -> Vec<f64> {
        const DRAWS: usize = 40_000;
        let scale = if sampling.is_greedy() { 1.0 } else { 1.0 / f64::from(sampling.temperature) };
        let expected = softmax(scale);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sampler = Sampler::default();
        let mut frequencies = vec![0.0; LOGITS.len()];
        for _ in 0..DRAWS {
            let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let draw = Draw { row: 0, uniform, seen: [&[]; 2] };
            let Drawn { id, logprob } =
                sampler.draw(&LOGITS, sampling, &draw).expect("finite logits");
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
            let sampling = Sampling { temperature, ..ALL };
            assert_close(&frequencies(&sampling), &softmax(1.0 / f64::from(temperature)));
        }
    }

    #[test]
    fn greedy_takes_the_largest() {
        assert_close(&frequencies(&GREEDY), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let tie = draw(&[0.0, 2.0, 2.0], &GREEDY, 0.0, &[]);
        assert_eq!(tie.map(|drawn| drawn.id), Some(1));
    }

    #[test]
    fn top_k_and_top_p_cut_and_renormalise() {
        let p = softmax(1.0);
        let two = [0.0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0.0, 0.0];
        let top_k = Sampling { top_k: Some(2), ..ALL };
        assert_close(&frequencies(&top_k), &two);
        // Between the probability of the first token and that of the first two.
        let middle = (p[1] + p[2] / 2.0) as f32;
        let top_p = Sampling { top_p: Some(middle), ..ALL };
        assert_close(&frequencies(&top_p), &two);
        // Top-p applies within top-k: of the first two tokens, the first alone has 73 %.
        let both = Sampling { top_k: Some(2), top_p: Some(0.7), ..ALL };
        assert_close(&frequencies(&both), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let all = Sampling { top_k: Some(99), top_p: Some(1.0), ..ALL };
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
            let sampling = Sampling { top_p: Some(p), min_p, top_k, ..ALL };
            let mut sampler = Sampler::default();
            sampler.weights.resize(logits.len(), 0.0);
            let (_, total) = softmax_weights(&logits, 1.0, &mut sampler.weights);
            sampler.pick_filtered(total, &sampling, 0.5);
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
            assert_eq!(sampler.candidates.len(), nucleus.min(probable), "{sampling:?}");
        }
    }

    #[test]
    fn min_p_keeps_tokens_near_the_largest_probability() {
        let p = softmax(1.0);
        let two = [0.0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0.0, 0.0];
        // Just below and just above the ratio of the second to the first.
        let ratio = (p[2] / p[1]) as f32;
        let below = Sampling { min_p: Some(0.99 * ratio), ..ALL };
        assert_close(&frequencies(&below), &two);
        let above = Sampling { min_p: Some(1.01 * ratio), ..ALL };
        assert_close(&frequencies(&above), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn repeated_tokens_are_penalised_once() {
        let greedy = |logits: &[f32], penalty, seen: &[u32]| {
            let sampling = Sampling { repetition_penalty: penalty, ..GREEDY };
            draw(logits, &sampling, 0.0, seen).expect("finite logits")
        };
        let logits = [4.0, 3.0, -1.0];
        assert_eq!(greedy(&logits, 1.3, &[]).id, 0);
        // 4 / 1.3 still exceeds 3, however often the token occurred; 4 / 1.4 does not.
        assert_eq!(greedy(&logits, 1.3, &[0, 0, 0]).id, 0);
        assert_eq!(greedy(&logits, 1.4, &[0]).id, 1);
        // Negative logits decrease: -2 is below -1.5.
        assert_eq!(greedy(&[-1.0, -1.5], 2.0, &[0]).id, 1);
        // The log-probability ignores the penalty.
        assert_eq!(greedy(&logits, 1.4, &[0]).logprob, greedy(&logits, 0.5, &[1]).logprob);
    }

    #[test]
    fn broken_logits_give_no_token() {
        for sampling in [ALL, GREEDY] {
            for broken in [[0.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NAN, f32::NAN]] {
                assert_eq!(draw(&broken, &sampling, 0.5, &[]), None, "{broken:?}");
            }
        }
    }
}
