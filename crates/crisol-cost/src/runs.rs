//! Published training runs and their reported cost, against which the formulas are tested.

use crate::hardware::{Gpu, Mfu};
use crate::units::{Dollars, Flops, FlopsPerToken, Seconds, Tokens};
use crate::{ModelShape, known, phases};

/// A published pre-training run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublicRun {
    /// Name of the model in [`known::models`].
    pub model: &'static str,
    /// Training tokens.
    pub tokens: Tokens,
    /// Name of the GPU.
    pub gpu: &'static str,
    /// Reported GPU-hours.
    pub gpu_hours: f64,
    /// Cost according to the workshop's notebook, if it gives one.
    pub dollars: Option<Dollars>,
    /// Source of the figures.
    pub source: &'static str,
    /// 6 · active parameters · tokens over the peak of the GPUs in the reported time, from rounded
    /// public figures. An independent check of the shape's parameter count.
    pub reported_mfu: f64,
}

const LLAMA_2: &str = "meta-llama/llama, MODEL_CARD.md";
const LLAMA_4: &str = "meta-llama/llama-models, models/llama4/MODEL_CARD.md";

const fn run(
    model: &'static str,
    tera_tokens: f64,
    gpu: &'static str,
    gpu_hours: f64,
    dollars: Option<Dollars>,
    source: &'static str,
    reported_mfu: f64,
) -> PublicRun {
    PublicRun {
        model,
        tokens: Tokens(tera_tokens * 1e12),
        gpu,
        gpu_hours,
        dollars,
        source,
        reported_mfu,
    }
}

/// The runs. DeepSeek-V3 trained in fp8; its MFU refers to the bf16 peak nevertheless.
pub const PUBLIC_RUNS: [PublicRun; 6] = [
    run("llama-2-7b", 2.0, "a100", 184_320.0, Some(Dollars(300e3)), LLAMA_2, 0.391),
    run("llama-2-13b", 2.0, "a100", 368_640.0, None, LLAMA_2, 0.377),
    run("llama-2-70b", 2.0, "a100", 1_720_320.0, Some(Dollars(2.8e6)), LLAMA_2, 0.429),
    run("llama-4-scout", 40.0, "h100", 5.0e6, Some(Dollars(12e6)), LLAMA_4, 0.229),
    run("llama-4-maverick", 22.0, "h100", 2.38e6, Some(Dollars(5.7e6)), LLAMA_4, 0.265),
    run(
        "deepseek-v3",
        14.8,
        "h800",
        2.664e6,
        Some(Dollars(5.3e6)),
        "deepseek-ai/DeepSeek-V3, README.md",
        0.346,
    ),
];

impl PublicRun {
    /// Shape of the model.
    pub fn shape(&self) -> ModelShape {
        known::named(self.model).expect("the runs' models are known, as a test checks").shape
    }

    /// The GPU.
    pub fn gpu(&self) -> &'static Gpu {
        Gpu::named(self.gpu).expect("the runs' GPUs are known, as a test checks")
    }

    /// 6·N FLOPs per token, with N the active matrix parameters.
    pub fn flops(&self) -> Flops {
        FlopsPerToken(phases::TRAINING * 2.0 * self.shape().matmul_parameters()) * self.tokens
    }

    /// MFU that the reported hours imply; `None` if it exceeds 1.
    pub fn implied_mfu(&self) -> Option<Mfu> {
        Mfu::new(self.flops() / (self.gpu().peak * Seconds::from_hours(self.gpu_hours)))
    }

    /// GPU-hours at a given MFU.
    pub fn hours_at(&self, mfu: Mfu) -> f64 {
        (self.flops() / (self.gpu().peak * mfu.share())).hours()
    }

    /// Cost of `hours` at the workshop's price.
    pub fn predicted_dollars(&self, hours: f64) -> Option<Dollars> {
        self.gpu().price().map(|price| price * Seconds::from_hours(hours))
    }
}

/// GPU-hours of one part of a project.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuHours {
    /// Name of the part.
    pub name: &'static str,
    /// Hours of one GPU.
    pub gpu_hours: f64,
}

/// DeepSeek-V3's GPU-hours (Table 1 of arXiv:2412.19437).
pub const DEEPSEEK_V3_SHARES: [GpuHours; 3] = [
    GpuHours { name: "pre-training", gpu_hours: 2.664e6 },
    GpuHours { name: "context extension", gpu_hours: 119e3 },
    GpuHours { name: "post-training", gpu_hours: 5e3 },
];

/// H100-hours of OLMo-2 1B's post-training by phase, as published by AI2.
pub const OLMO_2_1B_POST_TRAINING: [GpuHours; 3] = [
    GpuHours { name: "SFT", gpu_hours: 72.0 },
    GpuHours { name: "DPO", gpu_hours: 16.0 },
    GpuHours { name: "RLVR", gpu_hours: 1376.0 },
];

/// Pre-training tokens of OLMo-2 1B (model page of allenai/OLMo-2-0425-1B).
pub const OLMO_2_1B_TOKENS: Tokens = Tokens(4e12);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{DENSE_MFU, MIXTURE_MFU};

    #[test]
    fn hours_follow_from_the_reported_utilisation() {
        for run in PUBLIC_RUNS {
            let hours = run.hours_at(Mfu::new(run.reported_mfu).unwrap());
            assert!((hours / run.gpu_hours - 1.0).abs() < 0.1, "{}: {hours} hours", run.model);
        }
    }

    #[test]
    fn hours_follow_from_the_defaults_within_half() {
        for run in PUBLIC_RUNS {
            let class = if run.shape().is_mixture() { MIXTURE_MFU } else { DENSE_MFU };
            let ratio = run.hours_at(class.typical) / run.gpu_hours;
            assert!(
                (1.0 / 1.5..1.5).contains(&ratio),
                "{}: {ratio} of the reported hours",
                run.model
            );
            // The plausible range includes the reported hours.
            assert!(
                (run.hours_at(class.high)..run.hours_at(class.low)).contains(&run.gpu_hours),
                "{}",
                run.model
            );
        }
    }

    #[test]
    fn money_is_the_workshops() {
        let mut priced = 0;
        for run in PUBLIC_RUNS {
            let Some(said) = run.dollars else { continue };
            let predicted =
                run.predicted_dollars(run.gpu_hours).expect("the workshop names its price");
            assert!((predicted / said - 1.0).abs() < 0.05, "{}: {predicted:?}", run.model);
            priced += 1;
        }
        assert_eq!(priced, 5);
    }

    /// Counting all parameters of a mixture gives an impossible MFU, which is detected.
    #[test]
    fn counting_all_parameters_is_impossible() {
        for run in PUBLIC_RUNS {
            assert!(run.implied_mfu().is_some(), "{} is possible", run.model);
            let all = FlopsPerToken(6.0 * run.shape().parameters().total()) * run.tokens;
            let share = all / (run.gpu().peak * Seconds::from_hours(run.gpu_hours));
            assert_eq!(
                Mfu::new(share).is_none(),
                run.shape().is_mixture(),
                "{}: {share}",
                run.model
            );
        }
    }

    #[test]
    fn shares_are_those_that_were_published() {
        let all: f64 = DEEPSEEK_V3_SHARES.iter().map(|share| share.gpu_hours).sum();
        let percent = DEEPSEEK_V3_SHARES.map(|share| 100.0 * share.gpu_hours / all);
        for (percent, published) in percent.into_iter().zip([95.6, 4.3, 0.18]) {
            assert!((percent - published).abs() < 0.05, "{percent}");
        }
        assert_eq!(
            OLMO_2_1B_POST_TRAINING.iter().map(|share| share.gpu_hours).sum::<f64>(),
            1464.0
        );
    }
}
