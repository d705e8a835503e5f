//! Measured rates of one machine, and the time that work takes on it.
//!
//! Small models use less of a processor's peak than large ones, so rates are interpolated between
//! models of measured sizes. Rates count FLOPs as [`crate::ModelShape::document_flops`] does.

use crate::ModelShape;
use crate::phases::{Kind, Phase, PhaseOptions};
use crate::units::{FlopRate, Flops, FlopsPerToken, Seconds, Tokens};

/// The measured rates of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Rates of training steps by model size.
    pub training: Vec<MeasuredRate>,
    /// Rates of batched sampling by model size.
    pub sampling: Vec<MeasuredRate>,
    /// Rate of large GEMMs.
    pub gemm_rate: FlopRate,
    /// Rate of large GEMMs in bf16.
    pub gemm_rate_bf16: FlopRate,
}

/// The measured rate of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredRate {
    /// [`ModelShape::matmul_parameters`] of the model.
    pub parameters: f64,
    /// FLOPs per second.
    pub rate: FlopRate,
}

/// Work on one machine, in FLOPs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LocalWork {
    /// Training steps, forward and backward.
    pub training: Flops,
    /// Forward passes over given text.
    pub forward: Flops,
    /// Sampling.
    pub sampling: Flops,
    /// The optimizer's own GEMMs.
    pub optimizer: Flops,
    /// Forward passes for evaluation.
    pub measuring: Flops,
    /// Blocks that backward computes again.
    pub recomputed: Flops,
}

impl LocalWork {
    /// The work of a phase on `tokens` tokens in documents of `length` tokens.
    pub fn of(
        phase: Phase,
        options: PhaseOptions,
        shape: &ModelShape,
        tokens: Tokens,
        length: f64,
    ) -> LocalWork {
        let mut work = LocalWork::default();
        for pass in phase.passes(options) {
            let (forward, backward) = pass.flops(shape, length, false);
            let flops = FlopsPerToken(forward.total() + backward.total()) * tokens;
            match pass.kind {
                Kind::Generate => work.sampling += flops,
                Kind::Forward => work.forward += flops,
                Kind::Train => work.training += flops,
            }
        }
        work
    }

    /// With the blocks of training steps computed a second time for backward.
    #[must_use]
    pub fn with_recomputed_blocks(self, shape: &ModelShape) -> LocalWork {
        LocalWork { recomputed: self.training * shape.blocks_share_of_training(), ..self }
    }

    /// Relative duration where no rates are measured: FLOPs, with sampling counted twice.
    /// (Measured machines sample at 0.4 to 0.7 of their training rate.)
    pub fn weight(&self) -> f64 {
        (self.at_training_rate() + self.sampling * 2.0).0
    }

    fn at_training_rate(&self) -> Flops {
        self.training + self.recomputed + self.forward + self.optimizer + self.measuring
    }

    /// FLOPs of training by convention: without optimizer, evaluation and recomputation.
    pub fn counted(&self) -> Flops {
        self.training + self.forward + self.sampling
    }
}

impl std::ops::AddAssign for LocalWork {
    fn add_assign(&mut self, other: LocalWork) {
        self.training += other.training;
        self.forward += other.forward;
        self.sampling += other.sampling;
        self.optimizer += other.optimizer;
        self.measuring += other.measuring;
        self.recomputed += other.recomputed;
    }
}

/// The rate at a model size: log-log interpolation, constant beyond the measured sizes.
fn rate_at(measured: &[MeasuredRate], parameters: f64) -> Option<FlopRate> {
    let below = measured
        .iter()
        .filter(|m| m.parameters <= parameters)
        .max_by(|a, b| a.parameters.total_cmp(&b.parameters));
    let above = measured
        .iter()
        .filter(|m| m.parameters > parameters)
        .min_by(|a, b| a.parameters.total_cmp(&b.parameters));
    match (below, above) {
        (Some(below), Some(above)) => {
            let position =
                (parameters / below.parameters).ln() / (above.parameters / below.parameters).ln();
            Some(FlopRate(below.rate.0 * (above.rate / below.rate).powf(position)))
        }
        (one, other) => one.or(other).map(|nearest| nearest.rate),
    }
}

impl Machine {
    /// Rate of training steps of a model; `None` without measurements.
    pub fn training_rate(&self, shape: &ModelShape) -> Option<FlopRate> {
        rate_at(&self.training, shape.matmul_parameters())
    }

    /// Rate of sampling from a model; `None` without measurements.
    pub fn sampling_rate(&self, shape: &ModelShape) -> Option<FlopRate> {
        rate_at(&self.sampling, shape.matmul_parameters())
    }

    /// Duration of work with a model; `None` without measurements.
    pub fn time(&self, shape: &ModelShape, work: &LocalWork) -> Option<Seconds> {
        let (training, sampling) = (self.training_rate(shape)?, self.sampling_rate(shape)?);
        Some(work.at_training_rate() / training + work.sampling / sampling)
    }

    /// The machine with GEMMs in bf16. Of a measured time, what large GEMMs take in f32 is replaced
    /// by what they take in bf16; the rest is assumed to stay.
    #[must_use]
    pub fn in_bf16(&self) -> Machine {
        let change = 1.0 / self.gemm_rate_bf16.0 - 1.0 / self.gemm_rate.0;
        let in_bf16 = |measured: &MeasuredRate| {
            let time = (1.0 / measured.rate.0 + change).max(1.0 / self.gemm_rate_bf16.0);
            MeasuredRate { rate: FlopRate(1.0 / time), ..*measured }
        };
        Machine {
            training: self.training.iter().map(in_bf16).collect(),
            sampling: self.sampling.iter().map(in_bf16).collect(),
            gemm_rate: self.gemm_rate_bf16,
            gemm_rate_bf16: self.gemm_rate_bf16,
        }
    }

    /// Training rate as a fraction of the rate of large GEMMs.
    pub fn utilisation(&self, shape: &ModelShape) -> Option<f64> {
        self.training_rate(shape).map(|rate| rate / self.gemm_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known;

    fn machine() -> Machine {
        let at = |parameters, rate| MeasuredRate { parameters, rate: FlopRate(rate) };
        Machine {
            training: vec![at(1e6, 1e11), at(1e8, 4e11)],
            sampling: vec![at(1e6, 1e10)],
            gemm_rate: FlopRate(5e11),
            gemm_rate_bf16: FlopRate(1e12),
        }
    }

    #[test]
    fn rates_lie_between_those_measured() {
        let machine = machine();
        let rate = |parameters| rate_at(&machine.training, parameters).unwrap().0;
        assert_eq!((rate(1e6), rate(1e8), rate(1.0), rate(1e12)), (1e11, 4e11, 1e11, 4e11));
        assert!((rate(1e7) - 2e11).abs() < 1.0);
        assert_eq!(rate_at(&[], 1e6), None);
    }

    #[test]
    fn bf16_shortens_what_gemms_take_and_nothing_else() {
        let machine = machine().in_bf16();
        // Of 10 and 2.5 ps, GEMMs take 2 in f32 and 1 in bf16.
        let times: Vec<f64> = machine.training.iter().map(|m| 1e12 / m.rate.0).collect();
        assert!((times[0] - 9.0).abs() < 1e-9 && (times[1] - 1.5).abs() < 1e-9, "{times:?}");
        assert_eq!(machine.gemm_rate, FlopRate(1e12));
    }

    #[test]
    fn time_adds_up() {
        let shape = known::named("llama-2-7b").unwrap().shape;
        let work = LocalWork {
            training: Flops(4e11),
            forward: Flops(1e11),
            sampling: Flops(1e10),
            optimizer: Flops(2e11),
            measuring: Flops(1e11),
            recomputed: Flops(0.0),
        };
        let time = machine().time(&shape, &work).unwrap();
        assert!((time.0 - 3.0).abs() < 1e-9, "{time:?}");
        assert_eq!(work.counted(), Flops(5.1e11));
        assert_eq!(machine().utilisation(&shape), Some(0.8));
        // Llama 2's head has 131 of 6,607 million multiplied weights, and the rest is a third.
        let again = work.with_recomputed_blocks(&shape);
        assert!((again.recomputed / work.training - (1.0 - 131.0 / 6607.0) / 3.0).abs() < 1e-4);
        assert_eq!(again.counted(), work.counted());
        assert!(machine().time(&shape, &again).unwrap() > time);
    }
}
