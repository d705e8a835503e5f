//! Every objective's gradient against finite differences, with all options; and every objective as
//! a sum over shards.

mod common;

use common::{Scores, near, numbers};
use crisol_objectives::kl::KlEstimator;
use crisol_objectives::policy::{self, KlPenalty, Normalisation, Options, RatioLevel};
use crisol_objectives::preference::PreferenceLoss;
use crisol_objectives::{
    BatchSize, LossAndGrad, Stats, TokenScores, bradley_terry, next_token, ppo, preference,
};

/// One of the three inputs of an objective.
type Field = fn(&mut Scores) -> &mut Vec<f32>;

/// Checks the gradient by every log-probability, entropy and value against central differences. An
/// empty gradient is zero. Returns the stats, so that a test can check which cases it reached.
///
/// The loss is computed in f64 from f32 inputs, so the actual step is known exactly and the error
/// of the difference is about h².
fn check_gradient<S: Stats>(
    what: &str,
    scores: &Scores,
    loss: impl Fn(&TokenScores) -> LossAndGrad<S>,
) -> S {
    const H: f32 = 1e-3;
    let at = loss(&scores.view());
    let fields: [(&str, Field, &[f32]); 3] = [
        ("logp", |s| &mut s.logp, &at.dlogp),
        ("entropy", |s| &mut s.entropy, &at.dentropy),
        ("value", |s| &mut s.value, &at.dvalue),
    ];
    let mut largest = 0.0f64;
    for (name, field, gradient) in fields {
        let n = field(&mut scores.clone()).len();
        assert!(
            gradient.is_empty() || gradient.len() == n,
            "{what}: length of the gradient of {name}"
        );
        for i in 0..n {
            let moved = |by: f32| {
                let mut scores = scores.clone();
                field(&mut scores)[i] += by;
                let x = f64::from(field(&mut scores)[i]);
                (x, loss(&scores.view()).loss)
            };
            let ((x1, y1), (x0, y0)) = (moved(H), moved(-H));
            let numeric = (y1 - y0) / (x1 - x0);
            let analytic = f64::from(gradient.get(i).copied().unwrap_or(0.0));
            assert!(
                (numeric - analytic).abs() < 2e-6 + 1e-5 * analytic.abs(),
                "{what}: d loss/d {name}[{i}] is {analytic}, by finite differences {numeric}"
            );
            largest = largest.max(analytic.abs());
        }
    }
    assert!(largest > 1e-3, "{what}: a gradient of zero everywhere shows nothing");
    at.stats
}

/// Checks that two shards add up to the whole.
fn check_additive<S: Stats + PartialEq + std::fmt::Debug>(
    what: &str,
    scores: &Scores,
    at: usize,
    loss: impl Fn(
        &TokenScores,
        std::ops::Range<usize>,
        std::ops::Range<usize>,
        BatchSize,
    ) -> LossAndGrad<S>,
) {
    let (batch, cut) = (scores.view().size(), scores.offsets[at] as usize);
    let whole = loss(&scores.view(), 0..batch.sequences, 0..batch.tokens, batch);
    let [a, b] = scores.split(at);
    assert_eq!([a.view().size(), b.view().size()].into_iter().sum::<BatchSize>(), batch);
    let a = loss(&a.view(), 0..at, 0..cut, batch);
    let b = loss(&b.view(), at..batch.sequences, cut..batch.tokens, batch);

    assert!(
        (a.loss + b.loss - whole.loss).abs() < 1e-12 * whole.loss.abs().max(1.0),
        "{what}: loss"
    );
    assert_eq!([a.dlogp, b.dlogp].concat(), whole.dlogp, "{what}: dlogp");
    assert_eq!([a.dentropy, b.dentropy].concat(), whole.dentropy, "{what}: dentropy");
    assert_eq!([a.dvalue, b.dvalue].concat(), whole.dvalue, "{what}: dvalue");
    let mut sum = a.stats;
    sum += b.stats;
    let (sums, wholes) = (sum.means(), whole.stats.means());
    assert!(!sums.is_empty() && sums.len() == wholes.len(), "{what}: {sums:?} and {wholes:?}");
    for ((name, sum), (whole_name, whole)) in sums.into_iter().zip(wholes) {
        assert_eq!(name, whole_name, "{what}");
        assert!((sum - whole).abs() < 1e-12 * whole.abs().max(1.0), "{what}: {name}");
    }
}

/// Normalisers of a batch of several shards.
const BATCH: BatchSize = BatchSize { sequences: 10, tokens: 40 };

#[test]
fn next_token_gradient() {
    let scores = Scores::new(&[3, 1, 4], 1);
    let stats = check_gradient("next token", &scores, |s| next_token::loss(s, BATCH));
    assert_eq!(stats.tokens, 8);
}

#[test]
fn preference_gradient() {
    // Gaps on both sides of the hinge's kink at 1/β: the reference is moved pair by pair.
    let scores = Scores::new(&[3, 2, 1, 4, 5, 2], 2);
    let mut reference = preference::sequence_logp(&scores.view());
    for (r, by) in reference.iter_mut().zip([0.4, -0.1, -1.3, 0.8, -3.0, 2.5]) {
        *r += by;
    }
    for loss in PreferenceLoss::ALL {
        for beta in [0.3, 1.0] {
            for (label_smoothing, sft_weight) in [(0.0, 0.0), (0.1, 0.0), (0.0, 0.7), (0.2, 1.5)] {
                let options =
                    preference::Options { loss: *loss, beta, label_smoothing, sft_weight };
                let stats = check_gradient(&format!("{options:?}"), &scores, |s| {
                    preference::loss(s, &reference, &options, BATCH)
                });
                assert_eq!((stats.pairs, stats.correct), (3, 2));
            }
        }
    }
}

#[test]
fn bradley_terry_gradient() {
    let mut scores = Scores::new(&[1; 8], 3);
    scores.value.swap(0, 1);
    for centring in [0.0, 0.01, 0.5] {
        let stats =
            check_gradient("Bradley-Terry", &scores, |s| bradley_terry::loss(s, centring, BATCH));
        assert_eq!(stats.pairs, 4);
        assert!(stats.correct > 0 && stats.correct < 4, "both orders must occur");
    }
}

/// Scores, old and reference log-probabilities whose token and sequence ratios leave the clip range
/// on both sides.
fn rollout() -> (Scores, Vec<f32>, Vec<f32>) {
    let scores = Scores::new(&[3, 1, 4, 2, 5, 2, 3, 1], 4);
    let mut old = near(&scores.logp, 0.3, 5);
    // Sequences 0 and 1 moved up, 2 and 3 down, the others little.
    for (sequence, by) in [-0.5, -0.5, 0.5, 0.5].into_iter().enumerate() {
        let range = scores.offsets[sequence] as usize..scores.offsets[sequence + 1] as usize;
        old[range].iter_mut().for_each(|x| *x += by);
    }
    let reference = near(&scores.logp, 1.0, 6);
    (scores, old, reference)
}

#[test]
fn policy_gradient() {
    let (scores, old, reference) = rollout();
    let advantages = scores.per_token(&[1.0, -0.7, 0.6, -1.2, 1.5, -0.4, 0.0, 0.3]);
    for &ratio_level in RatioLevel::ALL {
        for &normalisation in Normalisation::ALL {
            for kl in [None].into_iter().chain(KlEstimator::ALL.iter().map(|&e| Some(e))) {
                for entropy_bonus in [0.0, 0.01] {
                    let options = Options {
                        clip_low: 0.2,
                        clip_high: 0.28,
                        ratio_level,
                        normalisation,
                        max_length: 6,
                        kl: kl.map(|estimator| KlPenalty { estimator, coefficient: 0.3 }),
                        entropy_bonus,
                    };
                    let what = format!("{options:?}");
                    let stats = check_gradient(&what, &scores, |s| {
                        policy::loss(s, &old, &reference, &advantages, &options, BATCH)
                    });
                    assert!(
                        stats.clipped_low > 0 && stats.clipped_high > 0,
                        "{what}: nothing was clipped"
                    );
                    assert!(
                        stats.clipped_low + stats.clipped_high < stats.tokens / 2,
                        "{what}: too much was"
                    );
                }
            }
        }
    }
}

#[test]
fn ppo_policy_gradient() {
    let (scores, old, reference) = rollout();
    let advantages = numbers(scores.logp.len(), -2.0, 2.0, 7);
    for entropy_bonus in [0.0, 0.02] {
        let options = ppo::Options { clip: 0.15, entropy_bonus, ..ppo::Options::default() };
        let stats = check_gradient("PPO policy", &scores, |s| {
            ppo::policy_loss(s, &old, &reference, &advantages, &options, BATCH)
        });
        assert!(stats.clipped_low > 0 && stats.clipped_high > 0);
    }
}

#[test]
fn ppo_value_gradient() {
    let scores = Scores::new(&[6, 10], 8);
    let old = near(&scores.value, 0.5, 9);
    let returns = near(&scores.value, 1.0, 10);
    let options = ppo::Options::default();
    let stats = check_gradient("PPO value", &scores, |s| {
        ppo::value_loss(s, &old, &returns, &options, BATCH)
    });
    assert!(stats.clipped > 2 && stats.clipped < 12, "{stats:?}");
}

#[test]
fn losses_add_up_over_shards() {
    let (scores, old, reference) = rollout();
    let token_advantages = numbers(scores.logp.len(), -2.0, 2.0, 11);
    let sequence_reference =
        numbers(8, -9.0, -1.0, 12).into_iter().map(f64::from).collect::<Vec<_>>();
    let returns = near(&scores.value, 1.0, 13);
    let pairs = Scores::new(&[1; 8], 14);
    for at in [2, 4, 6] {
        check_additive("next token", &scores, at, |s, _, _, batch| next_token::loss(s, batch));
        let options =
            preference::Options { label_smoothing: 0.1, sft_weight: 0.5, ..Default::default() };
        check_additive("preference", &scores, at, |s, sequences, _, batch| {
            preference::loss(s, &sequence_reference[sequences], &options, batch)
        });
        check_additive("Bradley-Terry", &pairs, at, |s, _, _, batch| {
            bradley_terry::loss(s, 0.01, batch)
        });
        check_additive("value", &scores, at, |s, _, t, batch| {
            ppo::value_loss(s, &old[t.clone()], &returns[t], &ppo::Options::default(), batch)
        });
        check_additive("PPO policy", &scores, at, |s, _, t, batch| {
            let options = ppo::Options { entropy_bonus: 0.01, ..ppo::Options::default() };
            ppo::policy_loss(
                s,
                &old[t.clone()],
                &reference[t.clone()],
                &token_advantages[t],
                &options,
                batch,
            )
        });
        for &normalisation in Normalisation::ALL {
            let kl = Some(KlPenalty { estimator: KlEstimator::Squared, coefficient: 0.1 });
            let options = Options { normalisation, max_length: 6, kl, ..Options::default() };
            check_additive("policy", &scores, at, |s, _, t, batch| {
                let (old, reference) = (&old[t.clone()], &reference[t.clone()]);
                policy::loss(s, old, reference, &token_advantages[t], &options, batch)
            });
        }
    }
}
