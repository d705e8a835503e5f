//! `crisol cost --calibrate`: measures this machine, once.

use std::time::Duration;

use crisol_engine::Precision;
use crisol_phases::{cost_shape, machine};
use crisol_train::TrainerOptions;

use super::{counted, prefixed};
use crate::calibration::{Calibration, Rate};
use crate::clock;
use crate::commands::Threads;
use crate::commands::bench::{PEAK_PRODUCT, generation, mixed_lengths, training_steps};
use crate::console::{named_rows, print, print_json, say};
use crate::error::CliError;
use crate::shape::{M, S, Shape, XS};

/// Each measurement takes about so many seconds, or three steps.
const SECONDS: f64 = 1.0;
/// Prompts that are answered at a time, as GRPO and PPO do.
const PROMPTS: usize = 64;
/// Tokens of a prompt and of an answer.
const TOKENS: [usize; 2] = [16, 48];

pub(super) fn run(threads: Threads, json: bool) -> Result<(), CliError> {
    let device = threads.device()?;
    // Batches as recipes have them, of documents as unlike as in data. (M's is small: it is
    // measured as well, in less time.)
    let tiny = Shape { d: 64, layers: 2, heads: 4, kv: 4, ff: 176, vocab: 1024, batch: 12, ..XS };
    let shapes = [
        ("d=64,L=2", tiny),
        ("XS", Shape { batch: 12, ..XS }),
        ("S", Shape { batch: 8, ..S }),
        ("M", Shape { tokens: 256, batch: 1, ..M }),
    ];
    say(format_args!(
        "Measuring this machine on {} threads; best while it does nothing else",
        device.threads()
    ));
    let [products, products_bf16] = [Precision::F32, Precision::Bf16].map(|precision| {
        device.with_precision(precision).gemm_rate(PEAK_PRODUCT, Duration::from_secs(1))
    });
    let bandwidth = device.read_bandwidth(Duration::from_secs(1));
    let (mut training, mut sampling) = (Vec::new(), Vec::new());
    for (name, shape) in shapes {
        say(format_args!("  shape {name}"));
        let steps = training_steps(
            &shape,
            &mixed_lengths(&shape),
            TrainerOptions::default(),
            &device,
            SECONDS,
        )?;
        let cost = cost_shape(&shape.config());
        let parameters = cost.matmul_parameters();
        training.push(Rate { parameters, flops_per_second: steps.flops.0 / steps.seconds });
        let (model, params) = shape.model(&device)?;
        let [prompt, answer] = TOKENS;
        let timed = generation(&model, &params, PROMPTS, TOKENS, SECONDS)?;
        let flops = cost.document_flops(prompt + answer, answer).0 * PROMPTS as f64;
        let seconds = timed.seconds_to_first_token + timed.rest;
        sampling.push(Rate { parameters, flops_per_second: flops / seconds });
    }
    let calibration = Calibration {
        machine: machine(),
        threads: device.threads(),
        measured: clock::now(),
        products,
        products_bf16,
        bandwidth,
        training,
        sampling,
    };
    let file = calibration.save()?;
    if json {
        return print_json(&calibration);
    }
    let rate = |flops: f64| prefixed(flops, "FLOP/s");
    let by_size = |rates: &[Rate]| {
        let rates = rates.iter().map(|r| {
            format!("{} with {} parameters", rate(r.flops_per_second), counted(r.parameters))
        });
        rates.collect::<Vec<_>>().join(", ")
    };
    print(named_rows(&[
        ("machine", format!("{}, {} threads", calibration.machine, calibration.threads)),
        ("products", format!("{}, {} in bf16", rate(products), rate(products_bf16))),
        ("memory", prefixed(bandwidth, "B/s")),
        ("training", by_size(&calibration.training)),
        ("sampling", by_size(&calibration.sampling)),
        ("kept in", file.display().to_string()),
    ]))
}
