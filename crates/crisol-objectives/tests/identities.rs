//! Identities that each objective satisfies by its theory.

mod common;

use common::{Scores, near, numbers};
use crisol_objectives::grpo::{AdvantageScaling, group_advantages};
use crisol_objectives::kl::KlEstimator;
use crisol_objectives::policy::{self, KlPenalty, Normalisation, Options, RatioLevel};
use crisol_objectives::preference::{self, PreferenceLoss, sequence_logp};
use crisol_objectives::{BatchSize, Stats, TokenScores, bradley_terry, next_token, ppo};

fn assert_close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b}");
}

fn mean_of<S: Stats>(stats: &S, name: &str) -> f64 {
    stats
        .means()
        .into_iter()
        .find(|(n, _)| *n == name)
        .map(|(_, x)| x)
        .expect("the mean has this name")
}

#[test]
fn a_uniform_models_loss_is_the_log_of_the_vocabulary() {
    let mut scores = Scores::new(&[5, 3], 1);
    scores.logp.fill(-(2048f32.ln()));
    let out = next_token::loss(&scores.view(), scores.view().size());
    assert_close(out.loss, 2048f64.ln(), 1e-6);
    assert_close(mean_of(&out.stats, "loss"), 2048f64.ln(), 1e-6);
}

#[test]
fn stats_of_nothing_have_no_means() {
    assert!(next_token::NextTokenStats::default().means().is_empty());
    assert!(preference::PreferenceStats::default().means().is_empty());
    assert!(bradley_terry::RewardStats::default().means().is_empty());
    assert!(crisol_objectives::policy::PolicyStats::default().means().is_empty());
    assert!(ppo::ValueStats::default().means().is_empty());
}

/// One pair of one token each whose gap to the reference is `h`; the policy's share is `h/2` each.
fn preference_at(
    h: f64,
    options: &preference::Options,
) -> crisol_objectives::LossAndGrad<preference::PreferenceStats> {
    let scores = TokenScores { logp: &[-2.0, -3.0], entropy: &[], value: &[], offsets: &[0, 1, 2] };
    preference::loss(&scores, &[-2.0 - h / 2.0, -3.0 + h / 2.0], options, scores.size())
}

#[test]
fn dpo_starts_at_ln_2_with_half_of_beta_per_token() {
    let scores = Scores::new(&[3, 2, 4, 1], 2);
    let reference = sequence_logp(&scores.view());
    let options = preference::Options { beta: 0.4, ..Default::default() };
    let out = preference::loss(&scores.view(), &reference, &options, scores.view().size());
    assert_close(out.loss, 2f64.ln(), 1e-12);
    let quarter = 0.4 / 2.0 / 2.0; // β/2, and the mean over two pairs
    let expected: Vec<f32> = [(-quarter, 3), (quarter, 2), (-quarter, 4), (quarter, 1)]
        .into_iter()
        .flat_map(|(g, n)| vec![g as f32; n])
        .collect();
    assert_eq!(out.dlogp, expected);
    assert_eq!((out.stats.correct, mean_of(&out.stats, "margin")), (0, 0.0));
}

#[test]
fn label_smoothing_moves_every_optimum_to_the_believed_preference() {
    for beta in [0.1, 0.5] {
        for e in [0.05f64, 0.2] {
            let at = |loss, h| {
                preference_at(
                    h,
                    &preference::Options { loss, beta, label_smoothing: e, sft_weight: 0.0 },
                )
            };
            // cDPO: the preference probability σ(β h) becomes 1 - ε. IPO: h = (p - 1/2) / β.
            let sigmoid = ((1.0 - e) / e).ln() / beta;
            let ipo = (0.5 - e) / beta;
            assert_close(f64::from(at(PreferenceLoss::Sigmoid, sigmoid).dlogp[0]), 0.0, 1e-7);
            assert_close(f64::from(at(PreferenceLoss::Ipo, ipo).dlogp[0]), 0.0, 1e-6);
            assert!(at(PreferenceLoss::Sigmoid, sigmoid + 1.0).dlogp[0] > 0.0);
            assert!(at(PreferenceLoss::Ipo, ipo + 1.0).dlogp[0] > 0.0);
        }
    }
}

#[test]
fn ipo_has_its_optimum_at_one_over_two_beta() {
    let options =
        preference::Options { loss: PreferenceLoss::Ipo, beta: 0.25, ..Default::default() };
    let out = preference_at(2.0, &options);
    assert_eq!((out.loss, out.dlogp), (0.0, vec![0.0, -0.0]));
    assert_close(preference_at(3.5, &options).loss, 2.25, 1e-12);
}

#[test]
fn the_hinge_is_satisfied_beyond_one_over_beta() {
    let options =
        preference::Options { loss: PreferenceLoss::Hinge, beta: 0.5, ..Default::default() };
    let out = preference_at(2.5, &options);
    assert_eq!((out.loss, out.dlogp[0], out.stats.correct), (0.0, 0.0, 1));
    let out = preference_at(-1.0, &options);
    assert_close(out.loss, 1.5, 1e-12);
    assert_eq!((out.dlogp, out.stats.correct), (vec![-0.5, 0.5], 0));
}

#[test]
fn the_sft_term_is_the_chosen_answers_next_token_loss() {
    let scores = Scores::new(&[4, 3], 3);
    let reference = sequence_logp(&scores.view());
    let with = |sft_weight| {
        let options = preference::Options { sft_weight, ..Default::default() };
        preference::loss(&scores.view(), &reference, &options, scores.view().size())
    };
    let (plain, both) = (with(0.0), with(2.0));
    let [chosen, _] = scores.split(1);
    let sft = next_token::loss(&chosen.view(), chosen.view().size());
    assert_close(both.loss - plain.loss, 2.0 * sft.loss, 1e-12);
    assert_eq!(both.dlogp[4..], plain.dlogp[4..], "the rejected answer is not in it");
}

#[test]
fn losses_of_extreme_gaps_stay_finite() {
    for h in [-1e5, 1e5] {
        for &loss in PreferenceLoss::ALL {
            let out = preference_at(h, &preference::Options { loss, ..Default::default() });
            assert_eq!(out.dlogp.len(), 2);
            assert!(out.loss.is_finite() && out.dlogp.iter().all(|d| d.is_finite()));
        }
        let value = [h as f32, -h as f32];
        let scores = TokenScores { logp: &[], entropy: &[], value: &value, offsets: &[0, 1, 2] };
        let out = bradley_terry::loss(&scores, 0.01, scores.size());
        assert_eq!(out.dvalue.len(), 2);
        assert!(out.loss.is_finite() && out.dvalue.iter().all(|d| d.is_finite()));
    }
}

#[test]
fn bradley_terry_sees_differences_and_centring_sums() {
    let at = |value: [f32; 2], centring| {
        let scores = TokenScores { logp: &[], entropy: &[], value: &value, offsets: &[0, 1, 2] };
        bradley_terry::loss(&scores, centring, scores.size())
    };
    let tie = at([0.7, 0.7], 0.0);
    assert_close(tie.loss, 2f64.ln(), 1e-12);
    assert_eq!((tie.dvalue, tie.stats.correct), (vec![-0.5, 0.5], 0));
    // Without centring only the difference counts; with it a pair that sums to zero is unmoved.
    assert_eq!(at([1.5, 0.5], 0.0).loss, at([9.5, 8.5], 0.0).loss);
    assert_eq!(at([0.5, -0.5], 0.0).dvalue, at([0.5, -0.5], 0.3).dvalue);
    assert_close(at([1.5, 0.5], 0.1).loss - at([1.5, 0.5], 0.0).loss, 0.1 * 4.0, 1e-12);
}

#[test]
fn at_ratio_one_the_gradient_is_the_plain_policy_gradient() {
    let scores = Scores::new(&[2, 4, 1], 4);
    let per_token = scores.per_token(&[1.5, -0.5, 0.25]);
    let lengths = [2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 1.0];
    for &ratio_level in RatioLevel::ALL {
        for &normalisation in Normalisation::ALL {
            let options =
                Options { ratio_level, normalisation, max_length: 8, ..Options::default() };
            let old = &scores.logp;
            let out =
                policy::loss(&scores.view(), old, &[], &per_token, &options, scores.view().size());
            for t in 0..7 {
                let parts = match normalisation {
                    Normalisation::Token => 7.0,
                    Normalisation::Sequence => 3.0 * lengths[t],
                    Normalisation::Constant => 3.0 * 8.0,
                };
                assert_close(f64::from(out.dlogp[t]), -f64::from(per_token[t]) / parts, 1e-8);
            }
            assert_eq!(mean_of(&out.stats, "ratio"), 1.0);
            assert_eq!(mean_of(&out.stats, "kl_old"), 0.0);
            assert_eq!((out.stats.clipped_low, out.stats.clipped_high), (0, 0));
        }
    }
    let out = ppo::policy_loss(
        &scores.view(),
        &scores.logp,
        &[],
        &per_token,
        &ppo::Options::default(),
        scores.view().size(),
    );
    assert_eq!(out.dlogp.len(), per_token.len());
    for (d, &a) in out.dlogp.iter().zip(&per_token) {
        assert_close(f64::from(*d), -f64::from(a) / 7.0, 1e-8);
    }
}

#[test]
fn clipping_is_one_sided() {
    // ratio, advantage, loss, gradient: worked by hand from -min(r A, clip(r, 0.8, 1.28) A)
    let cases = [
        (1.5, 1.0, -1.28, 0.0),
        (1.5, -1.0, 1.5, 1.5),
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),
        (1.25, 2.0, -2.5, -2.5),
        (0.9, -2.0, 1.8, 1.8),
    ];
    for (ratio, advantage, loss, gradient) in cases {
        for &ratio_level in RatioLevel::ALL {
            let logp = [-1.0f32];
            let old = [-1.0 - f64::ln(ratio) as f32];
            let scores = TokenScores { logp: &logp, entropy: &[], value: &[], offsets: &[0, 1] };
            let options = Options { ratio_level, ..Options::default() };
            let out = policy::loss(&scores, &old, &[], &[advantage], &options, scores.size());
            assert_close(out.loss, loss, 1e-6);
            assert_close(f64::from(out.dlogp[0]), gradient, 1e-6);
            assert_eq!(out.stats.clipped_high == 1, gradient == 0.0 && ratio > 1.0);
            assert_eq!(out.stats.clipped_low == 1, gradient == 0.0 && ratio < 1.0);
        }
    }
}

#[test]
fn a_sequence_ratio_is_the_geometric_mean_of_its_tokens_ratios() {
    let scores = Scores::new(&[3, 5], 5);
    let old = near(&scores.logp, 0.1, 6);
    let options = Options {
        ratio_level: RatioLevel::Sequence,
        normalisation: Normalisation::Sequence,
        ..Options::default()
    };
    let out = policy::loss(
        &scores.view(),
        &old,
        &[],
        &scores.per_token(&[1.0, -2.0]),
        &options,
        scores.view().size(),
    );
    // GSPO: -1/2 Σ_i s_i A_i while nothing is clipped
    let (p, q) = (
        sequence_logp(&scores.view()),
        sequence_logp(&TokenScores { logp: &old, ..scores.view() }),
    );
    let s = [((p[0] - q[0]) / 3.0).exp(), ((p[1] - q[1]) / 5.0).exp()];
    assert_close(out.loss, -0.5 * (s[0] - 2.0 * s[1]), 1e-12);
    assert_eq!((out.stats.clipped_low, out.stats.clipped_high), (0, 0));
}

#[test]
fn sequence_and_token_normalisation_agree_where_lengths_do() {
    let scores = Scores::new(&[4, 4, 4], 7);
    let (old, reference) = (near(&scores.logp, 0.4, 8), near(&scores.logp, 0.5, 9));
    let at = |normalisation| {
        let kl = Some(KlPenalty { estimator: KlEstimator::LowVariance, coefficient: 0.04 });
        let options = Options { normalisation, max_length: 4, kl, ..Options::default() };
        policy::loss(
            &scores.view(),
            &old,
            &reference,
            &scores.per_token(&[1.0, -0.3, 0.5]),
            &options,
            scores.view().size(),
        )
    };
    let token = at(Normalisation::Token);
    for other in [at(Normalisation::Sequence), at(Normalisation::Constant)] {
        assert_close(other.loss, token.loss, 1e-12);
        assert_eq!(other.dlogp, token.dlogp);
    }
}

#[test]
fn group_advantages_are_centred_scaled_and_flagged() {
    let rewards = [1.0, 0.0, 0.0, 1.0, 0.1, 0.1, 0.1, 0.1, 1.1, 0.1, 0.1, 0.1];
    let scaled = group_advantages(&rewards, 4, AdvantageScaling::Group);
    let plain = group_advantages(&rewards, 4, AdvantageScaling::None);
    assert_eq!(scaled.zero_spread, [false, true, false]);
    assert_eq!(plain.zero_spread, scaled.zero_spread);
    assert_eq!(plain.advantages[..8], [0.5, -0.5, -0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(scaled.advantages[4..8], [0.0; 4], "not 0/0 and not rounding blown up");
    for group in scaled.advantages.chunks(4).chain(plain.advantages.chunks(4)) {
        assert_close(group.iter().map(|&a| f64::from(a)).sum(), 0.0, 1e-6);
    }
    for group in [&scaled.advantages[..4], &scaled.advantages[8..]] {
        let squares: f64 = group.iter().map(|&a| f64::from(a).powi(2)).sum();
        assert_close((squares / 3.0).sqrt(), 1.0, 1e-3);
    }
    // The reward's scale does not matter when it is divided out, and does when it is not.
    let tenfold: Vec<f32> = rewards.iter().map(|r| 10.0 * r).collect();
    let tenfold = group_advantages(&tenfold, 4, AdvantageScaling::Group).advantages;
    assert_eq!(tenfold.len(), scaled.advantages.len());
    for (a, b) in tenfold.iter().zip(&scaled.advantages) {
        assert_close(f64::from(*a), f64::from(*b), 1e-3);
    }
}

#[test]
fn kl_to_the_reference_is_measured_without_a_penalty() {
    let scores = Scores::new(&[3, 2], 10);
    let reference = near(&scores.logp, 0.5, 11);
    let options = Options::default();
    let batch = scores.view().size();
    let advantages = scores.per_token(&[1.0, -1.0]);
    let without = policy::loss(&scores.view(), &scores.logp, &[], &advantages, &options, batch);
    let with = policy::loss(&scores.view(), &scores.logp, &reference, &advantages, &options, batch);
    assert_eq!((without.loss, &without.dlogp), (with.loss, &with.dlogp));
    let expected: f64 = scores
        .logp
        .iter()
        .zip(&reference)
        .map(|(&p, &q)| {
            let delta = f64::from(p) - f64::from(q);
            (-delta).exp() - 1.0 + delta
        })
        .sum::<f64>()
        / 5.0;
    assert_close(mean_of(&with.stats, "kl_reference"), expected, 1e-12);
    assert!(without.stats.means().iter().all(|(name, _)| *name != "kl_reference"));
}

#[test]
fn gae_spans_td_error_to_return() {
    let scores = Scores::new(&[4, 1, 6], 12);
    let n = scores.logp.len();
    let (rewards, values) = (numbers(n, -1.0, 1.0, 13), &scores.value);
    let gamma = 0.9;
    let td = ppo::advantages(&rewards, values, &scores.offsets, gamma, 0.0);
    let mc = ppo::advantages(&rewards, values, &scores.offsets, gamma, 1.0);
    for w in scores.offsets.windows(2) {
        let (start, end) = (w[0] as usize, w[1] as usize);
        for t in start..end {
            let next = if t + 1 < end { f64::from(values[t + 1]) } else { 0.0 };
            let delta = f64::from(rewards[t]) + gamma * next - f64::from(values[t]);
            assert_close(f64::from(td.advantages[t]), delta, 1e-6);
            let returned: f64 =
                (t..end).map(|u| gamma.powi((u - t) as i32) * f64::from(rewards[u])).sum();
            assert_close(f64::from(mc.advantages[t]), returned - f64::from(values[t]), 1e-6);
            assert_close(f64::from(mc.returns[t]), returned, 1e-6);
        }
    }
    // In between: eq. 16 as the sum it abbreviates.
    let lambda = 0.7;
    let gae = ppo::advantages(&rewards, values, &scores.offsets, gamma, lambda);
    for t in 5..11 {
        let sum: f64 = (t..11)
            .map(|u| (gamma * lambda).powi((u - t) as i32) * f64::from(td.advantages[u]))
            .sum();
        assert_close(f64::from(gae.advantages[t]), sum, 1e-6);
    }
}

#[test]
fn perfect_values_leave_no_advantage() {
    let (rewards, offsets) = ([0.0, 0.0, 2.0, 0.0, -1.0], [0, 3, 5]);
    let out = ppo::advantages(&rewards, &[2.0, 2.0, 2.0, -1.0, -1.0], &offsets, 1.0, 0.95);
    assert_eq!(out.advantages, [0.0; 5]);
    assert_eq!(out.returns, [2.0, 2.0, 2.0, -1.0, -1.0]);
}

#[test]
fn token_rewards_pay_the_score_at_the_end_and_the_kl_on_the_way() {
    let options = ppo::RewardOptions { kl_coefficient: 0.5, missing_end_penalty: 1.5 };
    let rewards = ppo::token_rewards(
        &[3.0, 4.0, 5.0],
        &[true, false, true],
        &[-1.0, -2.0, -1.0, -3.0],
        &[-2.0, -1.0, -1.0, -3.5],
        &[0, 2, 3, 4],
        &options,
    );
    assert_eq!(rewards, [-0.5, 3.5, 2.5, 4.75]);
}

#[test]
fn whitening_sets_the_scale_and_the_centre_only_on_request() {
    let original = numbers(50, 1.0, 9.0, 14);
    let moments = |x: &[f32]| {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        (mean, x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / (n - 1.0))
    };
    for centre in [true, false] {
        let mut x = original.clone();
        ppo::whiten(&mut x, centre);
        let (mean, variance) = moments(&x);
        assert_close(mean, if centre { 0.0 } else { moments(&original).0 }, 1e-5);
        assert_close(variance, 1.0, 1e-5);
    }
    let mut constant = vec![3.0; 4];
    ppo::whiten(&mut constant, true);
    assert_eq!(constant, [0.0; 4]);
    let mut single = vec![3.0];
    ppo::whiten(&mut single, true);
    assert_eq!(single, [3.0], "one number has no spread to scale by");
}

#[test]
fn explained_variance_is_one_for_perfect_and_zero_for_constant_values() {
    let mut scores = Scores::new(&[8], 15);
    let returns = numbers(8, -2.0, 2.0, 16);
    let explained = |scores: &Scores| {
        let out = ppo::value_loss(
            &scores.view(),
            &scores.value,
            &returns,
            &ppo::Options::default(),
            scores.view().size(),
        );
        mean_of(&out.stats, "explained_variance")
    };
    scores.value.clone_from(&returns);
    assert_close(explained(&scores), 1.0, 1e-12);
    scores.value.fill(0.3);
    assert_close(explained(&scores), 0.0, 1e-12);
}

/// A diverged model must be detected: no `min`, `max` or comparison may swallow a NaN loss.
#[test]
fn a_score_that_is_not_a_number_makes_the_loss_not_a_number() {
    let mut scores = Scores::new(&[1; 4], 17);
    let (old, values) = (scores.logp.clone(), scores.value.clone());
    scores.logp[2] = f32::NAN;
    scores.value[1] = f32::NAN;
    let (view, batch) = (scores.view(), scores.view().size());
    assert!(next_token::loss(&view, batch).loss.is_nan());
    for &loss in PreferenceLoss::ALL {
        let options = preference::Options { loss, ..Default::default() };
        assert!(preference::loss(&view, &[-1.0; 4], &options, batch).loss.is_nan(), "{loss}");
    }
    assert!(bradley_terry::loss(&view, 0.0, batch).loss.is_nan());
    for advantage in [-1.0, 0.0, 1.0] {
        let advantages = [advantage; 4];
        assert!(
            policy::loss(&view, &old, &[], &advantages, &Options::default(), batch).loss.is_nan()
        );
    }
    assert!(
        ppo::value_loss(&view, &values, &values, &ppo::Options::default(), batch).loss.is_nan()
    );
}

#[test]
fn options_are_chosen_by_name() {
    for &estimator in KlEstimator::ALL {
        assert_eq!(estimator.name().parse(), Ok(estimator));
    }
    let error = "k3".parse::<KlEstimator>().expect_err("no such name");
    assert_eq!(
        error.to_string(),
        "unknown KL estimator \"k3\"; use one of: plain_kl, squared_kl, low_variance_kl"
    );
    assert_eq!("none".parse(), Ok(AdvantageScaling::None));
    assert_eq!("sequence".parse(), Ok(RatioLevel::Sequence));
    assert_eq!("constant".parse(), Ok(Normalisation::Constant));
    assert_eq!("ipo".parse(), Ok(PreferenceLoss::Ipo));
}

#[test]
fn a_batch_is_the_sum_of_its_shards() {
    assert_eq!(BatchSize::of(&[0, 3, 3, 7]), BatchSize { sequences: 3, tokens: 7 });
    assert_eq!(BatchSize::of(&[]), BatchSize::default());
    assert_eq!(BatchSize::of(&[0]), BatchSize::default());
}

// What objectives report beside the loss: each mean from its definition.

#[test]
fn a_shard_counts_its_own_tokens_wherever_it_starts() {
    assert_eq!(BatchSize::of(&[5, 7, 11]), BatchSize { sequences: 2, tokens: 6 });
}

/// Accuracy counts pairs whose chosen answer has the higher reward; a tie is not right.
#[test]
fn the_accuracy_of_a_reward_model_is_the_share_of_pairs_ranked_right() {
    let value = [2.0, 1.0, 0.0, 3.0, 1.5, 0.5, 0.7, 0.7];
    let offsets: Vec<u32> = (0..=8).collect();
    let scores = TokenScores { logp: &[], entropy: &[], value: &value, offsets: &offsets };
    let stats = bradley_terry::loss(&scores, 0.0, scores.size()).stats;
    assert_eq!((stats.pairs, stats.correct), (4, 2));
    assert_close(stats.chosen_reward, 2.0 + 0.0 + 1.5 + 0.7, 1e-6);
    assert_close(stats.rejected_reward, 1.0 + 3.0 + 0.5 + 0.7, 1e-6);
}

/// The divisor is the deviation plus 1e-4, as in TRL.
#[test]
fn the_floor_of_the_spread_is_added() {
    let rewards = [0.0, 0.001];
    let deviation = 0.001 / 2f64.sqrt();
    let wanted = 0.0005 / (deviation + 1e-4);
    let advantages = group_advantages(&rewards, 2, AdvantageScaling::Group).advantages;
    assert_close(f64::from(advantages[1]), wanted, 1e-6);
    assert_close(f64::from(advantages[0]), -wanted, 1e-6);
}

/// Entropy, ratio and both clip fractions of five tokens; the entropies are means over the tokens
/// that have one.
#[test]
fn the_means_of_a_policy_update_are_over_its_tokens() {
    let scores = Scores::new(&[3, 2], 10);
    let drawn_ratios = [1.6f32, 0.6, 1.0, 0.6, 1.1];
    let old: Vec<f32> =
        scores.logp.iter().zip(drawn_ratios).map(|(logp, ratio)| logp - ratio.ln()).collect();
    let advantages = scores.per_token(&[1.0, -1.0]);
    let options = Options::default();
    let view = scores.view();
    let stats = policy::loss(&view, &old, &[], &advantages, &options, view.size()).stats;
    let ratios: Vec<f64> =
        (0..5).map(|t| (f64::from(scores.logp[t]) - f64::from(old[t])).exp()).collect();
    let share =
        |clipped: &dyn Fn(usize) -> bool| (0..5).filter(|&t| clipped(t)).count() as f64 / 5.0;
    let low = share(&|t| advantages[t] < 0.0 && ratios[t] < 1.0 - options.clip_low);
    let high = share(&|t| advantages[t] > 0.0 && ratios[t] > 1.0 + options.clip_high);
    assert!(low > 0.0 && high > 0.0, "the example clips on both sides: {ratios:?}");
    assert_close(mean_of(&stats, "ratio"), ratios.iter().sum::<f64>() / 5.0, 1e-6);
    assert_close(mean_of(&stats, "clip_fraction_low"), low, 1e-6);
    assert_close(mean_of(&stats, "clip_fraction_high"), high, 1e-6);
    // The old policy drew the tokens: the log-ratio is old over new.
    let kl = |ratio: f64| ratio - 1.0 - ratio.ln();
    let mean_kl = ratios.iter().map(|&ratio| kl(ratio)).sum::<f64>() / 5.0;
    assert_close(mean_of(&stats, "kl_old"), mean_kl, 1e-6);

    let entropy = [0.5, 1.0, 1.5, 2.0, 4.0];
    let with = TokenScores { entropy: &entropy, ..view };
    let stats = policy::loss(&with, &old, &[], &advantages, &options, view.size()).stats;
    assert_close(mean_of(&stats, "entropy"), 9.0 / 5.0, 1e-6);
    let without = TokenScores { entropy: &[], ..view };
    let stats = policy::loss(&without, &old, &[], &advantages, &options, view.size()).stats;
    assert!(stats.means().iter().all(|(name, _)| *name != "entropy"), "no token has an entropy");
}
