//! Activations of MLPs, gated and plain ([`GatedActivation`], [`crate::Tape::gelu`]).
//!
//! ```text
//! silu(z)  = z · σ(z)                   silu'(z) = σ + z · σ · (1 - σ)
//! gelu(z)  ≈ z · σ(2u)                  u = √(2/π) · (z + 0.044715 · z³)
//! ```
//!
//! GELU's tanh is written as a sigmoid, σ(2u) = (1 + tanh u) / 2: for large negative `z` nothing
//! cancels.

use super::math::{exp, fma, vectorised};
use crate::op::GatedActivation;

/// √(2/π).
const GELU_SLOPE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;
/// Factor on the gate in the sigmoid of gpt-oss.
const CLAMPED_SLOPE: f32 = 1.702;

/// `gelu(z)` and its derivative.
#[inline(always)]
fn gelu<S: pulp::Simd>(z: f32) -> (f32, f32) {
    let square = z * z;
    let u = GELU_SLOPE * z * fma::<S>(square, GELU_CUBIC, 1.0);
    let sigmoid = 1.0 / (1.0 + exp::<S>(-2.0 * u));
    let slope = 2.0 * GELU_SLOPE * fma::<S>(square, 3.0 * GELU_CUBIC, 1.0);
    let gelu = z * sigmoid;
    (gelu, fma::<S>(gelu * (1.0 - sigmoid), slope, sigmoid))
}

/// `gate · sigmoid(1.702 · gate)` of a clamped gate, and its derivative.
#[inline(always)]
fn clamped_silu<S: pulp::Simd>(gate: f32, limit: f32) -> (f32, f32) {
    let g = if gate > limit { limit } else { gate };
    let sigmoid = 1.0 / (1.0 + exp::<S>(-CLAMPED_SLOPE * g));
    let silu = g * sigmoid;
    let slope = fma::<S>(CLAMPED_SLOPE * silu, 1.0 - sigmoid, sigmoid);
    (silu, if gate > limit { 0.0 } else { slope })
}

vectorised! {
    /// `out = activation(gate) ⊙ up`.
    pub(crate) fn gated_forward<'a, S>(
        activation: GatedActivation,
        gate: &'a [f32],
        up: &'a [f32],
        out: &'a mut [f32],
    ) {
        let rows = out.iter_mut().zip(gate).zip(up);
        match activation {
            GatedActivation::Silu => {
                for ((out, g), u) in rows {
                    *out = g / (1.0 + exp::<S>(-g)) * u;
                }
            }
            GatedActivation::Gelu => {
                for ((out, g), u) in rows {
                    *out = gelu::<S>(*g).0 * u;
                }
            }
            GatedActivation::ClampedSilu { limit } => {
                for ((out, g), u) in rows {
                    *out = clamped_silu::<S>(*g, limit).0 * (u.clamp(-limit, limit) + 1.0);
                }
            }
        }
    }

    /// Overwrites `dout` with the gradient of `up`; writes that of `gate`.
    pub(crate) fn gated_backward<'a, S>(
        activation: GatedActivation,
        gate: &'a [f32],
        up: &'a [f32],
        dout: &'a mut [f32],
        dgate: &'a mut [f32],
    ) {
        let rows = dout.iter_mut().zip(dgate).zip(gate).zip(up);
        match activation {
            GatedActivation::Silu => {
                for (((dout, dgate), g), u) in rows {
                    let sigmoid = 1.0 / (1.0 + exp::<S>(-g));
                    let silu = g * sigmoid;
                    *dgate = *dout * u * (sigmoid + silu * (1.0 - sigmoid));
                    *dout *= silu;
                }
            }
            GatedActivation::Gelu => {
                for (((dout, dgate), g), u) in rows {
                    let (gelu, slope) = gelu::<S>(*g);
                    *dgate = *dout * u * slope;
                    *dout *= gelu;
                }
            }
            GatedActivation::ClampedSilu { limit } => {
                for (((dout, dgate), g), u) in rows {
                    let (silu, slope) = clamped_silu::<S>(*g, limit);
                    *dgate = *dout * (u.clamp(-limit, limit) + 1.0) * slope;
                    *dout *= if u.abs() > limit { 0.0 } else { silu };
                }
            }
        }
    }

    /// `out = gelu(x)`.
    pub(crate) fn gelu_forward<'a, S>(x: &'a [f32], out: &'a mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = gelu::<S>(*x).0;
        }
    }

    /// Overwrites `dout` with the gradient of `x`.
    pub(crate) fn gelu_backward<'a, S>(x: &'a [f32], dout: &'a mut [f32]) {
        for (dout, x) in dout.iter_mut().zip(x) {
            *dout *= gelu::<S>(*x).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;

    /// All activations over the gates that are not 0 or linear, and at the ends.
    #[test]
    fn activations_are_accurate() {
        let x: Vec<f32> = (0..400_000).map(|i| -20.0 + i as f32 * 1e-4).collect();
        let x = [&x[..], &[-1e10, -88.0, 88.0, 1e10]].concat();
        let up = vec![1.5; x.len()];
        for activation in [
            GatedActivation::Silu,
            GatedActivation::Gelu,
            GatedActivation::ClampedSilu { limit: 7.0 },
        ] {
            let mut out = vec![f32::NAN; x.len()];
            gated_forward(activation, &x, &up, &mut out);
            for (&x, &y) in x.iter().zip(&out) {
                let exact = reference::gate(activation, x.into(), 1.5);
                let error = (f64::from(y) - exact).abs();
                // Rounding an exponent moves the exponential by as many of its own roundings as
                // the exponent is large.
                let relative = if exact.abs() > 1e-3 { 2e-6 } else { 3e-5 };
                let bound = relative * exact.abs() + 1e-30;
                assert!(error <= bound, "{activation:?} of {x}: {y}, not {exact}");
            }
        }
        let mut out = vec![f32::NAN; x.len()];
        gelu_forward(&x, &mut out);
        for (&x, &y) in x.iter().zip(&out) {
            let exact = reference::gelu_of(x.into());
            let bound = 3e-7 * f64::from(x).abs().max(1e-3) + 1e-30;
            assert!((f64::from(y) - exact).abs() <= bound, "gelu({x}): {y}, not {exact}");
        }
    }
}
