//! AdamW against the algorithm as PyTorch documents it, one scalar at a time in f64.

use crisol_engine::{AdamW, AdamWConfig, Device, Grads, Params, Tape, Workspace};

use crate::harness::{Random, params};

/// Large enough for several chunks of a pass, with odd sizes; vectors do not decay.
const SPECS: [(&str, &[usize]); 4] = [("a", &[3, 7]), ("b", &[5]), ("c", &[301, 457]), ("d", &[9])];

const CONFIG: AdamWConfig =
    AdamWConfig { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-6, weight_decay: 0.1, max_grad_norm: None };

/// Gradients with the given numbers: those of a linear function of the parameters' rows.
fn grads(params: &Params, numbers: &mut impl FnMut() -> f32) -> Grads {
    let mut grads = Grads::zeros_like(params);
    let mut workspace = Workspace::new(params.device());
    for name in ["a", "c"] {
        let mut tape = Tape::training(params, &mut workspace);
        let x = crate::harness::input(&mut tape, name);
        let (rows, cols) = tape.shape(x);
        let seed: Vec<f32> = (0..rows * cols).map(|_| numbers()).collect();
        tape.backward(&[(x, &seed)], &mut grads);
    }
    grads
}

#[test]
fn equals_the_definition() {
    for max_grad_norm in [None, Some(1.0), Some(1e6)] {
        let device = Device::cpu(Some(2));
        let mut params = params(&device, &SPECS, 1.0, 5);
        let mut optimizer = AdamW::new(&params);
        let config = AdamWConfig { max_grad_norm, ..CONFIG };
        let mut random = Random::new(1);
        let mut state: Vec<Vec<[f64; 3]>> = params
            .ids()
            .map(|id| params.read(id).iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect())
            .collect();
        for step in 1..=4 {
            let grads = grads(&params, &mut || random.uniform());
            let norm =
                params.ids().flat_map(|id| grads.read(id)).map(|g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let returned = optimizer.step(&mut params, &grads, &config);
            assert!((returned / norm - 1.0).abs() < 1e-12);
            assert_eq!(optimizer.steps(), step);
            let clip = max_grad_norm.map_or(1.0, |most| (f64::from(most) / (norm + 1e-6)).min(1.0));
            let [lr, beta1, beta2, eps, decay] =
                [config.lr, config.beta1, config.beta2, config.eps, config.weight_decay].map(f64::from);
            for (id, state) in params.ids().zip(&mut state) {
                let spec = params.spec(id);
                let (first, second) = optimizer.read(id);
                for (i, ([p, m, v], g)) in state.iter_mut().zip(grads.read(id)).enumerate() {
                    let g = f64::from(g) * clip;
                    if spec.decay {
                        *p -= lr * decay * *p;
                    }
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    let m_hat = *m / (1.0 - beta1.powi(step as i32));
                    let v_hat = *v / (1.0 - beta2.powi(step as i32));
                    *p -= lr * m_hat / (v_hat.sqrt() + eps);
                    for (value, exact) in [(first[i], *m), (second[i], *v)] {
                        assert!(
                            (f64::from(value) - exact).abs() < 1e-5 * exact.abs() + 1e-7,
                            "moment {i} of {}",
                            spec.name
                        );
                    }
                }
                for (i, (value, [exact, ..])) in params.read(id).iter().zip(state).enumerate() {
                    assert!(
                        (f64::from(*value) - *exact).abs() < 2e-6,
                        "{i} of {}: {value}, {exact}",
                        spec.name
                    );
                }
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let device = Device::cpu(Some(1));
    let mut params = params(&device, &SPECS, 1.0, 5);
    let mut optimizer = AdamW::new(&params);
    let good = grads(&params, &mut || 0.5);
    optimizer.step(&mut params, &good, &CONFIG);
    let snapshot = |params: &Params, optimizer: &AdamW| {
        let values: Vec<_> = params.ids().map(|id| (params.read(id), optimizer.read(id))).collect();
        (values, optimizer.steps())
    };
    let before = snapshot(&params, &optimizer);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut left = 70_000;
        let grads = grads(&params, &mut || {
            left -= 1;
            if left == 0 { bad } else { 1.0 }
        });
        assert!(!optimizer.step(&mut params, &grads, &CONFIG).is_finite());
        assert!(snapshot(&params, &optimizer) == before);
    }
}

#[test]
fn restored_moments_continue_bit_by_bit() {
    let device = Device::cpu(Some(1));
    let mut params = params(&device, &SPECS, 1.0, 5);
    let mut optimizer = AdamW::new(&params);
    let mut random = Random::new(2);
    for _ in 0..3 {
        let grads = grads(&params, &mut || random.uniform());
        optimizer.step(&mut params, &grads, &CONFIG);
    }
    let mut copy = params.duplicate();
    let mut restored = AdamW::new(&copy);
    for id in params.ids() {
        let (first, second) = optimizer.read(id);
        restored.write(id, &first, &second);
    }
    restored.set_steps(optimizer.steps());
    let grads = grads(&params, &mut || random.uniform());
    optimizer.step(&mut params, &grads, &CONFIG);
    restored.step(&mut copy, &grads, &CONFIG);
    for id in params.ids() {
        assert_eq!(params.read(id), copy.read(id));
        assert_eq!(optimizer.read(id), restored.read(id));
    }
}
