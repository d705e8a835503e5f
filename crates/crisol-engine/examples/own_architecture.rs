//! An architecture of one's own: attention and feed-forward layer of a block read one norm, as in
//! GPT-J. The model learns a text by heart and recites it with a KV cache.
//! `cargo run --release --example own_architecture`
//!
//! ```text
//! n = norm(x)        x = x + attention(n) + mlp(n)
//! ```

use crisol_engine::{
    Attention, Device, GatedActivation, Grads, Init, KvCache, MomentFormat, Optimizer,
    OptimizerConfig, ParamId, ParamSpec, Params, Role, Rope, RopeStyle, Tape, UpdateRule, Var,
    Workspace,
};

const TEXT: &str = "the cat sat on the mat and the rat sat on the cat.";
const PROMPT: &str = "the cat";
const WIDTH: usize = 32;
const LAYERS: usize = 2;
/// Two heads of 16 columns.
const SHAPE: Attention = Attention::new(2, 2, 16, 16, 0.25);

/// Names and shapes of a block's matrices, `[out, in]`.
const MATRICES: [(&str, [usize; 2]); 7] = [
    ("q", [WIDTH, WIDTH]),
    ("k", [WIDTH, WIDTH]),
    ("v", [WIDTH, WIDTH]),
    ("o", [WIDTH, WIDTH]),
    ("gate", [3 * WIDTH, WIDTH]),
    ("up", [3 * WIDTH, WIDTH]),
    ("down", [WIDTH, 3 * WIDTH]),
];

struct Block {
    norm: ParamId,
    matrices: [ParamId; 7],
}

struct Model {
    letters: ParamId,
    blocks: Vec<Block>,
    norm: ParamId,
    head: ParamId,
    rope: Rope,
}

fn specs() -> Vec<ParamSpec> {
    let spec = |name: String, shape: &[usize], init, role| {
        let shape = shape.into();
        ParamSpec { name, shape, init, role }
    };
    let table = |name: &str| spec(name.into(), &[128, WIDTH], Init::Normal(0.1), Role::Table);
    let norm = |name: String| spec(name, &[WIDTH], Init::Ones, Role::Vector);
    let mut specs = vec![table("letters"), table("head"), norm("norm".into())];
    for layer in 0..LAYERS {
        specs.push(norm(format!("{layer}.norm")));
        specs.extend(MATRICES.iter().map(|(name, shape)| {
            spec(format!("{layer}.{name}"), shape, Init::Normal(0.1), Role::Hidden)
        }));
    }
    specs
}

impl Model {
    fn bind(params: &Params) -> Model {
        let id = |name: &str| params.id(name).expect("one of the specs");
        let block = |layer: usize| Block {
            norm: id(&format!("{layer}.norm")),
            matrices: MATRICES.map(|(name, _)| id(&format!("{layer}.{name}"))),
        };
        Model {
            letters: id("letters"),
            blocks: (0..LAYERS).map(block).collect(),
            norm: id("norm"),
            head: id("head"),
            rope: Rope::new(&[1.0, 0.5, 0.2, 0.1], 1.0, RopeStyle::Halves),
        }
    }

    /// The last hidden state of each letter, `[letters, WIDTH]`; with a cache, of letters that
    /// follow those in it.
    fn forward(&self, tape: &mut Tape<'_>, text: &[u32], mut past: Option<&mut KvCache>) -> Var {
        // One document.
        let offsets = [0, text.len() as u32];
        let start = past.as_ref().map_or(0, |cache| cache.len(0) as u32);
        let positions: Vec<u32> = (start..start + text.len() as u32).collect();
        let mut x = tape.embedding(self.letters, text);
        for (layer, block) in self.blocks.iter().enumerate() {
            let [q, k, v, o, gate, up, down] = block.matrices;
            let n = tape.rms_norm(x, block.norm, 1e-5);
            let [q, k, v] = [q, k, v].map(|weight| tape.linear(n, weight, None));
            let [q, k] = [q, k].map(|y| tape.rope(y, &self.rope, SHAPE.qk_dim, &positions));
            let mixed = match past.as_deref_mut() {
                None => tape.attention(q, k, v, SHAPE, &offsets),
                Some(cache) => {
                    tape.attention_cached(q, k, v, SHAPE, &offsets, cache, &[0], layer, None)
                }
            };
            let attention = tape.linear(mixed, o, None);
            let [gate, up] = [gate, up].map(|weight| tape.linear(n, weight, None));
            let gated = tape.gated(gate, up, GatedActivation::Silu);
            let mlp = tape.linear(gated, down, None);
            let both = tape.add(attention, mlp);
            x = tape.add(x, both);
        }
        tape.rms_norm(x, self.norm, 1e-5)
    }
}

fn main() {
    let device = Device::cpu(None);
    let mut params = Params::init(&device, specs(), 1);
    let model = Model::bind(&params);
    let mut workspace = Workspace::new(&device);
    let mut grads = Grads::zeros_like(&params);
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let config = OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr: 0.01,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: Some(1.0),
    };
    let ids: Vec<u32> = TEXT.bytes().map(u32::from).collect();
    let (text, next) = (&ids[..ids.len() - 1], &ids[1..]);
    // dL/dlogp of a mean cross-entropy.
    let seed = vec![-1.0 / next.len() as f32; next.len()];
    for step in 0..=60 {
        let mut tape = Tape::training(&params, &mut workspace);
        let x = model.forward(&mut tape, text, None);
        let (logp, _) = tape.token_scores(x, model.head, next, 1.0, None, false);
        let loss = -tape.read(logp).iter().sum::<f32>() / next.len() as f32;
        grads.zero();
        tape.backward(&[(logp, &seed)], &mut grads);
        optimizer.step(&mut params, &grads, &config);
        if step % 20 == 0 {
            println!("step {step:2}  loss {loss:.3} nats");
        }
    }

    // The prompt at once, then letter by letter: the cache holds keys and values of all before.
    let mut cache = KvCache::new(&device, LAYERS, WIDTH, WIDTH, 1, TEXT.len());
    let mut recited = PROMPT.to_owned();
    let mut new: Vec<u32> = PROMPT.bytes().map(u32::from).collect();
    while recited.len() < TEXT.len() {
        let mut tape = Tape::inference(&params, &mut workspace);
        let x = model.forward(&mut tape, &new, Some(&mut cache));
        let last = tape.select_rows(x, &[new.len() as u32 - 1]);
        let logits = tape.logits(last, model.head);
        let logits = tape.read(logits);
        let likeliest = (0..128)
            .max_by(|&a: &u8, &b| logits[usize::from(a)].total_cmp(&logits[usize::from(b)]));
        let letter = likeliest.expect("there are 128 letters");
        new = vec![u32::from(letter)];
        recited.push(char::from(letter));
    }
    println!("{recited}");
    assert_eq!(recited, TEXT, "the model has not learnt its text");
}
