//! Who asks, organizations, groups.

use crate::{
    auth::roles,
    handlers::{atlas::api_keys, group as find_group, org as find_org, reply, self_link},
    http::{
        context::Call,
        paging,
        render::{ApiError, Reply},
    },
    store,
};
use axum::http::StatusCode;
use limosa_model::{
    GroupId, OrgId, Timestamp,
    wire::account::{AtlasOrganization, CallerKey, CreateGroup, Group, GroupRoleName, SystemStatus},
};

/// `GET /api/atlas/v2`
pub(crate) fn who_am_i(call: &Call) -> Result<Reply, ApiError> {
    let principal = &call.principal;
    let api_key = principal.key.map(|id| CallerKey {
        access_list: api_keys::entries(call, id, &principal.name, &principal.access_list),
        id: id.to_string(),
        public_key: principal.name.clone(),
        roles: roles::shown(principal.org_id, &principal.roles),
    });
    Ok(reply(&SystemStatus {
        api_key,
        app_name: "Limosa".to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        links: self_link(call, "/api/atlas/v2"),
        throttling: false,
    }))
}

fn shown_org(call: &Call, org: OrgId) -> Result<AtlasOrganization, ApiError> {
    Ok(AtlasOrganization {
        id: org.to_string(),
        is_deleted: false,
        links: self_link(call, &format!("/api/atlas/v2/orgs/{org}")),
        name: call.app.store.org_name(org)?.unwrap_or_default(),
        skip_default_alerts_settings: true,
    })
}

pub(crate) fn orgs(call: &Call) -> Result<Reply, ApiError> {
    call.principal.reads_org()?;
    let mut all = vec![shown_org(call, call.principal.org_id)?];
    all.retain(|org| call.query("name").is_none_or(|name| org.name.starts_with(name)));
    paging::page(call, &all)
}

pub(crate) fn org(call: &Call) -> Result<Reply, ApiError> {
    let org = find_org(call)?;
    call.principal.reads_org()?;
    Ok(reply(&shown_org(call, org)?))
}

fn shown(call: &Call, group: &store::Group) -> Group {
    Group {
        cluster_count: group.clusters,
        created: group.created_at.rfc3339(),
        id: group.id.to_string(),
        links: self_link(call, &format!("/api/atlas/v2/groups/{}", group.id)),
        name: group.name.clone(),
        org_id: group.org_id.to_string(),
        region_usage_restrictions: group.settings.region_usage_restrictions,
        tags: group.settings.tags.clone(),
        with_default_alerts_settings: group.settings.with_default_alerts_settings,
    }
}

/// Those that the caller may read.
pub(crate) fn groups(call: &Call) -> Result<Reply, ApiError> {
    let mut all = call.app.store.groups(call.principal.org_id)?;
    all.retain(|group| call.principal.reads_group(group.id).is_ok());
    all.retain(|group| call.query("name").is_none_or(|name| group.name.starts_with(name)));
    let all: Vec<Group> = all.iter().map(|group| shown(call, group)).collect();
    paging::page(call, &all)
}

pub(crate) fn org_groups(call: &Call) -> Result<Reply, ApiError> {
    find_org(call)?;
    call.principal.reads_org()?;
    groups(call)
}

pub(crate) fn group(call: &Call) -> Result<Reply, ApiError> {
    let group = find_group(call)?;
    call.principal.reads_group(group.id)?;
    Ok(reply(&shown(call, &group)))
}

pub(crate) fn group_by_name(call: &Call) -> Result<Reply, ApiError> {
    let name = call.param("groupName");
    let found = call.app.store.group_by_name(call.principal.org_id, name)?;
    let group = found.ok_or_else(|| {
        ApiError::not_found("GROUP_NAME_NOT_FOUND", format!("No group with name \"{name}\" exists."), &[name])
    })?;
    call.principal.reads_group(group.id)?;
    Ok(reply(&shown(call, &group)))
}

pub(crate) fn create_group(call: &Call) -> Result<Reply, ApiError> {
    let wanted: CreateGroup = call.parse()?;
    let text = wanted.org_id.as_str();
    let org: OrgId = text.parse().map_err(|_| ApiError::invalid("orgId"))?;
    if org != call.principal.org_id {
        let detail = format!("No organization with ID {text} exists.");
        return Err(ApiError::not_found("ORG_NOT_FOUND", detail, &[text]));
    }
    call.principal.creates_groups()?;
    let id = GroupId::generate();
    let settings = store::GroupSettings {
        region_usage_restrictions: wanted.region_usage_restrictions,
        tags: wanted.tags.unwrap_or_default(),
        with_default_alerts_settings: wanted.with_default_alerts_settings.unwrap_or(false),
    };
    if !call.app.store.create_group(id, org, &wanted.name, &settings, Timestamp::now())? {
        let name = wanted.name.as_str();
        let detail = format!("A group with name \"{name}\" already exists.");
        return Err(ApiError::conflict("GROUP_ALREADY_EXISTS", detail, &[name]));
    }
    // Who may create groups and nothing else owns what it created.
    if call.principal.owns_group(id).is_err() {
        roles::of_group(id, &[GroupRoleName::GroupOwner])
            .into_iter()
            .try_for_each(|role| call.app.store.grant(&call.principal, role))?;
    }
    let group = call.app.store.group(id)?.ok_or_else(|| ApiError::resource(&id.to_string()))?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&shown(call, &group)) })
}
