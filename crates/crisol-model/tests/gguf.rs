//! Models from GGUF files: weights equal those of the folder, and errors name what is unsupported.

use std::borrow::Cow;
use std::path::Path;

use crisol_engine::{Device, Params};
use crisol_hub::{Array, GgmlType, GgufTensor, Metadata, Tensor, whole, write_gguf};
use crisol_model::{Checkpoint, Config, Model, ModelError, RopeScaling, load_model};

/// Parts of a layer by their names in Hugging Face's and GGUF files, from llama.cpp's gguf-py.
const LLAMA: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const OLMO2: [(&str, &str); 4] = [
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

fn golden(name: &str) -> (Model, Params) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name);
    load_model(&folder, &Device::cpu(Some(1))).expect("committed")
}

fn gguf_name(architecture: &str, name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => "token_embd.weight".into(),
        "model.norm.weight" => "output_norm.weight".into(),
        "lm_head.weight" => "output.weight".into(),
        name => {
            let rest = name.strip_prefix("model.layers.").expect("a layer's");
            let (layer, rest) = rest.split_once('.').expect("a part of a layer");
            let (part, kind) = rest.rsplit_once('.').expect("weight or bias");
            let own = if architecture == "olmo2" { &OLMO2[..] } else { &[] };
            let own = own.iter().chain(if architecture == "qwen3" { &OLMO2[..2] } else { &[] });
            let (_, part) =
                own.chain(&LLAMA).find(|(ours, _)| *ours == part).expect("a known part");
            format!("blk.{layer}.{part}.{kind}")
        }
    }
}

/// llama.cpp's row order of Llama's queries and keys: `w.reshape(heads, 2, dim / 2, …).swapaxes(1,
/// 2)`.
fn interleave_rows(values: &[f32], dim: usize, rows: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let mut result = Vec::new();
    for head in (0..rows).step_by(dim) {
        for pair in 0..dim / 2 {
            for half in 0..2 {
                let row = head + half * dim / 2 + pair;
                result.extend(&values[row * width..(row + 1) * width]);
            }
        }
    }
    result
}

fn metadata(architecture: &str, config: &Config) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", architecture.to_owned());
    for (key, size) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
    ] {
        metadata.insert(format!("{architecture}.{key}"), size as u32);
    }
    metadata
        .insert(format!("{architecture}.attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    metadata.insert(format!("{architecture}.rope.freq_base"), config.rope_theta as f32);
    let tokens = (0..config.vocab_size as u8).map(|i| char::from(b'!' + i).to_string()).collect();
    metadata.insert("tokenizer.ggml.model", "gpt2".to_owned());
    metadata.insert("tokenizer.ggml.pre", "gpt-2".to_owned());
    metadata.insert("tokenizer.ggml.tokens", Array::String(tokens));
    metadata.insert("tokenizer.ggml.token_type", Array::I32(vec![1; config.vocab_size]));
    metadata.insert("tokenizer.ggml.merges", Array::String(Vec::new()));
    metadata.insert("tokenizer.ggml.eos_token_id", 2u32);
    metadata
}

fn tensors<'a>(architecture: &str, config: &Config, params: &'a Params) -> Vec<GgufTensor<'a>> {
    let tensor = |id| {
        let spec = params.spec(id);
        let rotated = spec.name.contains("q_proj") || spec.name.contains("k_proj");
        let reordered = (architecture == "llama" && rotated).then_some(config.head_dim);
        let rows = spec.shape[0];
        let values = move || {
            let values = params.read(id);
            Ok(Cow::Owned(
                reordered.map_or(values.clone(), |dim| interleave_rows(&values, dim, rows)),
            ))
        };
        let name = gguf_name(architecture, &spec.name);
        Tensor { name, shape: spec.shape.clone(), dtype: GgmlType::F32, values: whole(values) }
    };
    params.ids().map(tensor).collect()
}

fn load(metadata: &Metadata, tensors: &[GgufTensor<'_>]) -> Result<Checkpoint, ModelError> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("model.gguf");
    write_gguf(&file, metadata, tensors)?;
    Checkpoint::load(&file, &Device::cpu(Some(1)))
}

#[test]
fn a_gguf_file_gives_the_model_of_its_folder() -> Result<(), ModelError> {
    for (architecture, name) in
        [("llama", "llama"), ("llama", "llama-tied"), ("olmo2", "olmo2"), ("qwen3", "qwen3")]
    {
        let (model, params) = golden(name);
        let config = model.config();
        let loaded =
            load(&metadata(architecture, config), &tensors(architecture, config, &params))?;
        let expected = Config {
            bos_token_id: None,
            eos_token_id: vec![2],
            pad_token_id: None,
            ..config.clone()
        };
        assert_eq!(loaded.model.config(), &expected, "{name}");
        assert_eq!(loaded.params.ids().count(), params.ids().count());
        for id in params.ids() {
            assert_eq!(loaded.params.read(id), params.read(id), "{name}: {}", params.spec(id).name);
        }
        assert_eq!(loaded.text.tokenizer.encode("AB")?, [32, 33]);
        assert_eq!(loaded.text.eos, 2);
    }
    Ok(())
}

#[test]
fn unsupported_files_are_refused_by_name() {
    let (model, params) = golden("llama");
    let config = model.config();
    let refused = |change: &dyn Fn(&mut Metadata, &mut Vec<GgufTensor<'_>>), named: &str| {
        let (mut metadata, mut tensors) =
            (metadata("llama", config), tensors("llama", config, &params));
        change(&mut metadata, &mut tensors);
        let error = load(&metadata, &tensors).expect_err("must be refused").to_string();
        assert!(
            error.contains(named) && error.contains("model.gguf"),
            "{error} does not name {named}"
        );
        assert!(!error.contains("config.json"), "{error}: there is none");
    };
    let with = |key: &'static str, number: u32| {
        move |metadata: &mut Metadata, _: &mut Vec<GgufTensor<'_>>| {
            metadata.insert(key, number);
        }
    };
    refused(&|m, _| drop(m.insert("general.architecture", "falcon".to_owned())), "falcon");
    refused(&|m, _| drop(m.insert("llama.rope.scaling.type", "longrope".to_owned())), "longrope");
    refused(
        &|m, _| drop(m.insert("llama.rope.scaling.attn_factor", 0.5_f32)),
        "attn_factor is 0.5",
    );
    // With experts it is a Mixtral.
    refused(&with("llama.expert_count", 8), "expert_used_count");
    refused(&with("llama.attention.value_length", 4), "value_length");
    refused(&with("llama.rope.dimension_count", 4), "dimension_count");
    refused(&with("llama.attention.head_count", 5), "num_attention_heads");
    refused(&with("llama.feed_forward_length", 7), "ffn_gate");
    let tokens = (0..=config.vocab_size).map(|id| id.to_string()).collect();
    let tokens = Array::String(tokens);
    refused(
        &|m, _| drop(m.insert("tokenizer.ggml.tokens", tokens.clone())),
        "its tokenizer has 65 tokens, but the model 64",
    );
    refused(&|_, tensors| tensors.truncate(tensors.len() - 2), "output_norm.weight");
    let extra = |name: &'static str, numbers: [f32; 4]| {
        move |_: &mut Metadata, tensors: &mut Vec<GgufTensor<'_>>| {
            let values = whole(move || Ok(Cow::Owned(numbers.to_vec())));
            tensors.push(Tensor {
                name: name.into(),
                shape: vec![4],
                dtype: GgmlType::F32,
                values,
            });
        }
    };
    refused(&extra("rope_factors_long.weight", [1.0; 4]), "rope_factors_long.weight");
    refused(&extra("rope_freqs.weight", [1.0, 3.0, 2.0, 4.0]), "rope_freqs.weight");
}

/// Reading the template once per mention would take 100 GB for this file of 2 MB.
#[test]
fn a_template_listed_many_times_is_read_once() {
    let (model, params) = golden("llama");
    let config = model.config();
    let mut metadata = metadata("llama", config);
    metadata.insert("tokenizer.chat_templates", Array::String(vec!["a".to_owned(); 100_000]));
    metadata.insert("tokenizer.chat_template.a", "x".repeat(1_000_000));
    metadata.insert("tokenizer.chat_template", "x");
    let error =
        load(&metadata, &tensors("llama", config, &params)).expect_err("too long").to_string();
    assert!(error.contains("1000000 bytes"), "{error}");
}

#[test]
fn rope_scaling_is_read() {
    let (model, params) = golden("llama");
    let config = model.config();
    assert_eq!(config.head_dim, 8);
    let scaling = |change: &dyn Fn(&mut Metadata, &mut Vec<GgufTensor<'_>>)| {
        let (mut metadata, mut tensors) =
            (metadata("llama", config), tensors("llama", config, &params));
        change(&mut metadata, &mut tensors);
        load(&metadata, &tensors).expect("supported").model.config().rope_scaling.clone()
    };
    let linear = RopeScaling::Linear { factor: 2.5 };
    let kind = |metadata: &mut Metadata, kind: &str| {
        metadata.insert("llama.rope.scaling.type", kind.to_owned());
        metadata.insert("llama.rope.scaling.factor", 2.5_f32);
    };
    assert_eq!(scaling(&|m, _| kind(m, "linear")), linear);
    assert_eq!(scaling(&|m, _| kind(m, "none")), RopeScaling::None);
    // llama.cpp's defaults: a missing type, and the key of older files.
    assert_eq!(scaling(&|m, _| drop(m.insert("llama.rope.scaling.factor", 2.5_f32))), linear);
    assert_eq!(scaling(&|m, _| drop(m.insert("llama.rope.scale_linear", 2.5_f32))), linear);
    let yarn = |original, beta_fast, attention_factor| RopeScaling::Yarn {
        factor: 2.5,
        original_max_position_embeddings: original,
        beta_fast,
        beta_slow: 1.0,
        truncate: true,
        attention_factor,
        mscale: 0.0,
        mscale_all_dim: 0.0,
    };
    let plain = yarn(config.max_position_embeddings, 32.0, None);
    assert_eq!(scaling(&|m, _| kind(m, "yarn")), plain);
    let more = |metadata: &mut Metadata, _: &mut Vec<GgufTensor<'_>>| {
        kind(metadata, "yarn");
        metadata.insert("llama.rope.scaling.original_context_length", 48_u32);
        metadata.insert("llama.rope.scaling.yarn_beta_fast", 16.1_f32);
        // Relative to the default that follows from the factor.
        metadata.insert("llama.rope.scaling.attn_factor", 0.5_f32);
    };
    assert_eq!(scaling(&more), yarn(48, 16.1, Some(0.5 * (0.1 * 2.5_f64.ln() + 1.0))));
    // Llama 3's divisors for the four pairs of a head, by hand. Wavelengths are 6.28, 62.8, 628 and
    // 6283 in a context of 1000: divided by 8 below 1 rotation, unchanged above 4. The third pair
    // makes 1.59 rotations.
    let middle = {
        let smooth = (1000.0 / (200.0 * std::f64::consts::PI) - 1.0) / 3.0;
        1.0 / ((1.0 - smooth) / 8.0 + smooth)
    };
    let divisors = move |_: &mut Metadata, tensors: &mut Vec<GgufTensor<'_>>| {
        let values = whole(move || Ok(Cow::Owned(vec![1.0, 1.0, middle as f32, 8.0])));
        tensors.push(Tensor {
            name: "rope_freqs.weight".into(),
            shape: vec![4],
            dtype: GgmlType::F32,
            values,
        });
    };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 1000,
    };
    assert_eq!(scaling(&divisors), llama3);
}
