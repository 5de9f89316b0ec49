//! The part of `strftime` that chat templates use, in UTC.

use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: u64 = 86_400;

/// Formats `seconds` since 1970-01-01 00:00 UTC.
///
/// # Errors
/// The directive that is none of `%Y %y %m %d %e %B %b %A %a %j %H %I %M %S %p %F %T %Z %%`.
pub(super) fn strftime(seconds: u64, format: &str) -> Result<String, String> {
    let days = seconds / SECONDS_PER_DAY;
    let (year, month, day) = civil_from_days(days);
    let second = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[((days + 4) % 7) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next();
        let written = match directive {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('B') => out.write_str(month_name),
            Some('b') => out.write_str(&month_name[..3]),
            Some('A') => out.write_str(weekday),
            Some('a') => out.write_str(&weekday[..3]),
            Some('j') => write!(out, "{:03}", days - days_from_civil(year, 1, 1) + 1),
            Some('H') => write!(out, "{hour:02}"),
            Some('I') => write!(out, "{:02}", (hour + 11) % 12 + 1),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('p') => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => out.write_str("UTC"),
            Some('%') => out.write_str("%"),
            Some(other) => return Err(format!("%{other}")),
            None => return Err("%".to_owned()),
        };
        // Writing to a String cannot fail.
        debug_assert!(written.is_ok());
    }
    Ok(out)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar from then on (years counted from March).
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// Inverse of [`days_from_civil`].
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    (year, (month + 2) % 12 + 1, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Expected strings from Python's `datetime.fromtimestamp(s, timezone.utc).strftime`.
    #[test]
    fn dates_as_python_writes_them() {
        let format = "%Y-%m-%d %e %B %b %A %a %j %H %I %M %S %p %y %%";
        let known = [
            (0, "1970-01-01  1 January Jan Thursday Thu 001 00 12 00 00 AM 70 %"),
            (951_827_696, "2000-02-29 29 February Feb Tuesday Tue 060 12 12 34 56 PM 00 %"),
            (1_735_689_599, "2024-12-31 31 December Dec Tuesday Tue 366 23 11 59 59 PM 24 %"),
            (4_107_542_400, "2100-03-01  1 March Mar Monday Mon 060 00 12 00 00 AM 00 %"),
        ];
        for (seconds, expected) in known {
            assert_eq!(strftime(seconds, format).unwrap(), expected);
        }
    }

    #[test]
    fn other_directives_are_named() {
        assert_eq!(strftime(0, "%Q"), Err("%Q".to_owned()));
        assert_eq!(strftime(0, "100%"), Err("%".to_owned()));
    }
}
