//! How values are written.

use limosa_model::Secret;

pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// A positive number of seconds, minutes or hours.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let span = number.parse::<u32>().ok().map(|n| i64::from(n) * factor).filter(|s| *s > 0);
    span.ok_or_else(|| "write it as 30s, 90m or 120h".to_owned())
}

/// The same, or none.
pub(super) fn seconds_or_none(text: &str) -> Result<i64, String> {
    if text == "0s" { Ok(0) } else { seconds(text) }
}

/// More than nothing, at most all.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse().ok().filter(|n| *n > 0.0 && *n <= 100.0);
    number.ok_or_else(|| "write it as 5%: more than 0, at most 100".to_owned())
}

/// A positive number of bytes, MiB or GiB.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" => 1,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => 0,
    };
    let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0);
    size.ok_or_else(|| "write it as 500MiB or 64GiB".to_owned())
}
