//! From an `Accept` header to the version of a resource: the newest one not after the date that the client names.

use limosa_model::ApiVersion;

/// The version to answer with; `None` is a 406. `versions` ascend.
pub(crate) fn negotiate(accept: &str, versions: &[ApiVersion]) -> Option<ApiVersion> {
    let dates = accept.split(',').filter_map(|range| {
        let media = range.split(';').next()?.trim().to_ascii_lowercase();
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
            ("", None),
            ("*/*", None),
            ("application/json", None),
            ("application/vnd.atlas+json", None),
            ("application/vnd.atlas.2022-12-31+json", None),
            ("application/vnd.atlas.2023-1-1+json", None),
            ("application/vnd.atlas.2023-02-30+json", None),
            ("application/vnd.atlas.2023-01-01", None),
            ("application/vnd.atlas.2023-01-01+xml", None),
            ("application/vnd.atlas.preview+json", None),
            ("text/html, , ;q=1,", None),
            ("application/vnd.atlas.2023-01-01+json", Some(old)),
            ("Application/VND.Atlas.2023-01-01+JSON", Some(old)),
            ("application/vnd.atlas.2024-05-29+json", Some(old)),
            ("application/vnd.atlas.2024-05-30+json", Some(new)),
            ("application/vnd.atlas.2025-03-12+json", Some(new)),
            ("application/vnd.atlas.9999-12-31+json", Some(new)),
            ("application/vnd.atlas.2025-03-12+json;charset=utf-8", Some(new)),
            ("  application/vnd.atlas.2025-03-12+json  ", Some(new)),
            ("text/html, application/vnd.atlas.2023-02-01+json;q=0.9", Some(old)),
            ("application/vnd.atlas.2023-02-01+json,application/json", Some(old)),
            ("application/vnd.atlas.2023-02-01+json,application/vnd.atlas.2024-06-01+json", Some(new)),
        ];
        for (accept, expected) in cases {
            assert_eq!(negotiate(accept, &both), expected, "{accept:?}");
        }
        assert_eq!(negotiate("application/vnd.atlas.2025-03-12+json", &[old]), Some(old));
    }
}
