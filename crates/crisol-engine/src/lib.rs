//! The training engine: parameters and activations on a device, and the coarse operations of a
//! transformer, each with a hand-written forward and backward.
//!
//! The engine knows no model and no phase. Models record operations on a [`Tape`] and get [`Var`]
//! handles back; device memory is private. The few floats that leave the device (log-probabilities,
//! logits to sample from, losses) are read by [`Tape::read`].
//!
//! # Contracts
//! Matrices are row-major `[rows, cols]`; a row is a token. Weights are `[out, in]`, as in PyTorch.
//! Shape mismatches are bugs of the caller and panic; the crates above check what users can get
//! wrong.
//!
//! # Determinism
//! Equal inputs give equal bits on any number of threads. Work is split into shards and replicas by
//! rules that ignore the number of threads, and sums over them run in a fixed order.
//!
//! # Where things are
//! `tape` records operations (`op`) and checks their shapes; `cpu` computes them, one subject per
//! file, with plain references in `cpu/reference.rs`; `workspace` recycles memory; `parallel`
//! splits work over threads. A second device is a second module beside `cpu`.

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

pub use device::{Cpu, Device, Precision, ThreadSpawnError};
pub use interrupt::Interrupt;
pub use kv_cache::KvCache;
pub use optimizer::{Optimizer, OptimizerConfig, UpdateRule};
pub use params::{Adapter, Grads, Init, ParamId, ParamSpec, Params, Role};
pub use profile::Profiled;
pub use quantised::{QuantisedMatrix, WeightFormat};
pub use replicas::Replicas;
pub use rope::{Rope, RopeStyle};
pub use tape::{Attention, Experts, HeadSlice, MAX_SAVED_LOGITS, Router, Tape, Var};
pub use workspace::Workspace;

/// `weights = e^(scale · (logits - largest))` on the host; returns the largest logit and the sum of
/// the weights, to draw a token from. The sum is not finite if a logit is NaN or infinite.
pub fn softmax_weights(logits: &[f32], scale: f32, weights: &mut [f32]) -> (f32, f64) {
    assert_eq!(logits.len(), weights.len(), "a weight for each logit");
    cpu::math::softmax_weights(logits, scale, weights)
}
