//! x
mod dice;
