//! Sessions: how they begin, are kept, end, and what is asked again.

use crate::peer::{Peer, USER, chain, content, cookie, envelope, fault, login, returning};
use keepstone_engine::vsphere::{
    About, FaultKind, MoRef, Quiescing, ServerTime, VCenter, VCenterSettings, VSphereError,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

const TIME: &str = "2026-03-01T12:30:00.5Z";

fn time() -> Vec<u8> {
    returning("CurrentTime", &format!("<returnval>{TIME}</returnval>"))
}

fn task(method: &str) -> Vec<u8> {
    returning(method, "<returnval type=\"Task\">task-7</returnval>")
}

fn a_vm() -> MoRef {
    MoRef::new("VirtualMachine", "vm-12")
}

fn snapshot(vcenter: &VCenter) -> Result<(), VSphereError> {
    vcenter.create_snapshot(&a_vm(), "name", "", Quiescing::None).map(drop)
}

#[test]
fn a_session_begins_with_the_credentials_as_they_are_and_is_kept_by_its_cookie() {
    let peer = Peer::start(|_, _| time());
    let vcenter = peer.connect();
    assert_eq!(
        *vcenter.about(),
        About {
            name: "VMware vCenter Server".to_owned(),
            version: "8.0.3".to_owned(),
            build: "24322831".to_owned(),
            api_type: "VirtualCenter".to_owned(),
            instance_uuid: Some("6f0c7d6a-52a5-4b0c-8d1e-2f6f6c1d3e55".to_owned()),
        }
    );
    let expected = ServerTime { text: TIME.to_owned(), millis: Some(1_772_368_200_500) };
    assert_eq!(vcenter.keep_alive().unwrap(), expected);

    let asked = peer.server.asked();
    assert!(asked[1].body.contains(
        "<_this type=\"SessionManager\">SessionManager</_this><userName>backup@vsphere.local</userName>\
         <password>correct &lt;&amp;&gt; &quot;horse&quot; ]]&gt;</password>"
    ));
    let cookies: Vec<_> = asked.iter().map(|asked| asked.header("cookie")).collect();
    assert_eq!(cookies, [None, None, Some(cookie(1).as_str())]);
    for asked in &asked {
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/sdk"));
        assert_eq!(asked.header("soapaction"), Some("\"urn:vim25/7.0.0.0\""));
        assert_eq!(asked.header("content-type"), Some("text/xml; charset=utf-8"));
    }
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let peer = Peer::start_bare(|method, _| match method {
        "Login" => fault("InvalidLogin", ""),
        _ => content(),
    });
    let refused = VCenter::connect(&peer.settings()).unwrap_err();
    assert!(matches!(refused, VSphereError::WrongLogin { .. }), "{refused:?}");
    let host = peer.server.address();
    assert_eq!(chain(&refused), format!("{host} does not accept the user {USER:?} with this password"));
    assert_eq!(peer.methods(), ["RetrieveServiceContent", "Login"]);
}

#[test]
fn secrets_are_in_no_debug_output() {
    let peer = Peer::start(|_, _| time());
    let vcenter = peer.connect();
    for text in [format!("{:?}", peer.settings()), format!("{vcenter:?}")] {
        assert!(text.contains(USER), "{text}");
        assert!(!text.contains("horse") && !text.contains(&format!("{:040x}", 1)), "{text}");
    }
}

#[test]
fn a_login_without_a_cookie_is_no_session() {
    let peer = Peer::start_bare(|method, _| match method {
        "Login" => returning("Login", "<returnval><key>k</key><userName>u</userName></returnval>"),
        _ => content(),
    });
    let refused = VCenter::connect(&peer.settings()).unwrap_err();
    assert_eq!(chain(&refused), "the answer to Login cannot be used: it sets no cookie for the session");
}

#[test]
fn after_its_session_ended_a_call_is_made_once_more_in_a_new_one() {
    // What changes something is repeated too: it was refused, so it was not done.
    let peer = Peer::start(|method, asked| {
        if asked.header("cookie") == Some(&cookie(1)) { fault("NotAuthenticated", "") } else { task(method) }
    });
    let vcenter = peer.connect();
    snapshot(&vcenter).unwrap();
    snapshot(&vcenter).unwrap();
    let expected = ["CreateSnapshot_Task", "Login", "CreateSnapshot_Task", "CreateSnapshot_Task"];
    assert_eq!(peer.methods_after_login(), expected);
    assert_eq!(peer.server.asked()[3].header("cookie"), None);
}

#[test]
fn a_second_refusal_is_the_answer() {
    let peer = Peer::start(|_, _| fault("NotAuthenticated", ""));
    let refused = peer.connect().keep_alive().unwrap_err();
    assert_eq!(refused.fault(), Some(&FaultKind::NotAuthenticated));
    assert_eq!(peer.methods_after_login(), ["CurrentTime", "Login", "CurrentTime"]);
}

#[test]
fn threads_that_lost_the_same_session_log_in_once() {
    let peer = Peer::start(|_, asked| {
        if asked.header("cookie") == Some(&cookie(1)) { fault("NotAuthenticated", "") } else { time() }
    });
    let vcenter = peer.connect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| vcenter.keep_alive().unwrap());
        }
    });
    let logins = peer.methods().iter().filter(|method| *method == "Login").count();
    assert_eq!(logins, 2);
}

#[test]
fn a_password_that_changed_in_the_meantime_is_told() {
    let logins = AtomicU32::new(0);
    let peer = Peer::start_bare(move |method, _| match method {
        "RetrieveServiceContent" => content(),
        "Login" if logins.fetch_add(1, Ordering::SeqCst) == 0 => login(1),
        "Login" => fault("InvalidLogin", ""),
        _ => fault("NotAuthenticated", ""),
    });
    let refused = peer.connect().keep_alive().unwrap_err();
    assert!(matches!(refused, VSphereError::WrongLogin { .. }), "{refused:?}");
}

/// Fails so often in a way, then answers.
fn failing(times: u32, failure: fn() -> Vec<u8>) -> Peer {
    let left = Mutex::new(times);
    Peer::start(move |method, _| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return failure();
        }
        if method == "CurrentTime" { time() } else { task(method) }
    })
}

fn dropped() -> Vec<u8> {
    Vec::new()
}

fn unavailable() -> Vec<u8> {
    keepstone_peers::scripted::answer(503, &[], b"<html>no healthy upstream</html>")
}

#[test]
fn what_changes_nothing_is_asked_again_three_times() {
    for failure in [dropped as fn() -> Vec<u8>, unavailable] {
        let peer = failing(3, failure);
        peer.connect().keep_alive().unwrap();
        assert_eq!(*peer.pauses.lock().unwrap(), [1, 2, 3]);

        let peer = failing(4, failure);
        let failed = peer.connect().keep_alive().unwrap_err();
        assert!(
            matches!(failed, VSphereError::Connection { .. } | VSphereError::Status { status: 503, .. }),
            "{failed:?}"
        );
        assert_eq!(peer.methods_after_login(), ["CurrentTime"; 4]);
    }
}

#[test]
fn what_changes_something_is_not_asked_again_after_a_broken_connection() {
    for failure in [dropped as fn() -> Vec<u8>, unavailable] {
        let peer = failing(1, failure);
        let vcenter = peer.connect();
        snapshot(&vcenter).unwrap_err();
        assert_eq!(peer.methods_after_login(), ["CreateSnapshot_Task"]);
        assert_eq!(*peer.pauses.lock().unwrap(), Vec::<u32>::new());
    }
}

#[test]
fn a_server_that_is_not_there_is_named_without_a_url() {
    let peer = Peer::start(|_, _| time());
    let settings = VCenterSettings { port: 1, ..peer.settings() };
    let failed = VCenter::connect(&settings).unwrap_err();
    let text = chain(&failed);
    assert!(text.starts_with("no answer from 127.0.0.1:1: "), "{text}");
    assert!(!text.contains("https"), "{text}");
    assert_eq!(*peer.pauses.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn after_logging_out_nothing_is_asked_any_more() {
    let peer = Peer::start(|method, _| returning(method, ""));
    let vcenter = peer.connect();
    vcenter.logout().unwrap();
    assert_eq!(vcenter.keep_alive().unwrap_err().fault(), Some(&FaultKind::NotAuthenticated));
    vcenter.logout().unwrap();
    assert_eq!(peer.methods_after_login(), ["Logout"]);
    assert_eq!(peer.server.asked()[2].header("cookie"), Some(cookie(1).as_str()));
}

#[test]
fn a_session_that_ended_by_itself_needs_no_logging_out() {
    let peer = Peer::start(|_, _| fault("NotAuthenticated", ""));
    peer.connect().logout().unwrap();
    assert_eq!(peer.methods_after_login(), ["Logout"]);
}

#[test]
fn other_statuses_and_redirections_are_not_followed() {
    for status in [301, 403, 404] {
        let peer = Peer::start(move |_, _| {
            let elsewhere = [("Location", "https://127.0.0.1:1/sdk")];
            keepstone_peers::scripted::answer(status, &elsewhere, b"<html/>")
        });
        let failed = peer.connect().keep_alive().unwrap_err();
        assert_eq!(chain(&failed), format!("CurrentTime was answered with HTTP status {status}"));
        assert_eq!(peer.methods_after_login(), ["CurrentTime"]);
    }
}

#[test]
fn a_failure_that_is_no_fault_is_told_by_its_status() {
    for body in ["", "<html>oops</html>", "not XML"] {
        let peer = Peer::start(move |_, _| keepstone_peers::scripted::answer(500, &[], body.as_bytes()));
        let failed = peer.connect().keep_alive().unwrap_err();
        assert!(matches!(failed, VSphereError::Status { status: 500, .. }), "{failed:?}");
    }
}

#[test]
fn a_cookie_that_no_header_can_hold_is_refused_without_showing_it() {
    let peer = Peer::start_bare(|method, _| match method {
        "Login" => envelope(
            200,
            &[("Set-Cookie", "vmware_soap_session=\"a\u{7f}secret\"")],
            "<LoginResponse><returnval><key>k</key><userName>u</userName></returnval></LoginResponse>",
        ),
        "RetrieveServiceContent" => content(),
        _ => time(),
    });
    let failed = VCenter::connect(&peer.settings()).and_then(|vcenter| vcenter.keep_alive()).unwrap_err();
    assert!(!chain(&failed).contains("secret"), "{failed:?}");
}
