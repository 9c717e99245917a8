//! Destinations, as Atlas's clients read clusters.

use crate::{
    handlers::{cluster, group, reply, self_link},
    http::{
        context::Call,
        paging,
        render::{ApiError, Reply},
    },
    store::Cluster,
};
use limosa_model::{
    GroupId, Uri,
    wire::account::{ClusterDescription, ConnectionStrings},
};

/// `GET /api/atlas/v2/groups/{groupId}/clusters`
pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    let clusters = call.app.store.clusters(group.id)?;
    let all: Vec<ClusterDescription> = clusters.iter().map(|cluster| description(call, group.id, cluster)).collect();
    paging::page(call, &all)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    let cluster = cluster(call, group.id, call.param("clusterName"))?;
    Ok(reply(&description(call, group.id, &cluster)))
}

fn description(call: &Call, group: GroupId, cluster: &Cluster) -> ClusterDescription {
    let path = format!("/api/atlas/v2/groups/{group}/clusters/{}", cluster.name);
    ClusterDescription {
        cluster_type: "REPLICASET".to_owned(),
        connection_strings: addresses(cluster),
        group_id: group.to_string(),
        id: cluster.id.to_string(),
        links: self_link(call, &path),
        mongo_db_version: cluster.facts.as_ref().map(|facts| facts.mongo_db_version.clone()),
        name: cluster.name.clone(),
        replication_specs: Vec::new(),
        state_name: "IDLE".to_owned(),
    }
}

/// How clients connect to it, without credentials: what is known of its URI, completed by what an agent saw. Of one that
/// can't be read nothing is shown: any part may be the password's.
fn addresses(cluster: &Cluster) -> ConnectionStrings {
    let Ok(uri) = Uri::parse(&cluster.uris.standard) else {
        return ConnectionStrings { standard: Some("mongodb://".to_owned()), standard_srv: None };
    };
    let facts = cluster.facts.as_ref();
    let set = facts.map(|facts| facts.replica_set.as_str()).or_else(|| uri.option("replicaSet"));
    let with_set = |address: String| match set {
        Some(set) => {
            let set: String = url::form_urlencoded::byte_serialize(set.as_bytes()).collect();
            format!("{address}/?replicaSet={set}")
        }
        None => address,
    };
    if uri.is_srv() {
        let members = facts.filter(|facts| !facts.hosts.is_empty()).map(|facts| facts.hosts.join(","));
        let standard = members.map(|members| with_set(format!("mongodb://{members}")));
        return ConnectionStrings { standard, standard_srv: Some(uri.shown()) };
    }
    ConnectionStrings { standard: Some(with_set(uri.shown())), standard_srv: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Uris;
    use limosa_model::Secret;

    #[test]
    fn only_scheme_hosts_and_set_of_a_uri_are_shown() {
        for (uri, expected) in [
            ("mongodb://u:p@a:1,b:2/db?replicaSet=rs", "mongodb://a:1,b:2/?replicaSet=rs"),
            ("mongodb://u:p/w@d@a:1/?x", "mongodb://"),
            ("mongodb://a:1?appName=x", "mongodb://a:1"),
            ("mongodb://a:1?password=x", "mongodb://"),
        ] {
            let uris = Uris { standard: Secret::new(uri), vpc_peering: None, private_links: Vec::new() };
            let id = limosa_model::DeploymentId::generate();
            let shown = addresses(&Cluster { id, name: "c".to_owned(), uris, facts: None });
            assert_eq!((shown.standard.as_deref(), shown.standard_srv), (Some(expected), None));
        }
    }

    #[test]
    fn what_is_shown_of_a_malformed_uri_holds_nothing_of_its_password() {
        for text in limosa_testkit::uris::malformed(17, 10_000) {
            let uris = Uris { standard: Secret::new(text.as_str()), vpc_peering: None, private_links: Vec::new() };
            let id = limosa_model::DeploymentId::generate();
            let shown = addresses(&Cluster { id, name: "c".to_owned(), uris, facts: None });
            let said = format!("{:?} {:?}", shown.standard, shown.standard_srv);
            assert_eq!(limosa_testkit::uris::leak(&said), None, "{text:?}: {said}");
        }
    }
}
