//! The training step of `crisol bench train` in Candle: the same shapes, the same model, the same
//! optimizer.
//!
//!     cargo run --release -- --shape XS --threads 2 --seconds 10
//!
//! Prints one JSON object: `tokens_per_second` (median of the steps) and `peak_memory_bytes`.
//!
//! Candle's fused operations (`rms_norm`, `rope`, `softmax_last_dim`, attention) have no backward
//! pass, so what is trained consists of those that have one.

use std::error::Error;

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{AdamW, Embedding, Init, Linear, Optimizer, ParamsAdamW, RmsNorm, VarBuilder, VarMap};
use harness::{Clock, Shape};

#[path = "../../harness.rs"]
mod harness;

#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn weight(rows: usize, columns: usize, vb: VarBuilder) -> Result<Tensor> {
    vb.get_with_hints((rows, columns), "weight", Init::Randn { mean: 0.0, stdev: 0.02 })
}

fn linear(input: usize, output: usize, vb: VarBuilder) -> Result<Linear> {
    Ok(Linear::new(weight(output, input, vb)?, None))
}

/// RoPE of `[b, heads, t, head_dim]`: turns the first half of each head against the second.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    let (a, b) = (&halves[0], &halves[1]);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

/// `e^(x - max)` over the last dimension; the maximum needs no gradient, since it does not change
/// the softmax.
fn exp_shifted(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()
}

/// What all blocks need beside their weights.
struct Positions {
    /// `[t, head_dim / 2]`
    cos: Tensor,
    sin: Tensor,
    /// `[t, t]`, minus infinity above the diagonal.
    mask: Tensor,
}

impl Positions {
    fn new(shape: &Shape) -> Result<Self> {
        let t = shape.t;
        let [cos, sin] =
            shape.angles().map(|table| Tensor::from_vec(table, (t, shape.head_dim() / 2), &Device::Cpu));
        let hidden = |i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 };
        let mask = Tensor::from_vec((0..t * t).map(hidden).collect(), (t, t), &Device::Cpu)?;
        Ok(Self { cos: cos?, sin: sin?, mask })
    }
}

struct Block {
    shape: Shape,
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
    fn new(shape: &Shape, vb: VarBuilder) -> Result<Self> {
        let (d, ff, d_kv) = (shape.d, shape.ff, shape.kv * shape.head_dim());
        Ok(Self {
            shape: *shape,
            norm1: candle_nn::rms_norm(d, 1e-5, vb.pp("norm1"))?,
            q: linear(d, d, vb.pp("q"))?,
            k: linear(d, d_kv, vb.pp("k"))?,
            v: linear(d, d_kv, vb.pp("v"))?,
            o: linear(d, d, vb.pp("o"))?,
            norm2: candle_nn::rms_norm(d, 1e-5, vb.pp("norm2"))?,
            gate: linear(d, ff, vb.pp("gate"))?,
            up: linear(d, ff, vb.pp("up"))?,
            down: linear(ff, d, vb.pp("down"))?,
        })
    }

    fn attention(&self, x: &Tensor, positions: &Positions) -> Result<Tensor> {
        let Shape { b, t, d, heads, kv, .. } = self.shape;
        let head_dim = self.shape.head_dim();
        let split = |y: Tensor, n| y.reshape((b, t, n, head_dim))?.transpose(1, 2)?.contiguous();
        let repeat = |y: Tensor| match heads / kv {
            1 => Ok(y),
            n => y.unsqueeze(2)?.expand((b, kv, n, t, head_dim))?.reshape((b, heads, t, head_dim)),
        };
        let q = rotate(&split(self.q.forward(x)?, heads)?, &positions.cos, &positions.sin)?;
        let k = rotate(&split(self.k.forward(x)?, kv)?, &positions.cos, &positions.sin)?;
        let v = split(self.v.forward(x)?, kv)?;
        let scores = (q * (head_dim as f64).powf(-0.5))?.matmul(&repeat(k)?.t()?)?;
        let exp = exp_shifted(&scores.broadcast_add(&positions.mask)?)?;
        let shares = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        self.o.forward(&shares.matmul(&repeat(v)?)?.transpose(1, 2)?.reshape((b, t, d))?)
    }

    fn forward(&self, x: &Tensor, positions: &Positions) -> Result<Tensor> {
        let x = (x + self.attention(&self.norm1.forward_diff(x)?, positions)?)?;
        let h = self.norm2.forward_diff(&x)?;
        let y = self.down.forward(&(self.gate.forward(&h)?.silu()? * self.up.forward(&h)?)?)?;
        x + y
    }
}

struct Llama {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    positions: Positions,
}

impl Llama {
    fn new(shape: &Shape, vb: VarBuilder) -> Result<Self> {
        let embedding = weight(shape.vocab, shape.d, vb.pp("embedding"))?;
        let head = if shape.tied { embedding.clone() } else { weight(shape.vocab, shape.d, vb.pp("head"))? };
        Ok(Self {
            embedding: Embedding::new(embedding, shape.d),
            blocks: (0..shape.layers)
                .map(|i| Block::new(shape, vb.pp(format!("blocks.{i}"))))
                .collect::<Result<_>>()?,
            norm: candle_nn::rms_norm(shape.d, 1e-5, vb.pp("norm"))?,
            head: Linear::new(head, None),
            positions: Positions::new(shape)?,
        })
    }

    fn loss(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let mut x = self.embedding.forward(ids)?;
        for block in &self.blocks {
            x = block.forward(&x, &self.positions)?;
        }
        let logits = self.head.forward(&self.norm.forward_diff(&x)?)?;
        let logits = logits.flatten_to(1)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        (log_sum - shifted.gather(&targets.flatten_all()?.unsqueeze(1)?, 1)?)?.mean_all()
    }
}

/// Scales all gradients so that together they have a norm of 1 at most.
fn clip(gradients: &mut GradStore, variables: &[Var]) -> Result<()> {
    let mut squares = 0.0;
    for variable in variables {
        // An operation without a backward pass cuts the graph without a word.
        let gradient = gradients.get(variable).expect("every weight has a gradient");
        let square = gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
        assert!(square > 0.0, "every weight has a gradient");
        squares += square;
    }
    let scale = (1.0 / (f64::from(squares).sqrt() + 1e-6)).min(1.0);
    for variable in variables {
        let gradient = gradients.remove(variable).expect("it was there above");
        gradients.insert(variable, (gradient * scale)?);
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let mut clock = Clock::from_arguments()?;
    let shape = clock.shape;
    let variables = VarMap::new();
    let model = Llama::new(&shape, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let variables = variables.all_vars();
    let hyperparameters = ParamsAdamW { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = AdamW::new(variables.clone(), hyperparameters)?;
    let [ids, targets] =
        shape.batch().map(|tokens| Tensor::from_vec(tokens, (shape.b, shape.t), &Device::Cpu));
    let (ids, targets) = (ids?, targets?);
    Device::Cpu.with_context(|| -> Result<()> {
        while clock.next_step() {
            let loss = model.loss(&ids, &targets)?;
            let mut gradients = loss.backward()?;
            clip(&mut gradients, &variables)?;
            optimizer.step(&gradients)?;
            clock.end_step(loss.to_scalar()?);
        }
        Ok(())
    })?;
    clock.report()
}
