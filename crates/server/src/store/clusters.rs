//! Registered destinations, and how agents reach them.

use crate::{
    ServerError,
    encryption::Place,
    store::{Store, id, read, text, uri},
};
use limosa_model::{DeploymentId, GroupId, Secret, protocol::ClusterFacts, wire::live_migration::HostnameSchemaType};
use rusqlite::params;
use serde::{Deserialize, Serialize};

/// A registered destination.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub id: DeploymentId,
    pub name: String,
    pub uris: Uris,
    /// As an agent saw it last, since the URIs are these.
    pub facts: Option<ClusterFacts>,
}

/// How agents reach a destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Uris {
    pub standard: Secret,
    pub vpc_peering: Option<Secret>,
    pub private_links: Vec<(String, Secret)>,
}

impl Uris {
    /// The one that a request asks for.
    pub fn pick(&self, kind: HostnameSchemaType, private_link: Option<&str>) -> Option<&Secret> {
        match kind {
            HostnameSchemaType::Public => Some(&self.standard),
            HostnameSchemaType::VpcPeering => self.vpc_peering.as_ref(),
            HostnameSchemaType::PrivateLink => {
                self.private_links.iter().find(|(id, _)| Some(id.as_str()) == private_link).map(|(_, uri)| uri)
            }
        }
    }
}

impl Uris {
    /// Whether each of them leads where the one of `known` that is asked for in the same way does.
    pub fn lead_where(&self, known: &Self) -> bool {
        let same = |a: Option<&Secret>, b: Option<&Secret>| match (a, b) {
            (Some(a), Some(b)) => uri::lead_to_the_same(a.expose(), b.expose()),
            // Nothing that is in use was asked for in this way.
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => true,
        };
        let links = known
            .private_links
            .iter()
            .all(|(id, uri)| same(self.private_links.iter().find(|(own, _)| own == id).map(|(_, uri)| uri), Some(uri)));
        links
            && same(Some(&self.standard), Some(&known.standard))
            && same(self.vpc_peering.as_ref(), known.vpc_peering.as_ref())
    }
}

fn uris_of(cluster: &str) -> Place<'_> {
    Place { table: "clusters", column: "uris", id: cluster }
}

impl Store {
    /// Registers a destination cluster, or changes its URIs.
    pub fn put_cluster(&self, group: GroupId, name: &str, uris: &Uris) -> Result<(), ServerError> {
        let id = format!("{group}/{name}");
        let sealed = self.seal.seal(&text(uris)?, &uris_of(&id));
        let row = params![DeploymentId::generate().to_string(), group.to_string(), name, sealed];
        let insert = "INSERT INTO clusters (id, group_id, name, uris) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (group_id, name) DO UPDATE SET uris = excluded.uris, facts = NULL";
        self.lock().execute(insert, row)?;
        self.wipe();
        Ok(())
    }

    /// Notes what an agent saw of a destination.
    pub fn put_facts(&self, group: GroupId, name: &str, facts: &ClusterFacts) -> Result<(), ServerError> {
        let row = params![group.to_string(), name, text(facts)?];
        let update = "UPDATE clusters SET facts = ?3 WHERE group_id = ?1 AND name = ?2 AND facts IS NOT ?3";
        self.lock().execute(update, row)?;
        Ok(())
    }

    /// All destinations of a group, by name.
    pub fn clusters(&self, group: GroupId) -> Result<Vec<Cluster>, ServerError> {
        self.read_clusters("group_id = ?1 ORDER BY name", &[&group.to_string()])
    }

    fn read_clusters(&self, condition: &str, values: &[&str]) -> Result<Vec<Cluster>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!(
            "SELECT id, name, uris, facts, group_id || '/' || name FROM clusters WHERE {condition}"
        ))?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |r| {
            let text = |column| r.get::<_, String>(column);
            Ok((id(&text(0)?)?, r.get(1)?, text(2)?, r.get::<_, Option<String>>(3)?, text(4)?))
        })?;
        rows.map(|row| {
            let (id, name, sealed, facts, place) = row?;
            let facts = facts.map(|facts| read(&facts)).transpose()?;
            Ok(Cluster { id, name, uris: read(&self.seal.unseal(&sealed, &uris_of(&place))?)?, facts })
        })
        .collect()
    }

    pub fn cluster(&self, group: GroupId, name: &str) -> Result<Option<Cluster>, ServerError> {
        Ok(self.read_clusters("group_id = ?1 AND name = ?2", &[&group.to_string(), name])?.pop())
    }

    /// `false` if there is none of that name.
    pub fn delete_cluster(&self, group: GroupId, name: &str) -> Result<bool, ServerError> {
        let delete = "DELETE FROM clusters WHERE group_id = ?1 AND name = ?2";
        let deleted = self.lock().execute(delete, params![group.to_string(), name])?;
        self.wipe();
        Ok(deleted == 1)
    }
}
