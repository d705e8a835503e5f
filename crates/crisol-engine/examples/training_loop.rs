//! A training loop of one's own: one layer of attention learns to continue a text, letter by
//! letter. `cargo run --release --example training_loop`

use crisol_engine::{
    Attention, Device, Grads, Init, MomentFormat, Optimizer, OptimizerConfig, ParamSpec, Params,
    Role, Rope, RopeStyle, Tape, UpdateRule, Workspace,
};

const TEXT: &str = "the cat sat on the mat and the rat sat on the cat ";
const WIDTH: usize = 32;
/// Two heads of 16 columns.
const SHAPE: Attention = Attention::new(2, 2, 16, 16, 0.25);

fn main() {
    let device = Device::cpu(None);
    let spec = |name: &str, shape: &[usize], role| ParamSpec {
        name: name.into(),
        shape: shape.into(),
        init: Init::Normal(0.1),
        role,
    };
    let specs = vec![
        spec("letters", &[128, WIDTH], Role::Table),
        spec("queries", &[WIDTH, WIDTH], Role::Hidden),
        spec("keys", &[WIDTH, WIDTH], Role::Hidden),
        spec("values", &[WIDTH, WIDTH], Role::Hidden),
        spec("head", &[128, WIDTH], Role::Table),
    ];
    let mut params = Params::init(&device, specs, 1);
    let [letters, queries, keys, values, head] = ["letters", "queries", "keys", "values", "head"]
        .map(|name| params.id(name).expect("one of the specs"));

    let text: Vec<u32> = TEXT.bytes().map(u32::from).collect();
    let (text, next) = (&text[..text.len() - 1], &text[1..]);
    // One document; its letters have the positions 0, 1, 2, …
    let offsets = [0, text.len() as u32];
    let positions: Vec<u32> = (0..text.len() as u32).collect();
    let rope = Rope::new(&[1.0, 0.5, 0.2, 0.1], 1.0, RopeStyle::Halves);

    let mut workspace = Workspace::new(&device);
    let mut grads = Grads::zeros_like(&params);
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let config = OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr: 0.02,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: Some(1.0),
    };
    // dL/dlogp of a mean cross-entropy.
    let seed = vec![-1.0 / next.len() as f32; next.len()];
    for step in 0..=60 {
        let mut tape = Tape::training(&params, &mut workspace);
        let x = tape.embedding(letters, text);
        let [q, k, v] = [queries, keys, values].map(|weight| tape.linear(x, weight, None));
        let [q, k] = [q, k].map(|y| tape.rope(y, &rope, SHAPE.qk_dim, &positions));
        let mixed = tape.attention(q, k, v, SHAPE, &offsets);
        let x = tape.add(x, mixed);
        let (logp, _) = tape.token_scores(x, head, next, 1.0, None, false);
        let loss = -tape.read(logp).iter().sum::<f32>() / next.len() as f32;
        grads.zero();
        tape.backward(&[(logp, &seed)], &mut grads);
        let norm = optimizer.step(&mut params, &grads, &config);
        if step % 20 == 0 {
            println!("step {step:2}  loss {loss:.3} nats  gradient norm {norm:.3}");
        }
    }
}
