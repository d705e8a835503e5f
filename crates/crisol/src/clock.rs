//! The date and time: for a report, and for chat templates that write today's date.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The time now, as a report shows it: `2026-11-03 14:20 UTC`.
pub(crate) fn now() -> String {
    let now = TimeZone::UTC.to_datetime(Timestamp::now());
    now.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The time now where the user is.
pub(crate) fn here() -> DateTime {
    TimeZone::system().to_datetime(Timestamp::now())
}
