//! How much data files hold, without reading all of them: what a forecast asks.

use std::fs;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{self, Format, Opened};
use super::sources::{Input, inputs};
use super::{ReadOptions, Rows};

/// Bytes at the beginning of a file that are looked at.
const SAMPLE: u64 = 4 << 20;

/// How much data files hold, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Bytes without compression.
    pub bytes: usize,
    /// Records.
    pub records: usize,
    /// Bytes of the longest record that was looked at.
    pub longest: usize,
}

/// How much a source holds, judged by the first 4 MiB of each file (without compression) and by the whole file's
/// length; the header says it of a Parquet file. What cannot be read holds nothing, which is an error once it is needed,
/// and so does standard input, which can be read only once.
pub fn extent(source: &str, options: &ReadOptions) -> Extent {
    let inputs = inputs(source, options).unwrap_or_default();
    let whole = inputs.iter().filter_map(|input| of_file(input, options)).fold(
        Extent::default(),
        |sum, file| Extent {
            bytes: sum.bytes + file.bytes,
            records: sum.records + file.records,
            longest: sum.longest.max(file.longest),
        },
    );
    let Some(rows) = options.datasets.get(source).map(|set| set.rows) else { return whole };
    let end = rows.end.unwrap_or(whole.records).min(whole.records);
    let records = end.saturating_sub(rows.start);
    let share = records as f64 / whole.records.max(1) as f64;
    Extent { bytes: (whole.bytes as f64 * share) as usize, records, ..whole }
}

/// How many rows a file's header says that it has.
pub(super) fn of_header(input: &Input) -> Option<usize> {
    let Input::File(path) = input else { return None };
    header_rows(path)
}

#[cfg(feature = "parquet")]
fn header_rows(path: &std::path::Path) -> Option<usize> {
    let named = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"));
    Some(super::parquet::totals(fs::File::open(path).ok().filter(|_| named)?)?.0)
}

#[cfg(not(feature = "parquet"))]
fn header_rows(_: &std::path::Path) -> Option<usize> {
    None
}

fn of_file(input: &Input, options: &ReadOptions) -> Option<Extent> {
    let Input::File(path) = input else { return None };
    // A pipe can be read only once too.
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let Opened { format, bytes, compressed, .. } =
        format::look(input, |reader| Box::new(Counted { reader, count })).ok()?;
    if format == Format::Parquet && !compressed {
        return of_parquet(input, options, path);
    }
    let mut sample = vec![];
    bytes.take(SAMPLE).read_to_end(&mut sample).ok()?;
    let whole = (sample.len() as u64) < SAMPLE;
    let total = match (whole, compressed) {
        (true, _) => sample.len() as f64,
        (false, false) => length as f64,
        (false, true) => {
            length as f64 * sample.len() as f64 / read.load(Ordering::Relaxed).max(1) as f64
        }
    };
    let share = total / sample.len().max(1) as f64;
    let text = format == Format::Text && options.text_separator.is_empty();
    let sampled = sample.len();
    let (records, longest) = lengths(format::rows(format, "", Cursor::new(sample), options));
    Some(if text {
        Extent { bytes: total as usize, records: 1, longest: total as usize }
    } else {
        let records = (records as f64 * share).round() as usize;
        Extent { bytes: total as usize, records: records.max(usize::from(sampled > 0)), longest }
    })
}

/// How many rows can be read, and the bytes of the longest, as JSON.
fn lengths(rows: Rows) -> (usize, usize) {
    rows.flatten().fold((0, 0), |(count, longest), row| {
        let bytes = serde_json::to_vec(&row.object).map_or(0, |json| json.len());
        (count + 1, longest.max(bytes))
    })
}

#[cfg(feature = "parquet")]
fn of_parquet(input: &Input, options: &ReadOptions, path: &std::path::Path) -> Option<Extent> {
    const ROWS: usize = 1000;
    let (records, bytes) = super::parquet::totals(fs::File::open(path).ok()?)?;
    let rows = format::open(input, options).ok()?;
    let (_, longest) = lengths(Box::new(rows.take(ROWS)));
    Some(Extent { bytes, records, longest })
}

#[cfg(not(feature = "parquet"))]
fn of_parquet(_: &Input, _: &ReadOptions, _: &std::path::Path) -> Option<Extent> {
    None
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        self.count.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
