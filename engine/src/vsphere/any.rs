//! Every kind of answer from any bytes, for fuzzing.

use super::changes::ChangedPage;
use super::client::{malformed, read_content};
use super::error::VSphereError;
use super::model::{About, MoRef, VmInfo};
use super::properties::{self, Properties, read_part};
use super::soap;
use super::tasks::{TaskState, read_task};
use super::vm::{read_changed_page, read_vm};
use super::{privileges, text};

/// What was read.
#[derive(Debug)]
#[doc(hidden)]
pub enum AnyAnswer {
    /// A VM.
    Vm(Box<VmInfo>),
    /// A page of changed areas.
    Page(ChangedPage),
    /// A task.
    Task(TaskState),
    /// What a server is.
    About(About),
    /// Privileges.
    Privileges(Vec<String>),
    /// A time.
    Millis(i64),
}

/// The questions whose answers are read, in the order of their numbers.
const METHODS: [&str; 7] = [
    properties::METHOD,
    "QueryChangedDiskAreas",
    properties::METHOD,
    "RetrieveServiceContent",
    "HasPrivilegeOnEntities",
    "FetchUserPrivilegeOnEntities",
    "CurrentTime",
];

/// Reads bytes as an answer to one of the questions.
///
/// # Errors
/// If they are none.
#[doc(hidden)]
pub fn read_any_answer(question: u8, status: u16, body: &[u8]) -> Result<AnyAnswer, VSphereError> {
    let question = usize::from(question) % METHODS.len();
    let method = METHODS[question];
    let response = soap::answer(method, status, body)?;
    let vm = MoRef::new("VirtualMachine", "vm-1");
    let read = match question {
        0 | 2 => read_part(&response).and_then(|part| {
            let properties = Properties::new(part.values);
            if question == 0 {
                read_vm(&vm, &properties).map(|vm| AnyAnswer::Vm(Box::new(vm)))
            } else {
                properties.need("info").and_then(read_task).map(AnyAnswer::Task)
            }
        }),
        1 => read_changed_page(&response).map(AnyAnswer::Page),
        3 => read_content(&response).map(|(_, about)| AnyAnswer::About(about)),
        4 => privileges::read_for_session(&response, &vm).map(AnyAnswer::Privileges),
        5 => privileges::read_for_user(&response, &vm).map(AnyAnswer::Privileges),
        _ => response
            .string("returnval")
            .map(|time| AnyAnswer::Millis(text::millis(&time).unwrap_or_default())),
    };
    read.map_err(malformed(method))
}
