//! Data sets on a hub, wherever a data file can be named: found before anything reads data, so that
//! a run's recipe names the commit that it trains on.

use std::collections::BTreeMap;
use std::path::Path;

use crisol_phases::Recipe;
use crisol_text::{DatasetFiles, ReadOptions};

use crate::error::CliError;
use crate::hub::{DatasetName, SCHEME};
use crate::model::Network;

/// Whether a name of data is that of a data set on a hub, right or wrong. Paths do not begin so.
pub(crate) fn is_on_hub(name: &str) -> bool {
    name.starts_with(SCHEME)
}

/// Finds the data sets that a recipe names, and names them with their commits.
pub(crate) fn find_all(recipe: &mut Recipe, network: Network) -> Result<(), CliError> {
    let Recipe { run, phases } = recipe;
    let reading = ReadOptions {
        columns: run.text.columns.clone(),
        text_separator: run.text.text_separator.clone(),
        datasets: BTreeMap::new(),
    };
    for name in phases.iter_mut().flat_map(|phase| phase.settings.data_names()) {
        if is_on_hub(name) && !run.datasets.contains_key(name) {
            let (found, set) = find(name, &reading, network)?;
            name.clone_from(&found);
            run.datasets.insert(found, set);
        }
    }
    Ok(())
}

/// One data set: its name with commit, config and split, and its files.
pub(crate) fn find(
    name: &str,
    reading: &ReadOptions,
    network: Network,
) -> Result<(String, DatasetFiles), CliError> {
    let parsed = name.parse::<DatasetName>();
    let parsed = parsed.map_err(|problem| CliError::Place {
        path: Path::new(name).to_owned(),
        problem: problem.to_owned(),
    })?;
    from_hub(&parsed, reading, network)
}

#[cfg(feature = "hub")]
fn from_hub(
    name: &DatasetName,
    reading: &ReadOptions,
    network: Network,
) -> Result<(String, DatasetFiles), CliError> {
    let found = crate::hub::find(name, reading, network.offline)?;
    Ok((found.name.to_string(), found.set))
}

#[cfg(not(feature = "hub"))]
fn from_hub(
    name: &DatasetName,
    _: &ReadOptions,
    _: Network,
) -> Result<(String, DatasetFiles), CliError> {
    Err(CliError::NoHub(name.to_string()))
}
