//! What the session's user may do.

use super::client::{Repeat, VCenter, malformed};
use super::error::VSphereError;
use super::fault::FaultKind;
use super::model::MoRef;
use super::soap::Question;
use super::xml::{Element, Wrong};

impl VCenter {
    /// Finds those of some privileges that the session's user lacks on an object, in the order given.
    ///
    /// Returns nothing if the server does not tell.
    ///
    /// # Errors
    /// If the question is not answered.
    pub fn missing_privileges(
        &self,
        entity: &MoRef,
        privileges: &[&str],
    ) -> Result<Option<Vec<String>>, VSphereError> {
        let Some(manager) = &self.content.authorization_manager else { return Ok(None) };
        let told = match self.told_for_session(manager, entity, privileges) {
            Err(error) if is_untold(&error) => self.told_for_user(manager, entity),
            told => told,
        };
        let granted = match told {
            Err(error) if is_untold(&error) => return Ok(None),
            told => told?,
        };
        let lacks = |privilege: &&&str| !granted.iter().any(|granted| granted == **privilege);
        Ok(Some(privileges.iter().filter(lacks).map(|privilege| (*privilege).to_owned()).collect()))
    }

    /// Asks for each privilege whether the session has it; returns those that it has.
    fn told_for_session(
        &self,
        manager: &MoRef,
        entity: &MoRef,
        privileges: &[&str],
    ) -> Result<Vec<String>, VSphereError> {
        const METHOD: &str = "HasPrivilegeOnEntities";
        let response = self.authenticated(|session| {
            let mut question =
                Question::new(METHOD, manager).with_object("entity", entity).with("sessionId", &session.key);
            for privilege in privileges {
                question = question.with("privId", privilege);
            }
            self.ask_in(session, &question, Repeat::Safe)
        })?;
        read_for_session(&response, entity).map_err(malformed(METHOD))
    }

    /// Asks for all privileges of the session's user.
    fn told_for_user(&self, manager: &MoRef, entity: &MoRef) -> Result<Vec<String>, VSphereError> {
        const METHOD: &str = "FetchUserPrivilegeOnEntities";
        let response = self.authenticated(|session| {
            let question = Question::new(METHOD, manager)
                .with_object("entities", entity)
                .with("userName", &session.user_name);
            self.ask_in(session, &question, Repeat::Safe)
        })?;
        read_for_user(&response, entity).map_err(malformed(METHOD))
    }
}

/// Whether a server does not have the method, or does not let this user ask.
fn is_untold(error: &VSphereError) -> bool {
    matches!(
        error.fault(),
        Some(
            FaultKind::NotSupported { .. }
                | FaultKind::InvalidArgument { .. }
                | FaultKind::NoPermission { .. }
                | FaultKind::Other { .. }
        )
    )
}

/// Reads the privileges that a session has on an object.
pub(super) fn read_for_session(response: &Element, entity: &MoRef) -> Result<Vec<String>, Wrong> {
    let mut granted = Vec::new();
    for told in response.all("returnval") {
        if told.need("entity")?.moref()? != *entity {
            continue;
        }
        for privilege in told.all("privAvailability") {
            if privilege.flag("isGranted")? {
                granted.push(privilege.string("privId")?);
            }
        }
    }
    Ok(granted)
}

/// Reads the privileges that a user has on an object.
pub(super) fn read_for_user(response: &Element, entity: &MoRef) -> Result<Vec<String>, Wrong> {
    let mut granted = Vec::new();
    for told in response.all("returnval") {
        if told.need("entity")?.moref()? == *entity {
            granted.extend(told.all("privileges").map(|privilege| privilege.text.trim().to_owned()));
        }
    }
    Ok(granted)
}
