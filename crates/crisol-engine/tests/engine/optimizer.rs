//! AdamW against the algorithm as PyTorch documents it, one scalar at a time in f64.

use crisol_engine::{
    Device, Grads, Init, MomentFormat, Optimizer, OptimizerConfig, ParamSpec, Params, Role, Tape,
    UpdateRule, Workspace,
};

use crate::harness::{Random, params};
use crate::reference::{Matrix, gemm};

/// Large enough for several chunks of a pass, with odd sizes; vectors do not decay.
const SPECS: [(&str, &[usize]); 4] = [("a", &[3, 7]), ("b", &[5]), ("c", &[301, 457]), ("d", &[9])];

const CONFIG: OptimizerConfig = OptimizerConfig {
    rule: UpdateRule::AdamW,
    lr: 3e-3,
    table_factor: 1.0,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-6,
    weight_decay: 0.1,
    max_grad_norm: None,
};

/// Gradients with the given values: those of a linear function of the parameters' rows.
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
        let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
        let config = OptimizerConfig { max_grad_norm, ..CONFIG };
        let mut random = Random::new(1);
        let mut state: Vec<Vec<[f64; 3]>> = params
            .ids()
            .map(|id| params.read(id).iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect())
            .collect();
        for step in 1..=4 {
            let grads = grads(&params, &mut || random.uniform());
            let norm = params
                .ids()
                .flat_map(|id| grads.read(id))
                .map(|g| f64::from(g).powi(2))
                .sum::<f64>()
                .sqrt();
            let returned = optimizer.step(&mut params, &grads, &config);
            assert!((returned / norm - 1.0).abs() < 1e-12);
            assert_eq!(optimizer.steps(), step);
            let clip = max_grad_norm.map_or(1.0, |most| (f64::from(most) / (norm + 1e-6)).min(1.0));
            let [lr, beta1, beta2, eps, decay] =
                [config.lr, config.beta1, config.beta2, config.eps, config.weight_decay]
                    .map(f64::from);
            for (id, state) in params.ids().zip(&mut state) {
                let spec = params.spec(id);
                let (first, second) = optimizer.read(id);
                for (i, ([p, m, v], g)) in state.iter_mut().zip(grads.read(id)).enumerate() {
                    let g = f64::from(g) * clip;
                    if spec.role != Role::Vector {
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

/// A table and a matrix start from zeros, so that nothing decays in the first step.
#[test]
fn only_tables_take_the_factor_of_tables() {
    let device = Device::cpu(Some(1));
    let spec = |name: &str, role| ParamSpec {
        name: name.into(),
        shape: vec![3, 7],
        init: Init::Zeros,
        role,
    };
    for rule in [UpdateRule::AdamW, UpdateRule::Muon] {
        let moved = |table_factor: f32| {
            let specs = vec![spec("a", Role::Table), spec("c", Role::Hidden)];
            let mut params = Params::init(&device, specs, 1);
            let mut random = Random::new(1);
            let grads = grads(&params, &mut || random.uniform());
            let config = OptimizerConfig { rule, table_factor, ..CONFIG };
            Optimizer::new(&params, MomentFormat::F32).step(&mut params, &grads, &config);
            ["a", "c"].map(|name| params.read(params.id(name).expect("a parameter of the test")))
        };
        let ([table, hidden], [fast_table, same_hidden]) = (moved(1.0), moved(8.0));
        // A power of two scales exactly.
        assert_eq!(fast_table, table.iter().map(|x| 8.0 * x).collect::<Vec<_>>());
        assert_eq!(same_hidden, hidden);
        assert!(table.iter().chain(&hidden).all(|x| *x != 0.0));
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let device = Device::cpu(Some(1));
    let mut params = params(&device, &SPECS, 1.0, 5);
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let good = grads(&params, &mut || 0.5);
    optimizer.step(&mut params, &good, &CONFIG);
    let snapshot = |params: &Params, optimizer: &Optimizer| {
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
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let mut random = Random::new(2);
    for _ in 0..3 {
        let grads = grads(&params, &mut || random.uniform());
        optimizer.step(&mut params, &grads, &CONFIG);
    }
    let mut copy = params.duplicate();
    let mut restored = Optimizer::new(&copy, MomentFormat::F32);
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

/// Muon's definition in f64: Nesterov momentum, five Newton-Schulz steps, scaled to AdamW's size.
fn muon_direction(m: &[f64], g: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let momentum = Matrix::from_fn(rows, cols, |r, c| {
        let (m, g) = (m[r * cols + c], g[r * cols + c]);
        0.05 * g + 0.95 * (0.95 * m + 0.05 * g)
    });
    let norm = momentum.data.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut x = momentum.map(|x| x / norm);
    for _ in 0..5 {
        let gram = gemm(1.0, &x, &x.transposed());
        let once = gemm(1.0, &gram, &x);
        let twice = gemm(1.0, &gram, &once);
        x = Matrix::from_fn(rows, cols, |r, c| {
            3.4445 * x.at(r, c) - 4.775 * once.at(r, c) + 2.0315 * twice.at(r, c)
        });
    }
    let scale = 0.2 * (rows.max(cols) as f64).sqrt();
    x.map(|x| x * scale).data
}

/// Tall and wide matrices by Muon, vectors by AdamW; singular values come close to one.
#[test]
fn muon_equals_the_definition() {
    const SPECS: [(&str, &[usize]); 3] = [("a", &[11, 40]), ("b", &[5]), ("c", &[37, 19])];
    let config = OptimizerConfig { rule: UpdateRule::Muon, max_grad_norm: Some(1.0), ..CONFIG };
    let device = Device::cpu(Some(2));
    let mut params = params(&device, &SPECS, 1.0, 5);
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let mut random = Random::new(1);
    let mut matrices = 0;
    let mut momenta: Vec<Vec<f64>> =
        params.ids().map(|id| vec![0.0; params.read(id).len()]).collect();
    for _ in 0..3 {
        let grads = grads(&params, &mut || random.uniform());
        let before: Vec<Vec<f32>> = params.ids().map(|id| params.read(id)).collect();
        let norm = optimizer.step(&mut params, &grads, &config);
        for ((id, momentum), before) in params.ids().zip(&mut momenta).zip(before) {
            let spec = params.spec(id).clone();
            if spec.role == Role::Vector {
                continue;
            }
            let g: Vec<f64> =
                grads.read(id).iter().map(|&g| f64::from(g) / (norm + 1e-6)).collect();
            matrices += 1;
            let (rows, cols) = (spec.shape[0], spec.shape[1]);
            let direction = muon_direction(momentum, &g, rows, cols);
            // The energy of a matrix with singular values in (0.6, 1.3).
            let energy =
                direction.iter().map(|d| d * d).sum::<f64>() / (0.04 * rows.max(cols) as f64);
            let rank = rows.min(cols) as f64;
            assert!(energy > 0.36 * rank && energy < 1.69 * rank, "{energy} of rank {rank}");
            for (m, g) in momentum.iter_mut().zip(&g) {
                *m += 0.05 * (g - *m);
            }
            let (lr, decay) = (f64::from(config.lr), f64::from(config.weight_decay));
            for (i, (new, old)) in params.read(id).iter().zip(before).enumerate() {
                let exact = f64::from(old) * (1.0 - lr * decay) - lr * direction[i];
                assert!(
                    (f64::from(*new) - exact).abs() < 3e-6,
                    "{i} of {}: {new}, {exact}",
                    spec.name
                );
                assert!((f64::from(optimizer.read(id).0[i]) - momentum[i]).abs() < 1e-6);
            }
        }
    }
    assert_eq!(matrices, 2 * 3, "two matrices in three steps");
}

#[test]
fn muon_gives_the_same_bits_on_any_number_of_threads_and_after_a_restore() {
    let config = OptimizerConfig { rule: UpdateRule::Muon, ..CONFIG };
    let run = |threads: usize, restore: bool| {
        let device = Device::cpu(Some(threads));
        let mut params = params(&device, &SPECS, 1.0, 5);
        let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
        let mut random = Random::new(1);
        for _ in 0..3 {
            let grads = grads(&params, &mut || random.uniform());
            optimizer.step(&mut params, &grads, &config);
            if restore {
                let mut restored = Optimizer::new(&params, MomentFormat::F32);
                for id in params.ids() {
                    let (first, second) = optimizer.read(id);
                    restored.write(id, &first, &second);
                }
                restored.set_steps(optimizer.steps());
                optimizer = restored;
            }
        }
        params.ids().flat_map(|id| params.read(id)).map(f32::to_bits).collect::<Vec<_>>()
    };
    assert!(run(1, false) == run(3, false));
    assert!(run(1, false) == run(2, true));
}
