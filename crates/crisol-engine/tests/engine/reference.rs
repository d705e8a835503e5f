//! Plain twins of the operations in f64: the definitions, written as loops, without blocks or running sums.

use crisol_engine::{Attention, RopeStyle};

/// A matrix.
#[derive(Clone, Debug)]
pub(crate) struct Mat {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<f64>,
}

impl Mat {
    pub(crate) fn from_fn(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Mat {
        let data = (0..rows * cols).map(|i| f(i / cols, i % cols)).collect();
        Mat { rows, cols, data }
    }

    pub(crate) fn at(&self, row: usize, col: usize) -> f64 {
        assert!(col < self.cols);
        self.data[row * self.cols + col]
    }
}

pub(crate) fn gather(table: &Mat, ids: &[u32]) -> Mat {
    Mat::from_fn(ids.len(), table.cols, |i, j| table.at(ids[i] as usize, j))
}

pub(crate) fn linear(x: &Mat, w: &Mat, bias: Option<&Mat>) -> Mat {
    Mat::from_fn(x.rows, w.rows, |i, o| {
        let product: f64 = (0..x.cols).map(|j| x.at(i, j) * w.at(o, j)).sum();
        product + bias.map_or(0.0, |bias| bias.data[o])
    })
}

pub(crate) fn add(x: &Mat, y: &Mat) -> Mat {
    Mat::from_fn(x.rows, x.cols, |i, j| x.at(i, j) + y.at(i, j))
}

pub(crate) fn rms_norm(x: &Mat, weight: &Mat, eps: f64) -> Mat {
    let n = weight.data.len();
    Mat::from_fn(x.rows, x.cols, |i, j| {
        let group = j / n * n..(j / n + 1) * n;
        let mean = group.map(|l| x.at(i, l).powi(2)).sum::<f64>() / n as f64;
        x.at(i, j) / (mean + eps).sqrt() * weight.data[j % n]
    })
}

pub(crate) fn rope(
    x: &Mat,
    frequencies: &[f32],
    amplitude: f64,
    style: RopeStyle,
    head_dim: usize,
    positions: &[u32],
) -> Mat {
    let pairs = frequencies.len();
    Mat::from_fn(x.rows, x.cols, |i, j| {
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

pub(crate) fn attention(q: &Mat, k: &Mat, v: &Mat, shape: Attention, offsets: &[u32]) -> Mat {
    let Attention { heads, kv_heads, qk_dim, v_dim, scale } = shape;
    let mut out = Mat::from_fn(q.rows, heads * v_dim, |_, _| 0.0);
    for document in offsets.windows(2) {
        let (start, end) = (document[0] as usize, document[1] as usize);
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            for i in start..end {
                let weights: Vec<f64> = (start..=i)
                    .map(|j| {
                        let dot: f64 = (0..qk_dim)
                            .map(|c| q.at(i, head * qk_dim + c) * k.at(j, kv_head * qk_dim + c))
                            .sum();
                        (dot * f64::from(scale)).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                for c in 0..v_dim {
                    let mix: f64 = weights
                        .iter()
                        .zip(start..)
                        .map(|(w, j)| w * v.at(j, kv_head * v_dim + c))
                        .sum();
                    out.data[i * heads * v_dim + head * v_dim + c] = mix / sum;
                }
            }
        }
    }
    out
}

pub(crate) fn swiglu(gate: &Mat, up: &Mat) -> Mat {
    Mat::from_fn(gate.rows, gate.cols, |i, j| {
        let g = gate.at(i, j);
        g / (1.0 + (-g).exp()) * up.at(i, j)
    })
}

/// Log-probs and entropies.
pub(crate) fn token_scores(x: &Mat, head: &Mat, targets: &[u32], scale: f64) -> (Mat, Mat) {
    let logits = linear(x, head, None);
    let log_softmax: Vec<Vec<f64>> = logits
        .data
        .chunks(logits.cols)
        .map(|row| {
            let largest = row.iter().map(|z| z * scale).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|z| (z * scale - largest).exp()).sum();
            row.iter().map(|z| z * scale - largest - sum.ln()).collect()
        })
        .collect();
    let logp = Mat::from_fn(x.rows, 1, |i, _| log_softmax[i][targets[i] as usize]);
    let entropy =
        Mat::from_fn(x.rows, 1, |i, _| -log_softmax[i].iter().map(|l| l.exp() * l).sum::<f64>());
    (logp, entropy)
}

/// Rows scaled by numbers of `weights`, counted row by row.
pub(crate) fn scale_rows(x: &Mat, weights: &Mat, entries: &[u32]) -> Mat {
    Mat::from_fn(x.rows, x.cols, |i, j| x.at(i, j) * weights.data[entries[i] as usize])
}

/// Sums of `k` rows.
pub(crate) fn sum_rows(x: &Mat, order: &[u32], k: usize) -> Mat {
    Mat::from_fn(order.len() / k, x.cols, |i, j| {
        order[i * k..(i + 1) * k].iter().map(|&row| x.at(row as usize, j)).sum()
    })
}

/// Weights of chosen experts.
pub(crate) fn route(logits: &Mat, normalise: bool, scale: f64, chosen: &[u32]) -> Mat {
    let k = chosen.len() / logits.rows;
    let sigmoid = |i: usize, expert: u32| 1.0 / (1.0 + (-logits.at(i, expert as usize)).exp());
    Mat::from_fn(logits.rows, k, |i, j| {
        let chosen = &chosen[i * k..(i + 1) * k];
        let sum: f64 =
            if normalise { chosen.iter().map(|&expert| sigmoid(i, expert)).sum() } else { 1.0 };
        scale * sigmoid(i, chosen[j]) / sum
    })
}

/// Columns of heads beside one another; a part is `(value, heads, first column, columns)`.
pub(crate) fn concat_heads(heads: usize, parts: &[(&Mat, usize, usize, usize)]) -> Mat {
    let width: usize = parts.iter().map(|part| part.3).sum();
    Mat::from_fn(parts[0].0.rows, heads * width, |i, j| {
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
