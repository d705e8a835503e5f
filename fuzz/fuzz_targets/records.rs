//! A JSONL file of records: read, inspected and turned into training examples.

#![no_main]

use crisol_fuzz::SETUP;
use crisol_text::{inspect, jsonl_records};
use libfuzzer_sys::fuzz_target;

const CONTEXT: usize = 32;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<_> = jsonl_records("data.jsonl", data).collect();
    for record in lines.iter().flatten() {
        for example in
            SETUP.supervised(record, CONTEXT).into_iter().flat_map(|encoded| encoded.examples)
        {
            assert!(example.trained_tokens() > 0 && example.ids.len() <= CONTEXT);
        }
        for pair in
            SETUP.preference(record, CONTEXT).into_iter().flat_map(|encoded| encoded.examples)
        {
            assert!(
                pair.chosen.ids.starts_with(&pair.prompt)
                    && pair.rejected.ids.starts_with(&pair.prompt)
            );
        }
        let _ = SETUP.problem(record, CONTEXT);
        let _ = SETUP.rollout_prompt(record, CONTEXT);
    }
    for record in inspect::inspect(&SETUP, lines.into_iter(), CONTEXT, usize::MAX, |_| ()).records {
        for problem in record.problems {
            let _ = problem.to_string();
        }
    }
});
