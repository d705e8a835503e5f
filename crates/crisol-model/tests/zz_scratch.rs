use crisol_engine::Device;
use crisol_model::*;
use crisol_text::*;
use std::path::Path;
#[test]
fn export() {
    for (name, arch, tied) in [("llama", Architecture::Llama, true), ("olmo2", Architecture::Olmo2, false)] {
        let tokenizer = Tokenizer::train(["a small text, a small model, and 123 words"; 3], 280, &EMBEDDED_TOKENS).unwrap();
        let text = TextSetup::embedded(tokenizer).unwrap();
        let config = Config { head: Head::Language { tied }, num_key_value_heads: 2, attention_bias: true, ..Config::new(arch, 300, 64, 3, 4, 96) };
        let (model, mut params) = Model::init(config, &Device::cpu(Some(1)), 5).unwrap();
        for id in params.ids() { let v: Vec<f32> = params.read(id).iter().map(|w| w*5.0 + 0.01).collect(); params.write(id, &v); }
        let dir = Path::new("/tmp/saved").join(name);
        let ids = text.tokenizer.encode("a small model 12<|end|> words<think>x").unwrap();
        let s = score(&model, &params, &[&ids], 1.0).unwrap().remove(0);
        let lp: Vec<Option<f32>> = std::iter::once(None).chain(s.into_iter().map(Some)).collect();
        Checkpoint { model, params, text }.save(&dir).unwrap();
        std::fs::write(format!("/tmp/saved/{name}.json"), serde_json::json!({"ids": ids, "logprobs": lp, "text":"a small model 12<|end|> words<think>x"}).to_string()).unwrap();
        let c = Checkpoint::load(&dir, &Device::cpu(Some(1))).unwrap();
        let (m, p) = c.model.scalar_from(&c.params, 1);
        let r = scalars(&m, &p, &[&ids]).unwrap();
        println!("{name} {ids:?} scalar {:?}", r[0].last());
        save_checkpoint::<ModelError>(&Path::new("/tmp/saved").join(format!("{name}-scalar")), &m, &p, &c.text, |_| Ok(())).unwrap();
    }
}
#[test]
fn speed() {
    let config = Config { ..Config::new(Architecture::Llama, 2048, 128, 4, 4, 352) };
    let (model, params) = Model::init(config, &Device::cpu(Some(1)), 5).unwrap();
    for (n, prompt, new) in [(1, 20, 64), (8, 20, 64), (64, 60, 100), (256, 60, 100), (512, 60,100)] {
        let prompts: Vec<Vec<u32>> = (0..n).map(|i| (0..prompt).map(|t| (i/8*7+t*31)%2048).collect()).collect();
        let t = std::time::Instant::now();
        let o = SamplingOptions { max_new_tokens: new, ..SamplingOptions::default() };
        let g = generate(&model, &params, &prompts, &o).unwrap();
        let tok: usize = g.iter().map(|g| g.ids.len()).sum();
        let e = t.elapsed().as_secs_f64();
        println!("{n} x {prompt}+{new}: {:.0} new tok/s ({e:.2}s)", tok as f64 / e);
    }
    let seqs: Vec<Vec<u32>> = (0..256).map(|i| (0..160).map(|t| (i*7+t*31)%2048).collect()).collect();
    let t = std::time::Instant::now();
    score(&model, &params, &seqs, 1.0).unwrap();
    println!("score {:.0} tok/s", 256.0*160.0 / t.elapsed().as_secs_f64());
}
