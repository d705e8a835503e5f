use crisol_text::*;
use std::collections::BTreeMap;
fn main() {
    let cases: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string("/tmp/tt/cases.json").unwrap()).unwrap();
    let tok = Tokenizer::from_file("/tmp/tok-folder/tokenizer.json").unwrap();
    for c in cases {
        let name = format!("{} conv {}", c["name"].as_str().unwrap(), c["conv"]);
        let tokens = BTreeMap::from([("eos_token".to_owned(), "<|end|>".to_owned()), ("bos_token".to_owned(), "<|eos|>".to_owned())]);
        let t = match ChatTemplate::new(c["source"].as_str().unwrap(), tokens) { Ok(t) => t, Err(e) => { println!("{name}: {e}"); continue } };
        let m: Vec<Message> = serde_json::from_value(c["messages"].clone()).unwrap();
        for gen_prompt in [false, true] {
            let want = c[if gen_prompt { "prompt" } else { "text" }].as_str();
            match (t.render(&m, gen_prompt), want) {
                (Ok(a), Some(b)) if a == b => {}
                (Err(_), None) => {}
                (a, b) => println!("{name} {gen_prompt}: ours {a:?}\n   theirs {b:?}"),
            }
        }
        if c["text"].is_string() {
            match t.encode(&tok, &m) {
                Ok(e) => {
                    let mask: Vec<bool> = c["mask"].as_array().unwrap().iter().map(|b| b.as_i64() == Some(1)).collect();
                    let ids: Vec<u32> = serde_json::from_value(c["ids"].clone()).unwrap();
                    println!("{name}: ids {} mask {} ({} trained)", ids == e.ids, if c["marked"] == true { format!("{}", mask == e.trained) } else { "n/a".into() }, e.trained_tokens());
                }
                Err(e) => println!("{name}: encode {e}"),
            }
        }
    }
}
