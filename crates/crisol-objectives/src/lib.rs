//! The objectives of every phase as pure functions: from the scores of tokens to a loss and its gradient.
//!
//! No function here knows a model, a tokenizer or a device. Every gradient is tested by finite
//! differences, every KL estimator against exact enumeration over a tiny vocabulary.
