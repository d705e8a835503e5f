//! Initial values of parameters, drawn on the host: the same bits on every device.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::layout::Init;

/// Fills zeros with the initial values of parameter number `index`. Each parameter has its own
/// random stream, so appending a parameter does not change the others.
pub(crate) fn fill(values: &mut [f32], init: Init, seed: u64, index: u64) {
    match init {
        Init::Zeros => {}
        Init::Ones => values.fill(1.0),
        Init::Normal(deviation) => fill_normal(values, deviation, seed, index),
        Init::Uniform(bound) => fill_uniform(values, bound, seed, index),
    }
}

/// Draws from 0 to 1, of 53 random bits: the mantissa of an f64.
fn uniform(seed: u64, stream: u64) -> impl FnMut() -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn fill_uniform(values: &mut [f32], bound: f32, seed: u64, stream: u64) {
    let mut uniform = uniform(seed, stream);
    for value in values {
        *value = ((2.0 * uniform() - 1.0) * f64::from(bound)) as f32;
    }
}

/// Draws from a normal distribution (Box & Muller 1958).
fn fill_normal(values: &mut [f32], deviation: f32, seed: u64, stream: u64) {
    let mut uniform = uniform(seed, stream);
    for pair in values.chunks_mut(2) {
        // 1 - u is in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt() * f64::from(deviation);
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        for (value, direction) in pair.iter_mut().zip([cos, sin]) {
            *value = (radius * direction) as f32;
        }
    }
}
