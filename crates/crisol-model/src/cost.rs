//! Converts a [`Config`] to the shape that `crisol-cost` counts.

use crisol_cost::{Attention, Block, FeedForward, ModelShape};

use crate::config::Specifics;
use crate::model::block_specs;
use crate::{Config, Head};

impl Config {
    /// The shape from which parameters, FLOPs and memory are counted.
    pub fn cost_shape(&self) -> ModelShape {
        let mut blocks: Vec<(usize, Block)> = Vec::new();
        for layer in 0..self.num_hidden_layers {
            let block = self.cost_block(layer);
            match blocks.iter_mut().find(|(_, known)| *known == block) {
                Some((count, _)) => *count += 1,
                None => blocks.push((1, block)),
            }
        }
        ModelShape {
            hidden: self.hidden_size,
            vocab: self.vocab_size,
            head: match self.head {
                Head::Language { tied: true } => crisol_cost::Head::Tied,
                Head::Language { tied: false } => crisol_cost::Head::Untied,
                Head::Scalar => crisol_cost::Head::Scalar,
            },
            blocks,
            adapter: self.adapter.as_ref().map_or(0, |adapted| adapted.config.parameters(self)),
        }
    }

    fn cost_block(&self, layer: usize) -> Block {
        let grouped = |chunk| Attention::Grouped {
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            chunk,
        };
        let dense = FeedForward::Dense { inner: self.intermediate_size };
        let (attention, feed_forward) = match &self.specifics {
            Specifics::None => (grouped(None), dense),
            Specifics::Llama4(shape) => {
                let chunk = shape.chunked_layers[layer].then_some(shape.attention_chunk_size);
                let feed_forward = if shape.moe_layers[layer] {
                    FeedForward::Mixture {
                        experts: shape.num_local_experts,
                        per_token: shape.num_experts_per_tok,
                        inner: self.intermediate_size,
                        shared: self.intermediate_size,
                    }
                } else {
                    FeedForward::Dense { inner: shape.intermediate_size_mlp }
                };
                (grouped(chunk), feed_forward)
            }
            Specifics::DeepseekV3(shape) => {
                let attention = Attention::Latent {
                    heads: self.num_attention_heads,
                    query_rank: shape.q_lora_rank,
                    kv_rank: shape.kv_lora_rank,
                    unrotated: shape.qk_nope_head_dim,
                    rotated: shape.qk_rope_head_dim,
                    value_dim: shape.v_head_dim,
                };
                let feed_forward = if layer < shape.first_k_dense_replace {
                    dense
                } else {
                    FeedForward::Mixture {
                        experts: shape.n_routed_experts,
                        per_token: shape.num_experts_per_tok,
                        inner: shape.moe_intermediate_size,
                        shared: shape.n_shared_experts * shape.moe_intermediate_size,
                    }
                };
                (attention, feed_forward)
            }
        };
        let specs = block_specs(self, layer);
        let vectors =
            specs.iter().filter(|spec| spec.shape.len() == 1).map(|spec| spec.shape[0]).sum();
        Block { attention, feed_forward, vectors }
    }
}
