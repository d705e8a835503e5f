//! What each layer is, as far as it decides parameters, operations and memory.

use crate::Config;
use crate::block::NormKind;
use crate::model::block_specs;

/// The shape of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Attention.
    pub attention: AttentionShape,
    /// Feed-forward layer.
    pub feed_forward: FeedForwardShape,
    /// Parameters outside of matrices: norms, biases, routers' correction biases.
    pub vectors: usize,
}

/// What a query sees of a long document, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The tokens of its chunk before it.
    Chunk(usize),
    /// So many tokens: itself and those just before it.
    Window(usize),
}

/// The shape of a layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionShape {
    /// Grouped-query attention (arXiv:2305.13245).
    Grouped {
        /// Query heads.
        heads: usize,
        /// Key/value heads.
        kv_heads: usize,
        /// Width of a head.
        head_dim: usize,
        /// What a query sees; `None`: everything before it.
        span: Option<Span>,
    },
    /// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).
    Latent {
        /// Query heads.
        heads: usize,
        /// Rank of the query projection; `None`: full rank.
        query_rank: Option<usize>,
        /// Width of the latent vector.
        kv_rank: usize,
        /// Width of the unrotated part of a query or key.
        unrotated: usize,
        /// Width of the rotated part; the rotated key is shared by all heads.
        rotated: usize,
        /// Width of a value.
        value_dim: usize,
    },
}

/// The shape of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardShape {
    /// A gated MLP with three matrices (arXiv:2002.05202).
    Dense {
        /// Width inside.
        inner: usize,
    },
    /// An MLP with two matrices, without a gate.
    Ungated {
        /// Width inside.
        inner: usize,
    },
    /// A mixture of gated experts.
    Mixture {
        /// Routed experts.
        experts: usize,
        /// Experts selected per token.
        per_token: usize,
        /// Inner width of an expert.
        inner: usize,
        /// Inner width of the shared experts together; 0: none.
        shared: usize,
    },
}

impl AttentionShape {
    /// The heads of the common fields.
    pub(crate) fn grouped(config: &Config, span: Option<Span>) -> AttentionShape {
        AttentionShape::Grouped {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            span,
        }
    }

    /// Widths of a token's keys and values in the cache.
    fn cache_width(self) -> (usize, usize) {
        match self {
            AttentionShape::Grouped { kv_heads, head_dim, .. } => {
                (kv_heads * head_dim, kv_heads * head_dim)
            }
            AttentionShape::Latent { kv_rank, rotated, .. } => (kv_rank + rotated, kv_rank),
        }
    }
}

impl Config {
    /// Rows of a table of learned positions; 0 without one.
    pub fn position_rows(&self) -> usize {
        let positions = self.family().outer_names().positions;
        positions.map_or(0, |_| self.max_position_embeddings)
    }

    /// Parameters of the last norm.
    pub fn last_norm(&self) -> usize {
        match self.family().norm() {
            NormKind::Rms | NormKind::RmsPlusOne => self.hidden_size,
            NormKind::Layer => 2 * self.hidden_size,
        }
    }

    /// The shape of every layer, from the first to the last.
    pub fn layers(&self) -> Vec<LayerShape> {
        let layer = |layer| {
            let specs = block_specs(self, layer);
            let vectors = specs.iter().filter(|spec| spec.shape.len() == 1);
            LayerShape {
                attention: self.family().attention(self, layer),
                feed_forward: self.family().feed_forward(self, layer),
                vectors: vectors.map(|spec| spec.shape[0]).sum(),
            }
        };
        (0..self.num_hidden_layers).map(layer).collect()
    }

    /// Parameters of the adapter; 0 without one.
    pub fn adapter_parameters(&self) -> usize {
        self.adapter.as_ref().map_or(0, |adapted| adapted.config.parameters(self))
    }

    /// Routed experts per layer and selected experts per token; `None` without experts.
    pub fn routed_experts(&self) -> Option<(usize, usize)> {
        self.family().experts()
    }

    /// Number of weights in the routed experts of all layers.
    pub(crate) fn routed_weights(&self) -> usize {
        // Cannot overflow: `validate` bounds the experts of all layers, and every width.
        let routed = |layer| match self.family().feed_forward(self, layer) {
            FeedForwardShape::Dense { .. } | FeedForwardShape::Ungated { .. } => 0,
            FeedForwardShape::Mixture { experts, inner, .. } => {
                3 * experts * (inner * self.hidden_size)
            }
        };
        (0..self.num_hidden_layers).map(routed).sum()
    }

    /// Elements that the KV cache holds per token, over all layers.
    pub fn cached_per_token(&self) -> usize {
        let (keys, values) = self.cache_width();
        self.num_hidden_layers * (keys + values)
    }

    /// Widths of a token's keys and values in the cache of one layer.
    pub(crate) fn cache_width(&self) -> (usize, usize) {
        self.family().attention(self, 0).cache_width()
    }
}
