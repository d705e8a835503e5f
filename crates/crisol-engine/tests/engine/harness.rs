//! Checks an expression of operations: values against the f64 reference, gradients against central
//! differences of the reference.
//!
//! Inputs are parameters, read row by row through an embedding: everything goes through the public
//! interface, and gradients of inputs are gradients of parameters.

use crisol_engine::{Device, Grads, Init, ParamId, ParamSpec, Params, Role, Tape, Var, Workspace};
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

use crate::reference::Matrix;

/// Deterministic random shapes and numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An integer in `least..=most`.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + (self.0.next_u64() % (most - least + 1) as u64) as usize
    }

    /// Uniform in -1..1.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn ids(&mut self, n: usize, below: usize) -> Vec<u32> {
        (0..n).map(|_| self.between(0, below - 1) as u32).collect()
    }
}

/// Document boundaries from document lengths.
pub(crate) fn offsets(lengths: &[usize]) -> Vec<u32> {
    let mut offsets = vec![0];
    for &length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length as u32);
    }
    offsets
}

/// Parameters `(name, shape)`, normal with the given deviation.
pub(crate) fn params(
    device: &Device,
    specs: &[(&str, &[usize])],
    deviation: f32,
    seed: u64,
) -> Params {
    let specs = specs.iter().map(|(name, shape)| ParamSpec {
        name: (*name).into(),
        shape: shape.to_vec(),
        init: Init::Normal(deviation),
        role: if shape.len() == 2 { Role::Hidden } else { Role::Vector },
    });
    Params::init(device, specs.collect(), seed)
}

/// The whole table as a value on the tape.
pub(crate) fn input(tape: &mut Tape<'_>, name: &str) -> Var {
    let table = id(tape.params(), name);
    let rows = tape.params().spec(table).shape[0] as u32;
    tape.embedding(table, &(0..rows).collect::<Vec<_>>())
}

pub(crate) fn id(params: &Params, name: &str) -> ParamId {
    params.id(name).expect("a parameter of the test")
}

/// Derivatives checked by finite differences per parameter, at most.
const MAX_DERIVATIVES: usize = 40;

/// Compares `engine`'s outputs with those of `twin`, which gets the parameters' values in order.
pub(crate) fn check(
    specs: &[(&str, &[usize])],
    deviation: f32,
    engine: impl Fn(&mut Tape<'_>) -> Vec<Var>,
    twin: impl Fn(&[Matrix]) -> Vec<Matrix>,
) {
    let device = Device::cpu(Some(1));
    let params = params(&device, specs, deviation, 42);
    let mut workspace = Workspace::new(&device);
    // A first tape leaves values in the workspace: nothing may depend on zeroed buffers.
    let mut tape = Tape::training(&params, &mut workspace);
    let outputs = engine(&mut tape);
    let ones: Vec<(Var, Vec<f32>)> =
        outputs.iter().map(|&var| (var, vec![1.0; tape.read(var).len()])).collect();
    let seeds: Vec<(Var, &[f32])> = ones.iter().map(|(var, ones)| (*var, &ones[..])).collect();
    tape.backward(&seeds, &mut Grads::zeros_like(&params));

    let mut random = Random::new(7);
    let mut inputs: Vec<Matrix> = params
        .ids()
        .map(|id| {
            let cols = *params.spec(id).shape.last().expect("a vector or a matrix");
            let values = params.read(id);
            Matrix::from_f32(values.len() / cols, cols, &values)
        })
        .collect();

    let mut tape = Tape::training(&params, &mut workspace);
    let outputs = engine(&mut tape);
    let expected = twin(&inputs);
    assert_eq!(outputs.len(), expected.len());
    let mut seeds = Vec::new();
    for (&output, expected) in outputs.iter().zip(&expected) {
        assert_eq!(tape.shape(output), (expected.rows, expected.cols));
        let size = largest(&expected.data);
        for (i, (&y, &e)) in tape.read(output).iter().zip(&expected.data).enumerate() {
            let error = (f64::from(y) - e).abs();
            assert!(error < 2e-5 * size, "value {i}: {y} where the twin has {e}");
        }
        seeds.push((0..expected.data.len()).map(|_| random.uniform()).collect::<Vec<f32>>());
    }
    let seeded: Vec<(Var, &[f32])> =
        outputs.iter().zip(&seeds).map(|(&var, seed)| (var, &seed[..])).collect();
    let mut grads = Grads::zeros_like(&params);
    tape.backward(&seeded, &mut grads);

    let loss = |inputs: &[Matrix]| -> f64 {
        let outputs = twin(inputs);
        let terms = outputs
            .iter()
            .zip(&seeds)
            .map(|(y, seed)| y.data.iter().zip(seed).map(|(y, &s)| y * f64::from(s)).sum::<f64>());
        terms.sum()
    };
    for (index, id) in params.ids().enumerate() {
        let grad = grads.read(id);
        let size = largest(&grad.iter().map(|&g| f64::from(g)).collect::<Vec<_>>());
        let n = grad.len();
        let checked: Vec<usize> = if n <= MAX_DERIVATIVES {
            (0..n).collect()
        } else {
            // Include the last ones: mistakes are at the edges of blocks.
            (0..MAX_DERIVATIVES)
                .map(|i| if i < 8 { n - 1 - i } else { random.between(0, n - 1) })
                .collect()
        };
        for at in checked {
            let step = 1e-5;
            let value = inputs[index].data[at];
            inputs[index].data[at] = value + step;
            let above = loss(&inputs);
            inputs[index].data[at] = value - step;
            let below = loss(&inputs);
            inputs[index].data[at] = value;
            let difference = (above - below) / (2.0 * step);
            let error = (f64::from(grad[at]) - difference).abs();
            assert!(
                error < 1e-4 * size.max(1e-2),
                "gradient {at} of `{}`: {} where the difference quotient is {difference}",
                params.spec(id).name,
                grad[at]
            );
        }
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a, b| a.max(b.abs()))
}
