//! Reading, refusing and writing `config.json`.

use super::*;
use crate::{
    DeepseekV3, Gemma2, Gemma3, Gpt2, GptOss, Granite, Llama4, Mixtral, Olmo3, Phi3, Qwen3Moe,
    SmolLm3,
};

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
        RopeScaling::LongRope {
            short_factor: vec![1.0; 5],
            long_factor: vec![1.5, 2.0, 3.25, 4.0, 5.0],
            original_max_position_embeddings: 32,
            factor: 4.0,
            attention_factor: Some(1.25),
        },
    ];
    let all = Architecture::ALL.into_iter().flat_map(|architecture| {
        scalings.iter().map(move |rope_scaling| (architecture, rope_scaling.clone()))
    });
    for (architecture, rope_scaling) in all {
        let kind = rope_scaling.to_json(1.0)["rope_type"].clone();
        if !Specifics::new(architecture).family().rope_kinds().iter().any(|known| kind == *known) {
            continue;
        }
        for head in [Head::Language { tied: true }, Head::Language { tied: false }, Head::Scalar] {
            let config = Config {
                rope_scaling: rope_scaling.clone(),
                head,
                head_dim: 20,
                num_key_value_heads: 3,
                rope_theta: 500_000.0,
                attention_bias: Specifics::new(architecture).family().has_attention_bias(),
                mlp_bias: Specifics::new(architecture).family().has_mlp_bias(),
                eos_token_id: vec![3, 5],
                bos_token_id: Some(1),
                ..Config::new(architecture, 96, 48, 2, 6, 64)
            };
            let config = match architecture {
                Architecture::DeepseekV3 => {
                    let shape = DeepseekV3 { q_lora_rank: None, n_group: 4, ..Default::default() };
                    Config {
                        num_key_value_heads: 6,
                        head_dim: shape.qk_rope_head_dim,
                        specifics: Specifics::DeepseekV3(shape),
                        ..config
                    }
                }
                Architecture::Llama4 => {
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
                }
                Architecture::Qwen3Moe => {
                    let shape = Qwen3Moe {
                        num_experts: 6,
                        num_experts_per_tok: 3,
                        moe_intermediate_size: 24,
                        norm_topk_prob: true,
                        decoder_sparse_step: 2,
                        mlp_only_layers: vec![1],
                    };
                    Config {
                        windows: vec![Some(9); 2],
                        specifics: Specifics::Qwen3Moe(shape),
                        ..config
                    }
                }
                Architecture::Mixtral => {
                    let shape = Mixtral { num_local_experts: 3, num_experts_per_tok: 1 };
                    Config { specifics: Specifics::Mixtral(shape), ..config }
                }
                Architecture::GptOss => {
                    let shape =
                        GptOss { num_local_experts: 5, num_experts_per_tok: 2, swiglu_limit: 0.3 };
                    Config {
                        windows: vec![None, Some(9)],
                        specifics: Specifics::GptOss(shape),
                        ..config
                    }
                }
                Architecture::Gemma2 => {
                    let own = Gemma2 { attn_logit_softcapping: None, ..Default::default() };
                    let windows = vec![None, Some(7)];
                    Config { specifics: Specifics::Gemma2(own), windows, ..config }
                }
                Architecture::Gemma3 => {
                    let own = Gemma3 {
                        query_pre_attn_scalar: 20,
                        final_logit_softcapping: Some(12.5),
                        rope_local_base_freq: 300.0,
                    };
                    let mut rope_scaling = rope_scaling.clone();
                    if let RopeScaling::Yarn { truncate, .. } = &mut rope_scaling {
                        *truncate = true;
                    }
                    let windows = vec![Some(7), None];
                    Config { specifics: Specifics::Gemma3(own), windows, rope_scaling, ..config }
                }
                Architecture::Gpt2 => Config {
                    num_key_value_heads: 6,
                    head_dim: 8,
                    rope_theta: 10_000.0,
                    specifics: Specifics::Gpt2(Gpt2 { scale_attn_weights: false }),
                    ..config
                },
                Architecture::Phi3 => Config {
                    specifics: Specifics::Phi3(Phi3 { partial_rotary_factor: 0.5 }),
                    windows: vec![Some(7); 2],
                    ..config
                },
                Architecture::SmolLm3 => Config {
                    specifics: Specifics::SmolLm3(SmolLm3 { rope_layers: vec![false, true] }),
                    windows: vec![Some(7), None],
                    ..config
                },
                Architecture::Olmo3 => Config {
                    specifics: Specifics::Olmo3(Olmo3 { sliding_rope_theta: 1e4 }),
                    windows: vec![Some(7), None],
                    ..config
                },
                Architecture::Granite => {
                    let own = Granite {
                        embedding_multiplier: 12.0,
                        logits_scaling: 8.0,
                        residual_multiplier: 0.22,
                        attention_multiplier: 0.015_625,
                    };
                    Config { specifics: Specifics::Granite(own), ..config }
                }
                _ => config,
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
        (config.rope_theta, config.rope_scaling.clone()),
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
        assert_eq!(gemma(form), Ok((5e5, linear.clone(), 300.0)));
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
            json!({ "architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1] }),
            "no_rope_layers has 1",
        ),
        (
            json!({ "architectures": ["SmolLM3ForCausalLM"], "no_rope_layer_interval": 0 }),
            "no_rope_layer_interval",
        ),
        (
            json!({ "architectures": ["GraniteForCausalLM"], "residual_multiplier": 0 }),
            "residual_multiplier",
        ),
        (
            json!({ "architectures": ["Olmo3ForCausalLM"], "rope_parameters": {
                "sliding_attention": { "rope_type": "linear", "factor": 2.0 },
            } }),
            "linear in layers of sliding_attention",
        ),
        (
            json!({ "architectures": ["Olmo3ForCausalLM"], "rope_parameters": {
                "rope_type": "linear", "factor": 2.0,
            } }),
            "neither full_attention nor sliding_attention",
        ),
        (
            json!({ "architectures": ["Phi3ForCausalLM"], "rope_scaling": {
                "type": "linear", "factor": 2.0,
            } }),
            "linear",
        ),
        (
            json!({ "architectures": ["Phi3ForCausalLM"], "rope_scaling": {
                "type": "su", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3],
            } }),
            "long_factor of rotary embeddings has 3 entries for 4",
        ),
        (
            json!({ "architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": 0.4 }),
            "3 of the 8 columns",
        ),
        (json!({ "architectures": ["Phi3ForCausalLM"], "resid_pdrop": 0.1 }), "resid_pdrop"),
        (
            json!({ "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu" }),
            "activation_function",
        ),
        (
            json!({
                "architectures": ["GPT2LMHeadModel"], "scale_attn_by_inverse_layer_idx": true,
            }),
            "scale_attn_by_inverse_layer_idx",
        ),
        (
            json!({ "architectures": ["GPT2LMHeadModel"], "add_cross_attention": true }),
            "add_cross_attention",
        ),
        (json!({ "architectures": ["GPT2LMHeadModel"], "n_head": 5 }), "num_attention_heads (5)"),
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

/// One field has all biases; those of other names are not read, as in transformers.
#[test]
fn the_biases_of_ernie_have_one_field() {
    let parse = |more: Value| {
        let mut json = json!({ "architectures": ["Ernie4_5ForCausalLM"], "attention_bias": true });
        json.as_object_mut()
            .expect("an object")
            .extend(more.as_object().cloned().unwrap_or_default());
        parse(&json).expect("ERNIE 4.5's")
    };
    for (json, bias) in [(json!({}), false), (json!({ "use_bias": true }), true)] {
        let config = parse(json);
        assert_eq!((config.attention_bias, config.mlp_bias), (bias, bias));
        let written = config.to_json(FloatType::F32);
        assert_eq!(written["use_bias"], bias);
        assert!(written.get("attention_bias").is_none() && written.get("mlp_bias").is_none());
    }
    let uneven = Config { attention_bias: true, mlp_bias: false, ..parse(json!({})) };
    assert!(uneven.validate().is_err());
}

/// As published.
#[test]
fn fields_of_published_configs_are_read() {
    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
        "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768,
        "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
        "bos_token_id": 50256, "eos_token_id": 50256,
    });
    let gpt2 = Config::parse(&gpt2.to_string()).expect("GPT-2's");
    assert_eq!((gpt2.intermediate_size, gpt2.head_dim, gpt2.num_key_value_heads), (3072, 64, 12));
    assert_eq!(
        (gpt2.head, gpt2.class()),
        (Head::Language { tied: true }, "GPT2LMHeadModel".into())
    );
    let granite = parse(&json!({
        "architectures": ["GraniteForCausalLM"], "attention_multiplier": 0.015_625,
        "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22,
    }));
    let granite = granite.expect("Granite 3's");
    let family = granite.family();
    assert_eq!((family.logit_scale(), family.attention_scale(&granite)), (Some(0.125), 0.015_625));
    let smollm3 = parse(&json!({
        "architectures": ["SmolLM3ForCausalLM"], "num_hidden_layers": 8, "use_sliding_window": false,
        "no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0], "no_rope_layer_interval": 4,
    }));
    let smollm3 = smollm3.expect("SmolLM3's");
    assert_eq!(smollm3.specifics, Specifics::new(Architecture::SmolLm3));
    assert!((0..8).all(|layer| smollm3.family().rotates(layer) == (layer % 4 != 3)));
    let yarn = json!({
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192,
        "attention_factor": 1.207_944_154_167_983_6, "beta_fast": 32, "beta_slow": 1,
    });
    let olmo3 = parse(&json!({
        "architectures": ["Olmo3ForCausalLM"], "num_hidden_layers": 8, "sliding_window": 4096,
        "max_position_embeddings": 65536, "rope_theta": 500_000, "rope_scaling": yarn,
    }));
    let olmo3 = olmo3.expect("OLMo-3's");
    assert!(matches!(olmo3.rope_scaling, RopeScaling::Yarn { factor: 8.0, .. }));
    assert!((0..8).all(|layer| olmo3.window(layer) == (layer % 4 != 3).then_some(4096)));
    let phi4 = parse(&json!({
        "architectures": ["Phi3ForCausalLM"], "hidden_size": 3072, "num_attention_heads": 24,
        "num_key_value_heads": 8, "partial_rotary_factor": 0.75, "sliding_window": 262_144,
        "max_position_embeddings": 131_072, "original_max_position_embeddings": 4096,
        "rope_scaling": {
            "type": "longrope", "short_factor": vec![1.0; 48], "long_factor": vec![2.0; 48],
        },
    }));
    let phi4 = phi4.expect("Phi-4-mini's");
    assert_eq!(phi4.family().rotated(&phi4), 96);
    // sqrt(1 + ln(32) / ln(4096)).
    assert!((phi4.rope_scaling.amplitude() - 1.190_238).abs() < 1e-6);
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

/// A config of a mixture of experts without the fields that `changes` has.
fn parse_mixture(class: &str, changes: &Value) -> Result<Config, String> {
    let mut changes = changes.clone();
    changes["architectures"] = json!([class]);
    parse(&changes)
}

#[test]
fn defaults_of_mixtures_are_those_of_transformers() {
    let qwen = parse_mixture("Qwen3MoeForCausalLM", &json!({})).expect("all are optional");
    assert_eq!(qwen.specifics, Specifics::Qwen3Moe(Qwen3Moe::default()));
    assert_eq!((qwen.head_dim, qwen.windows.len()), (8, 0));
    let mixtral = parse_mixture("MixtralForCausalLM", &json!({})).expect("all are optional");
    assert_eq!(mixtral.specifics, Specifics::Mixtral(Mixtral::default()));
    assert_eq!((mixtral.rope_theta, mixtral.rms_norm_eps), (1e6, 1e-5));
    let oss = parse_mixture("GptOssForCausalLM", &json!({})).expect("all are optional");
    assert_eq!(oss.specifics, Specifics::GptOss(GptOss::default()));
    assert_eq!(oss.windows, [Some(128), None]);
    assert!(oss.attention_bias && oss.head_dim == 64 && oss.rope_theta == 150_000.0);
    let yarn = matches!(
        oss.rope_scaling,
        RopeScaling::Yarn {
            factor: 32.0,
            truncate: false,
            original_max_position_embeddings: 4096,
            ..
        }
    );
    assert!(yarn, "{:?}", oss.rope_scaling);
    let plain = json!({ "rope_parameters": { "rope_type": "default" } });
    let plain = parse_mixture("GptOssForCausalLM", &plain).expect("valid");
    assert_eq!(plain.rope_scaling, RopeScaling::None);
}

#[test]
fn mixtures_know_their_experts_by_two_names() {
    for (class, name) in [
        ("Qwen3MoeForCausalLM", "num_local_experts"),
        ("Qwen3MoeForCausalLM", "num_experts"),
        ("MixtralForCausalLM", "num_experts"),
        ("MixtralForCausalLM", "num_local_experts"),
        ("GptOssForCausalLM", "num_experts"),
    ] {
        let config = parse_mixture(class, &json!({ name: 16 })).expect("valid");
        assert_eq!(config.routed_experts().map(|(experts, _)| experts), Some(16), "{class} {name}");
    }
}

#[test]
fn impossible_mixtures_are_refused_by_name() {
    for (class, field, value) in [
        ("Qwen3MoeForCausalLM", "num_experts", json!(0)),
        ("Qwen3MoeForCausalLM", "num_experts_per_tok", json!(129)),
        ("Qwen3MoeForCausalLM", "decoder_sparse_step", json!(0)),
        ("Qwen3MoeForCausalLM", "moe_intermediate_size", json!(0)),
        ("Qwen3MoeForCausalLM", "mlp_only_layers", json!("none")),
        ("MixtralForCausalLM", "num_experts_per_tok", json!(9)),
        ("MixtralForCausalLM", "num_local_experts", json!(0)),
        ("MixtralForCausalLM", "sliding_window", json!(0)),
        ("GptOssForCausalLM", "num_experts_per_tok", json!(0)),
        ("GptOssForCausalLM", "swiglu_alpha", json!(1.5)),
        ("GptOssForCausalLM", "swiglu_limit", json!(-1.0)),
        ("GptOssForCausalLM", "layer_types", json!(["chunked_attention", "full_attention"])),
    ] {
        let error = parse_mixture(class, &json!({ field: value })).expect_err(field);
        assert!(error.contains(field), "{class} {field}: {error}");
    }
}
