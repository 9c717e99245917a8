//! What the user of a URI may do, what the engine does in every database, and which of MongoDB's roles allow it.

use bson::Document;

/// Actions in every database, with the role that allows them.
type Needed = &'static [(&'static str, &'static [&'static str])];

/// To read everything. The change stream is tried by opening it.
pub(crate) const TO_READ: Needed =
    &[("readAnyDatabase", &["find", "listCollections", "listIndexes", "collStats", "dbStats"])];

/// To make everything what it is on the other side. Documents that break their collection's rules go too, and rules
/// change.
pub(crate) const TO_WRITE: Needed = &[
    (
        "readWriteAnyDatabase",
        &[
            "find",
            "insert",
            "update",
            "remove",
            "createCollection",
            "dropCollection",
            "renameCollectionSameDB",
            "createIndex",
            "dropIndex",
            "listCollections",
            "listIndexes",
            "collStats",
        ],
    ),
    ("dbAdminAnyDatabase", &["collMod", "bypassDocumentValidation"]),
];

/// The privileges of a user.
#[derive(Clone, Debug)]
pub(crate) struct Privileges(pub Vec<Document>);

impl Privileges {
    /// What of `needed` isn't allowed on every collection of every user database, and what would help, in words; `None`
    /// if nothing is missing.
    pub fn lacking(&self, needed: Needed) -> Option<String> {
        let everywhere = |r: &Document| {
            r.get_bool("anyResource").unwrap_or(false)
                || ["db", "collection"].iter().all(|part| r.get_str(part).is_ok_and(str::is_empty))
        };
        let (mut actions, mut roles) = (Vec::new(), Vec::new());
        for (role, allows) in needed {
            let missing = self.missing(allows, everywhere);
            if !missing.is_empty() {
                actions.extend(missing);
                roles.push(*role);
            }
        }
        let word = if roles.len() == 1 { "role" } else { "roles" };
        (!roles.is_empty())
            .then(|| format!("it lacks {}; grant it the {word} {} on admin", actions.join(", "), roles.join(" and ")))
    }

    /// Whether `action` is allowed on the cluster.
    pub fn allow_on_cluster(&self, action: &str) -> bool {
        let of = |r: &Document, name: &str| r.get_bool(name).unwrap_or(false);
        self.missing(&[action], |r| of(r, "anyResource") || of(r, "cluster")).is_empty()
    }

    /// Several privileges may name one resource.
    fn missing<'a>(&self, actions: &[&'a str], fits: impl Fn(&Document) -> bool) -> Vec<&'a str> {
        let fitting = self.0.iter().filter(|p| p.get_document("resource").is_ok_and(&fits));
        let allowed: Vec<&str> =
            fitting.flat_map(|p| p.get_array("actions").into_iter().flatten()).filter_map(|a| a.as_str()).collect();
        let is_missing = |action: &&str| !allowed.contains(action) && !allowed.contains(&"anyAction");
        actions.iter().copied().filter(is_missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn what_is_missing_is_named_with_the_role_that_has_it() {
        let everywhere = |actions: &[&str]| doc! {"resource": {"db": "", "collection": ""}, "actions": actions};
        let (data, rules) = (everywhere(TO_WRITE[0].1), everywhere(&["bypassDocumentValidation"]));
        let lacking = |all: Vec<Document>| Privileges(all).lacking(TO_WRITE);
        let told = "it lacks collMod; grant it the role dbAdminAnyDatabase on admin";
        assert_eq!(lacking(vec![data.clone(), rules.clone()]).as_deref(), Some(told));
        assert_eq!(lacking(vec![data.clone(), rules, everywhere(&["collMod"])]), None);
        let any = doc! {"resource": {"anyResource": true}, "actions": ["anyAction"]};
        assert_eq!(lacking(vec![any]), None);
        let of_one = doc! {"resource": {"db": "app", "collection": ""}, "actions": TO_WRITE[1].1};
        let told = lacking(vec![of_one]).expect("is not everywhere");
        assert!(told.ends_with("grant it the roles readWriteAnyDatabase and dbAdminAnyDatabase on admin"), "{told}");
        assert_eq!(lacking(vec![data]).map(|told| told.contains("collMod, bypassDocumentValidation")), Some(true));
    }
}
