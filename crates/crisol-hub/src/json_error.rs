//! Errors of JSON texts in the words of JSON: "an object", not serde's "map".

use serde_json::error::Category;

/// What is wrong with a JSON text, and where: `line 3, column 7: found "two", expected a number`.
pub fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let cause = text.split(" at line ").next().unwrap_or_default();
    let cause = match error.classify() {
        Category::Io => return text,
        Category::Eof => "not valid JSON: the text ends too early".to_owned(),
        Category::Syntax => format!("not valid JSON: {cause}"),
        Category::Data => data_error(cause),
    };
    match (error.line(), error.column()) {
        // Of a value that is parsed already, or of the whole text.
        (0, _) | (1, 0) => cause,
        (line, 0) => format!("line {line}: {cause}"),
        (line, column) => format!("line {line}, column {column}: {cause}"),
    }
}

/// A cause of valid JSON with the wrong contents.
fn data_error(cause: &str) -> String {
    let mismatch =
        cause.strip_prefix("invalid type: ").or_else(|| cause.strip_prefix("invalid value: "));
    if let Some((found, expected)) = mismatch.and_then(|rest| rest.split_once(", expected ")) {
        return format!("found {}, expected {}", plain(found), plain(expected));
    }
    match cause.strip_prefix("missing field ") {
        Some(field) => format!("the field {field} is missing"),
        None => cause.to_owned(),
    }
}

/// A type or a value: `a sequence` is `a list`, `` integer `3` `` is `3`.
fn plain(words: &str) -> String {
    let plain = match words {
        "map" | "a map" => "an object",
        "sequence" | "a sequence" => "a list",
        "unit" | "unit value" => "null",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a non-negative integer",
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer",
        "f32" | "f64" => "a number",
        _ if words.starts_with("struct ") => "an object",
        _ => {
            let value = ["integer ", "floating point ", "boolean ", "string "];
            let value = value.iter().find_map(|kind| words.strip_prefix(kind));
            return value.unwrap_or(words).trim_matches('`').to_owned();
        }
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::json_error;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = serde_json::from_str::<BTreeMap<String, usize>>(text).expect_err(text);
        assert_eq!(json_error(&error), expected);
    }

    #[test]
    fn words_are_those_of_json() {
        check("[]", "found a list, expected an object");
        check("{\"a\": {}}", "line 1, column 6: found an object, expected a non-negative integer");
        check("{\"a\": -3}", "line 1, column 8: found -3, expected a non-negative integer");
        check("{\"a\": 1.5}", "line 1, column 9: found 1.5, expected a non-negative integer");
        check("{\"a\"", "line 1, column 4: not valid JSON: the text ends too early");
        check("{\"a\" 1}", "line 1, column 6: not valid JSON: expected `:`");
        let error = serde_json::from_value::<f64>(true.into()).expect_err("a boolean");
        assert_eq!(json_error(&error), "found true, expected a number");
        let error = serde_json::from_value::<usize>("x".into()).expect_err("a string");
        assert_eq!(json_error(&error), "found \"x\", expected a non-negative integer");
    }
}
