//! Where a URI leads, apart from the credentials in it.

/// Options that say who connects, not to what or how.
const OF_CREDENTIALS: &[&str] = &["authsource", "authmechanism", "authmechanismproperties"];

/// Whether two URIs differ in nothing but user, password and how those are checked.
pub(super) fn lead_to_the_same(one: &str, other: &str) -> bool {
    parts(one).is_some_and(|parts_of_one| Some(parts_of_one) == parts(other))
}

/// Scheme, hosts and options.
type Parts = (String, Vec<String>, Vec<(String, String)>);

/// A URI's parts in the order of their names, since theirs doesn't matter.
fn parts(uri: &str) -> Option<Parts> {
    let (scheme, rest) = uri.split_once("://")?;
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let after = rest.rsplit_once('@').map_or(rest, |(_, after)| after);
    let hosts = after.split_once('/').map_or(after, |(hosts, _)| hosts);
    let mut hosts: Vec<String> = hosts.split(',').map(str::to_ascii_lowercase).collect();
    hosts.sort();
    let options = options.split('&').filter(|option| !option.is_empty());
    let mut options: Vec<(String, String)> = options
        .map(|option| option.split_once('=').unwrap_or((option, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| !OF_CREDENTIALS.contains(&name.as_str()))
        .collect();
    options.sort();
    Some((scheme.to_owned(), hosts, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_credentials_may_differ() {
        let known = "mongodb://u:p@a:1,b:2/?replicaSet=rs&tls=true";
        for same in [
            "mongodb://u:other@B:2,a:1/?tls=true&replicaSet=rs",
            "mongodb://a:1,b:2/admin?replicaSet=rs&tls=true&authSource=admin",
        ] {
            assert!(lead_to_the_same(same, known), "{same}");
        }
        for other in [
            "mongodb://u:p@a:1,c:2/?replicaSet=rs&tls=true",
            "mongodb://u:p@a:1/?replicaSet=rs&tls=true",
            "mongodb+srv://u:p@a:1,b:2/?replicaSet=rs&tls=true",
            "mongodb://u:p@a:1,b:2/?replicaSet=rs",
            "mongodb://u:p@a:1,b:2/?replicaSet=rs&tls=true&tlsInsecure=true",
            "mongodb://u:p@evil:1/?replicaSet=rs&tls=true@a:1,b:2",
            "u:p@a:1,b:2",
        ] {
            assert!(!lead_to_the_same(other, known), "{other}");
        }
    }
}
