//! `TensorBoard` event files, written directly: a `TFRecord` stream of `tensorflow.Event` messages.
//! Scalars need four fields (tensorflow/core/util/event.proto,
//! tensorflow/core/framework/summary.proto).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::TrainError;

/// Appends scalars to one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// A new event file in `dir`, which is created if absent. `TensorBoard` merges the files of a
    /// folder, so a resumed phase starts another one.
    pub fn create(dir: &Path) -> Result<EventWriter, TrainError> {
        let fail = |path: &Path, source| TrainError::Io { path: path.to_path_buf(), source };
        std::fs::create_dir_all(dir).map_err(|e| fail(dir, e))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let path = dir.join(format!("events.out.tfevents.{now:020}.crisol"));
        let file = File::create(&path).map_err(|e| fail(&path, e))?;
        let mut writer = EventWriter { path, file };
        let mut version = Vec::new();
        field_bytes(&mut version, 3, b"brain.Event:2");
        writer.event(0, &version)?;
        Ok(writer)
    }

    /// Writes one event with the given scalars.
    pub fn scalars(&mut self, step: u64, metrics: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut summary = Vec::new();
        for &(tag, value) in metrics {
            let mut entry = Vec::new();
            field_bytes(&mut entry, 1, tag.as_bytes());
            varint(&mut entry, 2 << 3 | 5);
            entry.extend((value as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &entry);
        }
        let mut body = Vec::new();
        field_bytes(&mut body, 5, &summary);
        self.event(step, &body)
    }

    fn event(&mut self, step: u64, body: &[u8]) -> Result<(), TrainError> {
        let wall_time =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let mut event = Vec::new();
        varint(&mut event, 1 << 3 | 1);
        event.extend(wall_time.to_le_bytes());
        varint(&mut event, 2 << 3);
        varint(&mut event, step);
        event.extend(body);

        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length));
        record.extend(&event);
        record.extend(masked_crc(&event));
        self.file
            .write_all(&record)
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })
    }
}

/// `TFRecord`'s checksum: CRC-32C, rotated and offset (tensorflow/core/lib/hash/crc32c.h).
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn field_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_and_hold_their_scalars() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path()).unwrap();
        writer.scalars(300, &[("loss", 1.5)]).unwrap();
        let bytes = std::fs::read(&writer.path).unwrap();

        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]));
            let event = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(event));
            events.push(event.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(events.len(), 2);
        assert!(events[0].ends_with(b"brain.Event:2"));
        // step 300 as a varint after its tag, the tag's name, and 1.5f32
        assert_eq!(events[1][9..12], [0x10, 0xac, 0x02]);
        assert!(events[1].windows(4).any(|w| w == b"loss"));
        assert!(events[1].ends_with(&1.5f32.to_le_bytes()));
    }
}
