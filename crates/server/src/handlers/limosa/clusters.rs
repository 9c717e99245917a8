//! Destinations, as they are registered. Their URIs can be written and never read.

use crate::{
    handlers::{cluster, group, no_cluster, reply},
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
    let cluster = cluster(call, group.id, &wanted.name)?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&shown(&cluster)) })
}

/// A URI that can't be read is refused by its rule and position; the answer holds nothing of it.
fn read_uri(attribute: &str, uri: &str) -> Result<(), ApiError> {
    Uri::parse(&Secret::new(uri)).map(drop).map_err(|fault| {
        let detail = format!("Invalid attribute {attribute} specified: {fault}.");
        ApiError::bad("INVALID_ATTRIBUTE", detail, &[attribute])
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_a_malformed_uri_holds_nothing_of_its_password() {
        let mut refused = 0;
        for text in limosa_testkit::uris::malformed(17, 10_000) {
            let answer = read_uri("uri", &text);
            refused += u32::from(answer.is_err());
            let said = format!("{answer:?}");
            assert_eq!(limosa_testkit::uris::leak(&said), None, "{text:?}: {said}");
        }
        assert!(refused > 3_000, "only {refused} were refused");
    }
}
