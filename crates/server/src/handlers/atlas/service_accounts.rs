//! `/api/atlas/v2/orgs/{orgId}/serviceAccounts`: clients for bearer tokens.

use crate::{
    auth::{bearer, roles},
    handlers::{org, owned_org, reply},
    http::{
        context::Call,
        paging,
        render::{ApiError, Reply},
    },
    store,
};
use axum::http::StatusCode;
use limosa_model::{
    OrgId, Secret, Timestamp,
    wire::account::{
        CreateServiceAccount, CreateServiceAccountSecret, ServiceAccount, ServiceAccountSecret, UpdateServiceAccount,
    },
};

/// How long secrets live on at most after another one was made.
const OVERLAP_SECONDS: i64 = 7 * 86_400;

/// Secrets that an account has at most; what has expired isn't counted.
const SECRETS: usize = 20;

fn shown_secret(known: &store::AccountSecret, secret: Option<&Secret>) -> ServiceAccountSecret {
    ServiceAccountSecret {
        created_at: known.created_at.rfc3339(),
        expires_at: known.expires_at.rfc3339(),
        id: known.id.clone(),
        last_used_at: known.last_used_at.map(Timestamp::rfc3339),
        masked_secret_value: known.tail.as_ref().map(|tail| format!("mdb_sa_sk_...{tail}")),
        secret: secret.map(|secret| secret.expose().to_owned()),
    }
}

fn shown(account: &store::ServiceAccount, secret: Option<&Secret>) -> ServiceAccount {
    ServiceAccount {
        client_id: account.client_id.clone(),
        created_at: account.created_at.rfc3339(),
        description: account.description.clone(),
        name: account.name.clone(),
        roles: account.roles.iter().map(|role| role.role_name).collect(),
        secrets: account.secrets.iter().map(|known| shown_secret(known, secret)).collect(),
    }
}

/// The path's account, if it is the organization's.
fn find(call: &Call, org: OrgId) -> Result<store::ServiceAccount, ApiError> {
    let client = call.param("clientId");
    let known = call.app.store.service_account(client)?.filter(|account| account.org_id == org);
    known.ok_or_else(|| ApiError::resource(client))
}

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    call.principal.is_member()?;
    let all: Vec<ServiceAccount> = call.app.store.service_accounts(org)?.iter().map(|a| shown(a, None)).collect();
    paging::page(call, &all)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    call.principal.is_member()?;
    Ok(reply(&shown(&find(call, org)?, None)))
}

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let wanted: CreateServiceAccount = call.parse()?;
    let (now, secret) = (Timestamp::now(), bearer::new_client_secret());
    let seconds = i64::from(wanted.secret_expires_after_hours) * 3600;
    let account = store::ServiceAccount {
        client_id: bearer::new_client_id(),
        org_id: org,
        name: wanted.name,
        description: wanted.description,
        created_at: now,
        secrets: vec![store::AccountSecret::new(&secret, now, seconds)],
        roles: roles::of_org(org, &wanted.roles),
    };
    call.app.store.create_service_account(&account)?;
    // The only answer that has the secret.
    Ok(Reply { status: StatusCode::CREATED, ..reply(&shown(&account, Some(&secret))) })
}

/// Changes what is given. Its roles in groups stay.
pub(crate) fn update(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let mut account = find(call, org)?;
    let UpdateServiceAccount { description, name, roles: names } = call.parse()?;
    account.name = name.unwrap_or(account.name);
    account.description = description.unwrap_or(account.description);
    if let Some(names) = names {
        account.roles.retain(|role| role.group_id.is_some());
        account.roles = [roles::of_org(org, &names), account.roles].concat();
    }
    call.app.store.update_service_account(&account)?;
    Ok(reply(&shown(&account, None)))
}

pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let account = find(call, org)?;
    if !call.app.store.delete_service_account(&account.client_id)? {
        return Err(ApiError::resource(&account.client_id));
    }
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}

/// Another secret; the ones before end within a week, so that clients can be moved to it.
pub(crate) fn create_secret(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let account = find(call, org)?;
    let wanted: CreateServiceAccountSecret = call.parse()?;
    let (now, plain) = (Timestamp::now(), bearer::new_client_secret());
    if account.secrets.iter().filter(|secret| secret.expires_at > now).count() >= SECRETS {
        let detail = format!("Service account {} has {SECRETS} secrets; delete one first.", account.client_id);
        return Err(ApiError::conflict("TOO_MANY_SECRETS", detail, &[&account.client_id]));
    }
    let secret = store::AccountSecret::new(&plain, now, i64::from(wanted.secret_expires_after_hours) * 3600);
    call.app.store.add_secret(&account.client_id, &secret, now.plus_seconds(OVERLAP_SECONDS))?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&shown_secret(&secret, Some(&plain))) })
}

pub(crate) fn delete_secret(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let account = find(call, org)?;
    let secret = call.param("secretId");
    if !call.app.store.delete_secret(&account.client_id, secret)? {
        return Err(ApiError::resource(secret));
    }
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}
