//! A model's config as the shape from which `crisol-cost` counts.

use crisol_cost::{Attention, Block, FeedForward, Head, ModelShape, Span};
use crisol_model::{AttentionShape, Config, FeedForwardShape, LayerShape};

/// The shape from which parameters, FLOPs and memory of a model are counted.
pub fn cost_shape(config: &Config) -> ModelShape {
    let mut blocks: Vec<(usize, Block)> = Vec::new();
    for block in config.layers().into_iter().map(block) {
        match blocks.iter_mut().find(|(_, known)| *known == block) {
            Some((count, _)) => *count += 1,
            None => blocks.push((1, block)),
        }
    }
    ModelShape {
        hidden: config.hidden_size,
        vocab: config.vocab_size,
        head: match config.head {
            crisol_model::Head::Language { tied: true } => Head::Tied,
            crisol_model::Head::Language { tied: false } => Head::Untied,
            crisol_model::Head::Scalar => Head::Scalar,
        },
        blocks,
        positions: config.position_rows(),
        last_norm: config.last_norm(),
        adapter: config.adapter_parameters(),
    }
}

fn block(LayerShape { attention, feed_forward, vectors }: LayerShape) -> Block {
    let attention = match attention {
        AttentionShape::Grouped { heads, kv_heads, head_dim, span } => {
            let span = span.map(|span| match span {
                crisol_model::Span::Chunk(size) => Span::Chunk(size),
                crisol_model::Span::Window(size) => Span::Window(size),
            });
            Attention::Grouped { heads, kv_heads, head_dim, span }
        }
        AttentionShape::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim } => {
            Attention::Latent { heads, query_rank, kv_rank, unrotated, rotated, value_dim }
        }
    };
    let feed_forward = match feed_forward {
        FeedForwardShape::Dense { inner } => FeedForward::Dense { inner },
        FeedForwardShape::Ungated { inner } => FeedForward::Ungated { inner },
        FeedForwardShape::Mixture { experts, per_token, inner, shared } => {
            FeedForward::Mixture { experts, per_token, inner, shared }
        }
    };
    Block { attention, feed_forward, vectors }
}
