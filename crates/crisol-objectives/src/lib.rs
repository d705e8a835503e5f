//! The objectives of every phase as pure functions from token scores to a loss and its gradient.
//!
//! No function here knows a model, a tokenizer or a device. Finite differences test every gradient;
//! exact enumeration over a tiny vocabulary tests every KL estimator.
//!
//! | file | objective | phases |
//! |---|---|---|
//! | [`next_token`] | cross-entropy | pretrain, sft, cold start of reason |
//! | [`preference`] | DPO, IPO, hinge | dpo |
//! | [`bradley_terry`] | reward model on pairs | reward |
//! | [`policy`] | the clipped policy loss | reason, ppo |
//! | [`grpo`] | advantages within a group | reason |
//! | [`ppo`] | token rewards, GAE, value loss | ppo |
//! | [`kl`] | named estimators of KL to the reference | reason, ppo |
//! | [`verifier`] | rewards that need no model | reason |
//!
//! A loss is computed **per shard** (the documents of one tape) and is **additive over shards**: it
//! is normalised by the [`BatchSize`] of the whole optimizer batch. So losses and gradients of the
//! shards add up to those of the batch, however it is split. Log-probabilities and gradients are
//! `f32`, the engine's type; the arithmetic is `f64`.
//!
//! Slices of inconsistent lengths are a bug of the caller and panic with both lengths.

pub mod bradley_terry;
pub mod grpo;
pub mod kl;
pub mod next_token;
pub mod policy;
pub mod ppo;
pub mod preference;
pub mod verifier;

use std::ops::{AddAssign, Range};

/// Model outputs for the scored tokens of one shard.
///
/// There are only scored tokens (no prompt tokens, for example), so no mask is needed. A slice that
/// an objective does not use may be empty.
#[derive(Clone, Copy, Debug)]
pub struct TokenScores<'a> {
    /// Log-probability (natural logarithm) of every scored token, `[tokens]`.
    pub logp: &'a [f32],
    /// Entropy in nats of the distribution each scored token was predicted from, `[tokens]`.
    pub entropy: &'a [f32],
    /// Scalar head's output at the position each scored token was predicted from, `[tokens]`.
    pub value: &'a [f32],
    /// Sequence `i` owns the scored tokens `offsets[i]..offsets[i + 1]`; `[sequences + 1]`.
    pub offsets: &'a [u32],
}

impl TokenScores<'_> {
    /// Numbers of sequences and scored tokens of this shard.
    pub fn size(&self) -> BatchSize {
        BatchSize::of(self.offsets)
    }
}

/// The token range of every sequence.
pub(crate) fn sequences(offsets: &[u32]) -> impl Iterator<Item = Range<usize>> + '_ {
    offsets.windows(2).map(|w| w[0] as usize..w[1] as usize)
}

/// Size of the whole optimizer batch: the normalisers of every loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Sequences (documents); a preference pair is two.
    pub sequences: usize,
    /// Scored tokens.
    pub tokens: usize,
}

impl BatchSize {
    /// The size of a shard with these sequence boundaries. The shards' sizes add up to the batch's.
    pub fn of(offsets: &[u32]) -> Self {
        let (first, last) =
            (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
        Self { sequences: offsets.len().saturating_sub(1), tokens: (last - first) as usize }
    }
}

impl AddAssign for BatchSize {
    fn add_assign(&mut self, other: Self) {
        self.sequences += other.sequences;
        self.tokens += other.tokens;
    }
}

impl std::iter::Sum for BatchSize {
    fn sum<I: Iterator<Item = Self>>(shards: I) -> Self {
        shards.fold(Self::default(), |mut sum, shard| {
            sum += shard;
            sum
        })
    }
}

/// A shard's share of the batch's loss, with its derivative with respect to every score.
#[derive(Clone, Debug)]
pub struct LossAndGrad<S> {
    /// The shard's share of the batch's loss.
    pub loss: f64,
    /// dL/dlogp, `[tokens]`; empty if the objective does not use it.
    pub dlogp: Vec<f32>,
    /// dL/dentropy, `[tokens]`; empty if the objective does not use it.
    pub dentropy: Vec<f32>,
    /// dL/dvalue, `[tokens]`; empty if the objective does not use it.
    pub dvalue: Vec<f32>,
    /// Sums over the shard for the metrics.
    pub stats: S,
}

/// Sums over a shard that add up to the batch's, and the means to log.
pub trait Stats: Clone + Default + AddAssign {
    /// Named means in a fixed order; empty if nothing was counted.
    fn means(&self) -> Vec<(&'static str, f64)>;
}

/// Defines a struct of sums: fields start at zero and add up one by one.
macro_rules! sums {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}
pub(crate) use sums;

/// An unknown name of an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} \"{given}\"; use one of: {known}")]
pub struct UnknownName {
    /// What was being named.
    pub what: &'static str,
    /// The name that was given.
    pub given: String,
    /// The names that exist, separated by commas.
    pub known: String,
}

/// Defines an enum whose variants have the names used in recipes and on the command line.
macro_rules! named {
    ($(#[$meta:meta])* pub enum $type:ident ($what:literal) {
        $($(#[$variant_meta:meta])* $variant:ident = $name:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$variant_meta])* $variant,)* }

        impl $type {
            /// Every choice.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in recipes and on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(given: &str) -> Result<Self, Self::Err> {
                match given {
                    $($name => Ok(Self::$variant),)*
                    _ => Err($crate::UnknownName {
                        what: $what,
                        given: given.to_owned(),
                        known: [$($name,)*].join(", "),
                    }),
                }
            }
        }
    };
}
pub(crate) use named;

/// log(1 + e^x) without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-x) without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}
