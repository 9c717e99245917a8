//! Agents, as they presented themselves.

use crate::{
    ServerError,
    auth::bearer,
    store::{RelaxedDurability, Store, id, unreadable},
};
use limosa_model::{AgentId, GroupId, OrgId, Timestamp, protocol};
use rusqlite::params;
use subtle::ConstantTimeEq;

/// How long an agent counts as there after it was last heard of.
pub(crate) const SEEN_SECONDS: i64 = 60;

/// An agent as it presented itself.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub id: AgentId,
    pub group_id: GroupId,
    pub host_name: String,
    pub deployments: Vec<protocol::Deployment>,
    pub seen_at: Timestamp,
    /// The version of its program.
    pub version: String,
    /// Of its secret; versions before gave agents none.
    pub secret_hash: Option<String>,
}

impl Agent {
    /// Whether `secret` is the one with which it joined.
    pub fn is_proven_by(&self, secret: Option<&str>) -> bool {
        let (Some(known), Some(secret)) = (&self.secret_hash, secret) else { return false };
        known.as_bytes().ct_eq(bearer::hash(secret).as_bytes()).into()
    }
}

impl Store {
    pub fn put_agent(&self, org: OrgId, agent: &Agent) -> Result<(), ServerError> {
        let deployments = serde_json::to_string(&agent.deployments).map_err(|e| unreadable(&e))?;
        let row = params![
            agent.id.to_string(),
            org.to_string(),
            agent.group_id.to_string(),
            agent.host_name,
            deployments,
            agent.seen_at.0,
            agent.version,
            agent.secret_hash
        ];
        let put = "INSERT OR REPLACE INTO agents
            (id, org_id, group_id, host_name, deployments, seen_at, agent_version, secret_hash)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.lock().execute(put, row)?;
        Ok(())
    }

    /// Notes that an agent was heard of.
    pub fn agent_seen(&self, agent: AgentId, now: Timestamp) -> Result<(), ServerError> {
        let connection = self.lock();
        let _relaxed = RelaxedDurability::begin(&connection)?;
        let update = "UPDATE agents SET seen_at = ?2 WHERE id = ?1";
        connection.prepare_cached(update)?.execute(params![agent.to_string(), now.0])?;
        Ok(())
    }

    /// All agents of an organization.
    pub fn agents(&self, org: OrgId) -> Result<Vec<Agent>, ServerError> {
        self.read_agents("org_id = ?1 ORDER BY host_name", &[org.to_string()])
    }

    /// Whether an id is known at all: it is one agent's, of one organization.
    pub fn has_agent(&self, agent: AgentId) -> Result<bool, ServerError> {
        let query = "SELECT EXISTS (SELECT 1 FROM agents WHERE id = ?1)";
        Ok(self.reader().query_row(query, [agent.to_string()], |r| r.get(0))?)
    }

    /// One of them.
    pub fn agent(&self, org: OrgId, agent: AgentId) -> Result<Option<Agent>, ServerError> {
        Ok(self.read_agents("id = ?1 AND org_id = ?2", &[agent.to_string(), org.to_string()])?.pop())
    }

    fn read_agents(&self, condition: &str, values: &[String]) -> Result<Vec<Agent>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!(
            "SELECT id, group_id, host_name, deployments, seen_at, agent_version, secret_hash FROM agents
             WHERE {condition}"
        ))?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |r| {
            Ok((
                id(&r.get::<_, String>(0)?)?,
                id(&r.get::<_, String>(1)?)?,
                r.get(2)?,
                r.get::<_, String>(3)?,
                r.get(4)?,
                r.get(5)?,
                r.get(6)?,
            ))
        })?;
        rows.map(|row| {
            let (id, group_id, host_name, deployments, seen, version, secret_hash) = row?;
            let deployments = serde_json::from_str(&deployments).map_err(|e| unreadable(&e))?;
            Ok(Agent { id, group_id, host_name, deployments, seen_at: Timestamp(seen), version, secret_hash })
        })
        .collect()
    }

    /// How many agents were heard of since.
    pub fn agents_since(&self, since: Timestamp) -> Result<i64, ServerError> {
        Ok(self.reader().query_row("SELECT count(*) FROM agents WHERE seen_at >= ?1", [since.0], |r| r.get(0))?)
    }
}
