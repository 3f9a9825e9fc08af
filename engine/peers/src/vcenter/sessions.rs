//! Sessions, and what their user may do.

use jiff::Timestamp;

use super::calls::{Caller, granted};
use super::describe::resolve;
use super::element::Element;
use super::fault::Fault;
use super::state::{Session, State};
use super::value::{Reference, Value, boolean, int, object, string, time};

/// The privileges that there are here.
const PRIVILEGES: [&str; 17] = [
    "System.Read",
    "System.View",
    "Datastore.AllocateSpace",
    "Datastore.Browse",
    "Datastore.FileManagement",
    "VirtualMachine.Config.AddExistingDisk",
    "VirtualMachine.Config.AddNewDisk",
    "VirtualMachine.Config.AdvancedConfig",
    "VirtualMachine.Config.ChangeTracking",
    "VirtualMachine.Config.DiskLease",
    "VirtualMachine.Config.RemoveDisk",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Provisioning.DiskRandomAccess",
    "VirtualMachine.Provisioning.DiskRandomRead",
    "VirtualMachine.Provisioning.GetVmFiles",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
];

/// Tells whether a cookie is of a session that lives, and counts the call.
pub(super) fn check(state: &mut State, cookie: Option<&str>) -> Option<()> {
    let cookie = cookie?;
    let session = state.sessions.get_mut(cookie)?;
    if session.calls_left == Some(0) {
        state.sessions.remove(cookie);
        return None;
    }
    if let Some(left) = &mut session.calls_left {
        *left -= 1;
    }
    Some(())
}

/// Answers Login.
pub(super) fn login(state: &mut State, caller: &mut Caller<'_>) -> Result<Value, Fault> {
    let user = caller.call.text_of("userName").unwrap_or_default().to_owned();
    let password = caller.call.text_of("password").unwrap_or_default();
    if user != state.user || password != state.password {
        let message = "Cannot complete login due to an incorrect user name or password.";
        return Err(Fault::new("InvalidLogin", message));
    }
    if caller.cookie.is_some_and(|cookie| state.sessions.contains_key(cookie)) {
        let message = "The current operation is not permitted because the session is already logged in.";
        return Err(Fault::new("InvalidState", message));
    }
    let (cookie, key) = (state.random.uuid("").replace('-', ""), state.random.uuid("52"));
    let session = Session { key: key.clone(), user: user.clone(), calls_left: state.session_calls };
    state.sessions.insert(cookie.clone(), session);
    caller.new_cookie = Some(cookie);
    let now = Timestamp::now();
    let fields = vec![
        ("key", string(key)),
        ("userName", string(user.as_str())),
        ("fullName", string(user)),
        ("loginTime", time(now)),
        ("lastActiveTime", time(now)),
        ("locale", string("en")),
        ("messageLocale", string("en")),
        ("extensionSession", boolean(false)),
        ("ipAddress", string("127.0.0.1")),
        ("userAgent", string("")),
        ("callCount", int(0)),
    ];
    Ok(object("UserSession", fields))
}

/// Answers Logout.
pub(super) fn logout(state: &mut State, caller: &Caller<'_>) -> Result<Value, Fault> {
    match caller.cookie.and_then(|cookie| state.sessions.remove(cookie)) {
        Some(_) => Ok(Value::Unset),
        None => Err(Fault::not_authenticated(Reference::new("SessionManager", "SessionManager"))),
    }
}

/// Answers `HasPrivilegeOnEntities`.
pub(super) fn has_privileges(state: &State, call: &Element) -> Result<Value, Fault> {
    let key = call.text_of("sessionId").unwrap_or_default();
    if !state.sessions.values().any(|session| session.key == key) {
        return Err(Fault::invalid_argument("sessionId"));
    }
    let answers = call.all("entity").filter_map(|entity| {
        let asked = call.all("privId").map(|privilege| {
            let known = PRIVILEGES.contains(&privilege.text());
            granted(privilege.text(), known && !state.denied.contains(privilege.text()))
        });
        let fields = vec![
            ("entity", Value::Reference(resolve(state, entity.text())?)),
            ("privAvailability", Value::List("PrivilegeAvailability", asked.collect())),
        ];
        Some(object("EntityPrivilege", fields))
    });
    Ok(Value::List("EntityPrivilege", answers.collect()))
}

/// Answers `FetchUserPrivilegeOnEntities`.
pub(super) fn fetch_privileges(state: &State, call: &Element) -> Value {
    let mine = PRIVILEGES.iter().filter(|privilege| !state.denied.contains(**privilege));
    let mine: Vec<Value> = mine.map(|privilege| string(*privilege)).collect();
    let answers = call.all("entities").filter_map(|entity| {
        let fields = vec![
            ("entity", Value::Reference(resolve(state, entity.text())?)),
            ("privileges", Value::List("string", mine.clone())),
        ];
        Some(object("UserPrivilegeResult", fields))
    });
    Value::List("UserPrivilegeResult", answers.collect())
}
