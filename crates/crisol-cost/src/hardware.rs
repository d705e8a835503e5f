//! GPUs: peak rates, utilisation in training, price and power.

use crate::units::{ByteRate, Bytes, FlopRate, Price, Watts};

/// A GPU. `peak` is dense bf16; peak, memory and bandwidth are from NVIDIA's data sheets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Name on the command line.
    pub name: &'static str,
    /// Display name.
    pub title: &'static str,
    /// Peak rate of dense bf16 GEMMs.
    pub peak: FlopRate,
    /// Memory size.
    pub memory: Bytes,
    /// Memory bandwidth.
    pub bandwidth: ByteRate,
    /// Maximum power.
    pub power: Watts,
    /// Price per hour; `None` where the workshop has none.
    pub dollars_per_hour: Option<f64>,
}

const fn gpu(
    name: &'static str,
    title: &'static str,
    tera_flops: f64,
    gigabytes: f64,
    terabytes_per_second: f64,
    watts: f64,
    dollars_per_hour: Option<f64>,
) -> Gpu {
    Gpu {
        name,
        title,
        peak: FlopRate(tera_flops * 1e12),
        memory: Bytes(gigabytes * 1e9),
        bandwidth: ByteRate(terabytes_per_second * 1e12),
        power: Watts(watts),
        dollars_per_hour,
    }
}

/// The known GPUs. Prices are implied by the workshop's figures: $300K for 184K hours, $12M for 5M,
/// $5.3M for 2.66M.
pub const GPUS: [Gpu; 15] = [
    gpu("b200", "B200", 2250.0, 180.0, 8.0, 1000.0, None),
    gpu("h200", "H200", 989.0, 141.0, 4.8, 700.0, None),
    gpu("h100", "H100 SXM", 989.0, 80.0, 3.35, 700.0, Some(2.40)),
    gpu("h800", "H800", 989.0, 80.0, 3.35, 700.0, Some(2.00)),
    gpu("h100-pcie", "H100 PCIe", 756.0, 80.0, 2.0, 350.0, None),
    gpu("a100", "A100 80GB", 312.0, 80.0, 2.0, 400.0, Some(1.63)),
    gpu("a100-40gb", "A100 40GB", 312.0, 40.0, 1.555, 400.0, None),
    gpu("l40s", "L40S", 362.0, 48.0, 0.864, 350.0, None),
    gpu("l4", "L4", 121.0, 24.0, 0.3, 72.0, None),
    gpu("a40", "A40", 149.7, 48.0, 0.696, 300.0, None),
    gpu("a10g", "A10G", 70.0, 24.0, 0.6, 300.0, None),
    gpu("t4", "T4 (fp16)", 65.0, 16.0, 0.32, 70.0, None),
    gpu("rtx5090", "RTX 5090", 209.5, 32.0, 1.792, 575.0, None),
    gpu("rtx4090", "RTX 4090", 165.2, 24.0, 1.01, 450.0, None),
    gpu("rtx3090", "RTX 3090", 71.0, 24.0, 0.936, 350.0, None),
];

impl Gpu {
    /// Finds a GPU by name; case, a leading `rtx`, dashes and spaces are ignored.
    pub fn named(name: &str) -> Option<&'static Gpu> {
        let plain = |name: &str| {
            let name: String = name
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_ascii_lowercase();
            name.strip_prefix("rtx").unwrap_or(&name).to_owned()
        };
        let wanted = plain(name);
        GPUS.iter().find(|gpu| plain(gpu.name) == wanted || plain(gpu.title) == wanted)
    }

    /// Price per second, if known.
    pub fn price(&self) -> Option<Price> {
        self.dollars_per_hour.map(Price::per_hour)
    }
}

/// An uncertain quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range<T> {
    /// Lower end.
    pub low: T,
    /// Typical value.
    pub typical: T,
    /// Upper end.
    pub high: T,
}

impl<T: Copy> Range<T> {
    /// Applies an increasing function.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Range<U> {
        Range { low: f(self.low), typical: f(self.typical), high: f(self.high) }
    }

    /// Applies a decreasing function, which swaps the ends.
    pub fn invert<U>(self, f: impl Fn(T) -> U) -> Range<U> {
        Range { low: f(self.high), typical: f(self.typical), high: f(self.low) }
    }
}

/// Model FLOPs utilisation: the fraction of the peak spent on 6·N FLOPs per token (N: active matrix
/// parameters).
///
/// At most 1, so counting all instead of the active parameters of a mixture is detected.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Mfu(f64);

impl Mfu {
    /// `None` unless 0 < `share` ≤ 1.
    pub fn new(share: f64) -> Option<Mfu> {
        (share > 0.0 && share <= 1.0).then_some(Mfu(share))
    }

    /// The fraction.
    pub fn share(self) -> f64 {
        self.0
    }
}

/// MFU of well-tuned training of dense models on many GPUs. Llama 2: 0.38 to 0.43, see
/// [`crate::runs`].
pub const DENSE_MFU: Range<Mfu> = Range { low: Mfu(0.30), typical: Mfu(0.38), high: Mfu(0.45) };
/// MFU of mixtures of experts, which communicate more. Llama 4 and DeepSeek-V3: 0.23 to 0.35.
pub const MIXTURE_MFU: Range<Mfu> = Range { low: Mfu(0.20), typical: Mfu(0.27), high: Mfu(0.35) };

/// Fraction of the memory bandwidth that generation achieves.
pub const BANDWIDTH_UTILISATION: Range<f64> = Range { low: 0.5, typical: 0.65, high: 0.85 };

/// Power usage effectiveness (PUE): energy of the data centre over energy of its computers
/// (`LLaMA`, arXiv:2302.13971, section 6).
pub const POWER_USAGE_EFFECTIVENESS: f64 = 1.1;
/// Kilograms of CO₂ per kilowatt-hour. 0.385 is the average of the USA used by the same paper. With
/// the PUE, it reproduces Llama 2's model card (31.22 t for 184,320 hours at 400 W). The range
/// covers grids with much and with little low-carbon power.
pub const CO2_PER_KILOWATT_HOUR: Range<f64> = Range { low: 0.05, typical: 0.385, high: 0.70 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_found_by_their_usual_names() {
        for (name, found) in [
            ("H100", "h100"),
            ("h100-pcie", "h100-pcie"),
            ("RTX 4090", "rtx4090"),
            ("4090", "rtx4090"),
            ("A100 80GB", "a100"),
            ("a100-40GB", "a100-40gb"),
        ] {
            assert_eq!(Gpu::named(name).map(|gpu| gpu.name), Some(found), "{name}");
        }
        assert!(Gpu::named("mi300x").is_none() && Gpu::named("").is_none());
        let mut names: Vec<_> = GPUS.iter().map(|gpu| gpu.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), GPUS.len());
    }

    #[test]
    fn utilisation_is_a_share() {
        assert_eq!(Mfu::new(0.4).map(Mfu::share), Some(0.4));
        for share in [0.0, -0.1, 1.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Mfu::new(share), None);
        }
    }
}
