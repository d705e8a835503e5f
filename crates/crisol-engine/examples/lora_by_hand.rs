//! LoRA by hand: two low-rank parameters over a frozen matrix learn what the matrix lacks.
//! `cargo run --release --example lora_by_hand`

use std::sync::Arc;

use crisol_engine::{
    Adapter, Device, Grads, Init, MomentFormat, Optimizer, OptimizerConfig, ParamSpec, Params,
    Role, Tape, UpdateRule, Workspace,
};

const WIDTH: usize = 64;
const RANK: usize = 2;
const ROWS: usize = 256;

fn main() {
    let device = Device::cpu(None);
    let spec = |name: &str, shape: [usize; 2], init| ParamSpec {
        name: name.into(),
        shape: shape.into(),
        init,
        role: Role::Hidden,
    };
    // The base is frozen: it could as well be quantised, or shared with other adapters.
    let base = vec![spec("weight", [WIDTH, WIDTH], Init::Normal(0.1))];
    let base = Arc::new(Params::init(&device, base, 1));
    let weight = base.id("weight").expect("its spec");

    // B is zero at first, so that a new adapter changes nothing.
    let adapter =
        vec![spec("A", [RANK, WIDTH], Init::Uniform(0.125)), spec("B", [WIDTH, RANK], Init::Zeros)];
    let mut params = Params::over(&base, adapter, 2);
    let [a, b] = ["A", "B"].map(|name| params.id(name).expect("its spec"));
    params.adapt(weight, Adapter { a, b, scale: 1.0, magnitude: None });

    // What is to be learnt: the base's outputs plus an update of rank 1, for fixed random inputs.
    let noise = |n: usize| (0..n).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0);
    let inputs: Vec<f32> = noise(ROWS * WIDTH).collect();
    let direction: Vec<f32> = noise(WIDTH).collect();
    let mut workspace = Workspace::new(&device);
    let mut targets = {
        let mut tape = Tape::inference(&base, &mut workspace);
        let x = tape.constant(ROWS, WIDTH, &inputs);
        let y = tape.linear(x, weight, None);
        tape.read(y).into_owned()
    };
    for (target, x) in targets.chunks_mut(WIDTH).zip(inputs.chunks(WIDTH)) {
        target.iter_mut().zip(&direction).for_each(|(y, d)| *y += 0.2 * x[0] * d);
    }

    let mut grads = Grads::zeros_like(&params);
    let mut optimizer = Optimizer::new(&params, MomentFormat::F32);
    let config = OptimizerConfig {
        rule: UpdateRule::AdamW,
        lr: 0.02,
        table_factor: 1.0,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: None,
    };
    for step in 0..=60 {
        let mut tape = Tape::training(&params, &mut workspace);
        let x = tape.constant(ROWS, WIDTH, &inputs);
        let y = tape.linear(x, weight, None);
        let error: Vec<f32> = tape.read(y).iter().zip(&targets).map(|(y, t)| y - t).collect();
        let loss = error.iter().map(|e| e * e).sum::<f32>() / error.len() as f32;
        // Half of dL/dy: AdamW does not mind a factor.
        let seed: Vec<f32> = error.iter().map(|e| e / error.len() as f32).collect();
        grads.zero();
        tape.backward(&[(y, &seed)], &mut grads);
        optimizer.step(&mut params, &grads, &config);
        if step % 20 == 0 {
            println!("step {step:2}  mean squared error {loss:.6}");
        }
    }
    println!("trained {} of {} numbers", params.count(), params.count() + base.count());
}
