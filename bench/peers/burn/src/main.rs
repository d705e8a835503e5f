//! The training step of `crisol bench train` in Burn: the same shapes, the same model, the same
//! optimizer.
//!
//!     cargo run --release -- --shape XS --threads 2 --seconds 10
//!
//! Prints one JSON object: `tokens_per_second` (median of the steps) and `peak_memory_bytes`.
//!
//! On Flex, Burn's CPU backend in Rust, with automatic differentiation.

use std::error::Error;

use burn::module::{Initializer, ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::prelude::*;
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, TensorData};
use harness::{Clock, Shape};

#[path = "../../harness.rs"]
mod harness;

#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NORMAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

fn linear(input: usize, output: usize, device: &Device) -> Linear {
    LinearConfig::new(input, output).with_bias(false).with_initializer(NORMAL).init(device)
}

/// What all blocks need beside their weights; the leading dimensions are for rows and heads.
struct Positions {
    /// `[1, 1, t, head_dim / 2]`
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// `[1, 1, t, t]`, true above the diagonal.
    hidden: Tensor<4, Bool>,
}

impl Positions {
    fn new(shape: &Shape, device: &Device) -> Self {
        let size = [1, 1, shape.t, shape.head_dim() / 2];
        let [cos, sin] = shape.angles().map(|table| Tensor::from_data(TensorData::new(table, size), device));
        Self { cos, sin, hidden: Tensor::<2, Bool>::tril_mask([shape.t; 2], 0, device).unsqueeze() }
    }

    /// RoPE of `[b, heads, t, head_dim]`: turns the first half of each head against the second.
    fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [a, b] = x.chunk(2, 3).try_into().expect("heads are even");
        let first = a.clone() * self.cos.clone() - b.clone() * self.sin.clone();
        let second = b * self.cos.clone() + a * self.sin.clone();
        Tensor::cat(vec![first, second], 3)
    }
}

#[derive(Module, Debug)]
struct Block {
    norm1: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm2: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(shape: &Shape, device: &Device) -> Self {
        let (d, ff, d_kv) = (shape.d, shape.ff, shape.kv * shape.head_dim());
        let norm = || RmsNormConfig::new(d).with_epsilon(1e-5).init(device);
        Self {
            norm1: norm(),
            q: linear(d, d, device),
            k: linear(d, d_kv, device),
            v: linear(d, d_kv, device),
            o: linear(d, d, device),
            norm2: norm(),
            gate: linear(d, ff, device),
            up: linear(d, ff, device),
            down: linear(ff, d, device),
        }
    }

    fn attention(&self, x: Tensor<2>, shape: &Shape, positions: &Positions) -> Tensor<2> {
        let Shape { b, t, d, heads, kv, .. } = *shape;
        let head_dim = shape.head_dim();
        let split = |y: Tensor<2>, n| y.reshape([b, t, n, head_dim]).swap_dims(1, 2);
        let repeat = |y: Tensor<4>| match heads / kv {
            1 => y,
            n => y.unsqueeze_dim::<5>(2).expand([b, kv, n, t, head_dim]).reshape([b, heads, t, head_dim]),
        };
        let q = positions.rotate(split(self.q.forward(x.clone()), heads)) * (head_dim as f64).powf(-0.5);
        let k = positions.rotate(split(self.k.forward(x.clone()), kv));
        let v = split(self.v.forward(x), kv);
        let scores = q.matmul(repeat(k).transpose());
        let hidden = positions.hidden.clone().expand([b, heads, t, t]);
        let shares = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3);
        self.o.forward(shares.matmul(repeat(v)).swap_dims(1, 2).reshape([b * t, d]))
    }

    /// All rows of the batch lie one below the other, so that each product is one of two matrices.
    fn forward(&self, x: Tensor<2>, shape: &Shape, positions: &Positions) -> Tensor<2> {
        let x = x.clone() + self.attention(self.norm1.forward(x), shape, positions);
        let h = self.norm2.forward(x.clone());
        x + self.down.forward(silu(self.gate.forward(h.clone())) * self.up.forward(h))
    }
}

#[derive(Module, Debug)]
struct Llama {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// None: the head is the embedding.
    head: Option<Linear>,
}

impl Llama {
    fn new(shape: &Shape, device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(shape.vocab, shape.d).with_initializer(NORMAL).init(device),
            blocks: (0..shape.layers).map(|_| Block::new(shape, device)).collect(),
            norm: RmsNormConfig::new(shape.d).with_epsilon(1e-5).init(device),
            head: (!shape.tied).then(|| linear(shape.d, shape.vocab, device)),
        }
    }

    fn loss(
        &self,
        ids: Tensor<2, Int>,
        targets: Tensor<1, Int>,
        shape: &Shape,
        positions: &Positions,
    ) -> Tensor<1> {
        let mut x = self.embedding.forward(ids).flatten(0, 1);
        for block in &self.blocks {
            x = block.forward(x, shape, positions);
        }
        let x = self.norm.forward(x);
        let logits = match &self.head {
            Some(head) => head.forward(x),
            None => x.matmul(self.embedding.weight.val().transpose()),
        };
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, targets)
    }
}

/// Adds up the squares of all gradients.
struct SumSquares<'a> {
    gradients: &'a GradientsParams,
    sum: f32,
}

impl ModuleVisitor for SumSquares<'_> {
    fn visit_float<const D: usize>(&mut self, weight: &Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(weight.id).expect("every weight has a gradient");
        let square = gradient.square().sum().into_scalar::<f32>();
        assert!(square > 0.0, "every weight has a gradient");
        self.sum += square;
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, weight: &Param<Tensor<D>>) {
        let gradient = self.gradients.remove::<D>(weight.id).expect("every weight has a gradient");
        self.gradients.register(weight.id, gradient * self.factor);
    }
}

/// Scales all gradients so that together they have a norm of 1 at most; what Burn offers treats
/// each on its own.
fn clip(model: &Llama, gradients: &mut GradientsParams) {
    let mut squares = SumSquares { gradients, sum: 0.0 };
    model.visit(&mut squares);
    let factor = (1.0 / (squares.sum.sqrt() + 1e-6)).min(1.0);
    model.visit(&mut Scale { gradients, factor });
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut clock = Clock::from_arguments()?;
    let shape = clock.shape;
    let device = Device::flex().autodiff();
    let mut model = Llama::new(&shape, &device);
    let positions = Positions::new(&shape, &device);
    let mut optimizer = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1).init();
    let [ids, targets] = shape.batch();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [shape.b, shape.t]), &device);
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [shape.b * shape.t]), &device);
    while clock.next_step() {
        let loss = model.loss(ids.clone(), targets.clone(), &shape, &positions);
        let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
        clip(&model, &mut gradients);
        model = optimizer.step(1e-4, model, gradients);
        clock.end_step(loss.into_scalar::<f32>());
    }
    clock.report()
}
