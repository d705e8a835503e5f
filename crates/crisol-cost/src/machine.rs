//! What one machine was measured to do, and how long work takes on it.
//!
//! Small models leave much of a processor's peak unused and large ones little, so that the rate of a model is read between those
//! that were measured on models of other sizes. All rates are in operations by the convention of [`crate::ModelShape::document_flops`].

use crate::ModelShape;
use crate::phases::{Kind, Phase, PhaseOptions};
use crate::units::{FlopRate, Flops, FlopsPerToken, Seconds, Tokens};

/// A machine, as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Rates of training steps, by the size of the model.
    pub training: Vec<Measured>,
    /// Rates of sampling from many prompts at a time.
    pub sampling: Vec<Measured>,
    /// Rate of large matrix products.
    pub products: FlopRate,
}

/// The rate of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Its [`ModelShape::multiplied_parameters`].
    pub parameters: f64,
    /// Operations in a second.
    pub rate: FlopRate,
}

/// Work on one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LocalWork {
    /// Of training steps, forward and backward.
    pub training: Flops,
    /// Of forward passes over given text.
    pub forward: Flops,
    /// Of sampling.
    pub sampling: Flops,
    /// Of an optimizer's own products.
    pub optimizer: Flops,
    /// Of forward passes that only measure a model.
    pub measuring: Flops,
}

impl LocalWork {
    /// A phase's work on so many tokens, in documents of `length`.
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

    /// How its time compares to that of other work where nothing was measured: its operations, those of sampling twice.
    /// (Machines that were measured sampled at 0.4 to 0.7 of the rate at which they trained.)
    pub fn weight(&self) -> f64 {
        (self.training + self.forward + self.optimizer + self.measuring + self.sampling * 2.0).0
    }

    /// What a training run's operations are by convention: all but the optimizer's own and what only measures.
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
    }
}

/// The rate for a size: a power of it between the two measured ones beside it, the nearest one's beyond them.
fn rate_at(measured: &[Measured], parameters: f64) -> Option<FlopRate> {
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
            let place =
                (parameters / below.parameters).ln() / (above.parameters / below.parameters).ln();
            Some(FlopRate(below.rate.0 * (above.rate / below.rate).powf(place)))
        }
        (one, other) => one.or(other).map(|nearest| nearest.rate),
    }
}

impl Machine {
    /// Rate of training steps of a model; none if nothing was measured.
    pub fn training_rate(&self, shape: &ModelShape) -> Option<FlopRate> {
        rate_at(&self.training, shape.multiplied_parameters())
    }

    /// Rate of sampling from a model; none if nothing was measured.
    pub fn sampling_rate(&self, shape: &ModelShape) -> Option<FlopRate> {
        rate_at(&self.sampling, shape.multiplied_parameters())
    }

    /// How long work of a model takes; none if nothing was measured.
    pub fn time(&self, shape: &ModelShape, work: &LocalWork) -> Option<Seconds> {
        let (training, sampling) = (self.training_rate(shape)?, self.sampling_rate(shape)?);
        let of_training = work.training + work.forward + work.optimizer + work.measuring;
        Some(of_training / training + work.sampling / sampling)
    }

    /// Share of large products' rate that training steps of a model reach.
    pub fn utilisation(&self, shape: &ModelShape) -> Option<f64> {
        self.training_rate(shape).map(|rate| rate / self.products)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known;

    fn machine() -> Machine {
        let at = |parameters, rate| Measured { parameters, rate: FlopRate(rate) };
        Machine {
            training: vec![at(1e6, 1e11), at(1e8, 4e11)],
            sampling: vec![at(1e6, 1e10)],
            products: FlopRate(5e11),
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
    fn time_adds_up() {
        let shape = known::named("llama-2-7b").unwrap().shape;
        let work = LocalWork {
            training: Flops(4e11),
            forward: Flops(1e11),
            sampling: Flops(1e10),
            optimizer: Flops(2e11),
            measuring: Flops(1e11),
        };
        let time = machine().time(&shape, &work).unwrap();
        assert!((time.0 - 3.0).abs() < 1e-9, "{time:?}");
        assert_eq!(work.counted(), Flops(5.1e11));
        assert_eq!(machine().utilisation(&shape), Some(0.8));
    }
}
