//! Who did what, when and from where; and what was refused.

use crate::{
    ServerError,
    auth::Principal,
    store::{Store, offset},
};
use limosa_model::{OrgId, Timestamp, wire::own::Outcome};
use rusqlite::params;

/// Refused operations that are kept of an organization: a caller may try without an end.
const REFUSED: i64 = 10_000;

/// What someone did, or wanted to.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    pub address: String,
    pub operation: String,
    pub target: String,
    pub outcome: Outcome,
}

impl Store {
    pub fn audit(
        &self,
        principal: &Principal,
        address: &str,
        operation: &str,
        target: &str,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let org = principal.org_id.to_string();
        let name = if outcome == Outcome::Refused { "REFUSED" } else { "DONE" };
        let row = params![org, now.0, principal.name, address, operation, target, name];
        let insert = "INSERT INTO audit (org_id, at, actor, address, operation, target, outcome)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let connection = self.lock();
        connection.execute(insert, row)?;
        if outcome == Outcome::Refused {
            let thin = "DELETE FROM audit WHERE org_id = ?1 AND outcome = 'REFUSED' AND n <= (SELECT n FROM audit
                WHERE org_id = ?1 AND outcome = 'REFUSED' ORDER BY n DESC LIMIT 1 OFFSET ?2)";
            connection.execute(thin, params![org, REFUSED])?;
        }
        Ok(())
    }

    /// Newest first: `size` entries after the `first`, and how many there are.
    pub fn audited(&self, org: OrgId, first: usize, size: usize) -> Result<(Vec<Audit>, usize), ServerError> {
        let connection = self.reader();
        let count = "SELECT count(*) FROM audit WHERE org_id = ?1";
        let total: i64 = connection.query_row(count, [org.to_string()], |r| r.get(0))?;
        let mut query = connection.prepare_cached(
            "SELECT n, at, actor, address, operation, target, outcome FROM audit WHERE org_id = ?1
             ORDER BY n DESC LIMIT ?2 OFFSET ?3",
        )?;
        let rows = query.query_map(params![org.to_string(), size as i64, offset(first)], |r| {
            let outcome = if r.get::<_, String>(6)? == "REFUSED" { Outcome::Refused } else { Outcome::Done };
            Ok(Audit {
                id: r.get(0)?,
                at: Timestamp(r.get(1)?),
                actor: r.get(2)?,
                address: r.get(3)?,
                operation: r.get(4)?,
                target: r.get(5)?,
                outcome,
            })
        })?;
        Ok((rows.collect::<Result<_, _>>()?, total as usize))
    }
}
