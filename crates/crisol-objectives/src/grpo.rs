//! GRPO, group-relative policy optimization: the baseline is the mean of other answers to the
//! prompt.
//!
//! For a prompt the policy draws a group of G answers with rewards `R_1..R_G` (Shao et al. 2024,
//! "`DeepSeekMath`", arXiv:2402.03300, section 4.1.2):
//!
//! ```text
//! A_i = (R_i - mean(R)) / std(R)          scaling `group`, the paper's
//! A_i =  R_i - mean(R)                    scaling `none`: Dr. GRPO, arXiv:2503.20783
//! ```
//!
//! Every token of answer `i` gets `A_i`; the rest is the clipped policy loss with its KL term
//! ([`crate::policy::loss`]). Dividing by the standard deviation gives more weight to prompts that
//! are almost always or almost never solved, a bias that Dr. GRPO removes. A group of equal rewards
//! has zero advantages and is flagged, so that the phase can drop it (DAPO's dynamic sampling,
//! arXiv:2503.14476, section 3.2).

use crate::named;

named! {
    /// Divisor of a group's centred rewards.
    pub enum AdvantageScaling ("advantage scaling") {
        /// The group's standard deviation.
        Group = "group",
        /// Nothing.
        None = "none",
    }
}

/// Advantages of the answers of all groups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAdvantages {
    /// One per answer, in the order of the rewards.
    pub advantages: Vec<f32>,
    /// One per group: whether its rewards are equal, and its advantages 0.
    pub zero_spread: Vec<bool>,
}

/// Keeps rounding differences of rewards from becoming advantages of ±1; TRL's value.
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
