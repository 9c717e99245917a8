//! `/api/atlas/v2/orgs/{orgId}/apiKeys` and `…/groups/{groupId}/apiKeys`: keys for digest authentication, and from where they work.

use super::{account::self_link, group, org, owned_org, reply};
use crate::{
    auth::{self, access_list, roles},
    call::Call,
    paging,
    render::{ApiError, Reply},
    store::ApiKey,
};
use axum::http::StatusCode;
use limosa_model::wire::account::{
    AccessListEntry, ApiKeyUserDetails, CreateApiKey, CreateGroupApiKey, GroupRoleAssignment, GroupRoleName, Role,
};

fn shown(call: &Call, key: &ApiKey) -> ApiKeyUserDetails {
    ApiKeyUserDetails {
        desc: key.description.clone(),
        id: key.id.to_string(),
        links: self_link(call, &format!("/api/atlas/v2/orgs/{}/apiKeys/{}", key.org_id, key.id)),
        private_key: format!("********-****-****-{}", key.tail),
        public_key: key.public_key.clone(),
        roles: key.roles.clone(),
    }
}

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    call.principal.reads_org()?;
    let all: Vec<ApiKeyUserDetails> = call.app.store.api_keys(org)?.iter().map(|key| shown(call, key)).collect();
    paging::page(call, &all)
}

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let wanted: CreateApiKey = call.parse()?;
    make(call, &wanted.desc, roles::of_org(org, &wanted.roles))
}

/// A new key.
fn make(call: &Call, description: &str, roles: Vec<Role>) -> Result<Reply, ApiError> {
    let (public_key, private_key) = (auth::new_public_key(), auth::new_private_key());
    let key = ApiKey::new(call.principal.org_id, &public_key, &private_key, description, roles);
    call.app.store.create_api_key(&key)?;
    // The only answer that has it whole.
    Ok(reply(&ApiKeyUserDetails { private_key: private_key.expose().to_owned(), ..shown(call, &key) }))
}

/// The path's key, if it is the organization's.
fn find(call: &Call) -> Result<ApiKey, ApiError> {
    let text = call.param("apiUserId");
    let all = call.app.store.api_keys(call.principal.org_id)?;
    let found = all.into_iter().find(|key| key.id.to_string() == text);
    found.ok_or_else(|| ApiError::not_found("API_KEY_NOT_FOUND", format!("No API Key with ID {text} exists."), &[text]))
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    org(call)?;
    call.principal.reads_org()?;
    Ok(reply(&shown(call, &find(call)?)))
}

/// The last key that owns the organization stays: without it nobody could get in any more.
pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let key = find(call)?;
    let owners = |key: &ApiKey| key.clone().principal().owns_org().is_ok();
    if owners(&key) && call.app.store.api_keys(org)?.iter().filter(|key| owners(key)).count() == 1 {
        let detail = "The organization's last owner key can't be deleted; create another one first.";
        return Err(ApiError::conflict("CANNOT_DELETE_LAST_OWNER", detail, &[]));
    }
    call.app.store.delete_api_key(key.id)?;
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}

/// `GET /api/atlas/v2/groups/{groupId}/apiKeys`: those that have a role in the group.
pub(crate) fn list_of_group(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    let mut all = call.app.store.api_keys(group.org_id)?;
    all.retain(|key| key.roles.iter().any(|role| roles::is_in(role, group.id)));
    let all: Vec<ApiKeyUserDetails> = all.iter().map(|key| shown(call, key)).collect();
    paging::page(call, &all)
}

pub(crate) fn create_in_group(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_group(group.id)?;
    let wanted: CreateGroupApiKey = call.parse()?;
    make(call, &wanted.desc, roles::of_group(group.id, &wanted.roles))
}

/// Gives a key of the organization other roles in the group than it had.
pub(crate) fn assign_in_group(call: &Call) -> Result<Reply, ApiError> {
    let wanted: Vec<GroupRoleAssignment> = call.parse()?;
    let names: Vec<_> = wanted.into_iter().flat_map(|one| one.roles).collect();
    change_in_group(call, &names)
}

/// Takes a key out of the group; it stays the organization's.
pub(crate) fn remove_from_group(call: &Call) -> Result<Reply, ApiError> {
    change_in_group(call, &[])?;
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}

fn change_in_group(call: &Call, names: &[GroupRoleName]) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_group(group.id)?;
    let mut key = find(call)?;
    key.roles.retain(|role| !roles::is_in(role, group.id));
    key.roles.extend(roles::of_group(group.id, names));
    call.app.store.set_roles(key.id, &key.roles)?;
    Ok(reply(&shown(call, &key)))
}

fn entries(call: &Call, list: &[String]) -> Result<Reply, ApiError> {
    let all: Vec<AccessListEntry> = list.iter().map(|entry| access_list::shown(entry)).collect();
    paging::page(call, &all)
}

pub(crate) fn access_list(call: &Call) -> Result<Reply, ApiError> {
    org(call)?;
    call.principal.reads_org()?;
    entries(call, &find(call)?.access_list)
}

pub(crate) fn add_access(call: &Call) -> Result<Reply, ApiError> {
    owned_org(call)?;
    let key = find(call)?;
    let mut list = key.access_list;
    for entry in call.parse::<Vec<AccessListEntry>>()? {
        let (name, text) = match (entry.ip_address, entry.cidr_block) {
            (Some(address), None) => ("ipAddress", address),
            (None, Some(block)) => ("cidrBlock", block),
            _ => return Err(ApiError::missing("ipAddress")),
        };
        if !access_list::is_valid(&text) || (name == "ipAddress") == text.contains('/') {
            return Err(ApiError::invalid(name));
        }
        if !list.contains(&text) {
            list.push(text);
        }
    }
    call.app.store.set_access_list(key.id, &list)?;
    entries(call, &list)
}

pub(crate) fn remove_access(call: &Call) -> Result<Reply, ApiError> {
    owned_org(call)?;
    let key = find(call)?;
    let entry = call.param("ipAddress").replace("%2F", "/");
    let mut list = key.access_list;
    let before = list.len();
    list.retain(|own| *own != entry);
    if list.len() == before {
        return Err(ApiError::resource(&entry));
    }
    call.app.store.set_access_list(key.id, &list)?;
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}
