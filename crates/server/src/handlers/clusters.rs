//! Destinations: registered here, and read as Atlas's clients read clusters. Their URIs can be written and never read.

use crate::{
    handlers::{group, no_cluster, reply, self_link},
    http::{
        context::Call,
        paging,
        render::{ApiError, Reply},
    },
    store::{Cluster, Uris},
};
use axum::http::StatusCode;
use limosa_model::{
    GroupId, Secret, Uri,
    wire::account::{ClusterDescription, ConnectionStrings},
    wire::own::{RegisterCluster, RegisteredCluster},
};

fn shown(cluster: &Cluster) -> RegisteredCluster {
    RegisteredCluster { id: cluster.id.to_string(), name: cluster.name.clone() }
}

/// `GET /api/limosa/v1/groups/{groupId}/clusters`
pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    let all: Vec<RegisteredCluster> = call.app.store.clusters(group.id)?.iter().map(shown).collect();
    paging::page(call, &all)
}

pub(crate) fn register(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let wanted: RegisterCluster = call.parse()?;
    read_uri("uri", &wanted.uri)?;
    wanted.vpc_peering_uri.iter().try_for_each(|uri| read_uri("vpcPeeringUri", uri))?;
    wanted.private_links.iter().try_for_each(|link| read_uri("privateLinks.uri", &link.uri))?;
    let uris = Uris {
        standard: Secret::new(wanted.uri),
        vpc_peering: wanted.vpc_peering_uri.map(Secret::new),
        private_links: wanted.private_links.into_iter().map(|l| (l.private_link_id, Secret::new(l.uri))).collect(),
    };
    if let Some(known) = call.app.store.cluster(group.id, &wanted.name)?
        && !uris.lead_where(&known.uris)
    {
        refuse_in_use(call, group.id, &wanted.name, "Its URIs may change in user and password alone until then.")?;
    }
    call.app.store.put_cluster(group.id, &wanted.name, &uris)?;
    let cluster = find(call, group.id, &wanted.name)?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&shown(&cluster)) })
}

/// A URI that can't be read is refused by its rule and position; the answer holds nothing of it.
fn read_uri(attribute: &str, uri: &str) -> Result<(), ApiError> {
    Uri::parse(&Secret::new(uri)).map(drop).map_err(|fault| {
        let detail = format!("Invalid attribute {attribute} specified: {fault}.");
        ApiError::bad("INVALID_ATTRIBUTE", detail, &[attribute])
    })
}

fn find(call: &Call, group: GroupId, name: &str) -> Result<Cluster, ApiError> {
    call.app.store.cluster(group, name)?.ok_or_else(|| no_cluster(name, group))
}

/// Refuses where a migration that an agent may still claim has it as one of its ends; a failed one can be resumed.
fn refuse_in_use(call: &Call, group: GroupId, name: &str, more: &str) -> Result<(), ApiError> {
    let Some(user) = call.app.store.user_of_cluster(group, name)? else { return Ok(()) };
    let id = user.to_string();
    let detail = format!("Cluster {name} is in use by live migration {id}, which is not over. {more}");
    Err(ApiError::conflict("CLUSTER_IN_USE", detail.trim_end(), &[name, &id]))
}

/// A destination of a migration that isn't over stays.
pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let name = call.param("clusterName");
    refuse_in_use(call, group.id, name, "")?;
    if call.app.store.delete_cluster(group.id, name)? {
        Ok(Reply::with(StatusCode::NO_CONTENT, None))
    } else {
        Err(no_cluster(name, group.id))
    }
}

/// `GET /api/atlas/v2/groups/{groupId}/clusters`
pub(crate) fn described(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    let clusters = call.app.store.clusters(group.id)?;
    let all: Vec<ClusterDescription> = clusters.iter().map(|cluster| description(call, group.id, cluster)).collect();
    paging::page(call, &all)
}

pub(crate) fn describe(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    let cluster = find(call, group.id, call.param("clusterName"))?;
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
    fn an_answer_to_a_malformed_uri_holds_nothing_of_its_password() {
        let mut refused = 0;
        for text in limosa_testkit::uris::malformed(17, 10_000) {
            let answer = read_uri("uri", &text);
            refused += u32::from(answer.is_err());
            let uris = Uris { standard: Secret::new(text.as_str()), vpc_peering: None, private_links: Vec::new() };
            let id = limosa_model::DeploymentId::generate();
            let shown = addresses(&Cluster { id, name: "c".to_owned(), uris, facts: None });
            let said = format!("{answer:?} {:?} {:?}", shown.standard, shown.standard_srv);
            assert_eq!(limosa_testkit::uris::leak(&said), None, "{text:?}: {said}");
        }
        assert!(refused > 3_000, "only {refused} were refused");
    }
}
