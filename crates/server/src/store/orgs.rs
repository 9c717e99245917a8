//! Organizations and their groups.

use crate::{
    ServerError,
    store::{ApiKey, ServiceAccount, Store, api_keys, id, service_accounts, text},
};
use limosa_model::{
    GroupId, OrgId, Timestamp,
    wire::account::{RegionUsageRestrictions, ResourceTag},
};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// A group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub id: GroupId,
    pub org_id: OrgId,
    pub name: String,
    pub created_at: Timestamp,
    pub clusters: i64,
    pub settings: GroupSettings,
}

/// What was said at a group's creation, to be read again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GroupSettings {
    pub region_usage_restrictions: Option<RegionUsageRestrictions>,
    pub tags: Vec<ResourceTag>,
    pub with_default_alerts_settings: bool,
}

const GROUP: &str = "SELECT id, org_id, name, created_at, (SELECT count(*) FROM clusters WHERE group_id = groups.id),
    settings FROM groups";

fn read_group(r: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group {
        id: id(&r.get::<_, String>(0)?)?,
        org_id: id(&r.get::<_, String>(1)?)?,
        name: r.get(2)?,
        created_at: Timestamp(r.get(3)?),
        clusters: r.get(4)?,
        settings: serde_json::from_str(&r.get::<_, String>(5)?).unwrap_or_default(),
    })
}

impl Store {
    /// Whether it has an organization.
    pub fn has_org(&self) -> Result<bool, ServerError> {
        Ok(self.reader().query_row("SELECT EXISTS (SELECT 1 FROM orgs)", [], |r| r.get(0))?)
    }

    /// Makes the owner's organization, a group of the same name and the owner's keys; all of it, or nothing.
    pub fn create_first_org(
        &self,
        name: &str,
        group: GroupId,
        account: &ServiceAccount,
        key: &ApiKey,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let org = key.org_id.to_string();
        transaction.execute("INSERT INTO orgs VALUES (?1, ?2)", params![org, name])?;
        let row = params![group.to_string(), org, name, now.0];
        transaction.execute("INSERT INTO groups (id, org_id, name, created_at) VALUES (?1, ?2, ?3, ?4)", row)?;
        service_accounts::insert(&transaction, account)?;
        api_keys::insert(&transaction, key, &self.seal)?;
        Ok(transaction.commit()?)
    }

    pub fn org_name(&self, org: OrgId) -> Result<Option<String>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached("SELECT name FROM orgs WHERE id = ?1")?;
        Ok(query.query_row([org.to_string()], |r| r.get(0)).optional()?)
    }

    /// Adds a group; `false` if the organization has one of that name.
    pub fn create_group(
        &self,
        group: GroupId,
        org: OrgId,
        name: &str,
        settings: &GroupSettings,
        now: Timestamp,
    ) -> Result<bool, ServerError> {
        let row = params![group.to_string(), org.to_string(), name, now.0, text(settings)?];
        let insert =
            "INSERT OR IGNORE INTO groups (id, org_id, name, created_at, settings) VALUES (?1, ?2, ?3, ?4, ?5)";
        Ok(self.lock().execute(insert, row)? == 1)
    }

    pub fn group_by_name(&self, org: OrgId, name: &str) -> Result<Option<Group>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!("{GROUP} WHERE org_id = ?1 AND name = ?2"))?;
        Ok(query.query_row(params![org.to_string(), name], read_group).optional()?)
    }

    pub fn group(&self, group: GroupId) -> Result<Option<Group>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!("{GROUP} WHERE id = ?1"))?;
        Ok(query.query_row([group.to_string()], read_group).optional()?)
    }

    /// All groups of an organization, by name.
    pub fn groups(&self, org: OrgId) -> Result<Vec<Group>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!("{GROUP} WHERE org_id = ?1 ORDER BY name"))?;
        Ok(query.query_map([org.to_string()], read_group)?.collect::<Result<_, _>>()?)
    }
}
