//! From an `Accept` header to the version of a resource: the newest one not after the date that the client names.

use limosa_model::ApiVersion;

/// The version to answer with; `None` is a 406. `versions` ascend.
pub(crate) fn negotiate(accept: Option<&str>, versions: &[ApiVersion]) -> Option<ApiVersion> {
    let dates = accept?.split(',').filter_map(|range| {
        let media = range.split(';').next()?.trim();
        media.strip_prefix("application/vnd.atlas.")?.strip_suffix("+json")?.parse::<ApiVersion>().ok()
    });
    let asked = dates.max()?;
    versions.iter().rev().find(|version| **version <= asked).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_not_after_the_date_is_taken() {
        let (old, new) = (ApiVersion::V2023_01_01, ApiVersion::V2024_05_30);
        let both = [old, new];
        let cases = [
            (None, None),
            (Some("*/*"), None),
            (Some("application/json"), None),
            (Some("application/vnd.atlas.2022-12-31+json"), None),
            (Some("application/vnd.atlas.2023-1-1+json"), None),
            (Some("application/vnd.atlas.preview+json"), None),
            (Some("application/vnd.atlas.2023-01-01+json"), Some(old)),
            (Some("application/vnd.atlas.2024-05-29+json"), Some(old)),
            (Some("application/vnd.atlas.2024-05-30+json"), Some(new)),
            (Some("application/vnd.atlas.2025-03-12+json"), Some(new)),
            (Some("application/vnd.atlas.2025-03-12+json;charset=utf-8"), Some(new)),
            (Some("text/html, application/vnd.atlas.2023-02-01+json;q=0.9"), Some(old)),
        ];
        for (accept, expected) in cases {
            assert_eq!(negotiate(accept, &both), expected, "{accept:?}");
        }
        assert_eq!(negotiate(Some("application/vnd.atlas.2025-03-12+json"), &[old]), Some(old));
    }
}
