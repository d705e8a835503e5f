//! The engine through its public interface: operations against the plain reference
//! (`src/cpu/reference.rs`) and finite differences, invariances, optimizer.

mod adapters;
mod attention;
mod draws;
mod experts;
mod gradients;
mod harness;
mod invariance;
mod mxfp4;
mod optimizer;
mod precision;
#[path = "../../src/cpu/reference.rs"]
mod reference;
mod scores;
mod transformer;
mod variants;
