//! The gated activation `silu(gate) ⊙ up`.

use super::math::{exp, vectorised};

vectorised! {
    /// `out = gate · sigmoid(gate) · up`.
    pub(crate) fn forward<'a, S>(gate: &'a [f32], up: &'a [f32], out: &'a mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp::<S>(-g)) * u;
        }
    }

    /// Overwrites `dout` with the gradient of `up`; writes that of `gate`.
    pub(crate) fn backward<'a, S>(
        gate: &'a [f32],
        up: &'a [f32],
        dout: &'a mut [f32],
        dgate: &'a mut [f32],
    ) {
        for (((dout, dgate), g), u) in dout.iter_mut().zip(dgate).zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp::<S>(-g));
            let silu = g * sigmoid;
            // silu' = σ + g·σ·(1 - σ)
            *dgate = *dout * u * (sigmoid + silu * (1.0 - sigmoid));
            *dout *= silu;
        }
    }
}
