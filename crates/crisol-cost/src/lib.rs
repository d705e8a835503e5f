//! Compute of a decoder-only transformer from its shape alone: parameters and floating-point operations.
//!
//! The counts follow the convention that published utilisation figures use (Kaplan et al. 2020,
//! arXiv:2001.08361, section 2.1, with the attention term of `PaLM`, arXiv:2204.02311, appendix B): a
//! multiply-add is two operations, the backward pass costs twice the forward pass, and attention is *not*
//! halved for causality. Norms, activations, softmax and the optimizer are left out: they are below a
//! few per cent of the matrix products.

/// Shape of a Llama-like model with a gated MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads (grouped-query attention where fewer than `heads`).
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width inside the gated MLP.
    pub intermediate: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Whether the head shares the embedding's matrix.
    pub tied: bool,
}

impl ModelShape {
    /// Parameters of the blocks' matrices: query, key, value and output projections, and the MLP's three.
    fn block_matrices(&self) -> u64 {
        let attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads);
        let mlp = 3 * self.hidden * self.intermediate;
        (self.layers * (attention + mlp)) as u64
    }

    /// One matrix between the vocabulary and the residual stream.
    fn vocab_matrix(&self) -> u64 {
        (self.vocab * self.hidden) as u64
    }

    /// All parameters, a tied matrix counted once: embedding, head, blocks, and two norms per block plus
    /// the last one. The weights of QK-norms and biases are not part of this shape.
    pub fn parameters(&self) -> u64 {
        let vocab_matrices = if self.tied { 1 } else { 2 };
        let norms = self.hidden * (2 * self.layers + 1);
        vocab_matrices * self.vocab_matrix() + self.block_matrices() + norms as u64
    }

    /// Parameters that take part in a matrix product for every token: the blocks and the head, but not the
    /// embedding look-up.
    pub fn matmul_parameters(&self) -> u64 {
        self.block_matrices() + self.vocab_matrix()
    }

    /// Operations of the forward pass per token: `2·N_matmul + 4·L·H·d_head·context`, where `context` is the
    /// length of the document in tokens (or the attention window where that is shorter).
    pub fn forward_flops_per_token(&self, context: f64) -> f64 {
        let attention = 4.0 * (self.layers * self.heads * self.head_dim) as f64 * context;
        2.0 * self.matmul_parameters() as f64 + attention
    }

    /// Operations of a training step per token, forward and backward: `6·N_matmul + 12·L·H·d_head·context`.
    /// Recomputed activations are not counted.
    pub fn training_flops_per_token(&self, context: f64) -> f64 {
        3.0 * self.forward_flops_per_token(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shape small enough to count on paper.
    const TINY: ModelShape = ModelShape {
        hidden: 4,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 3,
        intermediate: 5,
        vocab: 10,
        tied: true,
    };

    const LLAMA2_7B: ModelShape = ModelShape {
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        intermediate: 11_008,
        vocab: 32_000,
        tied: false,
    };

    #[test]
    fn counts_by_hand() {
        // Per block: q 4x6, k 4x3, v 4x3, o 6x4, three MLP matrices of 4x5.
        let block = 24 + 12 + 12 + 24 + 3 * 20;
        assert_eq!(TINY.matmul_parameters(), 2 * block + 40);
        assert_eq!(TINY.parameters(), 40 + 2 * block + 5 * 4);
        let untied = ModelShape { tied: false, ..TINY };
        assert_eq!(untied.parameters(), TINY.parameters() + 40);
        assert_eq!(untied.matmul_parameters(), TINY.matmul_parameters());
    }

    #[test]
    fn flops_by_hand() {
        // One token against 7 keys, per layer and head: 3 multiply-adds per key for the scores and 3 for the
        // weighted sum, so 2·(3+3)·7 = 84; two layers of two heads make 336.
        let matmul = 2.0 * (2.0 * 132.0 + 40.0);
        assert_eq!(TINY.forward_flops_per_token(7.0), matmul + 336.0);
        assert_eq!(TINY.training_flops_per_token(7.0), 3.0 * (matmul + 336.0));
        assert_eq!(TINY.training_flops_per_token(0.0), 6.0 * TINY.matmul_parameters() as f64);
    }

    /// Parameter counts published on the models' Hugging Face pages.
    #[test]
    fn published_models() {
        assert_eq!(LLAMA2_7B.parameters(), 6_738_415_616);
        let tinyllama = ModelShape {
            hidden: 2048,
            layers: 22,
            heads: 32,
            kv_heads: 4,
            head_dim: 64,
            intermediate: 5632,
            vocab: 32_000,
            tied: false,
        };
        assert_eq!(tinyllama.parameters(), 1_100_048_384);
        let llama32_1b = ModelShape {
            hidden: 2048,
            layers: 16,
            heads: 32,
            kv_heads: 8,
            head_dim: 64,
            intermediate: 8192,
            vocab: 128_256,
            tied: true,
        };
        assert_eq!(llama32_1b.parameters(), 1_235_814_400);
    }

    /// Llama 2 7B: 2 T tokens in 184,320 A100-hours (its model card) is about 39 % of 312 TFLOP/s.
    #[test]
    fn training_run_gives_a_possible_utilisation() {
        let available = 184_320.0 * 3600.0 * 312e12;
        let without_attention = 2e12 * LLAMA2_7B.training_flops_per_token(0.0) / available;
        let with_attention = 2e12 * LLAMA2_7B.training_flops_per_token(4096.0) / available;
        assert!((0.37..0.40).contains(&without_attention), "{without_attention}");
        assert!((0.40..0.50).contains(&with_attention), "{with_attention}");
    }
}
