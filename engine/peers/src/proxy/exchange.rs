//! One request and what is done to it.

use super::answer::{AnswerEdit, Answering};
use super::fault::{Fault, Refusal, Request};
use super::fault_proxy::Shared;
use super::http::{Body, Head};
use super::inbound::{Inbound, Peer, write};
use super::late::LateRequest;
use super::sockets::{end, reset_when_closed};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// What becomes of the client's connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Goes,
    Closes,
    Resets,
}

/// Who ended a request although nobody was asked to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The client left, or does not speak HTTP.
    Client,
    /// The server cannot be reached or left, or does not speak HTTP.
    Server,
}

/// What is done to a request on its way to the server. Positions are those of [`Fault`].
#[derive(Clone, Copy)]
enum RequestEdit {
    Pass,
    Cut { after: u64 },
    Flip { at: u64 },
}

/// One request whose head has been read.
pub(crate) struct Exchange<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) client: &'a mut Peer,
    /// The connection that the client's last request was forwarded over.
    pub(crate) server: &'a mut Option<Peer>,
    pub(crate) request: Request,
    pub(crate) head: Head,
    pub(crate) body: Body,
}

impl Exchange<'_> {
    /// Does to the request what a fault is, and says what is left to do to the client's connection.
    pub(crate) fn run(&mut self, fault: &Fault) -> Result<Then, Failed> {
        use {AnswerEdit as Answer, RequestEdit as Sent};
        match *fault {
            Fault::Forward => self.forward(Sent::Pass, Answer::Pass),
            Fault::AnswerLost => self.forward(Sent::Pass, Answer::Swallow).map(|_| Then::Closes),
            Fault::ResetAtOnce => Ok(Then::Resets),
            Fault::RequestCut { after } => self.forward(Sent::Cut { after }, Answer::Swallow),
            Fault::AnswerReset { after } => {
                self.forward(Sent::Pass, Answer::Cut { after }).map(|_| Then::Resets)
            }
            Fault::AnswerTruncated { after } => {
                self.forward(Sent::Pass, Answer::Cut { after }).map(|_| Then::Closes)
            }
            Fault::Refused(refusal) => self.refuse(refusal),
            Fault::RefusedAfter(refusal) => {
                let then = self.forward(Sent::Pass, Answer::Swallow)?;
                self.answer(refusal, then)
            }
            Fault::Stuck => self.stick(Answer::Swallow),
            Fault::StuckInAnswer { after } => self.stick(Answer::Hold { after }),
            Fault::Slow { drip, pause } => self.forward(Sent::Pass, Answer::Drip { len: drip, pause }),
            Fault::AnswerFlipped { at } => self.forward(Sent::Pass, Answer::Flip { at }),
            Fault::RequestFlipped { at } => self.forward(Sent::Flip { at }, Answer::Pass),
            Fault::Duplicated => self.duplicate(),
            Fault::AppliedLater { further } => self.hold_back(further),
        }
    }

    /// Refuses the request in the server's place.
    fn refuse(&mut self, refusal: Refusal) -> Result<Then, Failed> {
        if self.expects_word() {
            // It will not send its body, so what comes next could be anything.
            return self.answer(refusal, Then::Closes);
        }
        while self.client.inbound.piece(&mut self.body).map_err(|_| Failed::Client)?.is_some() {}
        self.answer(refusal, if self.head.closes() { Then::Closes } else { Then::Goes })
    }

    fn answer(&mut self, refusal: Refusal, then: Then) -> Result<Then, Failed> {
        let answer = refusal.answer(self.request.method == "HEAD", then != Then::Goes);
        write(&self.client.stream, &answer).map_err(|_| Failed::Client)?;
        Ok(then)
    }

    /// Forwards the request and keeps back the answer or its rest until the client leaves.
    fn stick(&mut self, edit: AnswerEdit) -> Result<Then, Failed> {
        self.forward(RequestEdit::Pass, edit)?;
        self.client.inbound.until_left();
        Ok(Then::Closes)
    }

    fn duplicate(&mut self) -> Result<Then, Failed> {
        let bytes = self.read_whole()?;
        let mut server = self.server()?;
        write(&server.stream, &bytes).map_err(|_| Failed::Server)?;
        let is_reusable = self.answering(&mut server.inbound, AnswerEdit::Pass, Some(&bytes)).run()?;
        Ok(self.settle(server, is_reusable))
    }

    fn hold_back(&mut self, further: Option<u64>) -> Result<Then, Failed> {
        let bytes = self.read_whole()?;
        let due = further.map(|further| self.request.number + further);
        self.shared.late.add(LateRequest { due, bytes });
        Ok(Then::Resets)
    }

    /// The bytes of the whole request.
    fn read_whole(&mut self) -> Result<Vec<u8>, Failed> {
        if self.expects_word() {
            write(&self.client.stream, b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Failed::Client)?;
        }
        let mut bytes = self.head.bytes.clone();
        while let Some((_, piece)) = self.client.inbound.piece(&mut self.body).map_err(|_| Failed::Client)? {
            bytes.extend_from_slice(piece);
        }
        Ok(bytes)
    }

    /// Whether the client waits for a word from the server before it sends the body.
    fn expects_word(&self) -> bool {
        !self.body.is_done()
            && self.head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// Forwards the request and its answer, both at the same time: a server may answer early.
    fn forward(&mut self, sent: RequestEdit, edit: AnswerEdit) -> Result<Then, Failed> {
        let mut server = self.server()?;
        if let RequestEdit::Cut { .. } = sent
            && self.body.is_done()
        {
            let head = &self.head.bytes;
            write(&server.stream, &head[..head.len() - 2]).map_err(|_| Failed::Server)?;
            return Ok(Then::Resets);
        }
        write(&server.stream, &self.head.bytes).map_err(|_| Failed::Server)?;
        if self.body.is_done() {
            let is_reusable = self.answering(&mut server.inbound, edit, None).run()?;
            return Ok(self.settle(server, is_reusable));
        }
        let Peer { stream: client, inbound } = &mut *self.client;
        let body = &mut self.body;
        let answering = Answering {
            shared: self.shared,
            number: self.request.number,
            to_head: self.request.method == "HEAD",
            copy: None,
            server: &mut server.inbound,
            client,
            edit,
        };
        let (pumped, answered) = thread::scope(|scope| {
            let pump = scope.spawn(|| pump(inbound, body, &server.stream, sent));
            let answered = answering.run();
            // Nobody waits for the rest of the request.
            if answered.is_err() || matches!(edit, AnswerEdit::Cut { .. }) {
                end(client, Shutdown::Read);
            }
            (pump.join().expect("forwarding does not panic"), answered)
        });
        match (pumped, answered) {
            (Ok(Pumped::Cut), _) => Ok(Then::Resets),
            (Err(Failed::Client), _) => Err(Failed::Client),
            (_, Err(failed)) => Err(failed),
            (Ok(Pumped::Whole { missed }), Ok(is_reusable)) => {
                if missed {
                    self.shared.missed(self.request.number);
                }
                Ok(self.settle(server, is_reusable))
            }
            // Answered before all was read.
            (Err(Failed::Server), Ok(_)) => Ok(Then::Closes),
        }
    }

    fn answering<'a>(
        &'a self,
        server: &'a mut Inbound,
        edit: AnswerEdit,
        copy: Option<&'a [u8]>,
    ) -> Answering<'a> {
        let to_head = self.request.method == "HEAD";
        let (shared, number, client) = (self.shared, self.request.number, &*self.client.stream);
        Answering { shared, number, to_head, copy, server, client, edit }
    }

    /// Keeps the server's connection if another request can go over it.
    fn settle(&mut self, server: Peer, is_reusable: bool) -> Then {
        if is_reusable && !self.head.closes() {
            *self.server = Some(server);
            Then::Goes
        } else {
            Then::Closes
        }
    }

    /// The connection to the server: the last one, if the server has not closed it meanwhile.
    fn server(&mut self) -> Result<Peer, Failed> {
        if let Some(server) = self.server.take()
            && server.is_idle().is_ok_and(|is_idle| is_idle)
        {
            return Ok(server);
        }
        Peer::connect(&self.shared.sockets, self.shared.to).map_err(|_| Failed::Server)
    }
}

/// How much of a request's body was forwarded.
enum Pumped {
    Whole {
        /// Whether a byte was to be changed that was not there.
        missed: bool,
    },
    Cut,
}

/// Forwards the body of a request.
fn pump(
    client: &mut Inbound,
    body: &mut Body,
    server: &TcpStream,
    edit: RequestEdit,
) -> Result<Pumped, Failed> {
    let position = match edit {
        RequestEdit::Pass => None,
        RequestEdit::Cut { after: position } | RequestEdit::Flip { at: position } => {
            Some(body.len().and_then(|len| position.checked_rem(len)).unwrap_or(position))
        }
    };
    let mut missed = matches!(edit, RequestEdit::Flip { .. });
    let mut at = 0;
    loop {
        let Ok(piece) = client.piece(body) else {
            // Wakes whoever waits for the answer.
            end(server, Shutdown::Both);
            return Err(Failed::Client);
        };
        let Some((is_data, bytes)) = piece else { return Ok(Pumped::Whole { missed }) };
        let here = position
            .filter(|_| is_data)
            .and_then(|position| usize::try_from(position.checked_sub(at)?).ok())
            .filter(|here| *here < bytes.len());
        let is_cut = matches!(edit, RequestEdit::Cut { .. });
        if is_cut && (here.is_some() || body.is_done()) {
            // Nobody knows whether the server still reads: what matters is that it does not get the rest.
            let _may_be_gone = write(server, &bytes[..here.unwrap_or(0)]);
            reset_when_closed(server);
            end(server, Shutdown::Both);
            return Ok(Pumped::Cut);
        }
        if let Some(here) = here {
            bytes[here] ^= 1;
            missed = false;
        }
        write(server, bytes).map_err(|_| Failed::Server)?;
        if is_data {
            at += bytes.len() as u64;
        }
    }
}
