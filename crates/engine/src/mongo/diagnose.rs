//! Why no server could be reached, in a sentence: each host of the URI is asked alone, without credentials, what it is.

use crate::mongo::{error, side::Side};
use bson::{Bson, Document, doc};
use limosa_model::{ErrorCode, Failure};
use mongodb::{
    Client,
    error::Error,
    options::{ClientOptions, ServerAddress},
};
use std::{collections::BTreeSet, time::Duration};

/// How long one host is asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// Hosts and members that are named.
const NAMED: usize = 8;

/// What one host of the URI said.
struct Asked {
    host: String,
    said: Result<Document, Error>,
}

impl Asked {
    fn set(&self) -> Option<&str> {
        self.said.as_ref().ok()?.get_str("setName").ok()
    }
}

/// The members that a server's `hello` names.
pub(crate) fn members(hello: &Document) -> Vec<String> {
    let of = |name: &str| hello.get_array(name).into_iter().flatten().filter_map(Bson::as_str).map(str::to_owned);
    let mut all: Vec<String> = ["hosts", "passives", "arbiters"].into_iter().flat_map(of).collect();
    all.sort();
    all.dedup();
    all
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

async fn ask(options: &ClientOptions, host: &ServerAddress) -> Asked {
    let mut alone = options.clone();
    alone.hosts = vec![host.clone()];
    alone.direct_connection = Some(true);
    (alone.credential, alone.repl_set_name, alone.srv_max_hosts) = (None, None, None);
    (alone.server_selection_timeout, alone.connect_timeout) = (Some(PATIENCE), Some(PATIENCE));
    let said = async {
        let client = Client::with_options(alone)?;
        let said = client.database("admin").run_command(doc! {"hello": 1}).await;
        client.shutdown().immediate(true).await;
        said
    };
    let said = match tokio::time::timeout(PATIENCE * 2, said).await {
        Ok(said) => said,
        Err(_) => Err(Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut))),
    };
    Asked { host: host.to_string(), said }
}

async fn ask_all(options: &ClientOptions) -> Vec<Asked> {
    futures::future::join_all(options.hosts.iter().map(|host| ask(options, host))).await
}

/// Why the first command to the cluster failed with `error`.
pub(crate) async fn why(side: Side, options: &ClientOptions, error: &Error) -> Failure {
    if !error::is_connecting(error) {
        return error::failure(side, error);
    }
    let all = ask_all(options).await;
    if let Some(failure) = two_sets(side, &all).or_else(|| wrong_name(side, options, &all)) {
        return failure;
    }
    if let Some(hello) = all.iter().find_map(|asked| asked.said.as_ref().ok()) {
        return set_without_a_way(side, hello).await;
    }
    let each = all.iter().filter_map(|asked| {
        let error = asked.said.as_ref().err()?;
        Some(format!("{}: {}", asked.host, error::words(error)))
    });
    let each: Vec<String> = each.collect();
    Failure::new(side.unreachable(), format!("{side}: no server can be reached at {}", listed(&each)))
}

/// Hosts of one URI that belong to two replica sets.
fn two_sets(side: Side, all: &[Asked]) -> Option<Failure> {
    let sets: Vec<(&Asked, BTreeSet<String>)> = all
        .iter()
        .filter_map(|asked| Some((asked, members(asked.said.as_ref().ok()?).into_iter().collect::<BTreeSet<_>>())))
        .filter(|(_, members)| !members.is_empty())
        .collect();
    let (first, of_first) = sets.first()?;
    let (other, of_other) = sets.iter().find(|(_, members)| members.is_disjoint(of_first))?;
    let told = |asked: &Asked, members: &BTreeSet<String>| {
        let members: Vec<String> = members.iter().cloned().collect();
        format!("{} to \"{}\" with the members {}", asked.host, asked.set().unwrap_or_default(), listed(&members))
    };
    let message = format!(
        "the {side} URI names hosts of two replica sets: {}, and {}",
        told(first, of_first),
        told(other, of_other)
    );
    Some(Failure::new(ErrorCode::ReplicaSetMismatch, message))
}

/// A `replicaSet` that isn't the servers' own name.
fn wrong_name(side: Side, options: &ClientOptions, all: &[Asked]) -> Option<Failure> {
    let wanted = options.repl_set_name.as_deref()?;
    if all.iter().any(|asked| asked.set() == Some(wanted)) {
        return None;
    }
    let found = all.iter().find(|asked| asked.set().is_some())?;
    let own = members(found.said.as_ref().ok()?);
    let message = format!(
        "the {side} URI says replicaSet={wanted}, but {} belongs to the replica set \"{}\" with the members {}",
        found.host,
        found.set().unwrap_or_default(),
        listed(&own)
    );
    Some(Failure::new(ErrorCode::ReplicaSetMismatch, message))
}

/// A server answers, and yet no primary can be spoken to: its members' names lead nowhere from here, or it has none.
async fn set_without_a_way(side: Side, hello: &Document) -> Failure {
    let set = hello.get_str("setName").unwrap_or_default();
    let own = members(hello);
    let mut unresolved = Vec::new();
    for member in &own {
        if tokio::net::lookup_host(member.as_str()).await.map_or(true, |mut found| found.next().is_none()) {
            unresolved.push(member.clone());
        }
    }
    let message = match (unresolved.is_empty(), hello.get_str("primary")) {
        (false, _) => format!(
            "{side}: the replica set \"{set}\" answers, but its members' names can't be resolved on this host: {}; make them \
             known here, or reach the primary with directConnection=true",
            listed(&unresolved)
        ),
        (true, Ok(primary)) => format!(
            "{side}: the replica set \"{set}\" answers, but its primary {primary} can't be reached from this host; its members \
             are {}",
            listed(&own)
        ),
        (true, Err(_)) => {
            format!("{side}: the replica set \"{set}\" has no primary; its members are {}", listed(&own))
        }
    };
    Failure::new(side.unreachable(), message)
}

/// Hosts of the URI that aren't among the members that `hello` names may be other names of them, or of another set.
pub(crate) async fn foreign_hosts(side: Side, options: &ClientOptions, hello: &Document) -> Option<Failure> {
    let own: BTreeSet<String> = members(hello).into_iter().collect();
    let mut options = options.clone();
    options.hosts.retain(|host| !own.contains(&host.to_string()));
    if options.hosts.is_empty() || own.is_empty() {
        return None;
    }
    let mut all =
        vec![Asked { host: hello.get_str("me").unwrap_or("the primary").to_owned(), said: Ok(hello.clone()) }];
    all.extend(ask_all(&options).await);
    two_sets(side, &all)
}

/// What is said of a server that isn't a writable primary.
pub(crate) fn not_primary(side: Side, options: &ClientOptions, hello: &Document) -> Failure {
    let set = hello.get_str("setName").unwrap_or_default();
    let me = match hello.get_str("me") {
        Ok(me) => me.to_owned(),
        Err(_) => options.hosts.first().map(ToString::to_string).unwrap_or_default(),
    };
    let is = if hello.get_bool("secondary").unwrap_or(false) { "a secondary" } else { "not the primary" };
    let primary = hello.get_str("primary").map_or("has none now".to_owned(), |primary| format!("is {primary}"));
    let way = match options.direct_connection {
        Some(true) => "the URI leads there with directConnection=true",
        _ => "an election is under way",
    };
    let message = format!("{side}: {me} is {is} of the replica set \"{set}\", whose primary {primary}; {way}");
    Failure::new(side.not_primary(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_that_lead_nowhere_and_a_set_without_a_primary_are_said() {
        let hello = doc! {"setName": "rs", "hosts": ["member.invalid:27017", "127.0.0.1:2"], "secondary": true};
        let told = set_without_a_way(Side::Source, &hello).await;
        assert_eq!(told.code, ErrorCode::SourceUnreachable);
        let said = "source: the replica set \"rs\" answers, but its members' names can't be resolved on this host: \
                    member.invalid:27017; make them";
        assert!(told.message.starts_with(said), "{told}");
        let hello = doc! {"setName": "rs", "hosts": ["127.0.0.1:1", "127.0.0.1:2"], "secondary": true};
        let told = set_without_a_way(Side::Destination, &hello).await;
        let said = "destination: the replica set \"rs\" has no primary; its members are 127.0.0.1:1, 127.0.0.1:2";
        assert_eq!(told.message, said);
        let hello = doc! {"primary": "127.0.0.1:1", "setName": "rs", "hosts": ["127.0.0.1:1", "127.0.0.1:2"]};
        let told = set_without_a_way(Side::Destination, &hello).await;
        assert!(told.message.contains("its primary 127.0.0.1:1 can't be reached"), "{told}");
    }
}
