//! Small models of every architecture, and their tokenizer.

use crisol_model::{
    Architecture, Config, DeepseekV3, Gemma2, Gemma3, GptOss, Head, Llama4, Mixtral, Qwen3Moe,
    Specifics,
};
use crisol_text::{EMBEDDED_TOKENS, TextSetup, Tokenizer};

pub(crate) const VOCAB: usize = 300;

pub(crate) fn text() -> TextSetup {
    let tokenizer = Tokenizer::train(["a small text, a small model"], 280, &EMBEDDED_TOKENS)
        .expect("enough text");
    TextSetup::embedded(tokenizer).expect("it has the embedded tokens")
}

pub(crate) fn config(architecture: Architecture, head: Head) -> Config {
    let config =
        Config { head, num_key_value_heads: 1, ..Config::new(architecture, VOCAB, 16, 2, 2, 24) };
    match architecture {
        Architecture::Llama4 => {
            let shape = Llama4 {
                intermediate_size_mlp: 20,
                moe_layers: vec![true, false],
                num_local_experts: 3,
                num_experts_per_tok: 1,
                rope_layers: vec![true, false],
                chunked_layers: vec![true, false],
                attention_chunk_size: 4,
                use_qk_norm: true,
                attn_temperature_tuning: true,
                floor_scale: 2,
                attn_scale: 0.1,
            };
            Config { specifics: Specifics::Llama4(shape), ..config }
        }
        // As many as a head is wide: llama.cpp scales queries by that.
        Architecture::Gemma2 => {
            let own = Gemma2 { query_pre_attn_scalar: 8, ..Gemma2::default() };
            let windows = vec![Some(3), None];
            Config { specifics: Specifics::Gemma2(own), windows, ..config }
        }
        Architecture::Gemma3 => {
            let own = Gemma3 { query_pre_attn_scalar: 8, ..Gemma3::default() };
            let windows = vec![Some(3), None];
            Config { specifics: Specifics::Gemma3(own), windows, ..config }
        }
        // Three of four layers have one. llama.cpp has one base of RoPE for all.
        Architecture::Olmo3 => {
            Config { windows: vec![Some(3); 2], rope_theta: 500_000.0, ..config }
        }
        Architecture::DeepseekV3 => {
            let shape = DeepseekV3 {
                q_lora_rank: Some(6),
                kv_lora_rank: 5,
                qk_nope_head_dim: 4,
                qk_rope_head_dim: 8,
                v_head_dim: 7,
                first_k_dense_replace: 1,
                n_routed_experts: 4,
                num_experts_per_tok: 2,
                moe_intermediate_size: 12,
                n_group: 2,
                topk_group: 2,
                ..DeepseekV3::default()
            };
            Config { num_key_value_heads: 2, specifics: Specifics::DeepseekV3(shape), ..config }
        }
        Architecture::Gpt2 => Config { num_key_value_heads: 2, ..config },
        Architecture::Qwen3Moe => {
            let shape = Qwen3Moe {
                num_experts: 4,
                num_experts_per_tok: 2,
                moe_intermediate_size: 12,
                norm_topk_prob: true,
                ..Qwen3Moe::default()
            };
            Config { specifics: Specifics::Qwen3Moe(shape), ..config }
        }
        Architecture::Mixtral => {
            let shape = Mixtral { num_local_experts: 3, num_experts_per_tok: 2 };
            Config { specifics: Specifics::Mixtral(shape), ..config }
        }
        Architecture::GptOss => {
            let shape = GptOss { num_local_experts: 3, num_experts_per_tok: 2, swiglu_limit: 7.0 };
            Config {
                attention_bias: true,
                windows: vec![Some(4), None],
                specifics: Specifics::GptOss(shape),
                ..config
            }
        }
        _ => config,
    }
}
