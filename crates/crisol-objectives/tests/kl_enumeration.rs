//! Values and gradients of the KL estimators against exact enumeration: every token or sequence of
//! a tiny policy, weighted by its probability. Through the public losses.

use crisol_objectives::kl::KlEstimator;
use crisol_objectives::policy::{self, KlPenalty, Options};
use crisol_objectives::{BatchSize, TokenScores, ppo};

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| x.exp() / sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

fn logs(p: &[f64]) -> Vec<f32> {
    p.iter().map(|p| p.ln() as f32).collect()
}

/// The gradient of a function of parameters, by central differences.
fn gradient(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let h = 1e-5;
    (0..at.len())
        .map(|i| {
            let moved = |by: f64| {
                let mut x = at.to_vec();
                x[i] += by;
                f(&x)
            };
            (moved(h) - moved(-h)) / (2.0 * h)
        })
        .collect()
}

fn assert_close(what: &str, a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 1e-6, "{what}: {a} is not {b}");
    }
}

const LOGITS: [f64; 5] = [0.3, -1.1, 0.9, 0.0, -0.4];
const REFERENCE: [f64; 5] = [-0.5, 0.2, 0.6, 0.7, -1.5];

/// Mean over tokens of the policy of the gradient of a policy loss with only its KL term.
fn mean_gradient_of_kl_loss(estimator: KlEstimator) -> Vec<f64> {
    let (policy, reference) = (softmax(&LOGITS), softmax(&REFERENCE));
    let (logp, n) = (logs(&policy), policy.len());
    let offsets: Vec<u32> = (0..=n as u32).collect();
    let scores = TokenScores { logp: &logp, entropy: &[], value: &[], offsets: &offsets };
    let options =
        Options { kl: Some(KlPenalty { estimator, coefficient: 1.0 }), ..Options::default() };
    // A batch of one token per shard, so that each token's gradient comes out unscaled.
    let batch = BatchSize { sequences: 1, tokens: 1 };
    let out = policy::loss(&scores, &logp, &logs(&reference), &vec![0.0; n], &options, batch);
    // ∇_j log π(x) = [x = j] - π(j)
    (0..n)
        .map(|j| {
            let dlog = |x: usize| f64::from(u8::from(x == j)) - policy[j];
            (0..n).map(|x| policy[x] * f64::from(out.dlogp[x]) * dlog(x)).sum()
        })
        .collect()
}

#[test]
fn values_of_plain_and_low_variance_are_unbiased_and_squared_is_to_third_order() {
    let policy = softmax(&LOGITS);
    // A reference at a distance along one logit: along symmetric directions the bias may cancel.
    let at = |distance: f64, estimator: KlEstimator| {
        let mut logits = LOGITS;
        logits[0] += distance;
        let reference = softmax(&logits);
        let mean: f64 =
            policy.iter().zip(&reference).map(|(p, q)| p * estimator.value((p / q).ln())).sum();
        let exact = kl(&policy, &reference);
        (mean - exact, exact)
    };
    for distance in [0.1, -4.0] {
        assert!(at(distance, KlEstimator::Plain).0.abs() < 1e-12);
        assert!(at(distance, KlEstimator::LowVariance).0.abs() < 1e-12);
    }
    let (far, near) = (at(0.1, KlEstimator::Squared), at(0.05, KlEstimator::Squared));
    assert!(at(-4.0, KlEstimator::Squared).0.abs() > 0.1, "the bias is real far away");
    assert!((far.1 / near.1 - 4.0).abs() < 0.2, "the KL is of second order: {}", far.1 / near.1);
    assert!((far.0 / near.0 - 8.0).abs() < 0.8, "the bias is of third order: {}", far.0 / near.0);
}

#[test]
fn low_variance_is_never_negative_and_varies_less() {
    let (policy, reference) = (softmax(&LOGITS), softmax(&REFERENCE));
    let variance = |estimator: KlEstimator| {
        let values: Vec<f64> =
            policy.iter().zip(&reference).map(|(p, q)| estimator.value((p / q).ln())).collect();
        let mean: f64 = policy.iter().zip(&values).map(|(p, v)| p * v).sum();
        policy.iter().zip(&values).map(|(p, v)| p * (v - mean).powi(2)).sum::<f64>()
    };
    assert!(variance(KlEstimator::LowVariance) < variance(KlEstimator::Plain));
    for i in -400..=400 {
        assert!(KlEstimator::LowVariance.value(f64::from(i) / 20.0) >= 0.0);
    }
}

#[test]
fn squared_kl_as_loss_has_the_gradient_of_the_kl() {
    let reference = softmax(&REFERENCE);
    let exact = gradient(&LOGITS, |logits| kl(&softmax(logits), &reference));
    assert_close("squared_kl", &mean_gradient_of_kl_loss(KlEstimator::Squared), &exact);
}

#[test]
fn low_variance_kl_as_loss_has_the_gradient_of_the_reversed_kl() {
    let reference = softmax(&REFERENCE);
    let reversed = gradient(&LOGITS, |logits| kl(&reference, &softmax(logits)));
    let exact = gradient(&LOGITS, |logits| kl(&softmax(logits), &reference));
    let mean = mean_gradient_of_kl_loss(KlEstimator::LowVariance);
    assert_close("low_variance_kl", &mean, &reversed);
    let distance: f64 = mean.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum();
    assert!(distance > 0.05, "the two directions must differ here for the test to show anything");
}

#[test]
fn plain_kl_as_loss_has_no_gradient_on_average() {
    assert_close("plain_kl", &mean_gradient_of_kl_loss(KlEstimator::Plain), &[0.0; 5]);
}

#[test]
fn measured_kls_are_those_of_the_distribution_that_drew_the_tokens() {
    let (old, new, reference) = (softmax(&REFERENCE), softmax(&LOGITS), softmax(&[0.0; 5]));
    let (old_logp, logp, reference_logp) = (logs(&old), logs(&new), logs(&reference));
    let stats = |x: usize| {
        let scores = TokenScores { logp: &logp[x..=x], entropy: &[], value: &[], offsets: &[0, 1] };
        let (old, reference) = (&old_logp[x..=x], &reference_logp[x..=x]);
        policy::loss(&scores, old, reference, &[0.0], &Options::default(), scores.size()).stats
    };
    // The old policy draws a rollout's tokens. For KL(policy‖reference) the policy itself does.
    let kl_old: f64 = (0..5).map(|x| old[x] * stats(x).kl_old).sum();
    let kl_reference: f64 = (0..5).map(|x| new[x] * stats(x).kl_reference).sum();
    assert_close("kl_old", &[kl_old], &[kl(&old, &new)]);
    assert_close("kl_reference", &[kl_reference], &[kl(&new, &reference)]);
}

/// A policy over sequences of two tokens of three: logits of the first token, then of the second
/// for each first token.
const V: usize = 3;
const TREE: [f64; V + V * V] = [0.2, -0.6, 0.5, 1.0, 0.1, -0.9, -0.3, 0.4, 0.8, 0.0, -1.2, 0.7];
const TREE_REFERENCE: [f64; V + V * V] =
    [0.9, 0.1, -0.4, 0.0, 0.5, 0.2, 1.1, -0.7, 0.3, -0.2, 0.6, -0.5];

fn first(tree: &[f64]) -> Vec<f64> {
    softmax(&tree[..V])
}

fn second(tree: &[f64], x: usize) -> Vec<f64> {
    softmax(&tree[V + V * x..V + V * (x + 1)])
}

/// KL of whole sequences, from all nine of them.
fn sequence_kl(tree: &[f64]) -> f64 {
    let all = |tree: &[f64]| -> Vec<f64> {
        (0..V * V).map(|i| first(tree)[i / V] * second(tree, i / V)[i % V]).collect()
    };
    kl(&all(tree), &all(&TREE_REFERENCE))
}

/// Mean over the nine sequences of `Σ_t dlogp[t] ∇log π(x_t)`. `dlogp` returns the derivatives of
/// the 18 tokens from their log-probabilities under the policy and the reference.
fn mean_tree_gradient(dlogp: impl Fn(&[f32], &[f32], &[u32]) -> Vec<f32>) -> Vec<f64> {
    let tokens = |tree: &[f64]| -> Vec<f32> {
        (0..V * V)
            .flat_map(|i| [first(tree)[i / V].ln() as f32, second(tree, i / V)[i % V].ln() as f32])
            .collect()
    };
    let offsets: Vec<u32> = (0..=(V * V) as u32).map(|i| 2 * i).collect();
    let dlogp = dlogp(&tokens(&TREE), &tokens(&TREE_REFERENCE), &offsets);
    let mut mean = vec![0.0; TREE.len()];
    for i in 0..V * V {
        let (x, y) = (i / V, i % V);
        let (p1, p2) = (first(&TREE), second(&TREE, x));
        let weight = p1[x] * p2[y];
        for j in 0..V {
            mean[j] += weight * f64::from(dlogp[2 * i]) * (f64::from(u8::from(j == x)) - p1[j]);
            mean[V + V * x + j] +=
                weight * f64::from(dlogp[2 * i + 1]) * (f64::from(u8::from(j == y)) - p2[j]);
        }
    }
    mean
}

/// Each token's own gradient, unscaled.
const ONE: BatchSize = BatchSize { sequences: 1, tokens: 1 };

#[test]
fn kl_in_ppos_rewards_gives_the_gradient_of_the_sequences_kl() {
    let coefficient = 0.7;
    let exact = gradient(&TREE, |tree| coefficient * sequence_kl(tree));
    // With λ = 1 values are a baseline and change no mean: zeros and arbitrary ones must agree.
    for values in [[0.0; 4], [0.8, -1.5, 0.3, 2.0]] {
        let mean = mean_tree_gradient(|logp, reference, offsets| {
            let options =
                ppo::RewardOptions { kl_coefficient: coefficient, missing_end_penalty: 1.0 };
            let n = offsets.len() - 1;
            let rewards = ppo::token_rewards(
                &vec![0.0; n],
                &vec![true; n],
                logp,
                reference,
                offsets,
                &options,
            );
            let values: Vec<f32> =
                (0..V * V).flat_map(|i| [values[0], values[1 + i / V]]).collect();
            let gae = ppo::advantages(&rewards, &values, offsets, 1.0, 1.0);
            let scores = TokenScores { logp, entropy: &[], value: &[], offsets };
            ppo::policy_loss(&scores, logp, &[], &gae.advantages, &ppo::Options::default(), ONE)
                .dlogp
        });
        assert_close("KL in the rewards", &mean, &exact);
    }
}

#[test]
fn kl_in_the_loss_leaves_out_which_states_a_token_leads_to() {
    let exact = gradient(&TREE, sequence_kl);
    let mean = mean_tree_gradient(|logp, reference, offsets| {
        let penalty = KlPenalty { estimator: KlEstimator::Squared, coefficient: 1.0 };
        let options = Options { kl: Some(penalty), ..Options::default() };
        let scores = TokenScores { logp, entropy: &[], value: &[], offsets };
        let advantages = vec![0.0; logp.len()];
        policy::loss(&scores, logp, reference, &advantages, &options, ONE).dlogp
    });
    // Right at the last token; at the first only the KL of the first step, as if nothing followed.
    assert_close("last token", &mean[V..], &exact[V..]);
    let first_step = gradient(&TREE[..V], |logits| kl(&softmax(logits), &first(&TREE_REFERENCE)));
    assert_close("first token", &mean[..V], &first_step);
    let missing: f64 = exact[..V].iter().zip(&first_step).map(|(a, b)| (a - b).abs()).sum();
    assert!(missing > 0.05, "there must be something to leave out");
}
