//! A finished phase's `phase.json`: put into a report, which is rendered.

#![no_main]

use std::sync::LazyLock;

use crisol_phases::{Recipe, assemble_report};
use crisol_report::{Language, Layout, html, terminal};
use libfuzzer_sys::fuzz_target;

static RECIPE: LazyLock<Recipe> = LazyLock::new(|| {
    Recipe::parse("recipe.toml", "[[phases]]\nkind = \"pretrain\"\n").expect("a recipe")
});

fuzz_target!(|data: &[u8]| {
    let folder = crisol_fuzz::folder(&[("1-pretrain/phase.json", data)]);
    let Ok(report) = assemble_report(&RECIPE, folder.path()) else { return };
    let _ = html(&report, Language::English);
    let _ = terminal(&report, Layout { width: 80, colour: true, language: Language::English });
});
