//! How much a migration may take of the clusters that it moves between. Can be changed while it runs.

use serde::{Deserialize, Serialize};

/// Bounds on a migration's use of its clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// How hard the copy goes: 1 is the kindest, 3 the default, 5 takes all that the clusters give.
    #[schema(value_type = u8, minimum = 1, maximum = 5, default = 3, required = false)]
    pub load_level: LoadLevel,
    /// Megabits a second that are read from the source; without it, no bound.
    #[schema(minimum = 1, required = false)]
    pub max_source_read_mbps: Option<u32>,
    /// Megabits a second that are written to the destination; without it, no bound.
    #[schema(minimum = 1, required = false)]
    pub max_destination_write_mbps: Option<u32>,
}

impl Limits {
    /// Whether they can be kept; an error names the attribute.
    pub fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self { max_source_read_mbps: Some(0), .. } => Err("maxSourceReadMbps"),
            Self { max_destination_write_mbps: Some(0), .. } => Err("maxDestinationWriteMbps"),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = |mbps: Option<u32>| mbps.map_or_else(|| "unbounded".to_owned(), |n| format!("{n} Mbit/s"));
        let (read, write) = (bound(self.max_source_read_mbps), bound(self.max_destination_write_mbps));
        write!(f, "load level {}, reads {read}, writes {write}", self.load_level.0)
    }
}

/// 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct LoadLevel(u8);

impl Default for LoadLevel {
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<u8> for LoadLevel {
    type Error = &'static str;

    fn try_from(level: u8) -> Result<Self, Self::Error> {
        if (1..=5).contains(&level) { Ok(Self(level)) } else { Err("a load level is 1, 2, 3, 4 or 5") }
    }
}

impl From<LoadLevel> for u8 {
    fn from(level: LoadLevel) -> Self {
        level.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_what_is_given_and_default_the_rest() {
        let limits: Limits = serde_json::from_str(r#"{"loadLevel": 1, "maxSourceReadMbps": 80}"#).expect("reads");
        assert_eq!((u8::from(limits.load_level), limits.max_source_read_mbps), (1, Some(80)));
        assert_eq!(serde_json::from_str::<Limits>("{}").expect("reads"), Limits::default());
        for wrong in ["0", "6", "-1", "\"3\""] {
            assert!(serde_json::from_str::<Limits>(&format!("{{\"loadLevel\": {wrong}}}")).is_err(), "{wrong}");
        }
        assert_eq!(Limits { max_source_read_mbps: Some(0), ..limits }.validate(), Err("maxSourceReadMbps"));
    }
}
