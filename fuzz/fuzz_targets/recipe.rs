//! A recipe: parsed, written out with all defaults and parsed again.

#![no_main]

use crisol_phases::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let Ok(recipe) = Recipe::parse("recipe.toml", data) else { return };
    for phase in &recipe.phases {
        let _ = recipe.folder(&phase.name);
    }
    assert_eq!(
        Recipe::parse("again.toml", &recipe.to_toml()).expect("what is written is read back"),
        recipe
    );
});
