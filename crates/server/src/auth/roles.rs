//! What a caller may do. A role that is missing is answered with 401, as Atlas does.

use crate::{auth::Principal, http::render::ApiError};
use axum::http::StatusCode;
use limosa_model::{
    GroupId, OrgId,
    wire::account::{GroupRoleName, OrgRoleName, Role, RoleName},
};

impl Principal {
    fn has(&self, wanted: &[RoleName]) -> bool {
        self.roles.iter().any(|role| role.group_id.is_none() && wanted.contains(&role.role_name))
    }

    fn has_in(&self, group: GroupId, wanted: &[RoleName]) -> bool {
        self.roles.iter().any(|role| is_in(role, group) && wanted.contains(&role.role_name))
    }

    /// May change anything in the organization.
    pub fn owns_org(&self) -> Result<(), ApiError> {
        require(self.has(&[RoleName::OrgOwner]))
    }

    /// May read the organization itself.
    pub fn reads_org(&self) -> Result<(), ApiError> {
        require(!self.is_link && !self.roles.is_empty())
    }

    /// Is a member of the organization: any role in it is enough, as with Atlas; one in a group isn't.
    pub fn is_member(&self) -> Result<(), ApiError> {
        require(!self.is_link && self.roles.iter().any(|role| role.group_id.is_none()))
    }

    /// May read what all groups' figures are.
    pub fn reads_all(&self) -> Result<(), ApiError> {
        require(self.has(&[RoleName::OrgOwner, RoleName::OrgMember, RoleName::OrgReadOnly]))
    }

    /// May read what belongs to a group.
    pub fn reads_group(&self, group: GroupId) -> Result<(), ApiError> {
        let reads = self.has(&[RoleName::OrgOwner, RoleName::OrgReadOnly])
            || self.has_in(group, &[RoleName::GroupOwner, RoleName::GroupReadOnly]);
        if reads { Ok(()) } else { Err(denied("USER_CANNOT_ACCESS_GROUP")) }
    }

    /// May read a migration: members of the organization too.
    pub fn reads_migrations(&self, group: GroupId) -> Result<(), ApiError> {
        if self.has(&[RoleName::OrgMember]) { Ok(()) } else { self.reads_group(group) }
    }

    /// May steer what belongs to a group.
    pub fn owns_group(&self, group: GroupId) -> Result<(), ApiError> {
        require(self.has(&[RoleName::OrgOwner]) || self.has_in(group, &[RoleName::GroupOwner]))
    }

    /// May create groups.
    pub fn creates_groups(&self) -> Result<(), ApiError> {
        require(self.has(&[RoleName::OrgOwner, RoleName::OrgGroupCreator]))
    }

    /// Speaks for an agent.
    pub fn is_agent(&self) -> Result<(), ApiError> {
        require(self.is_link)
    }
}

fn require(may: bool) -> Result<(), ApiError> {
    if may { Ok(()) } else { Err(denied("USER_UNAUTHORIZED")) }
}

/// The answer to a missing role.
pub(crate) fn denied(code: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, "Current user is not authorized to perform this action.", &[])
}

/// Organization roles as a key carries them.
pub(crate) fn of_org(org: OrgId, names: &[OrgRoleName]) -> Vec<Role> {
    let org_id = Some(org.to_string());
    names.iter().map(|name| Role { group_id: None, org_id: org_id.clone(), role_name: (*name).into() }).collect()
}

/// Group roles as a key carries them.
pub(crate) fn of_group(group: GroupId, names: &[GroupRoleName]) -> Vec<Role> {
    let group_id = Some(group.to_string());
    names.iter().map(|name| Role { group_id: group_id.clone(), org_id: None, role_name: (*name).into() }).collect()
}

/// A key's or account's roles as clients read them. Atlas makes any that has a role in a group a member of the
/// organization, and clients find the organization by that role; here it is shown, and opens nothing.
pub(crate) fn shown(org: OrgId, roles: &[Role]) -> Vec<Role> {
    let mut shown = roles.to_vec();
    if !roles.is_empty() && roles.iter().all(|role| role.group_id.is_some()) {
        shown.extend(of_org(org, &[OrgRoleName::OrgMember]));
    }
    shown
}

/// Whether a role is one in this group.
pub(crate) fn is_in(role: &Role, group: GroupId) -> bool {
    role.group_id.as_deref() == Some(group.to_string().as_str())
}
