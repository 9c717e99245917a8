//! Whether the destination takes the source's views: found out before a cutover, which creates them.

use crate::{
    destination::{checkpoint::DATABASE, definition},
    mongo::{
        catalog::{self, Entry, Kind},
        cluster::Cluster,
    },
    tuning::CATALOG_CONCURRENCY,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{ErrorCode, Failure, Finding, Namespace, NamespaceFilter};
use std::collections::HashMap;

/// Each view that the destination doesn't have yet is created in Limosa's own database and dropped again: only the server
/// itself knows what it takes. Returns those that it refuses.
pub(crate) async fn refused(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<Vec<Finding>, Failure> {
    let have: HashMap<Namespace, Entry> =
        catalog::list(destination, filter).await?.into_iter().map(|own| (own.ns.clone(), own)).collect();
    let views = catalog::list(source, filter).await?.into_iter().filter(|entry| {
        entry.kind == Kind::View && !have.get(&entry.ns).is_some_and(|own| own.options == entry.options)
    });
    let views: Vec<Entry> = views.collect();
    if views.is_empty() {
        return Ok(Vec::new());
    }
    let tried: Vec<_> = views.iter().zip(0..).map(|(view, n)| try_one(destination, view, n)).collect();
    let found: Vec<Option<Finding>> = futures::stream::iter(tried).buffered(CATALOG_CONCURRENCY).try_collect().await?;
    definition::drop_namespace(destination, &Namespace::new(DATABASE, "system.views")).await.unwrap_or_else(
        |failure| {
            tracing::debug!(%failure, "an empty collection of views stays");
        },
    );
    Ok(found.into_iter().flatten().collect())
}

async fn try_one(destination: &Cluster, view: &Entry, n: usize) -> Result<Option<Finding>, Failure> {
    let trial = Namespace::new(DATABASE, format!("trial.view.{n}"));
    definition::drop_namespace(destination, &trial).await?;
    let created = catalog::create(destination, &trial, &view.options).await;
    match created {
        Ok(_) => definition::drop_namespace(destination, &trial).await.map(|()| None),
        Err(failure) if failure.code.is_transient() => Err(failure),
        Err(failure) => {
            let evidence = format!("the destination doesn't take the view {}: {}", view.ns, failure.message);
            Ok(Some(Finding::error(ErrorCode::UnsupportedCollection, view.ns.to_string(), evidence)))
        }
    }
}
