//! Parquet files, read row by row, one page of each column at a time.
//!
//! The library panics on some damaged files; these panics become errors.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use parquet::record::{Field, Row as Columns};
use serde_json::{Map, Number, Value};

use super::Row;
use crate::TextError;
use crate::panics::catch_panic;

/// Values of a column that are decoded at once.
const BATCH_SIZE: usize = 64;

/// The number of rows, and the uncompressed bytes, according to the header.
pub(super) fn header_totals(file: File) -> Option<(usize, usize)> {
    let metadata =
        catch_panic(|| SerializedFileReader::new(file).map(|reader| reader.metadata().clone()))
            .ok()?;
    let rows = usize::try_from(metadata.file_metadata().num_rows()).ok()?;
    let bytes = metadata.row_groups().iter().map(|group| group.total_byte_size().max(0) as usize);
    Some((rows, bytes.fold(0, usize::saturating_add)))
}

pub(super) fn rows(
    name: String,
    file: File,
) -> Result<impl Iterator<Item = Result<Row, TextError>> + Send, TextError> {
    let reader =
        catch_panic(|| SerializedFileReader::new(file)).map_err(|cause| damaged(&name, &cause))?;
    let mut groups = 0..reader.num_row_groups();
    let mut group: Option<Rows> = None;
    let mut record = 0;
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        while !failed {
            let next = match &mut group {
                Some(Rows(rows)) => catch_panic(|| rows.next().transpose()),
                None => Ok(None),
            };
            match next {
                Ok(Some(columns)) => {
                    record += 1;
                    let location = format!("{name}: record {record}");
                    return Some(Ok(Row { location, object: object(columns) }));
                }
                Ok(None) => {
                    let i = groups.next()?;
                    let opened = catch_panic(|| {
                        let rows = reader.get_row_group(i)?;
                        let schema = reader.metadata().file_metadata().schema_descr_ptr();
                        TreeBuilder::new().with_batch_size(BATCH_SIZE).as_iter(schema, &*rows)
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
                    let location = format!("{name}: record {}", record + 1);
                    return Some(Err(damaged(&location, &cause)));
                }
            }
        }
        None
    }))
}

struct Rows(ReaderIter);

fn damaged(location: &str, cause: &str) -> TextError {
    TextError::Malformed {
        location: location.to_owned(),
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
        // The shortest decimal of this f32, not the digits of its f64.
        Field::Float(number) => float(number.to_string().parse().unwrap_or(f64::NAN)),
        Field::Double(number) => float(*number),
        Field::Str(text) => text.as_str().into(),
        // Some writers do not mark strings as UTF-8.
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

/// A JSON number; non-finite values become null.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}
