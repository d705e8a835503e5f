//! What training and running a language model takes, computed from its shape: parameters, operations, memory, time, money, energy.
//!
//! No input or output. Every formula and constant is explained, with its source, in `docs/cost-formulas.md`.

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

pub use shape::{Attention, Block, FeedForward, Head, ModelShape, Parts};
