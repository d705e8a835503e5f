//! Parquet files: rows from columns, page by page.
//!
//! The library reads what a well-formed file holds; what a damaged one makes it panic on is turned into an error.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use parquet::record::{Field, Row as Columns};
use serde_json::{Map, Number, Value};

use super::Row;
use crate::TextError;
use crate::guard::guarded;

/// Values of a column that are decoded at a time.
const BATCH: usize = 64;

/// How many rows a file has, and bytes without compression.
pub(super) fn totals(file: File) -> Option<(usize, usize)> {
    let metadata =
        guarded(|| SerializedFileReader::new(file).map(|reader| reader.metadata().clone())).ok()?;
    let rows = usize::try_from(metadata.file_metadata().num_rows()).ok()?;
    let bytes = metadata.row_groups().iter().map(|group| group.total_byte_size().max(0) as usize);
    Some((rows, bytes.fold(0, usize::saturating_add)))
}

pub(super) fn rows(
    name: String,
    file: File,
) -> Result<impl Iterator<Item = Result<Row, TextError>> + Send, TextError> {
    let reader =
        guarded(|| SerializedFileReader::new(file)).map_err(|cause| damaged(&name, &cause))?;
    let mut groups = 0..reader.num_row_groups();
    let mut group: Option<Rows> = None;
    let mut record = 0;
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        while !failed {
            let next = match &mut group {
                Some(Rows(rows)) => guarded(|| rows.next().transpose()),
                None => Ok(None),
            };
            match next {
                Ok(Some(columns)) => {
                    record += 1;
                    let place = format!("{name}: record {record}");
                    return Some(Ok(Row { place, object: object(columns) }));
                }
                Ok(None) => {
                    let i = groups.next()?;
                    let opened = guarded(|| {
                        let rows = reader.get_row_group(i)?;
                        let schema = reader.metadata().file_metadata().schema_descr_ptr();
                        TreeBuilder::new().with_batch_size(BATCH).as_iter(schema, &*rows)
                    });
                    match opened {
                        Ok(rows) => group = Some(Rows(rows)),
                        Err(cause) => {
                            failed = true;
                            return Some(Err(damaged(&name, &cause)));
                        }
                    }
                }
                Err(cause) => {
                    failed = true;
                    let place = format!("{name}: record {}", record + 1);
                    return Some(Err(damaged(&place, &cause)));
                }
            }
        }
        None
    }))
}

struct Rows(ReaderIter);

fn damaged(place: &str, cause: &str) -> TextError {
    TextError::Malformed {
        place: place.to_owned(),
        cause: format!("cannot be read as Parquet: {cause}"),
        remedy: "fetch or write the file again (compressed with snappy, gzip, zstd or not at all)"
            .to_owned(),
    }
}

fn object(columns: Columns) -> Map<String, Value> {
    columns.into_columns().into_iter().map(|(name, field)| (name, value(&field))).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => (*truth).into(),
        Field::Byte(number) => (*number).into(),
        Field::Short(number) => (*number).into(),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => (*number).into(),
        Field::Long(number)
        | Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => (*number).into(),
        Field::UByte(number) => (*number).into(),
        Field::UShort(number) => (*number).into(),
        Field::UInt(number) => (*number).into(),
        Field::ULong(number) => (*number).into(),
        Field::Float16(number) => float(f64::from(f32::from(*number))),
        // The shortest decimal that gives this f32, not its digits as an f64.
        Field::Float(number) => float(number.to_string().parse().unwrap_or(f64::NAN)),
        Field::Double(number) => float(*number),
        Field::Str(text) => text.as_str().into(),
        // Strings that the writer did not mark as such.
        Field::Bytes(bytes) => match str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => Value::Array(bytes.data().iter().map(|&byte| byte.into()).collect()),
        },
        Field::Decimal(_) => field.to_string().into(),
        Field::Group(row) => row
            .get_column_iter()
            .map(|(name, field)| (name.clone(), value(field)))
            .collect::<Map<_, _>>()
            .into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect::<Vec<_>>().into(),
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| {
                let key = match value(key) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, value(field))
            };
            map.entries().iter().map(entry).collect::<Map<_, _>>().into()
        }
    }
}

/// Numbers that are not finite are missing ones.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}
