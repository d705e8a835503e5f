//! The page of a ladder of runs.

use crisol_report::{LadderReport, Language, MeasuredRung, PredictedLoss, ladder_html};

mod tags;

use tags::tags;

/// A report in which `text` stands wherever a user can write.
fn report_with(text: &str) -> LadderReport {
    let at = |times: f64| PredictedLoss {
        flops: 1e12 * times,
        times,
        low: 1.0,
        expected: 2.0,
        high: 3.0,
    };
    LadderReport {
        crisol: text.into(),
        created: text.into(),
        limit: 1.0,
        exponent: 0.25,
        rungs: vec![MeasuredRung {
            run: text.into(),
            parameters: 10,
            tokens: 205,
            flops: 1e12,
            loss: 2.1234,
            fitted: 2.0,
        }],
        predictions: vec![at(4.0)],
        curve: vec![at(1.0), at(2.0), at(4.0)],
    }
}

#[test]
fn the_page_is_self_contained_and_hostile_text_stays_text() {
    let plain = ladder_html(&report_with("plain"), Language::English);
    let hostile = ladder_html(
        &report_with("\"><script>alert(1)</script><img src=x onerror=y>'"),
        Language::English,
    );
    assert_eq!(tags(&plain), tags(&hostile));
    for said in ["2.123", "20.5", "4\u{a0}TFLOP", "1.000 to 3.000", "dot l3"] {
        assert!(plain.contains(said), "{said}");
    }
    assert!(
        !plain.contains("<script") && !plain.contains("http://") && !plain.contains("src="),
        "self-contained"
    );
}
