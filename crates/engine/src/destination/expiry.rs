//! The expiry of whole collections: time-series ones and clustered ones. It is off on the destination until a cutover is
//! about to complete, since what expires there the source may still have; and off again when a cutover goes back. That of
//! indexes goes the same way, see [`crate::destination::indexes`].

use crate::{
    destination::definition::Place,
    mongo::{
        catalog::{self, Entry, Kind},
        cluster::Cluster,
        error,
    },
};
use bson::{Bson, Document, doc};
use limosa_model::{Failure, Namespace, NamespaceFilter};
use std::collections::HashMap;

const EXPIRY: &str = "expireAfterSeconds";

/// Whether a collection as a whole can expire its documents.
fn may_expire(entry: &Entry) -> bool {
    let own = entry.kind == Kind::TimeSeries || entry.options.contains_key("clusteredIndex");
    own && entry.kind != Kind::View && !entry.ns.coll.starts_with(catalog::BUCKETS)
}

/// Makes the destination's collections expire as the source's do.
pub(crate) async fn switch_on(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<(), Failure> {
    let want = catalog::list(source, filter).await?;
    let have: HashMap<Namespace, Entry> =
        catalog::list(destination, filter).await?.into_iter().map(|own| (own.ns.clone(), own)).collect();
    for entry in want.iter().filter(|entry| may_expire(entry)) {
        let Some(own) = have.get(&entry.ns) else { continue };
        if let Some(seconds) = catalog::option_changes(entry, own).remove(EXPIRY) {
            set(destination, own, seconds).await?;
        }
    }
    Ok(())
}

/// Makes the destination expire nothing. A collection that is gone meanwhile needs nothing.
pub(crate) async fn switch_off(destination: &Cluster, filter: &NamespaceFilter) -> Result<(), Failure> {
    for own in catalog::list(destination, filter).await? {
        if may_expire(&own) && own.options.contains_key(EXPIRY) {
            set(destination, &own, "off".into()).await?;
        }
    }
    Ok(())
}

async fn set(destination: &Cluster, own: &Entry, seconds: Bson) -> Result<(), Failure> {
    let mut command: Document = doc! {"collMod": &own.ns.coll};
    command.insert(EXPIRY, seconds);
    Place { ns: own.ns.clone(), uuid: own.uuid }.hold(destination, &mut command);
    match destination.define(&own.ns.db, command).await {
        Ok(_) => Ok(()),
        Err(e) if error::is_gone(&e) => Ok(()),
        Err(e) => Err(destination.failure(&e)),
    }
}
