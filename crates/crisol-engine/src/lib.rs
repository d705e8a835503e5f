//! The training engine: parameters and activations on a device, and the coarse operations of a
//! transformer, each with a hand-written forward and backward.
//!
//! The engine knows no model and no phase. Models record operations on a [`Tape`] and get [`Var`]
//! handles back; device memory is private. The few floats that leave the device (log-probabilities,
//! values, losses) are read by [`Tape::read`]. Tokens are drawn on the device
//! ([`Tape::draw_tokens`]), so whole logits stay there.
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
//! ```text
//! tape, workspace, params, optimizer, kv_cache, replicas, device     what models and phases call
//!        │ handles, shapes, checks, the order of operations
//! backend                                                            the contract, one page
//!        │
//! cpu/                                                               the first backend
//!        │
//! op, draw, layout, update, init, dropout, rope, precision, …         data that all share
//! ```
//!
//! In `cpu/` a file has one subject, with plain references in `cpu/reference.rs`.

mod backend;
mod buffer;
mod cpu;
mod device;
mod draw;
mod dropout;
mod init;
mod interrupt;
mod kv_cache;
mod layout;
mod op;
mod optimizer;
mod params;
mod precision;
mod profile;
mod quantised;
mod replicas;
mod rope;
mod tape;
mod update;
mod weight_format;
mod workspace;

#[cfg(test)]
mod steady_state;

// `cpu/reference.rs` is compiled into the unit tests and into `tests/engine`.
#[cfg(test)]
extern crate self as crisol_engine;

pub use backend::ThreadSpawnError;
pub use cpu::MAX_SAVED_LOGITS;
pub use device::Device;
pub use draw::{Draw, Drawn, Sampling};
pub use interrupt::Interrupt;
pub use kv_cache::KvCache;
pub use layout::{Adapter, Init, ParamId, ParamSpec, Role};
pub use op::{Attention, Choice, Experts, GatedActivation, HeadSlice, Router, Scoring, Var};
pub use optimizer::Optimizer;
pub use params::{Grads, Params};
pub use precision::Precision;
pub use profile::Profiled;
pub use quantised::QuantisedMatrix;
pub use replicas::Replicas;
pub use rope::{Rope, RopeStyle};
pub use tape::Tape;
pub use update::{MomentFormat, OptimizerConfig, UpdateRule};
pub use weight_format::WeightFormat;
pub use workspace::Workspace;
