//! From an `Accept` header to the version of a resource: the newest one not after the date that the client names.

use crate::http::render::ApiError;
use axum::http::StatusCode;
use limosa_model::ApiVersion;

/// Why there is no version to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No date, or one before the resource's first version.
    Unacceptable,
    /// The date is that of a version which was taken away.
    Gone(ApiVersion),
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unacceptable => {
                let detail = "Invalid accept header or version date.";
                Self::new(StatusCode::NOT_ACCEPTABLE, "INVALID_VERSION_DATE", detail, &[])
            }
            Refused::Gone(version) => {
                let version = version.to_string();
                let detail = format!("Version {version} of this resource was removed. Ask for a later one.");
                Self::new(StatusCode::GONE, "VERSION_GONE", detail, &[&version])
            }
        }
    }
}

/// The version to answer with. `versions` ascend; a date that falls on one of `removed` gets no older one in its place.
pub(crate) fn negotiate(accept: &str, versions: &[ApiVersion], removed: &[ApiVersion]) -> Result<ApiVersion, Refused> {
    let asked = newest(accept).ok_or(Refused::Unacceptable)?;
    let until = |all: &[ApiVersion]| all.iter().filter(|version| **version <= asked).max().copied();
    match (until(versions), until(removed)) {
        (Some(version), gone) if gone.is_none_or(|gone| gone < version) => Ok(version),
        (_, Some(gone)) => Err(Refused::Gone(gone)),
        (_, None) => Err(Refused::Unacceptable),
    }
}

/// The version in which a body is written, by its media type: none if that has no date, or one before the first version.
pub(crate) fn written(content_type: &str, versions: &[ApiVersion]) -> Option<ApiVersion> {
    negotiate(content_type, versions, &[]).ok()
}

/// The newest date that the header names.
fn newest(accept: &str) -> Option<ApiVersion> {
    let dates = accept.split(',').filter_map(|range| {
        let media = range.split(';').next()?.trim().to_ascii_lowercase();
        media.strip_prefix("application/vnd.atlas.")?.strip_suffix("+json")?.parse::<ApiVersion>().ok()
    });
    dates.max()
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
            assert_eq!(negotiate(accept, &both, &[]), expected.ok_or(Refused::Unacceptable), "{accept:?}");
        }
        assert_eq!(negotiate("application/vnd.atlas.2025-03-12+json", &[old], &[]), Ok(old));
    }

    #[test]
    fn a_removed_version_is_gone_and_answered_by_no_older_one() {
        let [first, second, third] = [ApiVersion::V2023_01_01, ApiVersion::V2023_02_01, ApiVersion::V2024_08_05];
        let at = |date: &str, versions: &[ApiVersion], removed: &[ApiVersion]| {
            negotiate(&format!("application/vnd.atlas.{date}+json"), versions, removed)
        };
        // The first is removed.
        assert_eq!(at("2022-12-31", &[second, third], &[first]), Err(Refused::Unacceptable));
        assert_eq!(at("2023-01-31", &[second, third], &[first]), Err(Refused::Gone(first)));
        assert_eq!(at("2023-02-01", &[second, third], &[first]), Ok(second));
        // One in the middle is.
        assert_eq!(at("2023-01-31", &[first, third], &[second]), Ok(first));
        assert_eq!(at("2024-08-04", &[first, third], &[second]), Err(Refused::Gone(second)));
        assert_eq!(at("2024-08-05", &[first, third], &[second]), Ok(third));
        // The whole resource is.
        assert_eq!(at("2025-03-12", &[], &[first, second]), Err(Refused::Gone(second)));
    }
}
