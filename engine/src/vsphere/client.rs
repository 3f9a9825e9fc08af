//! A session with a server: logging in, and in again when it has ended.

use super::connection::{Answer, Connection, Cookie};
use super::error::VSphereError;
use super::fault::FaultKind;
use super::model::{About, MoRef, ServerTime};
use super::place::{VSpherePlace, VmPlace};
use super::soap::Question;
use super::text;
use super::xml::{Element, Wrong};
use crate::frames::lock;
use crate::tls::Trust;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use zeroize::Zeroizing;

/// How often a question that changes nothing is repeated after the connection failed.
const REPEATS: u32 = 3;

/// Waits before the n-th repetition of a question, from 1 on. The engine itself never sleeps.
pub type Pause = Arc<dyn Fn(u32) + Send + Sync>;

/// Which server to talk to, and as whom.
#[derive(Clone)]
pub struct VCenterSettings {
    /// A name or an address, an IPv6 one without brackets.
    pub host: String,
    /// The port of HTTPS, 443 as a rule.
    pub port: u16,
    /// Such as `backup@vsphere.local`.
    pub user: String,
    /// The user's password.
    pub password: Zeroizing<String>,
    /// Whom to trust to be the server.
    pub trust: Trust,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for a whole answer.
    pub answer_timeout: Duration,
    /// What to do before a question is repeated.
    pub pause: Pause,
}

impl fmt::Debug for VCenterSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VCenterSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// Which of a VM's two ids is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UuidKind {
    /// The one that vCenter keeps unique.
    Instance,
    /// The one that the guest sees; copies of a VM may share it.
    Bios,
}

/// What is done when the connection fails while a question is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It is asked again: it changes nothing, or nothing more when it is asked twice.
    Safe,
    /// It is not: it may have been carried out.
    Never,
}

/// A session with a vCenter Server or an ESXi host.
///
/// Calls may come from several threads. A session that has ended is replaced by a new one, once for each call; that
/// a call was refused for this reason means that it was not carried out, so it is safe for those that change things.
/// After a broken connection only calls that change nothing are repeated, up to three times.
pub struct VCenter {
    settings: VCenterSettings,
    connection: Connection,
    pub(super) content: Content,
    about: About,
    /// None after the end.
    session: Mutex<Option<Session>>,
    /// Held while logging in, so that threads which lost the same session make one new session and not one each.
    login: Mutex<()>,
}

impl fmt::Debug for VCenter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VCenter").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The objects that a server offers its services by.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) property_collector: MoRef,
    pub(super) search_index: MoRef,
    pub(super) session_manager: MoRef,
    pub(super) authorization_manager: Option<MoRef>,
}

/// One session.
#[derive(Clone)]
pub(super) struct Session {
    /// Counts the sessions of this client.
    number: u64,
    cookie: Cookie,
    /// Its id, which is not what it is proven by.
    pub(super) key: String,
    /// The user as the server names it.
    pub(super) user_name: String,
}

impl VCenter {
    /// Asks a server what it is and logs in.
    ///
    /// # Errors
    /// [`VSphereError::WrongThumbprint`], [`VSphereError::Tls`], [`VSphereError::WrongLogin`], and all that a question
    /// can fail with.
    pub fn connect(settings: &VCenterSettings) -> Result<Self, VSphereError> {
        let settings = settings.clone();
        let address = (settings.host.as_str(), settings.port);
        let timeouts = (settings.connect_timeout, settings.answer_timeout);
        let connection = Connection::new(address, &settings.trust, timeouts)?;
        let instance = MoRef::new("ServiceInstance", "ServiceInstance");
        let question = Question::new("RetrieveServiceContent", &instance);
        let answer = repeated(&settings.pause, Repeat::Safe, || connection.ask(&question, None))?;
        let (content, about) = read_content(&answer.response).map_err(malformed(question.method))?;
        let vcenter =
            Self { settings, connection, content, about, session: Mutex::new(None), login: Mutex::new(()) };
        let session = vcenter.new_session(0)?;
        *vcenter.lock_session() = Some(session);
        Ok(vcenter)
    }

    /// What the server is.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The host and the port, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        self.connection.host()
    }

    /// Asks for the server's clock, so that the session does not end for want of questions (after 30 minutes as a rule).
    ///
    /// # Errors
    /// If the question is not answered.
    pub fn keep_alive(&self) -> Result<ServerTime, VSphereError> {
        let instance = MoRef::new("ServiceInstance", "ServiceInstance");
        let question = Question::new("CurrentTime", &instance);
        let response = self.ask(&question, Repeat::Safe)?;
        let text = response.string("returnval").map_err(malformed(question.method))?;
        Ok(ServerTime { millis: text::millis(&text), text })
    }

    /// Finds a VM by where it is in the inventory, or by its instance UUID.
    ///
    /// # Errors
    /// [`VSphereError::NotFound`] if nothing is there, or something else than a VM.
    pub fn find_vm(&self, place: &VSpherePlace) -> Result<MoRef, VSphereError> {
        match &place.vm {
            VmPlace::InstanceUuid(uuid) => self.find_by_uuid(uuid, UuidKind::Instance),
            VmPlace::Path(_) => {
                let path = place.inventory_path().unwrap_or_default();
                let question = Question::new("FindByInventoryPath", &self.content.search_index);
                self.found(&question.with("inventoryPath", &path), path)
            }
        }
    }

    /// Finds a VM by one of its UUIDs; any of them if several have it.
    ///
    /// # Errors
    /// [`VSphereError::NotFound`] if there is none.
    pub fn find_by_uuid(&self, uuid: &str, kind: UuidKind) -> Result<MoRef, VSphereError> {
        let question = Question::new("FindByUuid", &self.content.search_index)
            .with("uuid", uuid)
            .with("vmSearch", true)
            .with("instanceUuid", kind == UuidKind::Instance);
        let what = match kind {
            UuidKind::Instance => "with the instance UUID",
            UuidKind::Bios => "with the BIOS UUID",
        };
        self.found(&question, format!("{what} {uuid}"))
    }

    /// Ends the session. Calls fail from then on.
    ///
    /// # Errors
    /// If the server does not answer; the session then ends there by itself.
    pub fn logout(&self) -> Result<(), VSphereError> {
        let Some(session) = self.lock_session().take() else { return Ok(()) };
        let question = Question::new("Logout", &self.content.session_manager);
        match self.connection.ask(&question, Some(&session.cookie)) {
            Err(error) if error.is_not_authenticated() => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn found(&self, question: &Question, path: String) -> Result<MoRef, VSphereError> {
        let response = self.ask(question, Repeat::Safe)?;
        let Some(found) = response.child("returnval") else { return Err(VSphereError::NotFound { path }) };
        let found = found.moref().map_err(malformed(question.method))?;
        if found.kind == "VirtualMachine" { Ok(found) } else { Err(VSphereError::NotFound { path }) }
    }

    /// Asks a question and returns its `METHODResponse`.
    pub(super) fn ask(&self, question: &Question, repeat: Repeat) -> Result<Element, VSphereError> {
        self.authenticated(|session| self.ask_in(session, question, repeat))
    }

    /// Asks a question in a session, whether or not that has ended.
    pub(super) fn ask_in(
        &self,
        session: &Session,
        question: &Question,
        repeat: Repeat,
    ) -> Result<Element, VSphereError> {
        let ask = || self.connection.ask(question, Some(&session.cookie));
        repeated(&self.settings.pause, repeat, ask).map(|answer| answer.response)
    }

    /// Gets bytes of a file; see [`Connection::get`].
    pub(super) fn get(
        &self,
        path: (&[&str], &[(&str, &str)]),
        start: u64,
        buffer: &mut [u8],
    ) -> Result<u64, VSphereError> {
        self.authenticated(|session| {
            repeated(&self.settings.pause, Repeat::Safe, || {
                let got = self.connection.get(path, &session.cookie, start, buffer);
                got.map_err(|error| match error {
                    VSphereError::Status { method, status: 401 } => not_authenticated(method),
                    error => error,
                })
            })
        })
    }

    /// Does something in the session, and once more in a new one if that has ended.
    pub(super) fn authenticated<T>(
        &self,
        mut attempt: impl FnMut(&Session) -> Result<T, VSphereError>,
    ) -> Result<T, VSphereError> {
        let Some(session) = self.lock_session().clone() else { return Err(not_authenticated("Logout")) };
        match attempt(&session) {
            Err(error) if error.is_not_authenticated() => attempt(&self.after(session.number)?),
            done => done,
        }
    }

    /// The session after one that has ended.
    fn after(&self, number: u64) -> Result<Session, VSphereError> {
        let _one_at_a_time = lock(&self.login);
        match self.lock_session().as_ref() {
            None => return Err(not_authenticated("Logout")),
            Some(session) if session.number > number => return Ok(session.clone()),
            Some(_) => {}
        }
        let session = self.new_session(number + 1)?;
        *self.lock_session() = Some(session.clone());
        Ok(session)
    }

    fn new_session(&self, number: u64) -> Result<Session, VSphereError> {
        let VCenterSettings { user, password, pause, .. } = &self.settings;
        let question = Question::new("Login", &self.content.session_manager)
            .with("userName", user)
            .with("password", password.as_str());
        let answer = repeated(pause, Repeat::Safe, || self.connection.ask(&question, None));
        let Answer { response, cookie } = answer.map_err(|error| match error.fault() {
            Some(FaultKind::InvalidLogin) => {
                VSphereError::WrongLogin { host: self.host().to_owned(), user: user.clone() }
            }
            _ => error,
        })?;
        let malformed = malformed(question.method);
        let session = response.need("returnval").map_err(&malformed)?;
        Ok(Session {
            number,
            cookie: cookie.ok_or_else(|| malformed(Wrong("it sets no cookie for the session".to_owned())))?,
            key: session.string("key").map_err(&malformed)?,
            user_name: session.string("userName").map_err(&malformed)?,
        })
    }

    fn lock_session(&self) -> MutexGuard<'_, Option<Session>> {
        lock(&self.session)
    }
}

/// Asks until there is an answer, as often as is allowed.
fn repeated<T>(
    pause: &Pause,
    repeat: Repeat,
    mut ask: impl FnMut() -> Result<T, VSphereError>,
) -> Result<T, VSphereError> {
    for repetition in 1..=REPEATS {
        match ask() {
            Err(error) if repeat == Repeat::Safe && error.is_passing() => pause(repetition),
            done => return done,
        }
    }
    ask()
}

/// Says which answer is wrong, for `map_err`.
pub(super) fn malformed(method: &'static str) -> impl Fn(Wrong) -> VSphereError {
    move |Wrong(what)| VSphereError::Malformed { method, what }
}

fn not_authenticated(method: &'static str) -> VSphereError {
    let message = "the session has ended".to_owned();
    VSphereError::Fault { method, kind: FaultKind::NotAuthenticated, message }
}

/// Reads what a server is and offers.
pub(super) fn read_content(response: &Element) -> Result<(Content, About), Wrong> {
    let content = response.need("returnval")?;
    let about = content.need("about")?;
    Ok((
        Content {
            property_collector: content.need("propertyCollector")?.moref()?,
            search_index: content.need("searchIndex")?.moref()?,
            session_manager: content.need("sessionManager")?.moref()?,
            authorization_manager: content.child("authorizationManager").map(Element::moref).transpose()?,
        },
        About {
            name: about.string("name")?,
            version: about.string("version")?,
            build: about.string("build")?,
            api_type: about.string("apiType")?,
            instance_uuid: about.optional("instanceUuid"),
        },
    ))
}
