//! Which clusters a migration was begun between. A URI can be changed to lead elsewhere; this can't.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A replica set as it calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterIdentity {
    /// `settings.replicaSetId` of the set's configuration: given once, when the set is initiated, and kept by every member.
    pub set_id: String,
    /// `setName` of the `hello` command.
    pub set_name: String,
}

impl fmt::Display for ClusterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica set {} ({})", self.set_name, self.set_id)
    }
}

/// Both ends of a migration, as they were when it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identities {
    /// What is read.
    pub source: ClusterIdentity,
    /// What is written.
    pub destination: ClusterIdentity,
}

impl Identities {
    /// The same two clusters with their roles exchanged, as a reverse migration has them.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { source: self.destination.clone(), destination: self.source.clone() }
    }

    /// Which side of `now` is another cluster than here, in words; `None` if neither is.
    pub fn departure(&self, now: &Self) -> Option<String> {
        let sides = [("source", &self.source, &now.source), ("destination", &self.destination, &now.destination)];
        let (side, before, now) = sides.into_iter().find(|(_, before, now)| before != now)?;
        Some(format!("the {side} is {now}, and this migration was begun with {before}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_that_is_another_is_named_with_both() {
        let set = |id: &str| ClusterIdentity { set_id: id.to_owned(), set_name: "rs".to_owned() };
        let begun = Identities { source: set("a"), destination: set("b") };
        assert_eq!(begun.departure(&begun), None);
        let told = begun.departure(&Identities { source: set("a"), destination: set("c") }).expect("differs");
        assert_eq!(told, "the destination is replica set rs (c), and this migration was begun with replica set rs (b)");
        assert_eq!(begun.reversed().reversed(), begun);
    }
}
