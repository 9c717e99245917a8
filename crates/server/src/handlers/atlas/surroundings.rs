//! What Atlas's clients read around a group and an organization and what there is none of here: users, teams, limits,
//! settings. Each answer is true, mostly by being empty.

use crate::{
    handlers::{group, org, reply},
    http::{
        context::Call,
        paging,
        render::{ApiError, Reply},
    },
};
use limosa_model::wire::account::{Absent, GroupIpAddresses, GroupServices, GroupSettings, OrganizationSettings};

/// A list of what a group has none of.
pub(crate) fn none_in_group(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    paging::page::<Absent>(call, &[])
}

/// The limits that a group has: none. A bare array.
pub(crate) fn limits(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    Ok(reply::<[Absent; 0]>(&[]))
}

pub(crate) fn group_settings(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    Ok(reply(&GroupSettings::default()))
}

pub(crate) fn ip_addresses(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_group(group.id)?;
    Ok(reply(&GroupIpAddresses { group_id: group.id.to_string(), services: GroupServices::default() }))
}

/// A list of what an organization has none of.
pub(crate) fn none_in_org(call: &Call) -> Result<Reply, ApiError> {
    org(call)?;
    call.principal.is_member()?;
    paging::page::<Absent>(call, &[])
}

pub(crate) fn org_settings(call: &Call) -> Result<Reply, ApiError> {
    org(call)?;
    call.principal.is_member()?;
    Ok(reply(&OrganizationSettings {
        api_access_list_required: false,
        gen_ai_features_enabled: false,
        max_service_account_secret_validity_in_hours: 8760,
        multi_factor_auth_required: false,
        restrict_employee_access: true,
    }))
}
