//! Group-relative policy optimization: the other answers to the same prompt are the baseline.
//!
//! For a prompt the policy draws a group of G answers with rewards `R_1..R_G` (Shao et al. 2024,
//! "`DeepSeekMath`", arXiv:2402.03300, section 4.1.2):
//!
//! ```text
//! A_i = (R_i - mean(R)) / std(R)          scaling `group`, the paper's
//! A_i =  R_i - mean(R)                    scaling `none`: Dr. GRPO, Liu et al. 2025, arXiv:2503.20783
//! ```
//!
//! Every token of answer `i` gets `A_i`; the rest is the clipped policy loss with its KL term
//! ([`crate::policy::loss`]). Dividing by the spread makes prompts that are nearly always or nearly never solved
//! weigh more than those solved half the time, the bias that Dr. GRPO removes. A group without spread (all
//! right or all wrong) teaches nothing: its advantages are zero, and it is flagged so that the phase can
//! leave it out (DAPO's dynamic sampling, arXiv:2503.14476, section 3.2) and count it.

use crate::named;

named! {
    /// What a group's centred rewards are divided by.
    pub enum AdvantageScaling ("advantage scaling") {
        /// The group's standard deviation.
        Group = "group",
        /// Nothing.
        None = "none",
    }
}

/// Advantages of the answers of some groups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAdvantages {
    /// One per answer, in the order of the rewards.
    pub advantages: Vec<f32>,
    /// One per group: whether all its rewards are equal (its advantages are then all 0).
    pub zero_spread: Vec<bool>,
}

/// Keeps rewards that differ only by rounding from becoming advantages of ±1; the value TRL uses.
const SPREAD_FLOOR: f64 = 1e-4;

/// Advantages within groups of `group_size` consecutive answers.
///
/// The standard deviation is the sample's (divided by G - 1), as in TRL and verl.
pub fn group_advantages(
    rewards: &[f32],
    group_size: usize,
    scaling: AdvantageScaling,
) -> GroupAdvantages {
    assert!(
        group_size > 0 && rewards.len().is_multiple_of(group_size),
        "rewards come in whole groups"
    );
    let mut advantages = Vec::with_capacity(rewards.len());
    let mut zero_spread = Vec::with_capacity(rewards.len() / group_size);
    for group in rewards.chunks_exact(group_size) {
        let flat = group.iter().all(|&r| r == group[0]);
        zero_spread.push(flat);
        if flat {
            advantages.extend(group.iter().map(|_| 0.0));
            continue;
        }
        let mean = group.iter().map(|&r| f64::from(r)).sum::<f64>() / group_size as f64;
        let squares: f64 = group.iter().map(|&r| (f64::from(r) - mean).powi(2)).sum();
        let divisor = match scaling {
            AdvantageScaling::Group => (squares / (group_size - 1) as f64).sqrt() + SPREAD_FLOOR,
            AdvantageScaling::None => 1.0,
        };
        advantages.extend(group.iter().map(|&r| ((f64::from(r) - mean) / divisor) as f32));
    }
    GroupAdvantages { advantages, zero_spread }
}
