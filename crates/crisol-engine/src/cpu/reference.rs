//! Plain reference of every kernel: the definition as loops in f64, without blocks or running sums.
//!
//! | reference | kernel |
//! |---|---|
//! | [`gemm`] | `gemm.rs`, `packed.rs` |
//! | [`bf16`], [`gemm_bf16`] | `gemm_bf16.rs`, `lanes.rs` |
//! | [`attention`], [`attention_backward`] | `attention.rs`, `parallel_attention.rs` |
//! | [`token_scores`] | `token_scores.rs` |
//! | [`softmax`], [`log_softmax`] | `math.rs`, `attention.rs`, `token_scores.rs` |
//! | [`rms_norm`], [`layer_norm`], [`rope`] | `norm.rs`, `layer_norm.rs`, `rope.rs` |
//! | [`gated`], [`gelu`] | `activation.rs` |
//! | [`softcap`] | `math.rs`, `attention.rs`, `token_scores.rs` |
//! | [`mxfp4`] | `formats.rs` |
//! | [`gather`] | `embedding.rs` |
//! | [`route`], [`grouped_linear`], [`scale_rows`], [`sum_rows`] | `experts.rs` |
//! | [`concat_heads`] | `concat_heads.rs` |
//! | [`per_head_matmul`] | `mod.rs` |
//!
//! Backward is otherwise checked against finite differences of these. The unit tests and
//! `tests/engine` share this file; each uses a part.
#![allow(dead_code)]

use crisol_engine::{Attention, GatedActivation, RopeStyle, Scoring};

/// A row-major matrix.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<f64>,
}

impl Matrix {
    pub(crate) fn from_fn(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Matrix {
        let data = (0..rows * cols).map(|i| f(i / cols, i % cols)).collect();
        Matrix { rows, cols, data }
    }

    pub(crate) fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// From the kernels' row-major numbers.
    pub(crate) fn from_f32(rows: usize, cols: usize, data: &[f32]) -> Matrix {
        assert_eq!(data.len(), rows * cols);
        Matrix { rows, cols, data: data.iter().map(|&x| f64::from(x)).collect() }
    }

    /// As the kernels read it: row-major.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }

    pub(crate) fn transposed(&self) -> Matrix {
        Matrix::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
    }

    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Matrix {
        Matrix::from_fn(self.rows, self.cols, |i, j| f(self.at(i, j)))
    }

    pub(crate) fn at(&self, row: usize, col: usize) -> f64 {
        assert!(col < self.cols);
        self.data[row * self.cols + col]
    }

    fn add(&mut self, row: usize, col: usize, x: f64) {
        self.data[row * self.cols + col] += x;
    }
}

/// `factor · A · B`, a triple loop.
pub(crate) fn gemm(factor: f64, a: &Matrix, b: &Matrix) -> Matrix {
    assert_eq!(a.cols, b.rows);
    Matrix::from_fn(a.rows, b.cols, |i, j| {
        factor * (0..a.cols).map(|l| a.at(i, l) * b.at(l, j)).sum::<f64>()
    })
}

/// The nearest bf16 of an f32, the even one of two; what is too large becomes infinite. Like all
/// formats of the standard, bf16 is evenly spaced between powers of two.
pub(crate) fn bf16(x: f64) -> f64 {
    // Eight significant bits; below the least normal number, a fixed spacing.
    // From the bits: logarithms and powers are not exact everywhere.
    let exponent = (x.to_bits() >> 52 & 0x7ff).max(1023 - 126);
    let spacing = f64::from_bits((exponent - 7) << 52);
    let rounded = (x / spacing).round_ties_even() * spacing;
    match x {
        0.0 => x,
        _ if x.is_finite() && rounded.abs() > f64::from(f32::MAX) => f64::INFINITY.copysign(x),
        _ if x.is_finite() => rounded,
        _ => x,
    }
}

/// [`gemm`] of operands rounded to bf16.
pub(crate) fn gemm_bf16(factor: f64, a: &Matrix, b: &Matrix) -> Matrix {
    gemm(factor, &a.map(bf16), &b.map(bf16))
}

/// `log(e^z_i / Σ e^z)`.
pub(crate) fn log_softmax(z: &[f64]) -> Vec<f64> {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z - max).exp()).sum();
    z.iter().map(|z| z - max - sum.ln()).collect()
}

/// `e^z_i / Σ e^z`.
pub(crate) fn softmax(z: &[f64]) -> Vec<f64> {
    log_softmax(z).into_iter().map(f64::exp).collect()
}

/// `out[i] = table[ids[i]]`.
pub(crate) fn gather(table: &Matrix, ids: &[u32]) -> Matrix {
    Matrix::from_fn(ids.len(), table.cols, |i, j| table.at(ids[i] as usize, j))
}

/// `x · Wᵀ + b` for `w` `[out, in]`.
pub(crate) fn linear(x: &Matrix, w: &Matrix, bias: Option<&Matrix>) -> Matrix {
    let y = gemm(1.0, x, &w.transposed());
    Matrix::from_fn(y.rows, y.cols, |i, o| y.at(i, o) + bias.map_or(0.0, |bias| bias.data[o]))
}

/// `x + y`.
pub(crate) fn add(x: &Matrix, y: &Matrix) -> Matrix {
    Matrix::from_fn(x.rows, x.cols, |i, j| x.at(i, j) + y.at(i, j))
}

/// `x / sqrt(mean(x²) + eps) · weight` in groups of `weight.len()` columns.
pub(crate) fn rms_norm(x: &Matrix, weight: &Matrix, eps: f64) -> Matrix {
    let n = weight.data.len();
    Matrix::from_fn(x.rows, x.cols, |i, j| {
        let group = j / n * n..(j / n + 1) * n;
        let mean = group.map(|l| x.at(i, l).powi(2)).sum::<f64>() / n as f64;
        x.at(i, j) / (mean + eps).sqrt() * weight.data[j % n]
    })
}

/// Each pair `(a, b)` of columns becomes `(a cos - b sin, b cos + a sin)`, times `amplitude`.
pub(crate) fn rope(
    x: &Matrix,
    frequencies: &[f32],
    amplitude: f64,
    style: RopeStyle,
    head_dim: usize,
    positions: &[u32],
) -> Matrix {
    let pairs = frequencies.len();
    Matrix::from_fn(x.rows, x.cols, |i, j| {
        let (head, column) = (j / head_dim * head_dim, j % head_dim);
        if column >= 2 * pairs {
            return x.at(i, j);
        }
        let (pair, second, partner) = match style {
            RopeStyle::Halves => (column % pairs, column >= pairs, (column + pairs) % (2 * pairs)),
            RopeStyle::Interleaved => (column / 2, column % 2 == 1, column ^ 1),
        };
        let angle = f64::from(positions[i]) * f64::from(frequencies[pair]);
        let sign = if second { 1.0 } else { -1.0 };
        amplitude * (x.at(i, j) * angle.cos() + sign * x.at(i, head + partner) * angle.sin())
    })
}

/// `cap · tanh(z / cap)`.
pub(crate) fn softcap(z: f64, cap: f32) -> f64 {
    f64::from(cap) * (z / f64::from(cap)).tanh()
}

/// A key that a query sees.
struct Seen {
    row: usize,
    probability: f64,
    /// Derivative of its score by the score without a soft-cap.
    slope: f64,
}

/// What query row `i` of a head sees, in a document from row `start` on: softmax over
/// `scale · q·k`, capped, and the head's sink.
fn attention_row(
    q: &Matrix,
    k: &Matrix,
    shape: Attention,
    sinks: &[f64],
    head: usize,
    start: usize,
    i: usize,
) -> Vec<Seen> {
    let Attention { heads, kv_heads, qk_dim, scale, window, softcap: cap, .. } = shape;
    let kv_head = head / (heads / kv_heads);
    let first = window.map_or(start, |window| start.max((i + 1).saturating_sub(window)));
    let score = |j: usize| {
        let column = |c: usize| q.at(i, head * qk_dim + c) * k.at(j, kv_head * qk_dim + c);
        let score = f64::from(scale) * (0..qk_dim).map(column).sum::<f64>();
        cap.map_or(score, |cap| softcap(score, cap))
    };
    let mut scores: Vec<f64> = (first..=i).map(score).collect();
    let slopes: Vec<f64> = scores
        .iter()
        .map(|score| cap.map_or(1.0, |cap| 1.0 - (score / f64::from(cap)).powi(2)))
        .collect();
    scores.extend(sinks.get(head));
    let seen = (first..).zip(slopes).zip(softmax(&scores));
    seen.map(|((row, slope), probability)| Seen { row, probability, slope }).collect()
}

/// Causal attention within documents, `out_i = Σ_j p_ij v_j`, from whole rows of scores. `sinks`:
/// one of each head, or none.
pub(crate) fn attention(
    q: &Matrix,
    k: &Matrix,
    v: &Matrix,
    shape: Attention,
    sinks: &[f64],
    offsets: &[u32],
) -> Matrix {
    let Attention { heads, kv_heads, v_dim, .. } = shape;
    let mut out = Matrix::zeros(q.rows, heads * v_dim);
    for document in offsets.windows(2) {
        let (start, end) = (document[0] as usize, document[1] as usize);
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            for i in start..end {
                for Seen { row, probability, .. } in
                    attention_row(q, k, shape, sinks, head, start, i)
                {
                    for c in 0..v_dim {
                        let x = probability * v.at(row, kv_head * v_dim + c);
                        out.add(i, head * v_dim + c, x);
                    }
                }
            }
        }
    }
    out
}

/// Gradients of q, k and v:
///
/// ```text
/// dv_j += p_ij · do_i      dp_ij = do_i · v_j      ds_ij = p_ij · (dp_ij - Σ_j p_ij dp_ij) · slope
/// dq_i += scale · ds_ij · k_j                      dk_j += scale · ds_ij · q_i
/// ```
pub(crate) fn attention_backward(
    [q, k, v]: [&Matrix; 3],
    shape: Attention,
    sinks: &[f64],
    offsets: &[u32],
    dout: &Matrix,
) -> [Matrix; 3] {
    let Attention { heads, kv_heads, qk_dim, v_dim, scale, .. } = shape;
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| Matrix::zeros(x.rows, x.cols));
    for document in offsets.windows(2) {
        let (start, end) = (document[0] as usize, document[1] as usize);
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let (q_at, k_at) = (head * qk_dim, kv_head * qk_dim);
            let (out_at, v_at) = (head * v_dim, kv_head * v_dim);
            for i in start..end {
                let seen = attention_row(q, k, shape, sinks, head, start, i);
                let dp = |j: usize| -> f64 {
                    (0..v_dim).map(|c| dout.at(i, out_at + c) * v.at(j, v_at + c)).sum()
                };
                let mean: f64 = seen.iter().map(|key| key.probability * dp(key.row)).sum();
                for Seen { row: j, probability: p, slope } in seen {
                    for c in 0..v_dim {
                        dv.add(j, v_at + c, p * dout.at(i, out_at + c));
                    }
                    let ds = f64::from(scale) * p * (dp(j) - mean) * slope;
                    for c in 0..qk_dim {
                        dq.add(i, q_at + c, ds * k.at(j, k_at + c));
                        dk.add(j, k_at + c, ds * q.at(i, q_at + c));
                    }
                }
            }
        }
    }
    [dq, dk, dv]
}

/// `z/2 · (1 + tanh(√(2/π) · (z + 0.044715 · z³)))`. Written as a sigmoid, so that nothing cancels.
pub(crate) fn gelu_of(z: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044_715 * z.powi(3));
    z / (1.0 + (-2.0 * u).exp())
}

/// [`gelu_of`] of every element.
pub(crate) fn gelu(x: &Matrix) -> Matrix {
    x.map(gelu_of)
}

/// A gated activation of one gate and value.
pub(crate) fn gate(activation: GatedActivation, gate: f64, up: f64) -> f64 {
    match activation {
        GatedActivation::Silu => gate / (1.0 + (-gate).exp()) * up,
        GatedActivation::Gelu => gelu_of(gate) * up,
        GatedActivation::ClampedSilu { limit } => {
            let limit = f64::from(limit);
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            gate / (1.0 + (-1.702 * gate).exp()) * (up + 1.0)
        }
    }
}

/// [`gate`] of every element.
pub(crate) fn gated(activation: GatedActivation, gate_of: &Matrix, up: &Matrix) -> Matrix {
    Matrix::from_fn(up.rows, up.cols, |i, j| gate(activation, gate_of.at(i, j), up.at(i, j)))
}

/// `(x - mean) / sqrt(variance + eps) · weight + bias` of each row.
pub(crate) fn layer_norm(x: &Matrix, weight: &Matrix, bias: Option<&Matrix>, eps: f64) -> Matrix {
    let n = x.cols as f64;
    Matrix::from_fn(x.rows, x.cols, |i, j| {
        let mean = (0..x.cols).map(|l| x.at(i, l)).sum::<f64>() / n;
        let variance = (0..x.cols).map(|l| (x.at(i, l) - mean).powi(2)).sum::<f64>() / n;
        let normed = (x.at(i, j) - mean) / (variance + eps).sqrt();
        normed * weight.data[j] + bias.map_or(0.0, |bias| bias.data[j])
    })
}

/// The 32 numbers of a block of MXFP4: the byte of the scale, then codes, of which the low halves
/// come first.
pub(crate) fn mxfp4(block: &[u8]) -> Vec<f64> {
    let scale = match block[0] {
        255 => f64::NAN,
        exponent => 2f64.powi(i32::from(exponent) - 127),
    };
    let codes = block[1..].iter().map(|byte| byte & 15);
    let codes = codes.chain(block[1..].iter().map(|byte| byte >> 4));
    let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    codes
        .map(|code| {
            let magnitude = scale * magnitudes[usize::from(code & 7)];
            if code & 8 == 0 { magnitude } else { -magnitude }
        })
        .collect()
}

/// Log-probabilities of the targets and entropies under `softmax(scale · x·Wᵀ)`, with capped
/// logits before the scale, `[rows, 1]` each.
pub(crate) fn token_scores(
    x: &Matrix,
    head: &Matrix,
    targets: &[u32],
    scale: f64,
    cap: Option<f32>,
) -> (Matrix, Matrix) {
    let logits = gemm(1.0, x, &head.transposed());
    let logits = logits.map(|z| scale * cap.map_or(z, |cap| softcap(z, cap)));
    let logp: Vec<Vec<f64>> = logits.data.chunks(logits.cols).map(log_softmax).collect();
    (
        Matrix::from_fn(x.rows, 1, |i, _| logp[i][targets[i] as usize]),
        Matrix::from_fn(x.rows, 1, |i, _| -logp[i].iter().map(|l| l.exp() * l).sum::<f64>()),
    )
}

/// `x · W_eᵀ + b_e` for rows `bounds[e]..bounds[e + 1]` of expert `e`; `biases` may be empty.
pub(crate) fn grouped_linear(
    x: &Matrix,
    weights: &[Matrix],
    biases: &[Matrix],
    bounds: &[u32],
) -> Matrix {
    Matrix::from_fn(bounds[weights.len()] as usize, weights[0].rows, |i, o| {
        let expert = bounds[1..].iter().position(|&end| i < end as usize);
        let expert = expert.expect("the last expert ends at the last row");
        let bias = biases.get(expert).map_or(0.0, |bias| bias.data[o]);
        (0..x.cols).map(|l| x.at(i, l) * weights[expert].at(o, l)).sum::<f64>() + bias
    })
}

/// Each head of `x` times rows `rows` of its own group of `group` rows of `w`, or their transpose.
pub(crate) fn per_head_matmul(
    x: &Matrix,
    w: &Matrix,
    group: usize,
    rows: std::ops::Range<usize>,
    transposed: bool,
) -> Matrix {
    let heads = w.rows / group;
    let (from, to) = if transposed { (w.cols, rows.len()) } else { (rows.len(), w.cols) };
    Matrix::from_fn(x.rows, heads * to, |i, j| {
        let (head, column) = (j / to, j % to);
        let weight = |l: usize| {
            let (row, column) = if transposed { (column, l) } else { (l, column) };
            w.at(head * group + rows.start + row, column)
        };
        (0..from).map(|l| x.at(i, head * from + l) * weight(l)).sum()
    })
}

/// `out[i] = weights[entries[i]] · x[i]`.
pub(crate) fn scale_rows(x: &Matrix, weights: &Matrix, entries: &[u32]) -> Matrix {
    Matrix::from_fn(x.rows, x.cols, |i, j| x.at(i, j) * weights.data[entries[i] as usize])
}

/// `out[i] = Σ x[order[i·k..(i + 1)·k]]`.
pub(crate) fn sum_rows(x: &Matrix, order: &[u32], k: usize) -> Matrix {
    Matrix::from_fn(order.len() / k, x.cols, |i, j| {
        order[i * k..(i + 1) * k].iter().map(|&row| x.at(row as usize, j)).sum()
    })
}

/// Weights of the chosen experts: `scale · score`, over their scores' sum if `normalise`.
pub(crate) fn route(
    logits: &Matrix,
    scoring: Scoring,
    normalise: bool,
    scale: f64,
    chosen: &[u32],
) -> Matrix {
    let k = chosen.len() / logits.rows;
    let scores = logits.data.chunks(logits.cols).flat_map(|row| match scoring {
        Scoring::Sigmoid => row.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        Scoring::Softmax => softmax(row),
    });
    let scores = Matrix { data: scores.collect(), ..*logits };
    Matrix::from_fn(logits.rows, k, |i, j| {
        let score = |&expert: &u32| scores.at(i, expert as usize);
        let chosen = &chosen[i * k..(i + 1) * k];
        let sum: f64 = if normalise { chosen.iter().map(score).sum() } else { 1.0 };
        scale * score(&chosen[j]) / sum
    })
}

/// Slices of heads, concatenated per head; a part is `(value, heads, first column, columns)`.
pub(crate) fn concat_heads(heads: usize, parts: &[(&Matrix, usize, usize, usize)]) -> Matrix {
    let width: usize = parts.iter().map(|part| part.3).sum();
    Matrix::from_fn(parts[0].0.rows, heads * width, |i, j| {
        let (head, mut column) = (j / width, j % width);
        for &(x, part_heads, first, columns) in parts {
            if column < columns {
                let head = if part_heads == 1 { 0 } else { head };
                return x.at(i, head * (x.cols / part_heads) + first + column);
            }
            column -= columns;
        }
        unreachable!("a column of some part")
    })
}
