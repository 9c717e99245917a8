//! What of a URI counts. Where and as whom to connect, TLS and compression are the user's to say. Write concern, read
//! concern and read preference decide whether a copy is exact, and time limits and pools whether a migration gets along:
//! those are set here, whatever the URI says.

use crate::mongo::{error, side::Side};
use limosa_model::{ErrorCode, Failure, Secret, Uri};
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria, WriteConcern};
use std::time::Duration;

/// How long to look for a server, and for a connection to be made, unless the URI says otherwise.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// What a URI may say instead.
const CONTACT_MILLIS: std::ops::RangeInclusive<u64> = 2_000..=30_000;

/// How often the driver looks how a server is, at the longest.
const HEARTBEAT_MILLIS: std::ops::RangeInclusive<u64> = 500..=10_000;

/// Connections that there may be: each lane, copy worker and comparison has one at a time, and looking after a silent one
/// takes one more.
const MOST_CONNECTIONS: u32 = 100;

/// A connection that nobody used for so long is closed, before a firewall forgets it.
const IDLE: Duration = Duration::from_secs(60);

/// Options that are left out of what the driver gets, whatever they say.
const OVERRIDDEN: &[&str] = &[
    "w",
    "wtimeoutMS",
    "journal",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "maxStalenessSeconds",
    "retryReads",
    "retryWrites",
    "socketTimeoutMS",
    "waitQueueTimeoutMS",
    "maxPoolSize",
    "minPoolSize",
    "maxConnecting",
    "maxIdleTimeMS",
    "localThresholdMS",
    "serverMonitoringMode",
    "uuidRepresentation",
    "appName",
    "zlibCompressionLevel",
];

/// What is built in.
const COMPRESSORS: [&str; 2] = ["zstd", "snappy"];

/// What to connect with.
#[derive(Debug)]
pub(crate) struct Given {
    pub uri: Uri,
    /// Options that would have changed what is read or written, or how long it is waited for.
    pub overridden: Vec<&'static str>,
    /// It says `compressors`, and names none that is built in.
    is_plain: bool,
}

/// Reads a URI. A failure says the rule and the position, and nothing of the URI.
pub(crate) fn read(side: Side, uri: &Secret) -> Result<Given, Failure> {
    let mut uri = Uri::parse(uri)
        .map_err(|fault| Failure::new(ErrorCode::MalformedUri, format!("the {side} URI can't be read: {fault}")))?;
    if uri.option("loadBalanced") == Some("true") {
        let message = format!(
            "the {side} URI has loadBalanced=true: a load balancer hides which server answers; name the replica set's members"
        );
        return Err(Failure::new(ErrorCode::MalformedUri, message));
    }
    let mut overridden: Vec<&'static str> = uri.option_names().filter(|name| would_matter(&uri, name)).collect();
    overridden.dedup();
    OVERRIDDEN.iter().for_each(|name| uri.remove_option(name));
    let is_plain = keep_known_compressors(&mut uri);
    for (name, bounds) in [
        ("serverSelectionTimeoutMS", CONTACT_MILLIS),
        ("connectTimeoutMS", CONTACT_MILLIS),
        ("heartbeatFrequencyMS", HEARTBEAT_MILLIS),
    ] {
        if uri.option(name).is_some_and(|value| !value.parse().is_ok_and(|millis: u64| bounds.contains(&millis))) {
            uri.remove_option(name);
        }
    }
    Ok(Given { uri, overridden, is_plain })
}

/// One that isn't built in would end everything; the server takes of the rest what it knows. Returns whether none is left.
fn keep_known_compressors(uri: &mut Uri) -> bool {
    let Some(said) = uri.option("compressors") else { return false };
    let known: Vec<&str> = said.split(',').filter(|name| COMPRESSORS.contains(name)).collect();
    let known = known.join(",");
    uri.remove_option("compressors");
    if !known.is_empty() {
        uri.add_option("compressors", &known);
    }
    known.is_empty()
}

/// Whether an option says something else than what is done anyway.
fn would_matter(uri: &Uri, name: &str) -> bool {
    let value = uri.option(name).unwrap_or_default();
    let number = value.parse::<u64>().unwrap_or(0);
    match name {
        "w" => value != "majority",
        "journal" => value == "false",
        "readConcernLevel" => value != "majority",
        "readPreference" => value != "primary",
        "wtimeoutMS" | "socketTimeoutMS" | "waitQueueTimeoutMS" => number > 0,
        "readPreferenceTags" | "maxStalenessSeconds" => true,
        "maxPoolSize" => (1..u64::from(MOST_CONNECTIONS)).contains(&number),
        "serverSelectionTimeoutMS" | "connectTimeoutMS" => !CONTACT_MILLIS.contains(&number),
        "heartbeatFrequencyMS" => !HEARTBEAT_MILLIS.contains(&number),
        _ => false,
    }
}

/// The driver's options for it.
pub(crate) async fn options(side: Side, given: &Given) -> Result<ClientOptions, Failure> {
    let parsed = ClientOptions::parse(given.uri.to_secret().expose()).await;
    let mut options = parsed.map_err(|error| unusable(side, &given.uri, &error))?;
    options.app_name = Some("limosa".to_owned());
    options.retry_writes = Some(false);
    options.retry_reads = Some(true);
    options.read_concern = None;
    options.write_concern = Some(WriteConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    if given.is_plain {
        options.compressors = Some(Vec::new());
    }
    options.max_pool_size = Some(MOST_CONNECTIONS);
    options.min_pool_size = None;
    options.max_idle_time = Some(IDLE);
    options.server_selection_timeout.get_or_insert(FIRST_CONTACT);
    options.connect_timeout.get_or_insert(FIRST_CONTACT);
    Ok(options)
}

/// Options that the driver can't use together, or a host that the DNS has no records of. The driver's own words may hold
/// values out of the URI, so they aren't passed on.
fn unusable(side: Side, uri: &Uri, error: &mongodb::error::Error) -> Failure {
    if uri.is_srv() && !error::is_invalid_argument(error) {
        let host = uri.hosts().first().map_or("", String::as_str);
        let message =
            format!("{side}: the DNS has no usable SRV record of {host}: check the name, and this host's resolver");
        return Failure::new(side.unreachable(), message);
    }
    let said: Vec<&str> = uri.option_names().collect();
    let message = format!(
        "the {side} URI can't be used: the values of its options, or the options together, make no sense to the driver; it \
         has {}",
        if said.is_empty() { "none".to_owned() } else { said.join(", ") }
    );
    Failure::new(ErrorCode::MalformedUri, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_decides_is_set_by_hand_and_what_was_said_instead_is_known() {
        let harmless =
            "mongodb://h/?retryWrites=true&w=majority&appName=x&readPreference=primary&compressors=zlib,snappy";
        let harmful = "mongodb://h/?w=0&readPreference=secondary&readPreferenceTags=a:b&readPreferenceTags=&maxPoolSize=1\
                       &connectTimeoutMS=1&readConcernLevel=snapshot&directConnection=true";
        let matter =
            ["w", "readPreference", "readPreferenceTags", "maxPoolSize", "connectTimeoutMS", "readConcernLevel"];
        for (uri, overridden) in [(harmless, &[][..]), (harmful, &matter[..])] {
            let given = read(Side::Source, &Secret::new(uri)).expect("is well formed");
            assert_eq!(given.overridden, overridden);
            let options = options(Side::Source, &given).await.expect("can be used");
            assert_eq!(options.write_concern, Some(WriteConcern::majority()));
            assert_eq!(options.read_concern, None);
            let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
            assert_eq!(options.selection_criteria, Some(primary));
            assert_eq!((options.max_pool_size, options.connect_timeout), (Some(MOST_CONNECTIONS), Some(FIRST_CONTACT)));
            assert_eq!(options.direct_connection, (uri == harmful).then_some(true));
            assert_eq!(options.compressors.is_some(), uri == harmless);
        }
        let balanced = read(Side::Source, &Secret::new("mongodb://h/?loadBalanced=true"));
        assert_eq!(balanced.map(|_| ()).map_err(|e| e.code), Err(ErrorCode::MalformedUri));
    }

    #[tokio::test]
    async fn no_message_about_a_malformed_uri_holds_a_piece_of_its_password() {
        let mut refused = 0;
        for text in limosa_testkit::uris::malformed(4242, 10_000) {
            let uri = Secret::new(text.as_str());
            let mut said = format!("{uri:?} {:?}", Uri::parse(&uri).map(|uri| uri.shown()));
            let read = read(Side::Source, &uri);
            said += &format!("{read:?}");
            refused += u32::from(read.is_err());
            if let Ok(given) = read
                && !given.uri.is_srv()
                && let Err(failure) = options(Side::Source, &given).await
            {
                said += &format!("{failure} {failure:?}");
            }
            assert_eq!(limosa_testkit::uris::leak(&said), None, "{text:?}: {said}");
        }
        assert!(refused > 3_000, "only {refused} were refused");
    }
}
