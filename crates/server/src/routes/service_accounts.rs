//! `/api/atlas/v2/orgs/{orgId}/serviceAccounts`: clients for bearer tokens.

use super::{org, owned_org, reply};
use crate::{
    auth::{bearer, roles},
    call::Call,
    paging,
    render::{ApiError, Reply},
    store,
};
use axum::http::StatusCode;
use limosa_model::{
    Timestamp,
    ids::SecretId,
    wire::account::{CreateServiceAccount, ServiceAccount, ServiceAccountSecret},
};

fn shown(account: &store::ServiceAccount, secret: Option<String>) -> ServiceAccount {
    ServiceAccount {
        client_id: account.client_id.clone(),
        created_at: account.created_at.rfc3339(),
        description: account.description.clone(),
        name: account.name.clone(),
        roles: account.roles.iter().map(|role| role.role_name).collect(),
        secrets: vec![ServiceAccountSecret {
            created_at: account.created_at.rfc3339(),
            expires_at: account.expires_at.rfc3339(),
            id: account.secret_id.clone(),
            secret,
        }],
    }
}

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    call.principal.reads_org()?;
    let all: Vec<ServiceAccount> = call.app.store.service_accounts(org)?.iter().map(|a| shown(a, None)).collect();
    paging::page(call, &all)
}

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let wanted: CreateServiceAccount = call.parse()?;
    let (now, secret) = (Timestamp::now(), bearer::new_client_secret());
    let account = store::ServiceAccount {
        client_id: bearer::new_client_id(),
        org_id: org,
        name: wanted.name,
        description: wanted.description,
        created_at: now,
        expires_at: now.plus_seconds(i64::from(wanted.secret_expires_after_hours) * 3600),
        secret_id: SecretId::generate().to_string(),
        secret_hash: bearer::hash(secret.expose()),
        roles: roles::of_org(org, &wanted.roles),
    };
    call.app.store.create_service_account(&account)?;
    // The only answer that has the secret.
    Ok(Reply { status: StatusCode::CREATED, ..reply(&shown(&account, Some(secret.expose().to_owned()))) })
}

pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let client = call.param("clientId");
    let known = call.app.store.service_account(client)?.filter(|account| account.org_id == org);
    if known.is_none() || !call.app.store.delete_service_account(client)? {
        return Err(ApiError::resource(client));
    }
    Ok(Reply::with(StatusCode::NO_CONTENT, None))
}
