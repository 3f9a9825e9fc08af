//! How a request to a blob service fails, and what to do about it.

use super::service_error::{Answer, ServiceError};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::{RawResponse, StatusCode};
use std::io;
use std::time::Duration;

/// One try that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// An answer that is an error.
    Answer {
        answer: Answer,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
        /// The service's date, as it wrote it.
        date: String,
        /// What another service answered that this one was to copy from.
        source_status: Option<u16>,
    },
    /// No connection could be made.
    Unreached(io::Error),
    /// No answer, or not a whole one.
    Broken(io::Error),
    /// Nothing within the deadline.
    Late(Duration),
    /// It was not sent: there was no token.
    Token {
        /// Whether the issuer could not be reached or was busy.
        passing: bool,
        source: io::Error,
    },
    /// An answer that makes no sense.
    Nonsense(&'static str),
    /// A listing that is not in order.
    Unordered { first: String, second: String },
}

impl Failure {
    /// What an error of the client library tells.
    #[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
    pub(super) fn of(error: Error) -> Self {
        if let ErrorKind::HttpResponse { status, error_code, raw_response } = error.kind() {
            return answer(*status, error_code.as_deref(), raw_response.as_deref());
        }
        match error.kind() {
            ErrorKind::Credential => {
                Self::Token { passing: is_passing(&error), source: io::Error::other(chain(&error)) }
            }
            ErrorKind::Connection => Self::Unreached(io::Error::other(chain(&error))),
            ErrorKind::DataConversion => Self::Nonsense("it cannot be decoded"),
            _ => Self::Broken(io::Error::other(chain(&error))),
        }
    }

    /// The service's code, if it answered.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Answer { answer, .. } => &answer.code,
            _ => "",
        }
    }

    /// The HTTP status, if the service answered.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer { answer, .. } => Some(answer.status),
            _ => None,
        }
    }

    /// What the service that was to be copied from answered, or seems to have.
    pub(super) fn source_status(&self) -> Option<u16> {
        match self {
            Self::Answer { answer, source_status, .. } if answer.code == CANNOT_READ_SOURCE => {
                Some(source_status.unwrap_or(answer.status))
            }
            _ => None,
        }
    }

    /// Whether another try may fare better.
    pub(super) fn is_transient(&self) -> bool {
        if let Some(status) = self.source_status() {
            return is_passing_status(status);
        }
        match self {
            // The service compared the body with its digest: it was changed on its way.
            Self::Answer { answer, .. } if answer.code == "Md5Mismatch" => true,
            Self::Answer { answer, .. } => is_passing_status(answer.status),
            Self::Unreached(_) | Self::Broken(_) | Self::Late(_) => true,
            Self::Token { passing, .. } => *passing,
            Self::Nonsense(_) | Self::Unordered { .. } => false,
        }
    }

    /// Whether it tells to send less.
    pub(super) fn is_throttling(&self) -> bool {
        match self {
            Self::Answer { answer, .. } => {
                matches!(answer.status, 429 | 503) || answer.code == "OperationTimedOut"
            }
            _ => false,
        }
    }

    /// Whether fewer requests at one time may fare better: the service throttles, or the way to it is too narrow for all.
    pub(super) fn is_congestion(&self) -> bool {
        self.is_throttling() || matches!(self, Self::Late(_))
    }

    /// Whether it shows that there is somebody at the endpoint.
    pub(super) fn is_from_somebody(&self) -> bool {
        match self {
            Self::Answer { .. } | Self::Broken(_) | Self::Nonsense(_) | Self::Unordered { .. } => true,
            Self::Unreached(_) | Self::Late(_) | Self::Token { .. } => false,
        }
    }

    /// How long the service asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What is told while it is tried again.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Answer { answer, .. } => format!("the service answered {answer}"),
            Self::Unreached(source) | Self::Broken(source) => format!("the connection failed: {source}"),
            Self::Late(waited) => format!("there was no whole answer in {} s", waited.as_secs()),
            Self::Token { source, .. } => format!("there is no token: {source}"),
            Self::Nonsense(what) => format!("the answer is of no use: {what}"),
            Self::Unordered { .. } => "the listing is not in order".to_owned(),
        }
    }

    /// What is told after so many tries; `expiry` is when the SAS ends, if it is one.
    pub(super) fn finally(self, tries: u32, expiry: Option<&str>) -> ServiceError {
        let is_throttling = self.is_throttling();
        match self {
            Self::Unreached(source) | Self::Broken(source) => ServiceError::Connection { tries, source },
            Self::Late(waited) => ServiceError::Late { tries, waited },
            Self::Token { source, .. } => ServiceError::Token { source },
            Self::Nonsense(what) => ServiceError::Nonsense(what),
            Self::Unordered { first, second } => ServiceError::Unordered { first, second },
            Self::Answer { answer, date, .. } => match answer.status {
                401 | 403 => match expiry {
                    Some(at) if is_past(at, &date) => ServiceError::Expired { at: at.to_owned(), answer },
                    _ if answer.status == 401 || answer.code == "AuthenticationFailed" => {
                        ServiceError::Unauthenticated { answer }
                    }
                    _ => ServiceError::Forbidden { answer },
                },
                404 if answer.code == "ContainerNotFound" => ServiceError::NoContainer { answer },
                _ if is_throttling => ServiceError::Busy { tries, answer },
                _ => ServiceError::Refused { tries, answer },
            },
        }
    }
}

fn answer(status: StatusCode, code: Option<&str>, response: Option<&RawResponse>) -> Failure {
    let header = |name: &'static str| response.and_then(|response| header(response.headers(), name));
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    // Without a code of its own the library puts a name of the status there.
    let number = u16::from(status).to_string();
    let code = header("x-ms-error-code").or(code).filter(|code| *code != number).unwrap_or_default();
    let short = |text: &str| text.chars().filter(char::is_ascii_graphic).take(CODE_LEN_MAX).collect();
    let answer = Answer {
        status: status.into(),
        code: short(code),
        request: short(header("x-ms-request-id").unwrap_or_default()),
    };
    let source_status = header("x-ms-copy-source-status-code").and_then(|status| status.parse().ok());
    let date = header("date").unwrap_or_default().to_owned();
    Failure::Answer { answer, retry_after, date, source_status }
}

/// The code of a service that was to copy from another one.
pub(super) const CANNOT_READ_SOURCE: &str = "CannotVerifyCopySource";

/// What is shown of an answer's fields, which come from outside.
const CODE_LEN_MAX: usize = 80;

/// A header's value.
pub(super) fn header<'h>(headers: &'h Headers, name: &'static str) -> Option<&'h str> {
    headers.get_optional_str(&HeaderName::from_static(name))
}

/// Whether a time as a SAS writes it, `2026-11-22` or `2026-11-22T10:00[:00]Z`, is not after an HTTP date.
fn is_past(at: &str, date: &str) -> bool {
    use azure_core::time::{parse_rfc3339, parse_rfc7231};
    let whole = match at.trim_end_matches('Z').split_once('T') {
        None => format!("{at}T00:00:00Z"),
        Some((day, time)) if time.matches(':').count() == 1 => format!("{day}T{time}:00Z"),
        Some(_) => at.to_owned(),
    };
    match (parse_rfc3339(&whole), parse_rfc7231(date)) {
        (Ok(at), Ok(now)) => at <= now,
        _ => false,
    }
}

/// Whether what kept a token from being had may pass.
fn is_passing(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        match error.downcast_ref::<Error>().map(Error::kind) {
            Some(ErrorKind::HttpResponse { status, .. }) => return is_passing_status((*status).into()),
            Some(ErrorKind::Io | ErrorKind::Connection) => return true,
            _ => cause = error.source(),
        }
    }
    false
}

fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// An error with its causes in one line: what a library's errors tell is in their causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    fn failed(status: u16, code: &str) -> Failure {
        let answer = Answer { status, code: code.to_owned(), request: "1-2".to_owned() };
        Failure::Answer {
            answer,
            retry_after: None,
            date: "Sun, 22 Nov 2026 10:00:00 GMT".to_owned(),
            source_status: None,
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, code) in [
            (408, ""),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (500, "OperationTimedOut"),
            (502, ""),
            (503, "ServerBusy"),
            (504, ""),
        ] {
            assert!(failed(status, code).is_transient(), "{status}");
        }
        assert!(failed(400, "Md5Mismatch").is_transient());
        for status in [400, 401, 403, 404, 409, 411, 412, 413, 416, 501] {
            assert!(!failed(status, "").is_transient(), "{status}");
        }
        assert!(
            failed(503, "ServerBusy").is_throttling() && failed(500, "OperationTimedOut").is_throttling()
        );
        assert!(!failed(500, "InternalError").is_throttling());
    }

    #[test]
    fn what_is_late_asks_for_less_at_one_time_and_shows_nobody() {
        let late = Failure::Late(Duration::from_secs(20));
        assert!(late.is_congestion() && !late.is_throttling() && !late.is_from_somebody());
        let busy = failed(503, "ServerBusy");
        assert!(busy.is_congestion() && busy.is_from_somebody());
        let broken = Failure::Broken(io::ErrorKind::ConnectionReset.into());
        assert!(!broken.is_congestion() && broken.is_from_somebody());
        assert!(!Failure::Unreached(io::ErrorKind::ConnectionRefused.into()).is_from_somebody());
    }

    #[test]
    fn a_refusal_after_the_end_of_the_sas_is_told_so() {
        for at in ["2026-11-22", "2026-11-22T10:00Z", "2026-11-22T09:59:59Z"] {
            let error = failed(403, "AuthenticationFailed").finally(1, Some(at));
            assert!(matches!(error, ServiceError::Expired { .. }), "{at}: {error:?}");
        }
        for at in ["2026-11-22T10:01Z", "2026-11-23", "never"] {
            let error = failed(403, "AuthenticationFailed").finally(1, Some(at));
            assert!(matches!(error, ServiceError::Unauthenticated { .. }), "{at}: {error:?}");
        }
        let error = failed(403, "AuthorizationPermissionMismatch").finally(1, None);
        assert!(!error.answer().expect("an answer").tells_of_retention());
        assert_eq!(
            error.to_string(),
            "the credential does not allow it (403 AuthorizationPermissionMismatch, request 1-2)"
        );
    }

    #[test]
    fn a_blob_that_must_be_kept_is_told_from_one_that_somebody_else_may_delete() {
        for (status, code, expected) in [
            (409, "BlobImmutableDueToPolicy", true),
            (409, "BlobImmutableDueToLegalHold", true),
            (409, "LeaseIdMissing", false),
            (403, "AuthorizationPermissionMismatch", false),
        ] {
            let source = failed(status, code).finally(1, None);
            let error = StoreError::Service { action: "delete", object: "d/w/1".to_owned(), source };
            assert_eq!(error.is_refused_by_retention(), expected, "{code}");
        }
    }
}
