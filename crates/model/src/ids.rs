//! Identifiers: 12 bytes, written as 24 lowercase hexadecimal digits as the Atlas API does.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// A string was not 24 lowercase hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: expected 24 lowercase hexadecimal digits")]
pub struct InvalidId(pub String);

fn parse(text: &str) -> Result<[u8; 12], InvalidId> {
    let invalid = || InvalidId(text.chars().take(64).collect());
    if text.len() != 24 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(invalid());
    }
    let mut bytes = [0; 12];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| invalid())?;
    }
    Ok(bytes)
}

/// Four bytes of seconds, so that ids sort by creation, then eight random ones.
fn generate() -> [u8; 12] {
    let mut bytes: [u8; 12] = rand::random();
    bytes[..4].copy_from_slice(&((crate::Timestamp::now().0 / 1000) as u32).to_be_bytes());
    bytes
}

macro_rules! id {
    ($(#[$doc:meta] $name:ident),* $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 12]);

        impl $name {
            /// A new one that no one else has.
            #[must_use]
            pub fn generate() -> Self {
                Self(generate())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

id! {
    /// An organization.
    OrgId,
    /// A group; Atlas's user interface says *project*.
    GroupId,
    /// A migration.
    MigrationId,
    /// A validation of a migration that was not created yet.
    ValidationId,
    /// A migration host's agent.
    AgentId,
    /// A source deployment, or a destination cluster.
    DeploymentId,
    /// An API key.
    ApiKeyId,
    /// A service account's secret.
    SecretId,
}

/// Who holds a migration's lease: grows with every new holder; the holder of an older one is fenced out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The next holder's.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_the_way_to_text_and_back() {
        let id = MigrationId::generate();
        assert_eq!(id.to_string().parse::<MigrationId>(), Ok(id));
        assert_eq!(id.to_string().len(), 24);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "32b6e34b3d91647abb20e7b", "32B6E34B3D91647ABB20E7B8", "32b6e34b3d91647abb20e7bg", "éééééééééééé"]
        {
            assert!(text.parse::<GroupId>().is_err(), "{text}");
        }
    }
}
