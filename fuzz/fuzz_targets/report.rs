//! A `report.json`: read, rendered in every language, written and read again.

#![no_main]

use crisol_fuzz::folder;
use crisol_report::{
    Language, Layout, Report, comparison, html, reflect_html, reflect_summary, terminal,
};
use libfuzzer_sys::fuzz_target;

fn load(bytes: &[u8]) -> Option<Report> {
    Report::load(&folder(&[("report.json", bytes)]).path().join("report.json")).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some(report) = load(data) else { return };
    for language in Language::ALL {
        let _ = (html(&report, language), reflect_html(&report, language));
        for width in [0, 80] {
            let layout = Layout { width, colour: width == 0, language };
            let _ = terminal(&report, layout);
            let _ = report.reflect.as_ref().map(|reflect| reflect_summary(reflect, layout));
        }
    }
    let _ = comparison(
        &["a".to_owned(), "b".to_owned()],
        &report.prompts,
        Layout { width: 60, colour: false, language: Language::English },
    );
    let written = report.to_json();
    let again = load(written.as_bytes()).expect("what is written is read back");
    assert_eq!(again.to_json(), written);
});
