//! A client of the fake: SOAP by hand over one TLS connection that stays open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use keepstone_peers::vcenter::{PASSWORD, USER, VCenter};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// As they came, with their names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A connection, with the session that it logged in to.
pub struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    cookie: Option<String>,
}

impl Client {
    pub fn connect(vcenter: &VCenter) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(vcenter.ca_file()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(vcenter.host()).unwrap();
        Self { stream: BufReader::new(StreamOwned::new(connection, stream)), cookie: None }
    }

    /// Connects and logs in.
    pub fn login(vcenter: &VCenter) -> Self {
        let mut client = Self::connect(vcenter);
        client.log_in();
        client
    }

    /// Ends all sessions, logs in to a new one on the same connection, and returns the answer.
    pub fn relogin(&mut self, vcenter: &VCenter) -> String {
        vcenter.expire_sessions();
        self.log_in()
    }

    fn log_in(&mut self) -> String {
        let password = PASSWORD.replace('&', "&amp;").replace('<', "&lt;");
        let arguments = format!("<userName>{USER}</userName><password>{password}</password>");
        self.ok("Login", "SessionManager", "SessionManager", &arguments)
    }

    /// Sends a request on the connection; none if it is cut instead of answered.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: fake\r\nContent-Length: {}\r\n", body.len());
        if let Some(cookie) = &self.cookie {
            head.extend(["Cookie: ", cookie, "\r\n"]);
        }
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        self.stream.get_mut().write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines[1..]
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let len = answer.header("content-length").unwrap().parse().unwrap();
        if method != "HEAD" {
            answer.body = vec![0; len];
            self.stream.read_exact(&mut answer.body).ok()?;
        }
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = Some(set.split(';').next().unwrap().to_owned());
        }
        Some(answer)
    }

    /// Calls a method; none if the connection is cut.
    pub fn try_call(&mut self, method: &str, kind: &str, object: &str, arguments: &str) -> Option<Answer> {
        let body = format!(
            "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body><{method} xmlns=\"urn:vim25\">\
             <_this type=\"{kind}\">{object}</_this>{arguments}</{method}></soapenv:Body></soapenv:Envelope>"
        );
        self.send("POST", "/sdk", &[("SOAPAction", "urn:vim25/8.0")], &body)
    }

    pub fn call(&mut self, method: &str, kind: &str, object: &str, arguments: &str) -> Answer {
        self.try_call(method, kind, object, arguments).expect("the server answers")
    }

    /// Calls a method that must succeed, and returns its answer.
    pub fn ok(&mut self, method: &str, kind: &str, object: &str, arguments: &str) -> String {
        let answer = self.call(method, kind, object, arguments);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().to_owned()
    }

    /// Calls a method that must fail, and returns the fault's type.
    pub fn fault(&mut self, method: &str, kind: &str, object: &str, arguments: &str) -> String {
        let answer = self.call(method, kind, object, arguments);
        assert_eq!(answer.status, 500, "{}", answer.text());
        let detail = between(answer.text(), "<detail>", "</detail>").unwrap();
        between(detail, "xsi:type=\"", "\"").unwrap().to_owned()
    }

    /// Returns the object that a path of the inventory leads to.
    pub fn find(&mut self, path: &str) -> Option<String> {
        let arguments = format!("<inventoryPath>{path}</inventoryPath>");
        let answer = self.ok("FindByInventoryPath", "SearchIndex", "SearchIndex", &arguments);
        between(&answer, ">", "</returnval>").map(|text| text.rsplit('>').next().unwrap().to_owned())
    }

    /// Returns the answer about properties of one object.
    pub fn properties(&mut self, kind: &str, object: &str, paths: &[&str]) -> String {
        let answer = self.call(
            "RetrievePropertiesEx",
            "PropertyCollector",
            "propertyCollector",
            &filter(kind, &[object], paths),
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().to_owned()
    }

    /// Waits for the task that a call started: its result, or the type of its fault.
    pub fn task(
        &mut self,
        method: &str,
        kind: &str,
        object: &str,
        arguments: &str,
    ) -> Result<Option<String>, String> {
        let answer = self.ok(method, kind, object, arguments);
        let task = between(&answer, "<returnval type=\"Task\">", "<").unwrap().to_owned();
        for _ in 0..20 {
            let info = self.properties("Task", &task, &["info"]);
            match between(&info, "<state>", "<").unwrap() {
                "success" => {
                    let result = between(&info, "<result ", "</result>");
                    return Ok(result.map(|result| result.split_once('>').unwrap().1.to_owned()));
                }
                "error" => return Err(between(&info, "<fault xsi:type=\"", "\"").unwrap().to_owned()),
                _ => {}
            }
        }
        panic!("the task does not end");
    }

    pub fn create_snapshot(&mut self, vm: &str, name: &str) -> String {
        let arguments = format!(
            "<name>{name}</name><description>of a test</description><memory>false</memory><quiesce>true</quiesce>"
        );
        self.task("CreateSnapshot_Task", "VirtualMachine", vm, &arguments).unwrap().unwrap()
    }

    pub fn remove_snapshot(&mut self, snapshot: &str) {
        let arguments = "<removeChildren>false</removeChildren><consolidate>true</consolidate>";
        let removed = self.task("RemoveSnapshot_Task", "VirtualMachineSnapshot", snapshot, arguments);
        assert_eq!(removed, Ok(None));
    }

    /// Returns the change ids of a snapshot's disks, in order.
    pub fn change_ids(&mut self, snapshot: &str) -> Vec<String> {
        let config = self.properties("VirtualMachineSnapshot", snapshot, &["config.hardware.device"]);
        let ids = config.split("<changeId>").skip(1);
        ids.map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }

    /// Asks for one page of changed areas.
    pub fn query(&mut self, vm: &str, query: &Query<'_>) -> Answer {
        let Query { snapshot, key, start, change_id } = query;
        let arguments = format!(
            "<snapshot type=\"VirtualMachineSnapshot\">{snapshot}</snapshot><deviceKey>{key}</deviceKey>\
             <startOffset>{start}</startOffset><changeId>{change_id}</changeId>"
        );
        self.call("QueryChangedDiskAreas", "VirtualMachine", vm, &arguments)
    }
}

/// A question about changed areas.
#[derive(Clone)]
pub struct Query<'a> {
    pub snapshot: &'a str,
    pub key: i32,
    pub start: u64,
    pub change_id: &'a str,
}

/// A page of changed areas: the start, the length, and the areas' starts and lengths.
pub type Page = (u64, u64, Vec<(u64, u64)>);

/// Reads an answer about changed areas.
pub fn page(answer: &Answer) -> Page {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let number =
        |text: &str, tag: &str| -> u64 { between(text, &format!("<{tag}>"), "<").unwrap().parse().unwrap() };
    let areas = answer.text().split("<changedArea>").skip(1);
    let areas = areas.map(|area| (number(area, "start"), number(area, "length"))).collect();
    (number(answer.text(), "startOffset"), number(answer.text(), "length"), areas)
}

/// Returns the arguments of `RetrievePropertiesEx`.
pub fn filter(kind: &str, objects: &[&str], paths: &[&str]) -> String {
    let mut text = format!("<specSet><propSet><type>{kind}</type>");
    for path in paths {
        text.extend(["<pathSet>", path, "</pathSet>"]);
    }
    text.push_str("</propSet>");
    for object in objects {
        text.extend(["<objectSet><obj type=\"", kind, "\">", object, "</obj></objectSet>"]);
    }
    text + "</specSet><options></options>"
}

/// Returns what stands between two texts.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}
