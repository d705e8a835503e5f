//! The same model, the same phase, two objectives: what a feed becomes when it is aligned to
//! clicks, and what when it is aligned to what readers say they value.
//!
//! ```text
//! MODEL ──sft──► base ──┬─grpo──► engagement     predicted clicks × seconds
//!                       ├─grpo──► preference     "was it worth your time?"
//!                       ├─grpo──► mix            half of each
//!                       └─grpo──► kl, truth, cap engagement with a guard rail
//! ```
//!
//! | question | file |
//! |---|---|
//! | what is an item, and is it true? | `items.rs` |
//! | what do readers click and value? | `readers.rs` |
//! | what does the service know of them? | `predictor.rs` |
//! | what is a model asked? | `tasks.rs` |
//! | what does an answer earn? | `objectives.rs` |
//! | what is measured? | `measure.rs` |
//! | what runs? | `experiment.rs` |
//!
//! It is a toy of a mechanism, not a model of any service: the readers are formulas.

mod experiment;
mod items;
mod measure;
mod objectives;
mod predictor;
mod readers;
mod tasks;

pub use experiment::{Experiment, Scale};
pub use items::Split;
pub use tasks::AnswerError;
