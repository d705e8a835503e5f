//! Metrics of a training phase: one JSON object per step in `metrics.jsonl`, and TensorBoard events
//! on request.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TrainError;
use crate::checksums::Checksum;
use crate::tensorboard::EventWriter;

/// Appends metrics; every line is complete when the call returns.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    /// Checksum of the file so far.
    hasher: blake3::Hasher,
    events: Option<EventWriter>,
}

impl MetricsWriter {
    /// Opens `path` for appending after the part with checksum `saved` ([`Self::checksum`]), or
    /// empty if `None`. Later lines are dropped: the resumed run writes them again.
    pub fn open(
        path: &Path,
        saved: Option<&Checksum>,
        events: Option<EventWriter>,
    ) -> Result<MetricsWriter, TrainError> {
        let fail = |source| TrainError::Io { path: path.to_path_buf(), source };
        let mut hasher = blake3::Hasher::new();
        let mut options = OpenOptions::new();
        let file = match saved {
            None => options.create(true).write(true).truncate(true).open(path).map_err(fail)?,
            Some(saved) => {
                let damaged =
                    |cause: String| TrainError::DamagedState { file: path.to_path_buf(), cause };
                let mut file = options
                    .read(true)
                    .write(true)
                    .open(path)
                    .map_err(|e| damaged(e.to_string()))?;
                hasher.update_reader((&mut file).take(saved.bytes)).map_err(fail)?;
                if Checksum::of(&hasher) != *saved {
                    return Err(damaged(format!(
                        "its first {} bytes are not those that were saved",
                        saved.bytes
                    )));
                }
                file.set_len(saved.bytes).map_err(fail)?;
                file.seek(SeekFrom::End(0)).map_err(fail)?;
                file
            }
        };
        Ok(MetricsWriter { path: path.to_path_buf(), file, hasher, events })
    }

    /// Syncs the file to disk and returns its checksum, to be saved with a state.
    pub fn checksum(&self) -> Result<Checksum, TrainError> {
        self.file
            .sync_data()
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })?;
        Ok(Checksum::of(&self.hasher))
    }

    /// Writes the metrics of `step`. Values that are not finite become `null`.
    pub fn log(&mut self, step: u64, metrics: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut object = Map::new();
        object.insert("step".into(), step.into());
        for &(name, value) in metrics {
            object.insert(
                name.into(),
                serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number),
            );
        }
        let line = format!("{}\n", Value::Object(object));
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })?;
        self.hasher.update(line.as_bytes());
        if let Some(events) = &mut self.events {
            events.scalars(step, metrics)?;
        }
        Ok(())
    }
}

/// The metrics of a file as `(step, name, value)`, in order. Ignores a torn last line of a killed
/// process.
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
        let mut writer = MetricsWriter::open(&path, None, None).unwrap();
        let mut saved = None;
        for step in 1..=5 {
            writer.log(step, &[("loss", step as f64), ("bad", f64::NAN)]).unwrap();
            if step == 3 {
                saved = Some(writer.checksum().unwrap());
            }
        }
        drop(writer);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"step\":6,\"lo")
            .unwrap();

        let mut writer = MetricsWriter::open(&path, saved.as_ref(), None).unwrap();
        assert_eq!(Some(writer.checksum().unwrap()), saved);
        writer.log(4, &[("loss", 40.0)]).unwrap();
        let losses: Vec<(u64, f64)> = read_metrics(&path)
            .unwrap()
            .into_iter()
            .filter(|(_, name, _)| name == "loss")
            .map(|(step, _, value)| (step, value))
            .collect();
        assert_eq!(losses, [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]);
    }

    #[test]
    fn changed_shortened_or_missing_metrics_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open(&path, None, None).unwrap();
        writer.log(1, &[("loss", 1.0)]).unwrap();
        let saved = writer.checksum().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let is_found = || {
            let error = MetricsWriter::open(&path, Some(&saved), None).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl"), "{error}");
        };
        let mut changed = whole.clone();
        changed[3] ^= 1;
        for bytes in [&changed[..], &whole[..whole.len() - 1], b""] {
            std::fs::write(&path, bytes).unwrap();
            is_found();
        }
        std::fs::remove_file(&path).unwrap();
        is_found();
    }
}
