//! `/api/atlas/v2/orgs/{orgId}/apiKeys` and `…/groups/{groupId}/apiKeys`: keys for digest authentication, and from where they work.

use crate::{
    auth::{self, access_list, roles},
    handlers::{group, org, owned_org, reply, self_link},
    http::{
        context::Call,
        paging,
        render::{ApiError, Reply},
    },
    store::{Allowed, ApiKey},
};
use axum::http::StatusCode;
use limosa_model::{
    Timestamp,
    ids::ApiKeyId,
    wire::account::{
        AccessListEntry, AccessListRequest, ApiKeyUserDetails, CreateApiKey, CreateGroupApiKey, GroupRoleAssignment,
        GroupRoleName, OrgRoleName, Role, UpdateApiKey, UpdateGroupApiKey,
    },
};

fn shown(call: &Call, key: &ApiKey) -> ApiKeyUserDetails {
    ApiKeyUserDetails {
        desc: key.description.clone(),
        id: key.id.to_string(),
        links: self_link(call, &format!("/api/atlas/v2/orgs/{}/apiKeys/{}", key.org_id, key.id)),
        private_key: format!("********-****-****-{}", key.tail),
        public_key: key.public_key.clone(),
        roles: roles::shown(key.org_id, &key.roles),
    }
}

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    call.principal.is_member()?;
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
    if text.parse::<ApiKeyId>().is_err() {
        return Err(ApiError::path_parameter(&call.path));
    }
    let all = call.app.store.api_keys(call.principal.org_id)?;
    let found = all.into_iter().find(|key| key.id.to_string() == text);
    found.ok_or_else(|| unknown(text))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("API_KEY_NOT_FOUND", format!("No API Key with ID {id} exists."), &[id])
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    org(call)?;
    call.principal.is_member()?;
    Ok(reply(&shown(call, &find(call)?)))
}

/// The last key that owns the organization stays one: without it nobody could get in any more.
fn another_owner_is_left(call: &Call, key: &ApiKey) -> Result<(), ApiError> {
    let owners = |key: &ApiKey| key.clone().principal().owns_org().is_ok();
    if owners(key) && call.app.store.api_keys(key.org_id)?.iter().filter(|key| owners(key)).count() == 1 {
        let detail = "The organization's last owner key must stay one; create another one first.";
        return Err(ApiError::conflict("CANNOT_DELETE_LAST_OWNER", detail, &[]));
    }
    Ok(())
}

pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    owned_org(call)?;
    let key = find(call)?;
    another_owner_is_left(call, &key)?;
    call.app.store.delete_api_key(key.id)?;
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}

/// Changes what is given; roles in groups stay.
pub(crate) fn update(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let mut key = find(call)?;
    let UpdateApiKey { desc, roles: names } = call.parse()?;
    if let Some(names) = names {
        if !names.contains(&OrgRoleName::OrgOwner) {
            another_owner_is_left(call, &key)?;
        }
        key.roles.retain(|role| role.group_id.is_some());
        key.roles = [roles::of_org(org, &names), key.roles].concat();
        call.app.store.set_roles(key.id, &key.roles)?;
    }
    describe(call, &mut key, desc)
}

/// Changes what is given of a key that has a role in the group; its roles elsewhere stay.
pub(crate) fn update_in_group(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_group(group.id)?;
    let mut key = find(call)?;
    if !key.roles.iter().any(|role| roles::is_in(role, group.id)) {
        return Err(unknown(call.param("apiUserId")));
    }
    let UpdateGroupApiKey { desc, roles: names } = call.parse()?;
    if let Some(names) = names {
        key.roles.retain(|role| !roles::is_in(role, group.id));
        key.roles.extend(roles::of_group(group.id, &names));
        call.app.store.set_roles(key.id, &key.roles)?;
    }
    describe(call, &mut key, desc)
}

fn describe(call: &Call, key: &mut ApiKey, description: Option<String>) -> Result<Reply, ApiError> {
    if let Some(description) = description {
        call.app.store.describe_key(key.id, &description)?;
        key.description = description;
    }
    Ok(reply(&shown(call, key)))
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

/// The entries of a key's access list as clients read them.
pub(super) fn entries(call: &Call, key: ApiKeyId, name: &str, list: &[Allowed]) -> Vec<AccessListEntry> {
    let path = |entry: &str| {
        let list = format!("/api/atlas/v2/orgs/{}/apiKeys/{key}/accessList", call.principal.org_id);
        format!("{list}/{}", entry.replace('/', "%2F"))
    };
    let shown = |allowed: &Allowed| {
        let links = self_link(call, &path(&allowed.entry));
        access_list::shown(&call.app.access_uses, name, allowed, links)
    };
    list.iter().map(shown).collect()
}

fn page(call: &Call, key: &ApiKey, list: &[Allowed]) -> Result<Reply, ApiError> {
    paging::page(call, &entries(call, key.id, &key.public_key, list))
}

pub(crate) fn access_list(call: &Call) -> Result<Reply, ApiError> {
    org(call)?;
    call.principal.is_member()?;
    let key = find(call)?;
    page(call, &key, &key.access_list)
}

pub(crate) fn add_access(call: &Call) -> Result<Reply, ApiError> {
    owned_org(call)?;
    let key = find(call)?;
    let mut list = key.access_list.clone();
    for entry in call.parse::<Vec<AccessListRequest>>()? {
        let (name, text) = match (entry.ip_address, entry.cidr_block) {
            (Some(address), None) => ("ipAddress", address),
            (None, Some(block)) => ("cidrBlock", block),
            _ => return Err(ApiError::missing("ipAddress")),
        };
        if !access_list::is_valid(&text) || (name == "ipAddress") == text.contains('/') {
            return Err(ApiError::invalid(name));
        }
        if !list.iter().any(|known| known.entry == text) {
            list.push(Allowed { entry: text, created_at: Some(Timestamp::now()) });
        }
    }
    call.app.store.set_access_list(key.id, &list)?;
    page(call, &key, &list)
}

pub(crate) fn remove_access(call: &Call) -> Result<Reply, ApiError> {
    owned_org(call)?;
    let key = find(call)?;
    let entry = call.param("ipAddress").replace("%2F", "/");
    let mut list = key.access_list;
    let before = list.len();
    list.retain(|own| own.entry != entry);
    if list.len() == before {
        return Err(ApiError::resource(&entry));
    }
    call.app.store.set_access_list(key.id, &list)?;
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}
