//! Reading, refusing and writing `config.json`.

use super::*;
use crate::{DeepseekV3, Gemma2, Gemma3, Llama4};

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 96, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2,
    })
}

fn parse(changes: &Value) -> Result<Config, String> {
    let mut json = llama();
    for (key, value) in changes.as_object().expect("an object") {
        json[key] = value.clone();
    }
    Config::parse(&json.to_string())
}

#[test]
fn written_configs_are_read_back() {
    let scalings = [
        RopeScaling::None,
        RopeScaling::Linear { factor: 2.5 },
        RopeScaling::Dynamic { factor: 4.0 },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        },
        RopeScaling::Yarn {
            factor: 40.0,
            original_max_position_embeddings: 32,
            beta_fast: 16.0,
            beta_slow: 2.0,
            truncate: false,
            attention_factor: None,
            mscale: 1.0,
            mscale_all_dim: 0.5,
        },
    ];
    let all = Architecture::ALL.into_iter().flat_map(|architecture| {
        scalings.into_iter().map(move |rope_scaling| (architecture, rope_scaling))
    });
    for (architecture, rope_scaling) in all {
        for head in [Head::Language { tied: true }, Head::Language { tied: false }, Head::Scalar] {
            let config = Config {
                rope_scaling,
                head,
                head_dim: 20,
                num_key_value_heads: 3,
                rope_theta: 500_000.0,
                attention_bias: Specifics::new(architecture).family().has_attention_bias(),
                eos_token_id: vec![3, 5],
                bos_token_id: Some(1),
                ..Config::new(architecture, 96, 48, 2, 6, 64)
            };
            let config = if architecture == Architecture::DeepseekV3 {
                let shape = DeepseekV3 { q_lora_rank: None, n_group: 4, ..Default::default() };
                Config {
                    num_key_value_heads: 6,
                    head_dim: shape.qk_rope_head_dim,
                    specifics: Specifics::DeepseekV3(shape),
                    ..config
                }
            } else if architecture == Architecture::Llama4 {
                let shape = Llama4 {
                    intermediate_size_mlp: 40,
                    moe_layers: vec![false, true],
                    num_local_experts: 4,
                    num_experts_per_tok: 2,
                    rope_layers: vec![true, false],
                    chunked_layers: vec![true, false],
                    attention_chunk_size: 16,
                    use_qk_norm: true,
                    attn_temperature_tuning: false,
                    floor_scale: 64,
                    attn_scale: 0.5,
                };
                Config { specifics: Specifics::Llama4(shape), ..config }
            } else if architecture == Architecture::Gemma2 {
                let own = Gemma2 { attn_logit_softcapping: None, ..Default::default() };
                let windows = vec![None, Some(7)];
                Config { specifics: Specifics::Gemma2(own), windows, ..config }
            } else if architecture == Architecture::Gemma3 {
                let own = Gemma3 {
                    query_pre_attn_scalar: 20,
                    final_logit_softcapping: Some(12.5),
                    rope_local_base_freq: 300.0,
                };
                let mut rope_scaling = rope_scaling;
                if let RopeScaling::Yarn { truncate, .. } = &mut rope_scaling {
                    *truncate = true;
                }
                let windows = vec![Some(7), None];
                Config { specifics: Specifics::Gemma3(own), windows, rope_scaling, ..config }
            } else {
                config
            };
            assert_eq!(Config::parse(&config.to_json(FloatType::BF16).to_string()), Ok(config));
        }
    }
}

#[test]
fn rope_theta_is_read_in_both_places() {
    assert_eq!(parse(&json!({})).map(|c| c.rope_theta), Ok(10_000.0));
    assert_eq!(parse(&json!({ "rope_theta": 5e5 })).map(|c| c.rope_theta), Ok(5e5));
    let nested = json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 2e6 } });
    assert_eq!(parse(&nested).map(|c| c.rope_theta), Ok(2e6));
}

/// As in transformers: `rope_scaling` takes precedence and must be complete.
#[test]
fn rope_scaling_takes_precedence_over_rope_parameters() {
    let both = json!({
        "rope_scaling": { "type": "dynamic", "factor": 4.0 },
        "rope_parameters": { "rope_type": "linear", "factor": 2.0, "rope_theta": 5e5 },
    });
    let read = parse(&both).map(|config| (config.rope_theta, config.rope_scaling));
    assert_eq!(read, Ok((10_000.0, RopeScaling::Dynamic { factor: 4.0 })));
}

/// Phi-3 puts it at the top level, where transformers prefers it in every config.
#[test]
fn the_original_context_is_read_at_the_top_level() {
    let llama3 = json!({
        "original_max_position_embeddings": 32,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    });
    let scaling = parse(&llama3).map(|config| config.rope_scaling);
    assert!(
        matches!(scaling, Ok(RopeScaling::Llama3 { original_max_position_embeddings: 32, .. })),
        "{scaling:?}"
    );
}

#[test]
fn negative_token_ids_mean_none() {
    let ids = json!({ "bos_token_id": -1, "eos_token_id": [2, -1], "pad_token_id": -1 });
    let read =
        parse(&ids).map(|config| (config.bos_token_id, config.eos_token_id, config.pad_token_id));
    assert_eq!(read, Ok((None, vec![2], None)));
}

/// DeepSeek's head width does not depend on the hidden size.
#[test]
fn deepseek_v3_may_have_any_number_of_heads() {
    let config = parse(&json!({
        "architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 5,
        "num_key_value_heads": 5, "qk_rope_head_dim": 6,
    }));
    assert_eq!(config.map(|config| config.head_dim), Ok(6));
}

/// As in Llama 4 Maverick FP8, quantised by compressed-tensors.
#[test]
fn quantisation_of_a_multimodal_config_is_checked() {
    let mut text_config = llama();
    text_config["head_dim"] = json!(8);
    let mut multimodal =
        json!({ "architectures": ["Llama4ForConditionalGeneration"], "text_config": text_config });
    assert!(Config::parse(&multimodal.to_string()).is_ok());
    multimodal["quantization_config"] = json!({ "quant_method": "compressed-tensors" });
    let error = Config::parse(&multimodal.to_string()).expect_err("must be refused");
    assert!(error.contains("compressed-tensors"), "{error}");
}

/// As in Gemma 3 4B, whose config leaves the rest to transformers' defaults.
#[test]
fn defaults_of_gemma_3_are_read() -> Result<(), String> {
    let published = json!({
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "rope_scaling": { "factor": 8.0, "rope_type": "linear" }, "sliding_window": 1024,
        },
    });
    let config = Config::parse(&published.to_string())?;
    assert_eq!(config.class(), "Gemma3ForCausalLM");
    assert_eq!((config.vocab_size, config.num_attention_heads, config.head_dim), (262_208, 8, 256));
    assert_eq!(
        (config.rope_theta, config.rope_scaling),
        (1e6, RopeScaling::Linear { factor: 8.0 })
    );
    assert_eq!(config.specifics, Specifics::Gemma3(Gemma3::default()));
    let global: Vec<usize> = (0..34).filter(|&layer| config.window(layer).is_none()).collect();
    assert_eq!((global, config.window(0)), (vec![5, 11, 17, 23, 29], Some(1024)));
    assert_eq!((config.bos_token_id, config.eos_token_id), (Some(2), vec![1]));
    Ok(())
}

/// In either form, `sliding_attention` has a base of its own, and scaling is for global layers.
#[test]
fn both_forms_of_gemma_3s_rope_are_read() {
    let gemma = |rope: &Value| {
        let mut json = rope.clone();
        json["architectures"] = json!(["Gemma3ForCausalLM"]);
        parse(&json).map(|config| {
            let Specifics::Gemma3(own) = &config.specifics else { panic!("not Gemma 3") };
            (config.rope_theta, config.rope_scaling, own.rope_local_base_freq)
        })
    };
    let linear = RopeScaling::Linear { factor: 2.0 };
    let older = json!({
        "rope_theta": 5e5, "rope_local_base_freq": 300.0,
        "rope_scaling": { "rope_type": "linear", "factor": 2.0 },
    });
    let newer = json!({ "rope_parameters": {
        "full_attention": { "rope_type": "linear", "factor": 2.0, "rope_theta": 5e5 },
        "sliding_attention": { "rope_type": "default", "rope_theta": 300.0 },
    } });
    for form in [&older, &newer] {
        assert_eq!(gemma(form), Ok((5e5, linear, 300.0)));
    }
    assert_eq!(gemma(&json!({})), Ok((1e6, RopeScaling::None, 1e4)));
    let scaled = json!({ "rope_parameters": {
        "sliding_attention": { "rope_type": "linear", "factor": 2.0 },
    } });
    let error = gemma(&scaled).expect_err("must be refused");
    assert!(error.contains("sliding_attention"), "{error}");
    let error =
        gemma(&json!({ "rope_parameters": { "full_attention": 5 } })).expect_err("a number");
    assert!(error.contains("rope_parameters"), "{error}");
}

#[test]
fn unsupported_fields_are_refused_by_name() {
    for (changes, named) in [
        (json!({ "architectures": ["MambaForCausalLM"] }), "MambaForCausalLM"),
        (json!({ "architectures": [] }), "LlamaForCausalLM"),
        (json!({ "hidden_act": "gelu" }), "gelu"),
        (json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0 } }), "low_freq_factor"),
        (json!({ "rope_parameters": { "rope_type": "longrope" } }), "longrope"),
        (json!({ "rope_scaling": { "type": "linear" } }), "factor"),
        (json!({ "rope_scaling": { "type": "dynamic", "factor": "long" } }), "factor"),
        (json!({ "rope_scaling": { "type": "linear", "factor": -2.0 } }), "factor"),
        (
            json!({ "rope_scaling": { "type": "linear", "factor": 2.0, "mscale_all_dim": 1.0 } }),
            "mscale_all_dim",
        ),
        (
            json!({ "rope_parameters": { "rope_type": "yarn", "factor": 2.0, "truncate": 1 } }),
            "truncate",
        ),
        (
            json!({ "rope_scaling": { "type": "yarn", "original_max_position_embeddings": 16.5 } }),
            "original_max_position_embeddings",
        ),
        (
            json!({ "rope_parameters": {
                "full_attention": { "rope_type": "linear", "factor": 2.0 },
            } }),
            "full_attention",
        ),
        (json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }), "partial_rotary_factor"),
        (json!({ "layer_types": ["full_attention", "sliding_attention"] }), "sliding_attention"),
        (json!({ "attention_dropout": 0.1 }), "attention_dropout"),
        (json!({ "quantization_config": { "bits": 4 } }), "quantization_config"),
        (json!({ "quantization_config": { "quant_method": "gptq" } }), "gptq"),
        (json!({ "architectures": ["LlamaForSequenceClassification"] }), "2 labels"),
        (json!({ "architectures": ["Olmo2ForCausalLM"], "mlp_bias": true }), "mlp_bias"),
        (
            json!({ "architectures": ["Gemma2ForCausalLM"], "hidden_activation": "gelu" }),
            "hidden_activation is \"gelu\"",
        ),
        (
            json!({ "architectures": ["Gemma3ForCausalLM"], "use_bidirectional_attention": true }),
            "use_bidirectional_attention",
        ),
        (json!({ "architectures": ["Gemma2ForCausalLM"], "sliding_window": null }), "null"),
        (
            json!({
                "architectures": ["Gemma3ForCausalLM"],
                "rope_parameters": { "full_attention": {
                    "rope_type": "yarn", "factor": 2.0, "truncate": false,
                } },
            }),
            "truncate",
        ),
        (
            json!({ "architectures": ["Gemma3ForCausalLM"], "sliding_window_pattern": 0 }),
            "sliding_window_pattern",
        ),
    ] {
        let error = parse(&changes).expect_err("must be refused");
        assert!(error.contains(named), "{error:?} does not name {named:?}");
    }
}

/// Llama 4 Scout's.
#[test]
fn the_longest_published_context_is_accepted() {
    let config = parse(&json!({ "max_position_embeddings": 10_485_760, "head_dim": 128 }));
    assert_eq!(config.map(|config| config.max_position_embeddings), Ok(10_485_760));
}

#[test]
fn impossible_shapes_are_refused() {
    for (changes, named) in [
        (json!({ "num_attention_heads": 5 }), "num_attention_heads"),
        (json!({ "num_attention_heads": 0 }), "num_attention_heads"),
        (json!({ "num_key_value_heads": 4 }), "num_key_value_heads"),
        (json!({ "vocab_size": 0 }), "vocab_size"),
        (json!({ "hidden_size": 3_000_000, "head_dim": 8 }), "hidden_size"),
        (json!({ "num_hidden_layers": 1_000_000 }), "num_hidden_layers"),
        (json!({ "head_dim": 7 }), "head_dim"),
        (json!({ "max_position_embeddings": 1_u64 << 40 }), "max_position_embeddings"),
        (
            json!({ "architectures": ["Llama4ForCausalLM"], "num_hidden_layers": 1_u64 << 60 }),
            "num_hidden_layers",
        ),
        (
            json!({
                "architectures": ["Llama4ForCausalLM"], "head_dim": 8,
                "num_local_experts": 1 << 20,
            }),
            "experts",
        ),
        (
            json!({
                "architectures": ["DeepseekV3ForCausalLM"], "num_key_value_heads": 6,
                "n_routed_experts": 1 << 20,
            }),
            "experts",
        ),
        (json!({ "rope_theta": -1.0 }), "rope_theta"),
        (
            json!({ "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 0.0 }),
            "attn_logit_softcapping",
        ),
        (
            json!({ "architectures": ["Gemma3ForCausalLM"], "query_pre_attn_scalar": 0 }),
            "query_pre_attn_scalar",
        ),
        (
            json!({ "architectures": ["Gemma3ForCausalLM"], "rope_local_base_freq": -1.0 }),
            "rope_local_base_freq",
        ),
        (json!({ "hidden_size": -8 }), "`hidden_size`: line 1, column "),
        (json!({ "hidden_size": "wide" }), "found \"wide\", expected a non-negative integer"),
        (json!({ "rope_theta": "long" }), "`rope_theta`: "),
        (json!({ "architectures": ["DeepseekV3ForCausalLM"], "n_group": null }), "`n_group`: "),
    ] {
        let error = parse(&changes).expect_err("must be refused");
        assert!(error.contains(named), "{error:?} does not name {named:?}");
    }
    assert!(Config::parse("{").is_err());
}
