//! Data files in every format, as written by other programs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crisol_text::{
    Body, DatasetFiles, ReadOptions, Record, RowRange, TextError, records, source_size,
};
use proptest::prelude::*;

fn read_with(path: &Path, options: &ReadOptions) -> Vec<Result<Record, TextError>> {
    records(path.to_str().unwrap(), options).unwrap().collect()
}

fn read(path: &Path) -> Vec<Result<Record, TextError>> {
    read_with(path, &ReadOptions::default())
}

/// The records of a file without errors; their locations are cleared.
fn all_records(path: &Path) -> Vec<Record> {
    let record = |record: Result<Record, TextError>| {
        let record = record.unwrap_or_else(|error| panic!("{error}"));
        Record { location: String::new(), ..record }
    };
    read(path).into_iter().map(record).collect()
}

fn texts(path: &Path, options: &ReadOptions) -> Vec<String> {
    let text = |record: Result<Record, TextError>| match record.unwrap().body {
        Body::Text { text } => text,
        other => panic!("{other:?}"),
    };
    read_with(path, options).into_iter().map(text).collect()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data").join(name)
}

/// A folder with one file, and the file.
fn file(name: &str, contents: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    (folder, path)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The only error of a file.
fn error(name: &str, contents: impl AsRef<[u8]>) -> String {
    let (_folder, path) = file(name, contents);
    let all: Vec<_> = match records(path.to_str().unwrap(), &ReadOptions::default()) {
        Ok(records) => records.collect(),
        Err(error) => vec![Err(error)],
    };
    let errors: Vec<_> = all.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{name}: {errors:?}");
    let message = errors[0].to_string();
    assert!(message.contains(name), "{message}");
    message
}

/// The files are written by other programs (`tests/golden/data_files.py`).
#[test]
fn a_data_set_has_equal_records_in_every_format() {
    for (name, suffixes) in [
        (
            "chat",
            &["jsonl.gz", "jsonl.zst", "json", "indented.json", "loose.json", "concatenated.jsonl"]
                [..],
        ),
        (
            "pairs",
            &["jsonl.gz", "jsonl.zst", "json", "indented.json", "csv", "tsv", "semicolons.csv"],
        ),
    ] {
        let expected = all_records(&golden(&format!("{name}.jsonl")));
        assert_eq!(expected.len(), 3);
        for suffix in suffixes {
            assert_eq!(
                all_records(&golden(&format!("{name}.{suffix}"))),
                expected,
                "{name}.{suffix}"
            );
        }
    }
    let chats = all_records(&golden("chat.jsonl"));
    let Body::Chat { messages } = &chats[0].body else { panic!("{:?}", chats[0]) };
    assert_eq!(messages.iter().map(|m| m.masked).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(chats[1].tools.len(), 1);
    // `extra` differs, because all cells are strings.
    let without_extra = |records: Vec<Record>| -> Vec<_> {
        records.into_iter().map(|r| (r.body, r.tools, r.unused)).collect()
    };
    assert_eq!(without_extra(all_records(&golden("chat.csv"))), without_extra(chats));
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_gives_the_records_of_jsonl() {
    for name in ["chat", "pairs", "texts"] {
        let expected = all_records(&golden(&format!("{name}.jsonl")));
        assert_eq!(all_records(&golden(&format!("{name}.parquet"))), expected, "{name}");
        let bytes = fs::read(golden(&format!("{name}.parquet"))).unwrap();
        // Under any file name, and compressed.
        for (file_name, bytes) in
            [("x.jsonl", bytes.clone()), ("x.parquet.gz", gzip(&bytes)), ("x", bytes.clone())]
        {
            let (_folder, path) = file(file_name, bytes);
            assert_eq!(all_records(&path), expected, "{name} as {file_name}");
        }
        assert_eq!(
            source_size(golden(&format!("{name}.parquet")).to_str().unwrap(), &<_>::default())
                .records,
            expected.len()
        );
    }
    let locations: Vec<_> =
        read(&golden("chat.parquet")).into_iter().map(|r| r.unwrap().location).collect();
    assert!(locations[2].ends_with("chat.parquet: record 3"), "{locations:?}");
    let bytes = fs::read(golden("texts.parquet")).unwrap();
    for (name, bytes) in [
        ("short.parquet", bytes[..bytes.len() / 2].to_vec()),
        ("empty.parquet", b"PAR1\x24\0\0\0\0\0\0\0PAR1".to_vec()),
        ("other.parquet", b"PAR1 is how it begins".to_vec()),
    ] {
        assert!(error(name, bytes).contains("cannot be read as Parquet"), "{name}");
    }
}

/// A damaged file gives records or an error, never a panic.
#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_files_are_errors() {
    let bytes = fs::read(golden("chat.parquet")).unwrap();
    let (mut files, mut errors) = (0, 0);
    for at in (4..bytes.len() - 4).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let (_folder, path) = file("x.parquet", &damaged);
        files += 1;
        errors += usize::from(match records(path.to_str().unwrap(), &<_>::default()) {
            Ok(mut records) => records.any(|record| record.is_err()),
            Err(_) => true,
        });
    }
    assert!(files > 100 && errors > files / 4, "{errors} of {files} damaged files are errors");
}

#[test]
fn json_lists_lines_and_loose_objects_are_read() {
    let (a, b) = (r#"{"text": "a"}"#, r#"{"text": "b [{\"}]"}"#);
    let indented = "{\n  \"text\":\n  \"a\"\n}\n\n{\n  \"text\": \"b [{\\\"}]\"\n}\n";
    for (name, contents, locations) in [
        ("list.json", format!("[{a},{b}]"), ["list.json: record 1", "list.json: record 2"]),
        (
            "list.jsonl",
            format!(" [\n{a}\n,\n{b}\n]\n"),
            ["list.jsonl: record 1", "list.jsonl: record 2"],
        ),
        (
            "indented.json",
            indented.to_owned(),
            ["indented.json: record 1", "indented.json: record 2"],
        ),
        (
            "concatenated.jsonl",
            format!("{a}{b}"),
            ["concatenated.jsonl:1", "concatenated.jsonl:1 (object 2)"],
        ),
        ("returns.jsonl", format!("{a}\r{b}\r"), ["returns.jsonl:1", "returns.jsonl:2"]),
        (
            "windows.jsonl",
            format!("\u{FEFF}{a}\r\n\r\n{b}\r\n"),
            ["windows.jsonl:1", "windows.jsonl:3"],
        ),
        ("noname", format!("\n{a}\n{b}"), ["noname:2", "noname:3"]),
        // JSON objects in a `.txt` file are records.
        ("lines.txt", format!("{a}\n{b}"), ["lines.txt:1", "lines.txt:2"]),
    ] {
        let (folder, path) = file(name, &contents);
        let found: Vec<Record> = read(&path).into_iter().map(Result::unwrap).collect();
        let prefix = format!("{}/", folder.path().display());
        let found_locations: Vec<_> =
            found.iter().map(|r| r.location.strip_prefix(&prefix).unwrap()).collect();
        assert_eq!(found_locations, locations, "{contents}");
        assert_eq!(texts(&path, &ReadOptions::default()), ["a", "b [{\"}]"], "{contents}");
    }
}

/// Even if their first line is longer than the head from which formats are detected.
#[test]
fn json_lines_in_a_text_file_are_records() {
    let long = "word ".repeat(5000);
    let (_folder, path) = file("long.txt", format!("{{\"text\": \"{long}\"}}\n"));
    assert_eq!(texts(&path, &ReadOptions::default()), [long.as_str()]);
    let (_folder, path) = file("braces.txt", format!("{{{long}}}"));
    assert_eq!(texts(&path, &ReadOptions::default()), [format!("{{{long}}}")]);
}

/// A malformed line does not affect the next ones.
#[test]
fn errors_of_json_files_name_the_line() {
    let good = r#"{"text": "a"}"#;
    let (_folder, path) =
        file("first.jsonl", format!("{{\"messages\": [\n{good}\n{{oops\n{good}\n"));
    let lines = read(&path);
    assert_eq!(lines.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true]);
    assert!(lines[0].as_ref().unwrap_err().to_string().contains("first.jsonl:1: not JSON"));
    let message = error("cut.json", format!("[{good},\n {good}"));
    assert!(message.contains("the file ends inside its list"), "{message}");
    let message = error("inside.json", format!("[{good},\n {{\n\"text\": \n"));
    assert!(
        message.contains("record 2") && message.contains("ends inside the object at line 3"),
        "{message}"
    );
    let message = error("string.json", "{\n\"text\": \"a\n}\n");
    assert!(message.contains("a string has no end on its line at line 2"), "{message}");
    let message = error("bad.json", format!("[{good},\n{good},\n {{\"text\" 3}}, {good}]"));
    assert!(
        message.contains("bad.json: record 3") && message.contains("at line 3, column 10"),
        "{message}"
    );
    let message = error("after.json", format!("[{good}]\n{good}"));
    assert!(message.contains("line 2 continues after the end of the list"), "{message}");
    assert!(error("number.json", format!("[{good}, 3]")).contains("not an object"));
    assert!(error("none.json", "[]").contains("no records"));
}

/// Lone surrogates and non-finite numbers.
#[test]
fn invalid_json_that_other_programs_write_is_named() {
    let message = error("half.jsonl", "{\"text\":\"fine\"}\n{\"text\":\"broken \\ud83d here\"}\n");
    assert!(
        message.contains("half.jsonl:2: \\ud83d at column 17 is a lone surrogate"),
        "{message}"
    );
    for text in ["\\udc00", "\\ud800\\u0041", "\\ud83d", "\\\\ \\ud83d\\n", "\\ud83d\\ud83d"] {
        assert!(
            error("half.json", format!("[{{\"text\": \"{text}\"}}]")).contains("a lone surrogate"),
            "{text}"
        );
    }
    for (number, name) in [("NaN", "NaN"), ("-Infinity", "-Infinity"), ("Infinity", "Infinity")] {
        let message = error("nan.jsonl", format!("{{\"prompt\":\"1?\",\"answer\": {number}}}\n"));
        assert!(
            message.contains(&format!("{name} at column")) && message.contains("write null"),
            "{message}"
        );
    }
    // Valid JSON.
    let (_folder, path) =
        file("odd.jsonl", "{\"text\":\"a\\u0000b\"}\n{\"text\":\"a\u{2028}b \\ud83d\\ude00\"}\n");
    assert_eq!(texts(&path, &ReadOptions::default()), ["a\0b", "a\u{2028}b 😀"]);
}

/// Whatever their file name.
#[test]
fn unsupported_formats_are_named() {
    let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "{\"text\": 1}".encode_utf16().flat_map(bytes).collect()
    };
    let marked: Vec<u8> = [vec![0xFF, 0xFE], utf16(u16::to_le_bytes)].concat();
    for bytes in [marked, utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
        let message = error("utf16.jsonl", bytes);
        assert!(message.contains("UTF-16") && message.contains("iconv"), "{message}");
    }
    for (bytes, what) in [
        (&b"PK\x03\x04rest"[..], "a zip archive"),
        (b"BZh91AY", "bzip2"),
        (b"\xFD7zXZ\0rest", "xz"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"%PDF-1.7", "a PDF"),
    ] {
        assert!(error("data.jsonl", bytes).contains(what), "{what}");
    }
    let latin = error("latin.txt", b"ol\xE9\nse\xF1or");
    assert!(latin.contains("latin.txt:1: not UTF-8"), "{latin}");
    let cut = gzip(&b"{\"text\": \"abc\"}\n".repeat(20_000));
    let (_folder, path) = file("cut.jsonl.gz", &cut[..cut.len() - 9]);
    let last = read(&path).pop().unwrap().unwrap_err().to_string();
    assert!(last.contains("cut.jsonl.gz") && last.contains("damaged or cut off"), "{last}");
    // A decompression error is returned once and ends the file.
    let options = ReadOptions { text_separator: "\n\n".into(), ..<_>::default() };
    for (name, content) in [
        ("cut.txt", &b"one\n\ntwo\n\n"[..]),
        ("cut.jsonl", b"{\"text\": \"abc\"}\n"),
        ("cut.json", b"{\n\"text\": \"abc\"\n}\n"),
        ("cut.csv", b"text\nabc\n"),
    ] {
        for end in [".gz", ".zst"] {
            let bytes = content.repeat(1000);
            let whole =
                if end == ".gz" { gzip(&bytes) } else { zstd::encode_all(&bytes[..], 1).unwrap() };
            let (_folder, path) = file(&format!("{name}{end}"), &whole[..whole.len() - 9]);
            let read = records(path.to_str().unwrap(), &options).unwrap();
            assert_eq!(read.filter(Result::is_err).take(2).count(), 1, "{name}{end}");
        }
    }
}

#[test]
fn compression_is_detected_from_the_bytes() {
    let line = b"{\"text\": \"abc\"}\n".repeat(1000);
    let zstd = zstd::encode_all(&line[..], 1).unwrap();
    // Parallel compressors write several members.
    for (name, bytes) in [
        ("a.jsonl", gzip(&line)),
        ("b.jsonl", zstd.clone()),
        ("c.gz", [gzip(&line[..160]), gzip(&line[160..])].concat()),
        (
            "d.jsonl.zst",
            [
                zstd::encode_all(&line[..160], 1).unwrap(),
                zstd::encode_all(&line[160..], 1).unwrap(),
            ]
            .concat(),
        ),
    ] {
        let (_folder, path) = file(name, bytes);
        assert_eq!(texts(&path, &ReadOptions::default()), vec!["abc"; 1000], "{name}");
    }
}

#[test]
fn a_text_file_is_one_document_or_split_at_a_separator() {
    let book = "\u{FEFF}Chapter 1\r\n\r\nIt was.\r\n\r\n\r\nChapter 2\r\rIt is.\n";
    let (_folder, path) = file("book.txt", book);
    assert_eq!(texts(&path, &<_>::default()), ["Chapter 1\n\nIt was.\n\n\nChapter 2\n\nIt is.\n"]);
    let options = ReadOptions { text_separator: "\n\n\n".into(), ..<_>::default() };
    assert_eq!(texts(&path, &options), ["Chapter 1\n\nIt was.", "Chapter 2\n\nIt is.\n"]);
    // A very long document is split at line ends, without loss.
    let line = "All work and no play.\n";
    let long = line.repeat((40 << 20) / line.len());
    let (_folder, path) = file("long.txt", &long);
    let pieces = texts(&path, &<_>::default());
    assert!(
        pieces.len() == 3 && pieces.iter().all(|piece| piece.ends_with(line)),
        "{}",
        pieces.len()
    );
    assert!(pieces.concat() == long);
    // Empty documents are skipped.
    let (_folder, path) = file("book.txt.gz", gzip(b"<|sep|><|sep|>a<|sep|> \n<|sep|>b"));
    let options = ReadOptions { text_separator: "<|sep|>".into(), ..<_>::default() };
    assert_eq!(texts(&path, &options), ["a", "b"]);
    assert!(error("blank.txt", " \n").contains("no records"));
}

#[test]
fn errors_of_tables_name_the_row() {
    let message = error("rows.csv", "prompt,completion\na,b\nc,d,e\n");
    assert!(message.contains("rows.csv: record 2: has 3 cells, and the header 2"), "{message}");
    assert!(error("twice.csv", "text,text\na,b\n").contains("names `text` twice"));
    assert!(
        error("python.csv", "messages\n\"[{'role': 'user'}]\"\n").contains("in Python's notation")
    );
    // An unclosed quote swallows all rows after it.
    let message = error("quote.csv", "text\na\n\"b\nc\nd\n");
    assert!(message.contains("quote.csv: record 2: a quote is not closed"), "{message}");
    // An empty cell is an absent value, so one table can have two shapes.
    let (_folder, path) = file("two.csv", "\u{FEFF}text,prompt,completion\na,,\n,b,c\n");
    let shapes: Vec<_> = all_records(&path).iter().map(|record| record.body.shape()).collect();
    assert_eq!(shapes, ["text", "prompt/completion"]);
}

#[test]
fn folders_patterns_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for (name, contents) in [
        ("sub/2.jsonl", "{\"text\": \"2\"}\n"),
        ("1.csv", "text\n1\n"),
        ("README.md", "none"),
        (".cache.jsonl", "none"),
        ("3[a].txt", "3"),
    ] {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    let options = ReadOptions::default();
    assert_eq!(texts(folder.path(), &options), ["1", "3", "2"]);
    assert_eq!(texts(&folder.path().join("*/*.jsonl"), &options), ["2"]);
    // An existing name is not a pattern.
    assert_eq!(texts(&folder.path().join("3[a].txt"), &options), ["3"]);
    let error = |name: &str| {
        records(folder.path().join(name).to_str().unwrap(), &options).err().unwrap().to_string()
    };
    assert!(error("*.parquet").contains("no file matches"));
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(error("empty").contains("a folder without data files"));

    let columns = |pairs: &[(&str, &str)]| ReadOptions {
        columns: pairs
            .iter()
            .map(|(name, column)| ((*name).to_owned(), (*column).to_owned()))
            .collect(),
        ..<_>::default()
    };
    let (_folder, path) = file("x.jsonl", "{\"q\": \"1+1?\", \"a\": 2, \"text\": \"t\"}\n");
    let read = |pairs: &[(&str, &str)]| read_with(&path, &columns(pairs)).pop().unwrap();
    let record = read(&[("prompt", "q"), ("answer", "a")]).unwrap();
    assert!(matches!(&record.body, Body::Problem { answer, .. } if answer == "2"), "{record:?}");
    let error = read(&[("prompt", "question")]).unwrap_err().to_string();
    assert!(
        error.contains("x.jsonl:1: has no column `question`") && error.contains("`q`, `a`, `text`"),
        "{error}"
    );
    let error =
        records(path.to_str().unwrap(), &columns(&[("promt", "q")])).err().unwrap().to_string();
    assert!(error.contains("--columns promt") && error.contains("prompt"), "{error}");
}

/// Whether a file's header gives its rows, so that it can be skipped unread, or not.
#[test]
fn ranges_of_rows_are_counted_over_all_files() {
    #[cfg(not(feature = "parquet"))]
    let names = ["chat.jsonl", "pairs.csv", "chat.json", "pairs.jsonl"];
    #[cfg(feature = "parquet")]
    let names = ["chat.parquet", "pairs.parquet", "chat.jsonl", "pairs.jsonl"];
    let files: Vec<_> = names.iter().map(|name| golden(name)).collect();
    let all: Vec<_> = files.iter().flat_map(|path| read(path)).map(Result::unwrap).collect();
    assert_eq!(all.len(), 12);
    for (start, end) in
        [(0, None), (2, None), (3, None), (4, Some(5)), (2, Some(7)), (8, Some(9)), (11, Some(12))]
    {
        let set = DatasetFiles { files: files.clone(), rows: RowRange { start, end } };
        let datasets = [("name/of-a-set".to_owned(), set)].into();
        let options = ReadOptions { datasets, ..<_>::default() };
        let read: Result<Vec<_>, _> = records("name/of-a-set", &options).unwrap().collect();
        assert_eq!(read.unwrap(), all[start..end.unwrap_or(all.len())], "{start}..{end:?}");
    }
}

/// Within 10 %.
#[test]
fn estimated_sizes_are_close() {
    let line = |i: usize| format!("{{\"text\": \"{}\"}}\n", "word ".repeat(20 + i % 60));
    let lines: String = (0..30_000).map(line).collect();
    for (name, bytes) in
        [("a.jsonl", lines.clone().into_bytes()), ("b.jsonl.gz", gzip(lines.as_bytes()))]
    {
        let (_folder, path) = file(name, bytes);
        let size = source_size(path.to_str().unwrap(), &<_>::default());
        let close = |a: usize, b: usize| (a as f64 / b as f64 - 1.0).abs() < 0.1;
        assert!(close(size.records, 30_000) && close(size.bytes, lines.len()), "{name}: {size:?}");
        assert_eq!(size.longest_record, line(59).len() - 2, "{name}");
    }
    assert_eq!(source_size("nowhere.jsonl", &<_>::default()), source_size("-", &<_>::default()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_reader_panic(
        name in "x\\.(jsonl|json|txt|csv|tsv|parquet|jsonl\\.gz|csv\\.zst|bin)",
        head in proptest::sample::select(vec![
            &b""[..], b"[", b"{\"text\": ", b"text,b\n", b"PAR1", b"\x1F\x8B\x08",
            b"\x28\xB5\x2F\xFD",
        ]),
        tail in proptest::collection::vec(any::<u8>(), 0..120),
        separator in "[a\n]{0,2}",
    ) {
        let (_folder, path) = file(&name, [head, &tail].concat());
        let options = ReadOptions { text_separator: separator, ..<_>::default() };
        let count = records(path.to_str().unwrap(), &options).map_or(0, Iterator::count);
        prop_assert!(count <= tail.len() + 2);
        let _ = source_size(path.to_str().unwrap(), &options);
    }

    /// JSONL, a list, indented objects and CSV.
    #[test]
    fn formats_agree(
        rows in proptest::collection::vec(
            ("[a-zé😀\"'{}\\[\\],;:\\\\\n\t -]{1,20}", "\\PC{1,12}"),
            1..6,
        ),
    ) {
        let rows: Vec<_> = rows
            .iter()
            .map(|(prompt, completion)| {
                serde_json::json!({ "prompt": prompt, "completion": completion })
            })
            .collect();
        let lines = rows.iter().map(|row| format!("{row}\n")).collect::<Vec<_>>().concat();
        let (_folder, path) = file("x.jsonl", &lines);
        let expected = all_records(&path);
        let indented = rows.iter().map(|row| format!("{row:#}\n")).collect::<Vec<_>>().concat();
        for (name, contents) in [
            ("x.json", serde_json::to_string(&rows).unwrap()),
            ("x.json", serde_json::to_string_pretty(&rows).unwrap()),
            ("x.jsonl", indented),
            ("x.jsonl", lines.replace('\n', "\r")),
            ("x.jsonl", lines.replace('\n', "")),
        ] {
            let (_folder, path) = file(name, &contents);
            prop_assert_eq!(&all_records(&path), &expected, "{}", contents);
        }
        for delimiter in [b',', b'\t', b';'] {
            let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(vec![]);
            table.write_record(["prompt", "completion"]).unwrap();
            for row in &rows {
                let cells = ["prompt", "completion"].map(|column| row[column].as_str().unwrap());
                table.write_record(cells).unwrap();
            }
            let (_folder, path) = file("x.csv", table.into_inner().unwrap());
            prop_assert_eq!(&all_records(&path), &expected);
        }
    }
}
