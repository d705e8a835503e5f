//! How tokens are drawn from logits, as data: what the host hands over, and what it gets back.

/// How tokens are drawn: repetition penalty, temperature, top-k, top-p and min-p, in transformers'
/// order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest one, the first of several.
    pub temperature: f32,
    /// Keep only the `k` most probable tokens, at least 1.
    pub top_k: Option<usize>,
    /// Keep the smallest set of most probable tokens with at least this total probability, above 0
    /// (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751); applied after `top_k`.
    pub top_p: Option<f32>,
    /// Keep tokens with at least this multiple, at most 1, of the largest probability (Nguyen et
    /// al. 2024, arXiv:2407.01082); applied after `top_p`.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of the tokens of [`Draw::seen`] (Keskar et
    /// al. 2019, arXiv:1909.05858); above 0, 1 is off.
    pub repetition_penalty: f32,
}

impl Sampling {
    /// Whether the largest logit is taken. Then a draw needs no random number.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// One draw of [`crate::Tape::draw_tokens`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw<'a> {
    /// Row of the logits. Draws may share one.
    pub row: usize,
    /// Random number, uniform in [0, 1); not read where the largest logit is taken.
    pub uniform: f64,
    /// Tokens so far that the repetition penalty applies to, in two parts (such as prompt and
    /// answer), in any order; each is penalised once.
    pub seen: [&'a [u32]; 2],
}

/// A token that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// Its log-probability under softmax(logits / temperature), *before* penalty, top-k, top-p and
    /// min-p; temperature 1 where the largest logit is taken. Training computes the same quantity,
    /// so importance ratios start at 1.
    pub logprob: f32,
}
