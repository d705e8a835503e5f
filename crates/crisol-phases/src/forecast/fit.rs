//! Options that make a phase fit into less memory.

use std::path::Path;

use crisol_cost::units::Bytes;
use crisol_engine::MomentFormat;
use crisol_model::{Adapted, AdapterConfig, Config};

use super::memory::memory;
use crate::data::DataSource;
use crate::recipe::{Recompute, RunSettings};
use crate::settings::PhaseSettings;

/// Tokens of a shard that still keep the processor busy.
const SMALL_SHARD: usize = 128;

/// The first options with which a phase takes at most `limit`, and what it takes then. `base`: the
/// model it starts from, if any.
pub(super) fn smaller(
    settings: &PhaseSettings,
    run: &RunSettings,
    config: &Config,
    base: Option<&Path>,
    data: &DataSource,
    threads: usize,
    limit: Bytes,
) -> Option<(String, Bytes)> {
    let (mut settings, mut run, mut config) = (settings.clone(), run.clone(), config.clone());
    let mut needed = memory(&settings, &run, &config, data, threads).total();
    let mut options: Vec<&str> = Vec::new();
    // In the order of what they cost: time first, then the precision of moments, then other bits.
    for remedy in [Remedy::Recompute, Remedy::Moments, Remedy::Shards, Remedy::Adapter] {
        let Some(option) = remedy.apply(&mut settings, &mut run, &mut config, base) else {
            continue;
        };
        let now = memory(&settings, &run, &config, data, threads).total();
        if now < needed {
            options.push(option);
        }
        if now <= limit {
            return Some((options.join(" "), now));
        }
        needed = now;
    }
    None
}

/// A change of settings that saves memory.
#[derive(Clone, Copy)]
enum Remedy {
    Recompute,
    Moments,
    Shards,
    Adapter,
}

impl Remedy {
    /// Makes the change; returns its option, or `None` if there is nothing to change.
    fn apply(
        self,
        settings: &mut PhaseSettings,
        run: &mut RunSettings,
        config: &mut Config,
        base: Option<&Path>,
    ) -> Option<&'static str> {
        match self {
            Remedy::Recompute if run.recompute == Recompute::None => {
                run.recompute = Recompute::Block;
                Some("--set recompute=block")
            }
            Remedy::Moments => {
                let mut optimizers = settings.optimizers_mut();
                for optimizer in &mut optimizers {
                    optimizer.moments = MomentFormat::Bf16;
                }
                Some(if optimizers.len() == 1 {
                    "--set optimizer.moments=bf16"
                } else {
                    "--set optimizer.moments=bf16 --set value_optimizer.moments=bf16"
                })
            }
            Remedy::Shards if run.shard_tokens > SMALL_SHARD => {
                run.shard_tokens = SMALL_SHARD;
                Some("--set shard_tokens=128")
            }
            Remedy::Adapter if config.adapter.is_none() => {
                config.adapter = Some(Adapted {
                    config: AdapterConfig::default(),
                    base: base?.to_owned(),
                    fingerprint: String::new(),
                });
                Some("--lora")
            }
            Remedy::Recompute | Remedy::Shards | Remedy::Adapter => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;

    #[test]
    fn the_cheapest_options_that_fit_are_named() {
        let recipe = Recipe::embedded();
        let data = DataSource::open("world");
        let (settings, run) = (&recipe.phases[0].settings, &recipe.run);
        // Large enough that the program itself does not count.
        let mut config = run.model.config(32_000).expect("a valid shape");
        (config.hidden_size, config.num_hidden_layers, config.intermediate_size) = (1024, 16, 4096);
        config.head_dim = 256;
        let base = Path::new("no such base");
        let all = memory(settings, run, &config, &data, 2).total();
        let mut options = Vec::new();
        for percent in (1..100).rev() {
            let limit = all * (f64::from(percent) / 100.0);
            let found = smaller(settings, run, &config, Some(base), &data, 2, limit);
            assert!(found.as_ref().is_none_or(|(_, bytes)| *bytes <= limit), "{found:?}");
            let named = found.map_or("none".into(), |(options, _)| options);
            if options.last() != Some(&named) {
                options.push(named);
            }
        }
        let expected = [
            "--set recompute=block",
            "--set recompute=block --set optimizer.moments=bf16",
            "--set recompute=block --set optimizer.moments=bf16 --set shard_tokens=128",
            "--set recompute=block --set optimizer.moments=bf16 --set shard_tokens=128 --lora",
            "none",
        ];
        assert_eq!(options, expected);
    }
}
