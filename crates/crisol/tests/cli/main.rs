//! The `crisol` binary from outside: runs on tiny data of the tests' own, what they leave behind,
//! and what is said when something is wrong.

mod bad_input;
mod chat;
mod cost;
mod data;
mod data_files;
#[cfg(unix)]
mod errors;
mod eval;
mod export;
mod finite;
mod fixture;
mod forecast;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_data;
mod kinds;
mod ladder;
mod language;
#[cfg(feature = "hub")]
mod loopback;
mod lora;
mod memory;
mod models;
mod notebook;
mod ownership;
mod packaging;
mod reflect;
mod report;
mod resume;
mod rewards;
mod runs;
mod settings;
mod summary;
mod text;
