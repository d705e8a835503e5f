//! Metrics of a phase while it trains: one JSON object per step in `metrics.jsonl`, and TensorBoard events
//! on request.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TrainError;
use crate::tensorboard::EventWriter;

/// Writes metrics as they come; every line is whole when the call returns.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    events: Option<EventWriter>,
}

impl MetricsWriter {
    /// Opens `path` for appending. Lines of steps after `resume_at` are dropped first: a run that was killed
    /// after its last checkpoint will write them again.
    pub fn open(
        path: &Path,
        resume_at: u64,
        events: Option<EventWriter>,
    ) -> Result<MetricsWriter, TrainError> {
        let fail = |source| TrainError::Io { path: path.to_path_buf(), source };
        if resume_at == 0 {
            File::create(path).map_err(fail)?;
        } else if path.exists() {
            let kept: String = read_lines(path)?
                .into_iter()
                .filter(|(step, _)| *step <= resume_at)
                .map(|(_, line)| line + "\n")
                .collect();
            crisol_hub::write_file_atomically(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
        Ok(MetricsWriter { path: path.to_path_buf(), file, events })
    }

    /// Writes the metrics of `step`. Numbers that are not finite become `null`.
    pub fn log(&mut self, step: u64, metrics: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut object = Map::new();
        object.insert("step".into(), step.into());
        for &(name, value) in metrics {
            object
                .insert(name.into(), serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number));
        }
        let line = format!("{}\n", Value::Object(object));
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })?;
        if let Some(events) = &mut self.events {
            events.scalars(step, metrics)?;
        }
        Ok(())
    }
}

/// The metrics that a file holds, as `(step, name, value)` in order. A torn last line (the process was killed
/// while writing) is ignored.
pub fn read_metrics(path: &Path) -> Result<Vec<(u64, String, f64)>, TrainError> {
    let mut all = Vec::new();
    for (step, line) in read_lines(path)? {
        let Ok(Value::Object(object)) = serde_json::from_str(&line) else { continue };
        all.extend(
            object
                .into_iter()
                .filter(|(name, _)| name != "step")
                .map(|(name, value)| (step, name, value.as_f64().unwrap_or(f64::NAN))),
        );
    }
    Ok(all)
}

fn read_lines(path: &Path) -> Result<Vec<(u64, String)>, TrainError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| TrainError::Io { path: path.to_path_buf(), source })?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let value: Value = serde_json::from_str(line).ok()?;
            Some((value.get("step")?.as_u64()?, line.to_owned()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_drops_later_and_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open(&path, 0, None).unwrap();
        for step in 1..=5 {
            writer.log(step, &[("loss", step as f64), ("bad", f64::NAN)]).unwrap();
        }
        drop(writer);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":6,\"lo").unwrap();

        let mut writer = MetricsWriter::open(&path, 3, None).unwrap();
        writer.log(4, &[("loss", 40.0)]).unwrap();
        let losses: Vec<(u64, f64)> = read_metrics(&path)
            .unwrap()
            .into_iter()
            .filter(|(_, name, _)| name == "loss")
            .map(|(step, _, value)| (step, value))
            .collect();
        assert_eq!(losses, [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]);
    }
}
