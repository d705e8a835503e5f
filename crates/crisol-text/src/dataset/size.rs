//! Estimates the size of data files from a sample, for forecasts.

use std::fs;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{self, Format, Opened};
use super::sources::{Input, inputs};
use super::{ReadOptions, Rows};

/// Bytes of the sample at the start of a file.
const SAMPLE_BYTES: u64 = 4 << 20;

/// The estimated size of data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceSize {
    /// Bytes after decompression.
    pub bytes: usize,
    /// Records.
    pub records: usize,
    /// Bytes of the longest record of the sample.
    pub longest_record: usize,
}

/// Estimates the size of a source from the first 4 MiB (decompressed) and the length of each file.
///
/// A Parquet file's header gives the exact size. Unreadable files count as empty; reading them
/// later is an error. So does standard input, which can be read only once.
pub fn source_size(source: &str, options: &ReadOptions) -> SourceSize {
    let inputs = inputs(source, options).unwrap_or_default();
    let whole = inputs.iter().filter_map(|input| file_size(input, options)).fold(
        SourceSize::default(),
        |sum, file| SourceSize {
            bytes: sum.bytes + file.bytes,
            records: sum.records + file.records,
            longest_record: sum.longest_record.max(file.longest_record),
        },
    );
    let Some(rows) = options.datasets.get(source).map(|set| set.rows) else { return whole };
    let end = rows.end.unwrap_or(whole.records).min(whole.records);
    let records = end.saturating_sub(rows.start);
    let share = records as f64 / whole.records.max(1) as f64;
    SourceSize { bytes: (whole.bytes as f64 * share) as usize, records, ..whole }
}

/// The number of rows according to a Parquet file's header.
pub(super) fn rows_in_header(input: &Input) -> Option<usize> {
    let Input::File(path) = input else { return None };
    header_rows(path)
}

#[cfg(feature = "parquet")]
fn header_rows(path: &std::path::Path) -> Option<usize> {
    let is_parquet =
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    Some(super::parquet::header_totals(fs::File::open(path).ok().filter(|_| is_parquet)?)?.0)
}

#[cfg(not(feature = "parquet"))]
fn header_rows(_: &std::path::Path) -> Option<usize> {
    None
}

fn file_size(input: &Input, options: &ReadOptions) -> Option<SourceSize> {
    let Input::File(path) = input else { return None };
    // A pipe can be read only once, so only regular files are sampled.
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let Opened { format, bytes, compressed, .. } =
        format::detect(input, |reader| Box::new(CountingReader { reader, count })).ok()?;
    if format == Format::Parquet && !compressed {
        return parquet_size(input, options, path);
    }
    let mut sample = vec![];
    bytes.take(SAMPLE_BYTES).read_to_end(&mut sample).ok()?;
    let complete = (sample.len() as u64) < SAMPLE_BYTES;
    let total = match (complete, compressed) {
        (true, _) => sample.len() as f64,
        (false, false) => length as f64,
        (false, true) => {
            length as f64 * sample.len() as f64 / read.load(Ordering::Relaxed).max(1) as f64
        }
    };
    let share = total / sample.len().max(1) as f64;
    let text = format == Format::Text && options.text_separator.is_empty();
    let sampled = sample.len();
    let (records, longest_record) =
        count_and_longest(format::rows(format, "", Cursor::new(sample), options));
    Some(if text {
        SourceSize { bytes: total as usize, records: 1, longest_record: total as usize }
    } else {
        let records = (records as f64 * share).round() as usize;
        SourceSize {
            bytes: total as usize,
            records: records.max(usize::from(sampled > 0)),
            longest_record,
        }
    })
}

/// The number of readable rows, and the bytes of the longest as JSON.
fn count_and_longest(rows: Rows) -> (usize, usize) {
    rows.flatten().fold((0, 0), |(count, longest), row| {
        let bytes = serde_json::to_vec(&row.object).map_or(0, |json| json.len());
        (count + 1, longest.max(bytes))
    })
}

#[cfg(feature = "parquet")]
fn parquet_size(
    input: &Input,
    options: &ReadOptions,
    path: &std::path::Path,
) -> Option<SourceSize> {
    const SAMPLE_ROWS: usize = 1000;
    let (records, bytes) = super::parquet::header_totals(fs::File::open(path).ok()?)?;
    let rows = format::open(input, options).ok()?;
    let (_, longest_record) = count_and_longest(Box::new(rows.take(SAMPLE_ROWS)));
    Some(SourceSize { bytes, records, longest_record })
}

#[cfg(not(feature = "parquet"))]
fn parquet_size(_: &Input, _: &ReadOptions, _: &std::path::Path) -> Option<SourceSize> {
    None
}

/// A reader that counts the bytes read.
struct CountingReader<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        self.count.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
