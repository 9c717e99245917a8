//! `/api/atlas/v2/orgs/{orgId}/liveMigrations/availableProjects`: what agents announce.

use crate::{
    handlers::{owned_org, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::{Agent, SEEN_SECONDS},
};
use limosa_model::{
    Timestamp, protocol,
    wire::live_migration::{AvailableClustersDeployment, LiveImportAvailableProject},
};

/// A bare array.
pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let now = Timestamp::now();
    let mut agents = call.app.store.agents(org)?;
    agents.retain(|a| now.seconds_since(a.seen_at) <= SEEN_SECONDS);
    let mut projects = Vec::new();
    for group in call.app.store.groups(org)? {
        let own: Vec<&Agent> = agents.iter().filter(|a| a.group_id == group.id).collect();
        if own.is_empty() {
            continue;
        }
        let mut deployments: Vec<AvailableClustersDeployment> =
            own.iter().flat_map(|a| a.deployments.iter().map(|d| announced(a, d))).collect();
        deployments.sort_by(|a, b| a.name.cmp(&b.name));
        deployments.dedup_by(|a, b| a.name == b.name);
        let mut hosts: Vec<String> = own.iter().map(|a| a.host_name.clone()).collect();
        hosts.dedup();
        projects.push(LiveImportAvailableProject {
            deployments,
            migration_hosts: hosts,
            name: group.name,
            project_id: group.id,
        });
    }
    Ok(reply(&projects))
}

fn announced(agent: &Agent, d: &protocol::Deployment) -> AvailableClustersDeployment {
    AvailableClustersDeployment {
        agent_version: agent.version.clone(),
        cluster_id: d.cluster_id.to_string(),
        db_size_bytes: d.db_size_bytes,
        feature_compatibility_version: d.feature_compatibility_version.clone(),
        managed: d.managed,
        mongo_db_version: d.mongo_db_version.clone(),
        name: d.name.clone(),
        oplog_size_mb: d.oplog_size_mb,
        sharded: d.sharded,
        shards_size: d.shards_size,
        tls_enabled: d.tls_enabled,
    }
}
