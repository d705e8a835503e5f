//! Progress display of a download: a bar on a terminal, occasional lines elsewhere.

use std::fmt::Write as _;
use std::time::Instant;

use indicatif::ProgressBar;

use crate::console::say;
use crate::progress::{LINE_INTERVAL, bar_or_lines, duration, style};

/// The progress of one file.
pub(super) struct Transfer {
    name: String,
    /// Hidden if standard error is not a terminal.
    bar: ProgressBar,
    lines: bool,
    /// Bytes present before this process started.
    first: u64,
    done: u64,
    size: u64,
    began: Instant,
    shown: Instant,
}

impl Transfer {
    pub(super) fn new(name: &str, first: u64, size: u64) -> Transfer {
        let (bar, lines) = bar_or_lines();
        bar.set_length(size);
        bar.set_position(first);
        bar.set_prefix(name.to_owned());
        bar.set_style(style("  {prefix} [{bar:24}] {wide_msg}").progress_chars("=> "));
        let now = Instant::now();
        let mut transfer = Transfer {
            name: name.to_owned(),
            bar,
            lines,
            first,
            done: first,
            size,
            began: now,
            shown: now,
        };
        if first > 0 {
            transfer.note(&format!("going on after {}", bytes(first)));
        }
        transfer.show();
        transfer
    }

    pub(super) fn add(&mut self, count: u64) {
        self.done += count;
        self.show();
    }

    /// Restarts from zero bytes.
    pub(super) fn restart(&mut self) {
        self.note("the server sends it from the beginning again");
        (self.first, self.done, self.began) = (0, 0, Instant::now());
        self.show();
    }

    pub(super) fn note(&mut self, text: &str) {
        self.bar.suspend(|| say(format_args!("  {}: {text}", self.name)));
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Reports the completed file.
    pub(super) fn finished(&self) {
        say(format_args!("  {}  {}", self.name, bytes(self.size)));
    }

    fn show(&mut self) {
        self.bar.set_position(self.done);
        if !self.lines {
            self.bar.set_message(self.status());
        } else if self.shown.elapsed() >= LINE_INTERVAL {
            say(format_args!("  {}  {}", self.name, self.status()));
            self.shown = Instant::now();
        }
    }

    /// Progress, rate and remaining time.
    fn status(&self) -> String {
        let elapsed = self.began.elapsed().as_secs_f64();
        let mut status = format!("{} of {}", bytes(self.done), bytes(self.size));
        let rate = (self.done - self.first) as f64 / elapsed;
        if elapsed > 0.5 && rate > 0.0 {
            let left = (self.size - self.done) as f64 / rate;
            let _ = write!(status, "  {}/s  {} left", bytes(rate as u64), duration(left));
        }
        status
    }
}

/// Formats a number of bytes in decimal units, as hubs do.
pub(super) fn bytes(count: u64) -> String {
    match count as f64 {
        c if c < 1e3 => format!("{c:.0} bytes"),
        c if c < 1e6 => format!("{:.1} kB", c / 1e3),
        c if c < 1e9 => format!("{:.1} MB", c / 1e6),
        c => format!("{:.2} GB", c / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_status_counts_from_where_this_process_began() {
        let mut transfer = Transfer::new("x", 4_000_000, 10_000_000);
        transfer.began = Instant::now()
            .checked_sub(Duration::from_secs(10))
            .expect("the machine is up for longer");
        transfer.done = 5_000_000;
        assert_eq!(transfer.status(), "5.0 MB of 10.0 MB  100.0 kB/s  50 s left");
        assert_eq!([bytes(12), bytes(2_970_000_000)], ["12 bytes", "2.97 GB"]);
    }
}
