//! Speed of one training step of a small Llama: `cargo run --release -p crisol-engine --example step [threads]`.
//!
//! 32 documents of 128 tokens a step, in shards of 4 documents, d 128, 4 layers, 4 heads, ff 352, vocabulary
//! 2048, tied head; forward, backward, reduction over lanes, AdamW.

use std::convert::Infallible;
use std::time::Instant;

use crisol_engine::{
    Attention, Device, Init, Lanes, Optimizer, OptimizerConfig, ParamId, ParamSpec, Params, Role, Rope,
    RopeStyle, Rule, Tape, Var,
};

const DIM: usize = 128;
const HEADS: usize = 4;
const FF: usize = 352;
const VOCAB: usize = 2048;
const LAYERS: usize = 4;
const TOKENS: usize = 128;
const DOCUMENTS: usize = 32;
const DOCUMENTS_PER_SHARD: usize = 4;

struct Layer {
    norms: [ParamId; 2],
    qkvo: [ParamId; 4],
    gate_up_down: [ParamId; 3],
}

fn main() {
    let threads = std::env::args().nth(1).map(|n| n.parse().expect("a number of threads"));
    let device = Device::cpu(threads);
    let mut specs = Vec::new();
    let mut add = |shape: &[usize]| {
        let init = if shape.len() == 2 { Init::Normal(0.02) } else { Init::Ones };
        specs.push(ParamSpec {
            name: specs.len().to_string(),
            shape: shape.into(),
            init,
            role: if shape.len() == 2 { Role::Hidden } else { Role::Vector },
        });
    };
    add(&[VOCAB, DIM]);
    add(&[DIM]);
    for _ in 0..LAYERS {
        add(&[DIM]);
        add(&[DIM]);
        (0..4).for_each(|_| add(&[DIM, DIM]));
        add(&[FF, DIM]);
        add(&[FF, DIM]);
        add(&[DIM, FF]);
    }
    let mut params = Params::init(&device, specs, 0);
    let ids: Vec<ParamId> = params.ids().collect();
    let layers: Vec<Layer> = ids[2..]
        .chunks_exact(9)
        .map(|layer| Layer {
            norms: [layer[0], layer[1]],
            qkvo: [layer[2], layer[3], layer[4], layer[5]],
            gate_up_down: [layer[6], layer[7], layer[8]],
        })
        .collect();
    let head_dim = DIM / HEADS;
    let frequencies: Vec<f32> =
        (0..head_dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32)).collect();
    let rope = Rope::new(&device, &frequencies, TOKENS, RopeStyle::Halves);
    let attention = Attention {
        heads: HEADS,
        kv_heads: HEADS,
        qk_dim: head_dim,
        v_dim: head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
    };
    let rows = TOKENS * DOCUMENTS_PER_SHARD;
    let positions: Vec<u32> = (0..rows).map(|i| (i % TOKENS) as u32).collect();
    let offsets: Vec<u32> = (0..=DOCUMENTS_PER_SHARD).map(|i| (i * TOKENS) as u32).collect();
    let tokens: Vec<u32> = (0..rows as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 21).collect();
    let seed = vec![-1.0 / (TOKENS * DOCUMENTS) as f32; rows];

    let forward = |tape: &mut Tape<'_>| -> Var {
        let mut x = tape.embedding(ids[0], &tokens);
        for layer in &layers {
            let h = tape.rms_norm(x, layer.norms[0], 1e-5);
            let [q, k, v] = [0, 1, 2].map(|i| tape.linear(h, layer.qkvo[i], None));
            let q = tape.rope(q, &rope, head_dim, &positions);
            let k = tape.rope(k, &rope, head_dim, &positions);
            let h = tape.attention(q, k, v, attention, &offsets);
            let h = tape.linear(h, layer.qkvo[3], None);
            x = tape.add(x, h);
            let h = tape.rms_norm(x, layer.norms[1], 1e-5);
            let gate = tape.linear(h, layer.gate_up_down[0], None);
            let up = tape.linear(h, layer.gate_up_down[1], None);
            let h = tape.swiglu(gate, up);
            let h = tape.linear(h, layer.gate_up_down[2], None);
            x = tape.add(x, h);
        }
        let x = tape.rms_norm(x, ids[1], 1e-5);
        tape.token_scores(x, ids[0], &tokens, 1.0, false).0
    };

    let mut lanes = Lanes::new(&params);
    let mut optimizer = Optimizer::new(&params);
    let config = OptimizerConfig {
        rule: Rule::AdamW,
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: Some(1.0),
    };
    let steps = 20;
    let mut start = Instant::now();
    let mut loss = 0.0;
    for step in 0..steps + 3 {
        if step == 3 {
            start = Instant::now();
        }
        let (grads, losses) = lanes
            .run(DOCUMENTS / DOCUMENTS_PER_SHARD, |_, workspace, grads| {
                let mut tape = Tape::training(&params, workspace);
                let logp = forward(&mut tape);
                let loss = tape.read(logp).iter().zip(&seed).map(|(logp, seed)| logp * seed).sum::<f32>();
                tape.backward(&[(logp, &seed)], grads);
                Ok::<_, Infallible>(loss)
            })
            .unwrap_or_else(|error| match error {});
        loss = losses.iter().sum();
        optimizer.step(&mut params, grads, &config);
    }
    let seconds = start.elapsed().as_secs_f64();
    let tokens_per_second = (steps * DOCUMENTS * TOKENS) as f64 / seconds;
    println!("{} threads: {tokens_per_second:.0} tokens/s, loss {loss:.3}", device.threads());
}
