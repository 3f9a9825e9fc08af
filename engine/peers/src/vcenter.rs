//! A fake vCenter in this process, for tests: an HTTPS server that speaks vim25's SOAP as vCenter does, with virtual
//! machines whose disks live in memory and whose changed-block tracking follows vSphere's rules.
//!
//! A write marks its blocks of 64 KiB under the disk's current sequence; a snapshot freezes contents and tracking,
//! carries the change id `EPOCH/SEQUENCE`, and begins the next sequence. `QueryChangedDiskAreas` answers which blocks were
//! written after one change id and before a snapshot. What a client must never do is recorded as a [`Violation`].
//!
//! It answers strictly: a property that it does not know is an `InvalidProperty`, a method that it does not have is a
//! `NotImplemented`. No real vCenter was asked; the rules are those of its documentation.

mod areas;
mod calls;
mod collector;
mod contents;
mod describe;
mod devices;
mod element;
mod fault;
mod folder;
mod handles;
mod http;
mod machine;
mod power;
mod proxy;
mod random;
mod reconfigure;
mod script;
mod sessions;
mod snapshots;
mod spec;
mod state;
mod tasks;
mod tracking;
mod value;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

pub use areas::{Allocated, Lie};
pub use fault::Fault;
pub use handles::{Disk, SnapshotSummary, Vm};
pub use script::{Call, Failure};
pub use spec::{ChangeTracking, ControllerKind, ControllerSpec, DiskKind, DiskMode, DiskSpec, Power, VmSpec};
pub use state::Violation;

use crate::certificates::Certificates;
use calls::{Caller, carry_out, envelope, fail_task};
use element::Element;
use handles::lock;
use http::{Answer, Request, Server};
use machine::Machine;
use state::State;
use value::{Value, write_field};

/// The user that a new vCenter knows.
pub const USER: &str = "backup@vsphere.local";

/// The user's password. It holds what must be escaped in XML.
pub const PASSWORD: &str = "s3cret&<\"'>pass";

/// The cookie that names a session.
const COOKIE: &str = "vmware_soap_session";

/// A running fake, until it is dropped.
pub struct VCenter {
    server: Server,
    state: Arc<Mutex<State>>,
    ca_file: PathBuf,
    thumbprint: String,
}

impl VCenter {
    /// Starts one without any virtual machine. Its certificates are written to files of a directory, which the caller
    /// removes.
    ///
    /// # Panics
    /// If it cannot listen or write.
    #[must_use]
    pub fn start(directory: &Path) -> Self {
        let certificates = Certificates::make_in(directory);
        let own =
            CertificateDer::from_pem_file(certificates.server_file()).expect("the file holds a certificate");
        let bytes = digest(&SHA256, &own);
        let pairs: Vec<String> = bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let state = Arc::new(Mutex::new(State::new(USER, PASSWORD)));
        let answering = Arc::clone(&state);
        let server = Server::start(
            certificates.server_config(),
            Arc::new(move |request: &Request| answer(&answering, request)),
        );
        Self { server, state, ca_file: certificates.ca_file(), thumbprint: pairs.join(":") }
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// Returns the URL of the SOAP interface.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}/sdk", self.host())
    }

    /// Returns the file with the certificate of the authority that signed the server's.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Returns the SHA-256 of the server's certificate: pairs of capital hexadecimal digits with colons between.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Adds a virtual machine at a path such as `DC0/vm/prod/web`. What is missing of its datacenter and its folders is
    /// made.
    ///
    /// # Panics
    /// If the path is no such one or taken, or the disks do not fit the controllers.
    #[must_use]
    pub fn add_vm(&self, path: &str, spec: &VmSpec) -> Vm {
        let (folder, name) = path.rsplit_once('/').expect("a path has a folder");
        assert!(folder.split('/').nth(1) == Some("vm"), "{path} is not below DATACENTER/vm");
        let mut state = lock(&self.state);
        assert!(state.find(path).is_none(), "there is a {path} already");
        let folder = state.folder(folder);
        let id = state.new_id("vm");
        let machine = Machine::new(&name.replace("%2f", "/"), &folder, spec, &mut state.random);
        state.machines.insert(id.clone(), machine);
        Vm { state: Arc::clone(&self.state), id }
    }

    /// Makes a folder at a path such as `DC0/vm/prod`, or a datacenter.
    pub fn add_folder(&self, path: &str) {
        lock(&self.state).folder(path);
    }

    /// Changes the one user that is known.
    pub fn set_login(&self, user: &str, password: &str) {
        let mut state = lock(&self.state);
        user.clone_into(&mut state.user);
        password.clone_into(&mut state.password);
    }

    /// Changes the build that vCenter and the hosts tell.
    pub fn set_build(&self, build: &str) {
        build.clone_into(&mut lock(&self.state).build);
    }

    /// Lets the nth call from now of a method fail, counted from 1. Methods are named as in [`Call`].
    pub fn fail(&self, method: &str, nth: u64, failure: impl Into<Failure>) {
        lock(&self.state).script.fail(method, nth, failure.into());
    }

    /// Lets every call of a method fail from now on that nothing else was planned for.
    pub fn fail_every(&self, method: &str, failure: impl Into<Failure>) {
        lock(&self.state).script.fail_every(method, failure.into());
    }

    /// Lets no call of a method fail any more.
    pub fn heal(&self, method: &str) {
        lock(&self.state).script.heal(method);
    }

    /// Cuts the connection at the nth call from now of a method, which is not carried out.
    pub fn drop_connection(&self, method: &str, nth: u64) {
        self.fail(method, nth, Failure::Dropped);
    }

    /// Cuts every connection that is open now.
    pub fn cut_connections(&self) {
        self.server.cut();
    }

    /// Runs a closure before the nth call from now of a method is carried out, counted from 1. It may use the handles.
    pub fn at(&self, method: &str, nth: u64, act: impl FnOnce() + Send + 'static) {
        lock(&self.state).script.hook(method, nth, Box::new(act));
    }

    /// Waits until every call at which a closure was run has been carried out: its client may be gone by then.
    pub fn carried_out(&self) {
        while lock(&self.state).script.acting > 0 {
            std::thread::yield_now();
        }
    }

    /// Ends every session, as time does.
    pub fn expire_sessions(&self) {
        lock(&self.state).sessions.clear();
    }

    /// Lets sessions that are logged in to from now on end after so many calls.
    pub fn expire_sessions_after(&self, calls: Option<u64>) {
        lock(&self.state).session_calls = calls;
    }

    /// Returns how many sessions are logged in.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        lock(&self.state).sessions.len()
    }

    /// Takes a privilege, such as `VirtualMachine.State.CreateSnapshot`, from the user.
    pub fn deny(&self, privilege: &str) {
        lock(&self.state).denied.insert(privilege.to_owned());
    }

    /// Gives a privilege back.
    pub fn allow(&self, privilege: &str) {
        lock(&self.state).denied.remove(privilege);
    }

    /// Lets a property, named by the path that clients ask for, be missing from answers for want of a privilege.
    pub fn hide_property(&self, path: &str) {
        lock(&self.state).hidden.insert(path.to_owned());
    }

    /// Lets the tasks of a method run on for so many questions about them, for ever with `u64::MAX`; as always with
    /// none. Merging files ends with the task, or with questions about the virtual machine's `runtime`.
    pub fn slow_tasks(&self, method: &str, polls: Option<u64>) {
        let slow = &mut lock(&self.state).script.slow;
        match polls {
            Some(polls) => slow.insert(method.to_owned(), polls),
            None => slow.remove(method),
        };
    }

    /// Lets so many quiesced snapshots fail with an `ApplicationQuiesceFault`.
    pub fn fail_quiescing(&self, times: u64) {
        lock(&self.state).quiesce_faults = times;
    }

    /// Lets so many removals of snapshots succeed and leave `consolidationNeeded`.
    pub fn leave_unconsolidated(&self, times: u64) {
        lock(&self.state).unconsolidated_removals = times;
    }

    /// Puts at most so many extents into an answer about changed areas: 2000 if nothing is said.
    pub fn set_extents_max(&self, extents: usize) {
        lock(&self.state).extents_max = extents.max(1);
    }

    /// Decides what `*` answers: the allocated blocks if nothing is said.
    pub fn set_allocated(&self, allocated: Allocated) {
        lock(&self.state).allocated = allocated;
    }

    /// Decides whether devices that appear in proxies from now on tell their UUID, as with `disk.EnableUUID`.
    pub fn set_wwid_files(&self, exist: bool) {
        lock(&self.state).wwid_files = exist;
    }

    /// Keeps attached disks from appearing in proxies.
    pub fn hold_devices(&self) {
        lock(&self.state).devices_held = true;
    }

    /// Lets the devices that were held appear, and those after them.
    pub fn show_devices(&self) {
        let mut state = lock(&self.state);
        state.devices_held = false;
        let machines: Vec<String> = state.machines.keys().cloned().collect();
        for vm in machines {
            proxy::show_devices(&mut state, &vm);
        }
    }

    /// Returns the calls that arrived, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).script.calls.clone()
    }

    /// Returns how many calls of a method arrived.
    #[must_use]
    pub fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|call| call.method == method).count()
    }

    /// Returns the rules that clients broke. Sessions that are logged in now count as left, so a test asks when the
    /// client has ended.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let state = lock(&self.state);
        let left =
            state.sessions.values().map(|session| Violation::SessionLeft { user: session.user.clone() });
        state.violations.iter().cloned().chain(left).collect()
    }
}

/// Answers a request; with none, the connection is cut.
fn answer(state: &Mutex<State>, request: &Request) -> Option<Answer> {
    let cookie = request.cookie(COOKIE);
    let is_file = request.target.starts_with("/folder/") && matches!(request.method.as_str(), "GET" | "HEAD");
    if is_file {
        let name = format!("{} /folder", request.method);
        let (failure, _acting) = happen(state, &name, &folder::path(&request.target));
        return match failure {
            Some(Failure::Dropped | Failure::AnswerLost) => None,
            Some(Failure::Status(status)) => Some(Answer::status(status)),
            Some(Failure::Fault(_) | Failure::Task(_)) => Some(Answer::status(500)),
            None => Some(folder::answer(&mut lock(state), request, cookie)),
        };
    }
    if request.method != "POST" || !matches!(request.target.as_str(), "/sdk" | "/sdk/" | "/sdk/vim25") {
        return Some(Answer::status(404));
    }
    let Some(call) = called(&request.body) else {
        let fault = Fault::new("InvalidRequest", "The request is no SOAP envelope with a call of vim25.");
        return Some(faulted(&fault));
    };
    soap(state, &call, cookie)
}

/// Returns the element of the call in an envelope.
fn called(body: &str) -> Option<Element> {
    let envelope = Element::parse(body).filter(|envelope| envelope.name == "Envelope")?;
    envelope.child("Body")?.children.first().cloned()
}

/// A call at which closures are run, until it has been carried out.
struct Acting<'a>(&'a Mutex<State>);

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        lock(self.0).script.acting -= 1;
    }
}

/// Records a call, runs what the test planned for it, and returns how it is to fail.
fn happen<'a>(state: &'a Mutex<State>, method: &str, object: &str) -> (Option<Failure>, Option<Acting<'a>>) {
    let (hooks, failure) = lock(state).script.record(method, object);
    let acting = (!hooks.is_empty()).then(|| Acting(state));
    for hook in hooks {
        hook();
    }
    (failure, acting)
}

fn soap(state: &Mutex<State>, call: &Element, cookie: Option<&str>) -> Option<Answer> {
    let mut caller = Caller { call, cookie, new_cookie: None };
    // It is dropped after the state that is locked below.
    let (failure, _acting) = happen(state, &call.name, caller.object());
    let mut state = lock(state);
    let returned = match failure {
        Some(Failure::Dropped) => return None,
        Some(Failure::Status(status)) => return Some(Answer::status(status)),
        Some(Failure::Fault(fault)) => Err(fault),
        Some(Failure::Task(fault)) => Ok(fail_task(&mut state, &caller, fault)),
        Some(Failure::AnswerLost) => {
            // What it returns is lost on the way.
            let _ = carry_out(&mut state, &mut caller);
            return None;
        }
        None => carry_out(&mut state, &mut caller),
    };
    let mut answer = match returned {
        Ok(value) => answered(&call.name, &value),
        Err(fault) => faulted(&fault),
    };
    if let Some(cookie) = caller.new_cookie {
        answer.headers.push(("Set-Cookie", format!("{COOKIE}=\"{cookie}\"; Path=/; HttpOnly; Secure; ")));
    }
    Some(answer)
}

fn answered(method: &str, value: &Value) -> Answer {
    let mut inside = String::new();
    write_field(&mut inside, "returnval", value);
    let body = format!("<{method}Response xmlns=\"urn:vim25\">{inside}</{method}Response>");
    Answer::text(200, "text/xml; charset=utf-8", envelope(&body))
}

fn faulted(fault: &Fault) -> Answer {
    Answer::text(500, "text/xml; charset=utf-8", envelope(&fault.soap()))
}
