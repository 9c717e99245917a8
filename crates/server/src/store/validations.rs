//! Requested preflights.

use crate::{
    ServerError,
    encryption::Place,
    store::{Store, id, text, unreadable},
};
use limosa_model::{AgentId, Finding, GroupId, OrgId, Secret, Timestamp, wire::live_migration::ValidationStatus};
use rusqlite::params;
use serde_json::Value;

/// A requested preflight.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    pub id: String,
    pub group_id: GroupId,
    pub status: ValidationStatus,
    pub error_message: Option<String>,
    pub findings: Vec<Finding>,
    pub request: Value,
    /// To read the source with, where they came with the request; gone when it is over.
    pub credentials: Option<Secret>,
}

impl Store {
    pub fn create_validation(
        &self,
        org: OrgId,
        validation: &Validation,
        host: &str,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let place = |column| Place { table: "validations", column, id: &validation.id };
        let request = self.seal.seal(&validation.request.to_string(), &place("request"));
        let credentials =
            validation.credentials.as_ref().map(|plain| self.seal.seal(plain.expose(), &place("credentials")));
        let (org, group) = (org.to_string(), validation.group_id.to_string());
        let row = params![validation.id, org, group, host, now.0, request, credentials];
        let insert = "INSERT INTO validations (id, org_id, group_id, host_name, created_at, status, request, credentials) \
                      VALUES (?1, ?2, ?3, ?4, ?5, 'PENDING', ?6, ?7)";
        self.lock().execute(insert, row)?;
        Ok(())
    }

    fn read_validations(&self, condition: &str, values: &[String]) -> Result<Vec<Validation>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!(
            "SELECT id, group_id, status, error_message, request, findings, credentials FROM validations WHERE {condition}"
        ))?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |r| {
            let column = |at: usize| r.get::<_, String>(at);
            Ok((
                column(0)?,
                id(&column(1)?)?,
                column(2)?,
                r.get(3)?,
                column(4)?,
                column(5)?,
                r.get::<_, Option<String>>(6)?,
            ))
        })?;
        rows.map(|row| {
            let (id, group_id, status, error_message, request, findings, credentials) = row?;
            let status = serde_json::from_value(Value::String(status)).map_err(|e| unreadable(&e))?;
            let place = |column| Place { table: "validations", column, id: &id };
            let request = self.seal.unseal(&request, &place("request"))?;
            let credentials = credentials.map(|sealed| self.seal.unseal(&sealed, &place("credentials"))).transpose()?;
            let credentials = credentials.map(Secret::new);
            let request = serde_json::from_str(&request).map_err(|e| unreadable(&e))?;
            let findings = serde_json::from_str(&findings).map_err(|e| unreadable(&e))?;
            Ok(Validation { id, group_id, status, error_message, findings, request, credentials })
        })
        .collect()
    }

    pub fn validation(&self, validation: &str) -> Result<Option<Validation>, ServerError> {
        Ok(self.read_validations("id = ?1", &[validation.to_owned()])?.pop())
    }

    /// Gives a validation to an agent, unless another one has it that was heard of since `since`.
    pub fn take_validation(&self, validation: &str, agent: AgentId, since: Timestamp) -> Result<bool, ServerError> {
        let update = "UPDATE validations SET agent_id = ?2 WHERE id = ?1 AND status = 'PENDING' AND (agent_id IS NULL
            OR agent_id = ?2
            OR NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = validations.agent_id AND seen_at > ?3))";
        Ok(self.lock().execute(update, params![validation, agent.to_string(), since.0])? == 1)
    }

    pub fn pending_validations(&self, org: OrgId, host: &str) -> Result<Vec<Validation>, ServerError> {
        let values = [org.to_string(), host.to_owned()];
        self.read_validations("status = 'PENDING' AND org_id = ?1 AND host_name = ?2", &values)
    }

    /// Ends a validation that its agent was given; repeated, it changes nothing. `false` if it isn't this agent's.
    pub fn finish_validation(
        &self,
        org: OrgId,
        agent: AgentId,
        validation: &str,
        failed: bool,
        error_message: Option<&str>,
        findings: &[Finding],
    ) -> Result<bool, ServerError> {
        let status = if failed { "FAILED" } else { "SUCCESS" };
        let (org, agent) = (org.to_string(), agent.to_string());
        let connection = self.lock();
        let own = "SELECT EXISTS (SELECT 1 FROM validations WHERE id = ?1 AND org_id = ?2 AND agent_id = ?3)";
        if !connection.query_row(own, params![validation, org, agent], |r| r.get::<_, bool>(0))? {
            return Ok(false);
        }
        let update = "UPDATE validations SET status = ?2, error_message = ?3, findings = ?4, credentials = NULL
            WHERE id = ?1 AND status = 'PENDING'";
        connection.execute(update, params![validation, status, error_message, text(&findings)?])?;
        drop(connection);
        self.wipe();
        Ok(true)
    }

    /// Ends validations that no agent has come for since `before`.
    pub fn lapse_validations(&self, before: Timestamp) -> Result<(), ServerError> {
        let update = "UPDATE validations SET status = 'FAILED', credentials = NULL, error_message = 'No agent on ' || host_name || ' came for it. \
            Start one, then validate again.' WHERE status = 'PENDING' AND created_at < ?1";
        if self.lock().execute(update, [before.0])? > 0 {
            self.wipe();
        }
        Ok(())
    }
}
