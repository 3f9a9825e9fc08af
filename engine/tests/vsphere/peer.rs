//! A server whose answers a test wrote, behind a login that works.

use keepstone_engine::tls::{Thumbprint, Trust};
use keepstone_engine::vsphere::{MoRef, VCenter, VCenterSettings, VSphereError};
use keepstone_peers::certificates::Certificates;
use keepstone_peers::scripted::{Asked, Scripted, answer};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use zeroize::Zeroizing;

pub const USER: &str = "backup@vsphere.local";
pub const PASSWORD: &str = "correct <&> \"horse\" ]]>";

/// A server, and what it takes to log in to it.
pub struct Peer {
    pub certificates: Certificates,
    pub server: Scripted,
    /// The numbers of repetitions that a client waited before.
    pub pauses: Arc<Mutex<Vec<u32>>>,
    _directory: TempDir,
}

/// What a test answers with: bytes of a whole HTTP answer.
type Answers = dyn Fn(&str, &Asked) -> Vec<u8> + Send + Sync;

impl Peer {
    /// Starts a server that lets everybody log in, and answers all else as the test says: to a method, or to the name
    /// of an HTTP method.
    pub fn start(answers: impl Fn(&str, &Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let logins = Mutex::new(0);
        Self::start_bare(move |method, asked| match method {
            "RetrieveServiceContent" => content(),
            "Login" => {
                let mut logins = logins.lock().unwrap();
                *logins += 1;
                login(*logins)
            }
            _ => answers(method, asked),
        })
    }

    /// Starts a server that answers everything as the test says.
    pub fn start_bare(answers: impl Fn(&str, &Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::make_in(directory.path());
        let answers: Box<Answers> = Box::new(answers);
        let server = Scripted::start(&certificates, move |asked| answers(&method(asked), asked));
        Self { certificates, server, pauses: Arc::default(), _directory: directory }
    }

    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint::of(&CertificateDer::from_pem_file(self.certificates.server_file()).unwrap())
    }

    pub fn settings(&self) -> VCenterSettings {
        let pauses = Arc::clone(&self.pauses);
        VCenterSettings {
            host: "127.0.0.1".to_owned(),
            port: self.server.address().port(),
            user: USER.to_owned(),
            password: Zeroizing::new(PASSWORD.to_owned()),
            trust: Trust::CaFile(self.certificates.ca_file()),
            connect_timeout: Duration::from_secs(20),
            answer_timeout: Duration::from_secs(20),
            pause: Arc::new(move |repetition| pauses.lock().unwrap().push(repetition)),
        }
    }

    pub fn connect(&self) -> VCenter {
        VCenter::connect(&self.settings()).unwrap()
    }

    /// The methods that were asked, in order.
    pub fn methods(&self) -> Vec<String> {
        self.server.asked().iter().map(method).collect()
    }

    /// The methods that were asked after logging in.
    pub fn methods_after_login(&self) -> Vec<String> {
        self.methods().split_off(2)
    }

    /// What stands between the tags of the last question's body.
    pub fn last_question(&self) -> String {
        let body = self.server.asked().pop().unwrap().body;
        let (_, rest) = body.split_once("<soapenv:Body>").unwrap();
        rest.split_once("</soapenv:Body>").unwrap().0.to_owned()
    }
}

/// The method that is asked for, or that of HTTP for what is no question.
fn method(asked: &Asked) -> String {
    if asked.method != "POST" {
        return asked.method.clone();
    }
    let (_, rest) = asked.body.split_once("<soapenv:Body><").unwrap();
    rest.split_once(' ').unwrap().0.to_owned()
}

/// An answer to a method, around what it returns.
pub fn returning(method: &str, content: &str) -> Vec<u8> {
    envelope(200, &[], &format!("<{method}Response xmlns=\"urn:vim25\">{content}</{method}Response>"))
}

/// An answer to the question for properties of one object.
pub fn properties(object: &MoRef, sets: &str) -> Vec<u8> {
    let MoRef { kind, id } = object;
    returning(
        "RetrievePropertiesEx",
        &format!("<returnval><objects><obj type=\"{kind}\">{id}</obj>{sets}</objects></returnval>"),
    )
}

/// A refusal.
pub fn fault(kind: &str, content: &str) -> Vec<u8> {
    envelope(
        500,
        &[],
        &format!(
            "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>in words</faultstring>\
             <detail><{kind}Fault xmlns=\"urn:vim25\" xsi:type=\"{kind}\">{content}</{kind}Fault></detail>\
             </soapenv:Fault>"
        ),
    )
}

/// An answer with a body.
pub fn envelope(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope \
         xmlns:soapenc=\"http://schemas.xmlsoap.org/soap/encoding/\" \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n<soapenv:Body>\n{body}\n</soapenv:Body>\n\
         </soapenv:Envelope>"
    );
    let mut all = vec![("Content-Type", "text/xml; charset=utf-8")];
    all.extend(headers);
    answer(status, &all, text.as_bytes())
}

/// What a vCenter says that it is.
pub fn content() -> Vec<u8> {
    returning(
        "RetrieveServiceContent",
        "<returnval><rootFolder type=\"Folder\">group-d1</rootFolder>\
         <propertyCollector type=\"PropertyCollector\">propertyCollector</propertyCollector>\
         <about><name>VMware vCenter Server</name><fullName>VMware vCenter Server 8.0.3 build-24322831</fullName>\
         <vendor>VMware, Inc.</vendor><version>8.0.3</version><build>24322831</build>\
         <osType>linux-x64</osType><productLineId>vpx</productLineId><apiType>VirtualCenter</apiType>\
         <apiVersion>8.0.3.0</apiVersion><instanceUuid>6f0c7d6a-52a5-4b0c-8d1e-2f6f6c1d3e55</instanceUuid></about>\
         <sessionManager type=\"SessionManager\">SessionManager</sessionManager>\
         <authorizationManager type=\"AuthorizationManager\">AuthorizationManager</authorizationManager>\
         <searchIndex type=\"SearchIndex\">SearchIndex</searchIndex></returnval>",
    )
}

/// The cookie of the n-th session.
pub fn cookie(number: u32) -> String {
    format!("vmware_soap_session=\"{number:040x}\"")
}

/// A login that begins the n-th session.
pub fn login(number: u32) -> Vec<u8> {
    let set = format!("{}; Path=/; HttpOnly; Secure;", cookie(number));
    let body = format!(
        "<LoginResponse xmlns=\"urn:vim25\"><returnval><key>52{number:02x}-key</key>\
         <userName>VSPHERE.LOCAL\\backup</userName><fullName>backup</fullName></returnval></LoginResponse>"
    );
    envelope(200, &[("Set-Cookie", "other=1; Path=/"), ("Set-Cookie", &set)], &body)
}

/// What an error and all its causes say.
pub fn chain(error: &VSphereError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
