//! The calls of vim25: who may make them, and which object does what.

use super::areas;
use super::collector;
use super::describe::about;
use super::element::Element;
use super::fault::Fault;
use super::power;
use super::reconfigure::reconfigure;
use super::sessions;
use super::snapshots;
use super::state::{ROOT_FOLDER, State};
use super::tasks;
use super::value::{Reference, Value, boolean, object, reference, string, time};

/// A call, and who makes it.
pub(super) struct Caller<'a> {
    pub(super) call: &'a Element,
    /// The cookie that came with it.
    pub(super) cookie: Option<&'a str>,
    /// The cookie that the answer sets.
    pub(super) new_cookie: Option<String>,
}

impl Caller<'_> {
    /// Returns the id of the object that is called.
    pub(super) fn object(&self) -> &str {
        self.call.text_of("_this").unwrap_or_default()
    }
}

/// Returns the privilege that a method needs.
fn privilege(method: &str) -> Option<&'static str> {
    match method {
        "CreateSnapshot_Task" | "CreateSnapshotEx_Task" => Some("VirtualMachine.State.CreateSnapshot"),
        "RemoveSnapshot_Task" | "ConsolidateVMDisks_Task" => Some("VirtualMachine.State.RemoveSnapshot"),
        "QueryChangedDiskAreas" => Some("VirtualMachine.Provisioning.DiskRandomRead"),
        "PowerOffVM_Task" => Some("VirtualMachine.Interact.PowerOff"),
        _ => None,
    }
}

/// Carries a call out, if its session and its privileges allow, and returns what it returns.
pub(super) fn carry_out(state: &mut State, caller: &mut Caller<'_>) -> Result<Value, Fault> {
    let method = caller.call.name.as_str();
    let open = matches!(method, "RetrieveServiceContent" | "Login" | "CurrentTime");
    if !open {
        let this = caller.call.child("_this").and_then(Element::type_name).unwrap_or("ManagedObject");
        let kind =
            ["SearchIndex", "PropertyCollector", "VirtualMachine"].into_iter().find(|kind| *kind == this);
        let target = Reference::new(kind.unwrap_or("ManagedObject"), caller.object());
        sessions::check(state, caller.cookie).ok_or_else(|| Fault::not_authenticated(target))?;
    }
    if let Some(privilege) = privilege(method) {
        check_privilege(state, caller.object(), privilege)?;
    }
    let (this, call) = (caller.object().to_owned(), caller.call);
    match method {
        "RetrieveServiceContent" => Ok(service_content(state)),
        "CurrentTime" => Ok(time(jiff::Timestamp::now())),
        "Login" => sessions::login(state, caller),
        "Logout" => sessions::logout(state, caller),
        "FindByInventoryPath" => Ok(find_by_path(state, call)),
        "FindByUuid" => find_by_uuid(state, call),
        "RetrievePropertiesEx" => collector::retrieve(state, call),
        "ContinueRetrievePropertiesEx" => collector::continue_retrieve(state, call),
        "HasPrivilegeOnEntities" => sessions::has_privileges(state, call),
        "FetchUserPrivilegeOnEntities" => Ok(sessions::fetch_privileges(state, call)),
        "ReconfigVM_Task" => reconfigure(state, &this, call),
        "CreateSnapshot_Task" | "CreateSnapshotEx_Task" => snapshots::create_task(state, &this, method, call),
        "RemoveSnapshot_Task" => snapshots::remove_task(state, &this, call),
        "ConsolidateVMDisks_Task" => snapshots::consolidate_task(state, &this),
        "PowerOffVM_Task" => power::off_task(state, &this),
        "PowerOnVM_Task" => power::on_task(state, &this),
        "QueryChangedDiskAreas" => {
            state.machine(&this)?;
            areas::query(state, &this, call)
        }
        _ => Err(Fault::new("NotImplemented", &format!("The fake has no {method}."))),
    }
}

/// Refuses what the test does not allow.
pub(super) fn check_privilege(state: &State, object: &str, privilege: &str) -> Result<(), Fault> {
    if state.denied.contains(privilege) {
        let object =
            super::describe::resolve(state, object).unwrap_or_else(|| Reference::new("Folder", ROOT_FOLDER));
        return Err(Fault::no_permission(object, privilege));
    }
    Ok(())
}

/// Starts the task of a method in vain.
pub(super) fn fail_task(state: &mut State, caller: &Caller<'_>, fault: Fault) -> Value {
    let object = caller.object();
    let vm = state.snapshots.get(object).map_or(object, |snapshot| snapshot.vm.as_str()).to_owned();
    tasks::start(state, &caller.call.name, &vm, tasks::Work::Done(Err(fault)))
}

fn service_content(state: &State) -> Value {
    let fields = vec![
        ("rootFolder", reference("Folder", ROOT_FOLDER)),
        ("propertyCollector", reference("PropertyCollector", "propertyCollector")),
        ("viewManager", reference("ViewManager", "ViewManager")),
        ("about", object("AboutInfo", about(&state.build, "VMware vCenter Server", "vpx"))),
        ("setting", reference("OptionManager", "VpxSettings")),
        ("sessionManager", reference("SessionManager", "SessionManager")),
        ("authorizationManager", reference("AuthorizationManager", "AuthorizationManager")),
        ("eventManager", reference("EventManager", "EventManager")),
        ("taskManager", reference("TaskManager", "TaskManager")),
        ("fileManager", reference("FileManager", "FileManager")),
        ("virtualDiskManager", reference("VirtualDiskManager", "virtualDiskManager")),
        ("searchIndex", reference("SearchIndex", "SearchIndex")),
    ];
    object("ServiceContent", fields)
}

fn find_by_path(state: &State, call: &Element) -> Value {
    let path = call.text_of("inventoryPath").unwrap_or_default();
    state.find(path).map_or(Value::Unset, Value::Reference)
}

fn find_by_uuid(state: &State, call: &Element) -> Result<Value, Fault> {
    let uuid = call.text_of("uuid").ok_or_else(|| Fault::invalid_argument("uuid"))?;
    let for_machines = call.flag_of("vmSearch").ok_or_else(|| Fault::invalid_argument("vmSearch"))?;
    let instance = call.flag_of("instanceUuid").unwrap_or(false);
    let datacenter = call.text_of("datacenter");
    let found = state.machines.iter().find(|(id, vm)| {
        let own = if instance { &vm.instance_uuid } else { &vm.bios_uuid };
        let within = datacenter.is_none_or(|within| state.datacenter_of(id) == Some(within));
        for_machines && within && own.eq_ignore_ascii_case(uuid)
    });
    Ok(found.map_or(Value::Unset, |(id, _)| reference("VirtualMachine", id)))
}

/// Returns what a method answered as a SOAP envelope.
pub(super) fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope \
         xmlns:soapenc=\"http://schemas.xmlsoap.org/soap/encoding/\" \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n<soapenv:Body>\n{body}\n</soapenv:Body>\n\
         </soapenv:Envelope>"
    )
}

/// Returns the fields that tell which privileges are granted.
pub(super) fn granted(privilege: &str, is: bool) -> Value {
    object("PrivilegeAvailability", vec![("privId", string(privilege)), ("isGranted", boolean(is))])
}
