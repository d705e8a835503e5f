//! Prints the size and a few records of every file; writes the files to `DIR` if it is given.
//!
//! `cargo run -p crisol-world --example stats [DIR]`

use std::path::PathBuf;
use std::time::Instant;

const SAMPLES: usize = 3;

fn main() -> std::io::Result<()> {
    let start = Instant::now();
    let files = crisol_world::dataset();
    let seconds = start.elapsed().as_secs_f64();
    for file in &files {
        let lines: Vec<&str> = file.jsonl.lines().collect();
        println!(
            "{} ({} records, {} bytes): {}",
            file.name,
            lines.len(),
            file.jsonl.len(),
            file.purpose
        );
        for sample in 0..SAMPLES {
            println!("    {}", lines[sample * lines.len() / SAMPLES]);
        }
    }
    println!("generated in {seconds:.2} s");
    if let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) {
        std::fs::create_dir_all(&folder)?;
        for file in &files {
            std::fs::write(folder.join(&file.name), &file.jsonl)?;
        }
    }
    Ok(())
}
