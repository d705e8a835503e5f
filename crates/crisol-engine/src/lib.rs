//! The training engine: parameters and activations on a device, and the fifteen or so coarse operations
//! of a transformer, each with a hand-written forward and backward.
//!
//! The engine knows no model and no phase. Above it nobody touches a slice of device memory: models
//! record operations on a [`Tape`] and get [`Var`] handles back; the few numbers that leave the device
//! (log-probs, logits to sample from, losses) are copied out by [`Tape::read`].
//!
//! # Contracts
//! Matrices are row-major `[rows, cols]`; a row is a token. Weights are `[out, in]` as PyTorch stores
//! them. Shape mismatches are bugs of the caller and panic; everything a *user* can get wrong is
//! checked by the crates above.
//!
//! # Determinism
//! The same inputs give the same bits on any number of threads: work is cut into shards and replicas by
//! rules that do not look at the number of threads, and sums over them run in a fixed order.
//!
//! # Where things are
//! `tape` records operations (`op`) and knows their shapes; `cpu` computes them, one subject a file;
//! `workspace` recycles memory; `parallel` cuts work over threads. A second device is a second module
//! beside `cpu`.

mod cpu;
mod device;
mod formats;
mod interrupt;
mod kv_cache;
mod op;
mod optimizer;
mod parallel;
mod params;
mod profile;
mod quantised;
mod replicas;
mod rope;
mod tape;
mod workspace;

#[cfg(test)]
mod steady_state;

// `cpu/reference.rs` is compiled into the unit tests and into `tests/engine`.
#[cfg(test)]
extern crate self as crisol_engine;

pub use device::{Cpu, Device, ThreadSpawnError};
pub use interrupt::Interrupt;
pub use kv_cache::KvCache;
pub use optimizer::{Optimizer, OptimizerConfig, UpdateRule};
pub use params::{Grads, Init, ParamId, ParamSpec, Params, Role};
pub use profile::Profiled;
pub use quantised::{QuantisedMatrix, WeightFormat};
pub use replicas::Replicas;
pub use rope::{Rope, RopeStyle};
pub use tape::{Attention, Experts, HeadSlice, MAX_SAVED_LOGITS, Router, Tape, Var};
pub use workspace::Workspace;

/// `weights = e^(scale · (logits - largest))` on the host, and the largest logit and the sum of the weights: what a token is
/// drawn from. If no logit is a number or one is NaN or infinite, the sum is not finite.
pub fn softmax_weights(logits: &[f32], scale: f32, weights: &mut [f32]) -> (f32, f64) {
    assert_eq!(logits.len(), weights.len(), "a weight for each logit");
    cpu::math::softmax_weights(logits, scale, weights)
}
