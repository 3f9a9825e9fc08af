//! Answers that refuse, and answers that are none.

use crate::peer::{Peer, chain, envelope, fault, properties, returning};
use keepstone_engine::vsphere::{FaultKind, MoRef, VSphereError};
use keepstone_peers::scripted::answer;

fn a_vm() -> MoRef {
    MoRef::new("VirtualMachine", "vm-12")
}

/// Asks for the time, which is answered with these bytes.
fn asked(bytes: Vec<u8>) -> VSphereError {
    let peer = Peer::start(move |_, _| bytes.clone());
    peer.connect().keep_alive().unwrap_err()
}

#[test]
fn faults_are_told_apart_by_their_types() {
    let vm = || Some(a_vm());
    let name = str::to_owned;
    let cases = [
        (
            "InvalidArgument",
            "<invalidProperty>startOffset</invalidProperty>",
            FaultKind::InvalidArgument { property: Some(name("startOffset")) },
        ),
        ("InvalidArgument", "", FaultKind::InvalidArgument { property: None }),
        (
            "FileFault",
            "<file>[ds] a.vmdk</file>",
            FaultKind::File { name: name("FileFault"), file: Some(name("[ds] a.vmdk")) },
        ),
        ("FileLocked", "<file/>", FaultKind::File { name: name("FileLocked"), file: None }),
        (
            "NoPermission",
            "<object type=\"VirtualMachine\">vm-12</object><privilegeId>VirtualMachine.State.CreateSnapshot</privilegeId>",
            FaultKind::NoPermission {
                privilege: Some(name("VirtualMachine.State.CreateSnapshot")),
                object: vm(),
            },
        ),
        (
            "NoPermission",
            "<missingPrivileges><entity type=\"VirtualMachine\">vm-12</entity><privilegeIds>A.B</privilegeIds>\
          <privilegeIds>C.D</privilegeIds></missingPrivileges>",
            FaultKind::NoPermission { privilege: Some(name("A.B")), object: vm() },
        ),
        (
            "ManagedObjectNotFound",
            "<obj type=\"VirtualMachine\">vm-12</obj>",
            FaultKind::ManagedObjectNotFound { object: vm() },
        ),
        ("TaskInProgress", "<task type=\"Task\">task-1</task>", FaultKind::TaskInProgress),
        ("InvalidPowerState", "<requestedState>poweredOn</requestedState>", FaultKind::InvalidPowerState),
        ("InvalidState", "", FaultKind::InvalidState { name: name("InvalidState") }),
        ("ApplicationQuiesceFault", "", FaultKind::ApplicationQuiesce),
        ("FilesystemQuiesceFault", "", FaultKind::FilesystemQuiesce),
        ("TooManySnapshotLevels", "", FaultKind::Snapshot { name: name("TooManySnapshotLevels") }),
        ("NoDiskSpace", "<file>[ds] a</file>", FaultKind::NoDiskSpace),
        ("MethodNotFound", "", FaultKind::NotSupported { name: name("MethodNotFound") }),
        ("NotSupported", "", FaultKind::NotSupported { name: name("NotSupported") }),
        ("RestrictedVersion", "", FaultKind::Other { name: name("RestrictedVersion") }),
    ];
    for (kind, content, expected) in cases {
        let refused = asked(fault(kind, content));
        assert_eq!(refused.fault(), Some(&expected));
        assert_eq!(expected.name(), kind);
        assert_eq!(chain(&refused), format!("CurrentTime failed with {kind}: in words"));
    }
}

#[test]
fn a_fault_without_a_type_is_told_by_its_element() {
    let body = |detail: &str| {
        format!("<soapenv:Fault><faultcode/><faultstring>no</faultstring>{detail}</soapenv:Fault>")
    };
    let untyped = asked(envelope(500, &[], &body("<detail><InvalidPowerStateFault/></detail>")));
    assert_eq!(untyped.fault(), Some(&FaultKind::InvalidPowerState));
    for detail in ["", "<detail/>"] {
        let refused = asked(envelope(500, &[], &body(detail)));
        assert_eq!(refused.fault(), Some(&FaultKind::Other { name: "unknown".to_owned() }));
    }
}

#[test]
fn prefixes_of_any_name_are_understood() {
    let body = "<S:Envelope xmlns:S=\"http://schemas.xmlsoap.org/soap/envelope/\"><S:Body><S:Fault>\
                <faultstring>no</faultstring><detail><v:Fault xmlns:v=\"urn:vim25\" \
                xmlns:XMLSchema-instance=\"http://www.w3.org/2001/XMLSchema-instance\" \
                XMLSchema-instance:type=\"v:TaskInProgress\"/></detail></S:Fault></S:Body></S:Envelope>";
    assert_eq!(asked(answer(500, &[], body.as_bytes())).fault(), Some(&FaultKind::TaskInProgress));
}

#[test]
fn an_answer_that_is_none_says_what_is_wrong() {
    let deep = format!("{}{}", "<a>".repeat(200), "</a>".repeat(200));
    let wide = "<a/>".repeat(500_001);
    let attributes = (0..40).map(|number| format!(" a{number}=\"\"")).collect::<Vec<_>>().concat();
    let bombs = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbbbbbbbbbbbb\">]><a>&b;</a>";
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "it ends in the middle"),
        ("<a>".to_owned(), "it ends in the middle"),
        ("<a></b>".to_owned(), "not XML"),
        ("<a/><b/>".to_owned(), "something stands behind its last element"),
        ("words<a/>".to_owned(), "there is text outside of all elements"),
        (bombs.to_owned(), "it has a document type"),
        ("<a>&nbsp;</a>".to_owned(), "there is no entity \"nbsp\""),
        ("<a>&#xD800;</a>".to_owned(), "not XML"),
        (deep, "its elements are nested more than 128 deep"),
        (format!("<a>{wide}</a>"), "it has more than 500000 elements"),
        (format!("<a{attributes}/>"), "a: it has more than 32 attributes"),
        ("<Envelope/>".to_owned(), "Envelope: there is no Body"),
        ("<Envelope><Body/></Envelope>".to_owned(), "Body: there is no CurrentTimeResponse"),
        (
            "<Envelope><Body><LoginResponse/></Body></Envelope>".to_owned(),
            "Body: there is no CurrentTimeResponse",
        ),
        (
            "<Envelope><Body><CurrentTimeResponse/></Body></Envelope>".to_owned(),
            "CurrentTimeResponse: there is no returnval",
        ),
    ];
    for (body, expected) in cases {
        let refused = chain(&asked(answer(200, &[], body.as_bytes())));
        let expected = format!("the answer to CurrentTime cannot be used: {expected}");
        assert!(refused.starts_with(&expected), "{refused}");
    }
    let refused = chain(&asked(answer(200, &[], b"<a>\xff</a>")));
    assert_eq!(refused, "the answer to CurrentTime cannot be used: not UTF-8");
}

#[test]
fn an_answer_without_end_is_given_up() {
    let body = vec![b' '; (64 << 20) + 1];
    let refused = chain(&asked(answer(200, &[], &body)));
    assert_eq!(refused, "the answer to CurrentTime is longer than 67108864 bytes");
}

#[test]
fn an_answer_that_breaks_off_is_a_broken_connection() {
    let whole = returning("CurrentTime", "<returnval>2026-03-01T12:30:00Z</returnval>");
    let part = whole[..whole.len() - 20].to_vec();
    let peer = Peer::start(move |_, _| part.clone());
    let failed = peer.connect().keep_alive().unwrap_err();
    assert!(matches!(failed, VSphereError::Connection { .. }), "{failed:?}");
    assert_eq!(peer.methods_after_login(), ["CurrentTime"; 4]);
}

#[test]
fn a_property_that_may_not_be_seen_names_the_privilege() {
    let missing = "<missingSet><path>config.hardware.device</path><fault><fault xsi:type=\"NoPermission\">\
                   <object type=\"VirtualMachine\">vm-12</object><privilegeId>System.Read</privilegeId></fault>\
                   <localizedMessage>Permission to perform this operation was denied.</localizedMessage></fault>\
                   </missingSet>";
    let peer = Peer::start(move |_, _| properties(&a_vm(), missing));
    let refused = peer.connect().vm(&a_vm()).unwrap_err();
    let expected =
        FaultKind::NoPermission { privilege: Some("System.Read".to_owned()), object: Some(a_vm()) };
    assert_eq!(refused.fault(), Some(&expected));
    assert_eq!(
        chain(&refused),
        "RetrievePropertiesEx failed with NoPermission: config.hardware.device of VirtualMachine:vm-12 is not shown: \
         Permission to perform this operation was denied."
    );
}

#[test]
fn properties_that_are_missing_for_want_of_a_session_are_asked_for_in_a_new_one() {
    let peer = Peer::start(|_, asked| {
        let set = if asked.header("cookie") == Some(&crate::peer::cookie(1)) {
            "<missingSet><path>summary.config.product.build</path><fault><fault xsi:type=\"NotAuthenticated\"/>\
             <localizedMessage/></fault></missingSet>"
        } else {
            "<propSet><name>summary.config.product.build</name><val xsi:type=\"xsd:string\">24022510</val></propSet>"
        };
        properties(&MoRef::new("HostSystem", "host-9"), set)
    });
    let host = MoRef::new("HostSystem", "host-9");
    assert_eq!(peer.connect().host_build(&host).unwrap(), Some("24022510".to_owned()));
    assert_eq!(peer.methods_after_login(), ["RetrievePropertiesEx", "Login", "RetrievePropertiesEx"]);
}
