//! A length of time as people read it: `1h30m`, `500ms`.
//!
//! Promise: what is not nothing is never printed as nothing.
//! Not here: reading one (the binary).

use std::time::Duration;

/// In the largest units that divide it, to the second: `1h30m`, `7d`. Below a second in milliseconds, rounded up.
pub fn print_duration(length: Duration) -> String {
    let mut seconds = length.as_secs();
    if seconds == 0 && !length.is_zero() {
        return format!("{}ms", length.as_nanos().div_ceil(1_000_000));
    }
    let mut text = String::new();
    for (unit, factor) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if seconds >= factor {
            text += &format!("{}{unit}", seconds / factor);
            seconds %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_printed_in_the_units_of_people() {
        let table = [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(1), "1ms"),
            (Duration::from_millis(500), "500ms"),
            (Duration::from_millis(1500), "1s"),
            (Duration::from_secs(14_400), "4h"),
            (Duration::from_secs(5400), "1h30m"),
            (Duration::from_secs(694_861), "8d1h1m1s"),
        ];
        for (length, text) in table {
            assert_eq!(print_duration(length), text);
        }
    }
}
