//! The cost of training and running a language model, from its shape: parameters, FLOPs, memory,
//! time, money, energy.
//!
//! Pure functions without I/O. `docs/cost-formulas.md` derives every formula and
//! constant, with sources.

pub mod engine;
pub mod fit;
pub mod hardware;
pub mod known;
pub mod machine;
pub mod memory;
pub mod phases;
pub mod plan;
pub mod runs;
pub mod scaling;
mod shape;
pub mod units;

pub use shape::{Attention, Block, FeedForward, Head, ModelShape, Parts, Span};
