//! Estimators of KL(policy‖reference) from single tokens.
//!
//! With `δ = log π(x) - log π_ref(x)` at a token `x` drawn from the policy (J. Schulman,
//! "Approximating KL Divergence", 2020, <http://joschu.net/blog/kl-approx.html>):
//!
//! | name | value `k` | mean of `k` | `k'` by log π(x) | mean gradient as a loss |
//! |---|---|---|---|---|
//! | `plain_kl` | δ | KL; high variance, may be negative | 1 | **0**: only noise |
//! | `squared_kl` | δ²/2 | KL to third order in δ | δ | **of the KL** |
//! | `low_variance_kl` | e^(-δ) - 1 + δ | KL; never negative | 1 - e^(-δ) | of the *reversed* KL |
//!
//! The reversed KL is that from the reference to the policy.
//!
//! A good estimate of the value is not a good loss: differentiating a sample ignores that the
//! samples move with π. An estimator `k` as a loss has the mean gradient `E[k'(δ) ∇log π]`. The
//! KL's own is `E[δ ∇log π]`, so only `k' = δ` gives it. Hence:
//!
//! - `squared_kl` to train with, inside the loss;
//!
//! - `low_variance_kl` to measure with (the GRPO paper's, arXiv:2402.03300 eq. 4);
//!
//! - `plain_kl` inside the reward, where the policy gradient multiplies it by ∇log π (PPO here).
//!
//! See Tang & Munos 2025, "On a few pitfalls in KL divergence gradient estimation for RL",
//! arXiv:2506.09477, and Zhang et al. 2025, "On the design of KL-regularized policy gradient
//! algorithms for LLM reasoning", arXiv:2505.17508. The tests check the table by exact enumeration.
//!
//! Two limits hold for every estimator inside a loss. The table assumes tokens drawn from the
//! current policy; after several updates on one rollout it holds only while the importance ratio is
//! near 1. And a sum of per-token terms ignores that an early token changes the later states; a KL
//! in the reward does not, through the return.

use crate::named;

named! {
    /// A named estimator of KL(policy‖reference) from the log-probs of one token.
    pub enum KlEstimator ("KL estimator") {
        /// The log-ratio: unbiased, noisy, and without any gradient as a loss.
        Plain = "plain_kl",
        /// Half the squared log-ratio: slightly biased, its gradient exactly right.
        Squared = "squared_kl",
        /// e^(-δ) - 1 + δ: unbiased and never negative, its gradient that of the reversed KL.
        LowVariance = "low_variance_kl",
    }
}

impl KlEstimator {
    /// The estimate from `delta`, the log-ratio policy/reference of one token, in nats.
    pub fn value(self, delta: f64) -> f64 {
        match self {
            Self::Plain => delta,
            Self::Squared => 0.5 * delta * delta,
            Self::LowVariance => (-delta).exp_m1() + delta,
        }
    }

    /// The derivative of [`value`](Self::value) with respect to the policy's log-prob of the token.
    pub fn derivative(self, delta: f64) -> f64 {
        match self {
            Self::Plain => 1.0,
            Self::Squared => delta,
            Self::LowVariance => -(-delta).exp_m1(),
        }
    }
}
