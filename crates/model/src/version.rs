//! Dated API versions.

use std::{fmt, str::FromStr};

/// A version of one resource of the Atlas API: a date. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    year: u16,
    month: u8,
    day: u8,
}

impl ApiVersion {
    /// The first dated version.
    pub const V2023_01_01: Self = Self { year: 2023, month: 1, day: 1 };
    /// Clusters' second version.
    pub const V2023_02_01: Self = Self { year: 2023, month: 2, day: 1 };
    /// `dropDestinationData` instead of `dropEnabled`.
    pub const V2024_05_30: Self = Self { year: 2024, month: 5, day: 30 };
    /// Service accounts; clusters' third version.
    pub const V2024_08_05: Self = Self { year: 2024, month: 8, day: 5 };
    /// Users' second version.
    pub const V2025_02_19: Self = Self { year: 2025, month: 2, day: 19 };
}

impl FromStr for ApiVersion {
    type Err = ();

    /// `YYYY-MM-DD`, a day that the calendar has.
    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return Err(());
        }
        let number = |part: &str| {
            if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<u16>().map_err(|_| ()) } else { Err(()) }
        };
        let (year, month, day) = (number(&text[..4])?, number(&text[5..7])? as u8, number(&text[8..])? as u8);
        let named = time::Month::try_from(month).map_err(|_| ())?;
        time::Date::from_calendar_date(i32::from(year), named, day).map_err(|_| ())?;
        Ok(Self { year, month, day })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_strictly_and_ordered_by_time() {
        assert_eq!("2023-01-01".parse(), Ok(ApiVersion::V2023_01_01));
        assert!(ApiVersion::V2023_01_01 < ApiVersion::V2024_05_30);
        for text in
            ["", "2023-1-1", "2023-13-01", "2023-02-30", "+023-01-01", "2023-01-011", "2023/01/01", "20é3-01-01"]
        {
            assert_eq!(text.parse::<ApiVersion>(), Err(()), "{text}");
        }
    }
}
