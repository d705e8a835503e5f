//! The engine through its public interface: operations against plain twins and finite differences, invariances,
//! optimizer.

mod attention;
mod experts;
mod gradients;
mod harness;
mod invariance;
mod optimizer;
mod reference;
mod scores;
mod transformer;
