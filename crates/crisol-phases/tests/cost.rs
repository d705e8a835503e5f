//! `crisol-cost` counts exactly the parameters of a model and the FLOPs of its training step.

use std::path::{Path, PathBuf};

use crisol_cost::known;
use crisol_cost::phases::TRAINING;
use crisol_engine::{Device, Grads, Tape};
use crisol_model::{Config, Head, Model, ModelError, PastKeyValues};
use crisol_phases::cost_shape;

/// Golden models: all architectures and every feature that changes a shape.
fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of golden models")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    folders.sort();
    assert!(folders.len() >= 20, "{} golden models", folders.len());
    folders
}

#[test]
fn every_parameter_is_counted() -> Result<(), ModelError> {
    let device = Device::cpu(Some(1));
    for folder in golden() {
        let config = Config::load(&folder)?;
        for head in [
            config.head,
            Head::Language { tied: true },
            Head::Language { tied: false },
            Head::Scalar,
        ] {
            let config = Config { head, ..config.clone() };
            let shape = cost_shape(&config);
            let (_, params) = Model::init(config, &device, 0)?;
            assert_eq!(
                shape.parameters().total(),
                params.count() as f64,
                "{} {head:?}",
                folder.display()
            );
        }
    }
    Ok(())
}

/// A step with logits for every token, as in pre-training.
#[test]
fn a_training_step_executes_the_counted_flops() -> Result<(), ModelError> {
    let device = Device::cpu(Some(2));
    for folder in golden() {
        let config = Config::load(&folder)?;
        let (shape, longest, vocab) =
            (cost_shape(&config), config.max_document_len(), config.vocab_size);
        let (model, params) = Model::init(config, &device, 1)?;
        // Documents of different lengths, longer than the chunks of Llama 4's attention.
        let lengths = [longest.min(40), 3, longest.min(23)];
        let (mut offsets, mut ids) = (vec![0], Vec::new());
        for length in lengths {
            ids.extend((0..length).map(|i| (7 * i % vocab) as u32));
            offsets.push(ids.len() as u32);
        }
        let rows: Vec<u32> = (0..ids.len() as u32).collect();
        let mut grads = Grads::zeros_like(&params);
        device.start_profile();
        device.run(|workspace| {
            let mut tape = Tape::training(&params, workspace);
            let hidden = model
                .hidden(&mut tape, &ids, &offsets, PastKeyValues::None)
                .expect("valid documents");
            let result = match model.config().head {
                Head::Language { .. } => {
                    model
                        .token_scores(&mut tape, hidden, &rows, &ids, 1.0, false)
                        .expect("it has logits")
                        .0
                }
                Head::Scalar => {
                    model.scalar(&mut tape, hidden, &rows).expect("it has a scalar head")
                }
            };
            tape.backward(&[(result, &vec![1.0; ids.len()])], &mut grads);
        });
        let counted: f64 = device.stop_profile().iter().map(|part| part.flops).sum();
        let predicted =
            lengths.iter().map(|&length| shape.document_flops(length, length).0).sum::<f64>()
                * TRAINING;
        let off = (predicted / counted - 1.0).abs();
        assert!(off < 1e-9, "{}: {predicted} instead of {counted}", folder.display());
    }
    Ok(())
}

/// The shapes of known models equal those of their public `config.json`, reduced to the fields that
/// matter.
#[test]
fn known_shapes_equal_their_published_configs() {
    let dense = |class: &str, sizes: [usize; 7], tied: bool| {
        let [hidden, layers, heads, kv_heads, head_dim, inner, vocab] = sizes;
        format!(
            r#"{{"architectures": ["{class}"], "hidden_act": "silu", "hidden_size": {hidden},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads},
            "num_key_value_heads": {kv_heads}, "head_dim": {head_dim},
            "intermediate_size": {inner}, "vocab_size": {vocab}, "tie_word_embeddings": {tied}}}"#
        )
    };
    let llama4 = |experts: usize, step: usize| {
        format!(
            r#"{{"architectures": ["Llama4ForCausalLM"], "hidden_act": "silu", "hidden_size": 5120,
            "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8,
            "head_dim": 128, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
            "vocab_size": 202048, "num_local_experts": {experts}, "num_experts_per_tok": 1,
            "interleave_moe_layer_step": {step}, "attention_chunk_size": 8192,
            "tie_word_embeddings": false}}"#
        )
    };
    // Fields in addition to those of `dense`.
    let with = |config: String, more: &str| format!("{}, {more}}}", config.trim_end_matches('}'));
    let gpt2 = r#"{"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12,
        "n_head": 12, "n_positions": 1024, "vocab_size": 50257}"#;
    let deepseek = r#"{"architectures": ["DeepseekV3ForCausalLM"], "hidden_act": "silu",
        "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
        "num_key_value_heads": 128, "intermediate_size": 18432, "vocab_size": 129280,
        "tie_word_embeddings": false}"#;
    let qwen3_moe = r#"{"architectures": ["Qwen3MoeForCausalLM"], "hidden_act": "silu",
        "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
        "norm_topk_prob": true, "vocab_size": 151936, "tie_word_embeddings": false}"#;
    let mixtral = r#"{"architectures": ["MixtralForCausalLM"], "hidden_act": "silu",
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8,
        "num_experts_per_tok": 2, "sliding_window": null, "vocab_size": 32000}"#;
    let gpt_oss = r#"{"architectures": ["GptOssForCausalLM"], "hidden_act": "silu",
        "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880,
        "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
        "attention_bias": true, "vocab_size": 201088}"#;
    let gemma = |class: &str, sizes: [usize; 7], window: usize| {
        let [hidden, layers, heads, kv_heads, head_dim, inner, vocab] = sizes;
        format!(
            r#"{{"architectures": ["{class}"], "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": {hidden}, "num_hidden_layers": {layers},
            "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
            "head_dim": {head_dim}, "intermediate_size": {inner}, "vocab_size": {vocab},
            "sliding_window": {window}}}"#
        )
    };
    let [gemma2, gemma3] = ["Gemma2ForCausalLM", "Gemma3ForCausalLM"];
    for (name, config) in [
        ("gemma-2-2b", gemma(gemma2, [2304, 26, 8, 4, 256, 9216, 256_000], 4096)),
        ("gemma-3-270m", gemma(gemma3, [640, 18, 4, 1, 256, 2048, 262_144], 512)),
        ("gemma-3-27b", gemma(gemma3, [5376, 62, 32, 16, 128, 21_504, 262_208], 1024)),
        ("llama-2-70b", dense("LlamaForCausalLM", [8192, 80, 64, 8, 128, 28_672, 32_000], false)),
        ("llama-3.2-1b", dense("LlamaForCausalLM", [2048, 16, 32, 8, 64, 8192, 128_256], true)),
        ("olmo-2-32b", dense("Olmo2ForCausalLM", [5120, 64, 40, 8, 128, 27_648, 100_352], false)),
        ("qwen3-8b", dense("Qwen3ForCausalLM", [4096, 36, 32, 8, 128, 12_288, 151_936], false)),
        ("smollm3-3b", dense("SmolLM3ForCausalLM", [2048, 36, 16, 4, 128, 11_008, 128_256], true)),
        ("granite-3.3-2b", dense("GraniteForCausalLM", [2048, 40, 32, 8, 64, 8192, 49_159], true)),
        (
            "ernie-4.5-0.3b",
            dense("Ernie4_5ForCausalLM", [1024, 18, 16, 2, 128, 3072, 103_424], true),
        ),
        ("olmo-3-7b", dense("Olmo3ForCausalLM", [4096, 32, 32, 32, 128, 11_008, 100_278], false)),
        (
            "phi-4-mini",
            with(
                dense("Phi3ForCausalLM", [3072, 32, 24, 8, 128, 8192, 200_064], true),
                r#""partial_rotary_factor": 0.75, "sliding_window": 262144"#,
            ),
        ),
        ("gpt2", gpt2.to_owned()),
        ("llama-4-scout", llama4(16, 1)),
        ("llama-4-maverick", llama4(128, 2)),
        ("deepseek-v3", deepseek.to_owned()),
        ("qwen3-30b-a3b", qwen3_moe.to_owned()),
        ("mixtral-8x7b", mixtral.to_owned()),
        ("gpt-oss-20b", gpt_oss.to_owned()),
    ] {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(&file, config).expect("a written file");
        let mut shape =
            cost_shape(&Config::load_file(file.path()).unwrap_or_else(|e| panic!("{name}: {e}")));
        let mut known = known::named(name).expect("a known model").shape;
        // The order of the blocks is irrelevant.
        let sort = |blocks: &mut Vec<_>| blocks.sort_by_key(|block| format!("{block:?}"));
        sort(&mut shape.blocks);
        sort(&mut known.blocks);
        assert_eq!(shape, known, "{name}");
    }
}
