//! A thread that writes over a connection of its own.

use super::held::{CELL_LEN, Content, Edge, Piece, len, zeros};
use super::queue::{Hands, Queue, Taken, Task};
use super::records::{Record, digest};
use crate::Extent;
use crate::nbd::{Change, Client, NbdError, Piece as Part, WRITES_IN_FLIGHT, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is written where the server does not make zero by itself.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
const _: () = assert!(ZEROS.len() as u64 == CELL_LEN);
/// What is given up at once where the server does not make zero by itself, and may have to be written.
const TRIMMED_AT_ONCE: u64 = 4 << 20;
/// What is read at once to look whether it is there.
const CHECKED_AT_ONCE: u64 = 4 << 20;

/// What the threads have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) queue: Queue,
    /// Sorted, with gaps between: what was no hole when the export was opened.
    pub(super) allocated: Vec<Extent>,
    /// The server does not make zero by itself, whatever it says.
    pub(super) zeroes_refused: AtomicBool,
}

impl Shared {
    /// Requests to make a range of whole blocks zero, but for what is a hole.
    pub(super) fn zeros(&self, start: u64, end: u64) -> Vec<Piece> {
        let block_len = self.client.block_len();
        let first = self.allocated.partition_point(|area| area.end() <= start);
        let (mut requests, mut from) = (Vec::new(), start);
        for area in self.allocated[first..].iter().map_while(|area| area.clip(start, end)) {
            // Areas are made of blocks, or should be.
            from = from.max(area.start - area.start % block_len);
            let until = area.end().next_multiple_of(block_len).min(end);
            requests.extend(zeros(from, until));
            from = until;
        }
        requests
    }
}

/// A thread's state.
pub(super) struct Worker {
    shared: Arc<Shared>,
    number: usize,
    writer: Option<Writer>,
    /// What it sends next.
    next: VecDeque<Piece>,
    /// What it has sent, by what the answer is known.
    sent: Vec<(u64, Piece)>,
    /// Whether it counts as having something in hand.
    is_busy: bool,
    /// Connections that were made anew since something was answered.
    tries: u32,
}

/// Ends everything if a thread panics, so that nobody waits for it.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = std::io::Error::other("a thread that writes has panicked");
            self.0.queue.fail(NbdError::Lost { place: self.0.client.place(), source });
        }
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        Self {
            shared,
            number,
            writer: None,
            next: VecDeque::new(),
            sent: Vec::new(),
            is_busy: false,
            tries: 0,
        }
    }

    /// Writes until all is over, or the server does not let this thread have a connection.
    pub(super) fn run(mut self) {
        let _watch = Watch(Arc::clone(&self.shared));
        match self.write_all() {
            Err(error) => self.shared.queue.fail(error),
            Ok(()) => {
                if let Some(writer) = self.writer.take()
                    && self.sent.is_empty()
                {
                    self.shared.client.take_back(writer);
                }
            }
        }
    }

    fn is_first(&self) -> bool {
        self.number == 0
    }

    fn write_all(&mut self) -> Result<(), NbdError> {
        while self.connect()? {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => self.lost(error)?,
            }
        }
        Ok(())
    }

    /// Makes sure of a connection; false if there is nothing to do with one, or it must be done without.
    fn connect(&mut self) -> Result<bool, NbdError> {
        while self.writer.is_none() {
            let made = if self.is_first() {
                if self.shared.queue.is_over() {
                    return Ok(false);
                }
                self.shared.client.writer()
            } else {
                if !self.shared.queue.wait_for_work() {
                    return Ok(false);
                }
                match self.shared.client.further_writer()? {
                    Some(writer) => Ok(writer),
                    None => return Ok(false),
                }
            };
            match made.and_then(|mut writer| writer.closer().map(|closer| (writer, closer))) {
                Ok((writer, closer)) => {
                    self.writer = Some(writer);
                    self.shared.queue.connected(self.number, closer);
                }
                Err(error) => self.lost(error)?,
            }
        }
        Ok(true)
    }

    /// Takes leave of a connection. Decides whether there will be another one: an error ends everything.
    fn lost(&mut self, error: NbdError) -> Result<(), NbdError> {
        self.writer = None;
        let (client, queue) = (&self.shared.client, &self.shared.queue);
        queue.lost(self.number);
        let mut unanswered: Vec<Piece> = self.sent.drain(..).map(|(_, piece)| piece).collect();
        unanswered.extend(self.next.drain(..));
        if !error.is_of_the_connection() || !client.can_reconnect() {
            return Err(error);
        }
        if !self.is_first() {
            if std::mem::take(&mut self.is_busy) {
                queue.give_back(unanswered);
            }
            return Ok(());
        }
        // What of blocks in part was completed by reading belongs to this thread.
        self.next.extend(unanswered);
        let settings = client.settings();
        if self.tries == settings.reconnects {
            let (place, tries) = (client.place(), self.tries);
            return Err(NbdError::GaveUp { place, done: "written", tries, source: Box::new(error) });
        }
        if self.tries > 0 {
            queue.pause(settings.reconnect_pause);
        }
        self.tries += 1;
        Ok(())
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("a turn begins with a connection")
    }

    /// Sends as much as there is and the window takes, and waits for one answer. False when all is over.
    fn turn(&mut self) -> Result<bool, NbdError> {
        while self.sent.len() < WRITES_IN_FLIGHT {
            if let Some(piece) = self.next.pop_front() {
                if matches!(piece.content, Content::Zeros(_)) && self.shared.client.trims() {
                    self.next.push_front(piece);
                    if !self.sent.is_empty() {
                        break;
                    }
                    self.trim()?;
                } else {
                    self.send(piece)?;
                }
                continue;
            }
            match self.take() {
                Taken::Pieces(pieces) => self.divide(&pieces),
                Taken::Request(request) => self.next.push_back(request),
                Taken::Edges(edges) => self.complete(edges)?,
                Taken::Task(task) => self.perform(task)?,
                Taken::Nothing => break,
                Taken::End => return Ok(false),
            }
        }
        if !self.sent.is_empty() {
            self.receive()?;
        }
        Ok(!self.shared.queue.is_over())
    }

    fn take(&mut self) -> Taken {
        let hands = match (self.sent.is_empty(), self.is_busy) {
            (false, _) => Hands::Full,
            (true, true) => Hands::JustEmpty,
            (true, false) => Hands::Empty,
        };
        let taken = self.shared.queue.take(self.is_first(), hands);
        self.is_busy = !matches!(taken, Taken::End) || hands == Hands::Full;
        taken
    }

    fn divide(&mut self, pieces: &[Piece]) {
        for request in self.shared.queue.divide(pieces) {
            match request.content {
                Content::Zeros(_) => self.next.extend(self.shared.zeros(request.offset, request.end())),
                Content::Data(_) => self.next.push_back(request),
            }
        }
    }

    fn send(&mut self, mut piece: Piece) -> Result<(), NbdError> {
        let makes_zero =
            self.shared.client.can_write_zeroes() && !self.shared.zeroes_refused.load(Ordering::Relaxed);
        if let Content::Zeros(length) = piece.content
            && !makes_zero
        {
            let data_len = length.min(self.request_len_max());
            if data_len < length {
                let rest = Content::Zeros(length - data_len);
                self.next.push_front(Piece { offset: piece.offset + data_len, content: rest });
            }
            piece.content = Content::Zeros(data_len);
        }
        let change = match &piece.content {
            Content::Data(data) => Change::Write(data),
            Content::Zeros(length) if makes_zero => Change::Zero(*length),
            Content::Zeros(length) => Change::Write(&ZEROS[..len(*length)]),
        };
        match self.writer.as_mut().expect("a turn begins with a connection").send(piece.offset, change) {
            Ok(cookie) => {
                self.sent.push((cookie, piece));
                Ok(())
            }
            Err(error) => {
                self.next.push_front(piece);
                Err(error)
            }
        }
    }

    /// Gives up what is next, and goes on with writing zeros where it does not read as zeros after that.
    fn trim(&mut self) -> Result<(), NbdError> {
        let Some(Piece { offset, content }) = self.next.front_mut() else { return Ok(()) };
        let (start, length) = (*offset, content.length().min(TRIMMED_AT_ONCE));
        let left = match self.writer.as_mut().expect("a turn begins with a connection").trim(start, length)? {
            Ok(left) => left,
            // What it cannot do, it can do without.
            Err(NbdError::Failed { .. }) => vec![Extent { start, length }],
            Err(error) => return Err(error),
        };
        if content.length() == length {
            self.next.pop_front();
        } else {
            (*offset, *content) = (start + length, Content::Zeros(content.length() - length));
        }
        let (block_len, end) = (self.shared.client.block_len(), start + length);
        let mut from = start;
        for area in left {
            let zeros = Extent::between(from, area.start - area.start % block_len);
            self.record_zeros(zeros);
            from = zeros.map_or(from, Extent::end);
            let until = area.end().next_multiple_of(block_len).min(end);
            while let Some(part) = Extent::between(from, until.min(from + self.request_len_max())) {
                let content = Content::Data(vec![0; len(part.length)]);
                self.next.push_front(Piece { offset: part.start, content });
                from = part.end();
            }
        }
        self.record_zeros(Extent::between(from, end));
        Ok(())
    }

    fn record_zeros(&self, zeros: Option<Extent>) {
        if let Some(zeros) = zeros {
            self.shared.queue.record(Record::Zeros(zeros), self.is_first());
        }
    }

    fn request_len_max(&self) -> u64 {
        self.shared.client.request_len_max().min(CELL_LEN)
    }

    fn receive(&mut self) -> Result<(), NbdError> {
        let (cookie, answer) = self.writer().receive()?;
        let position = self.sent.iter().position(|(sent, _)| *sent == cookie);
        let (_, piece) = self.sent.swap_remove(position.expect("only what was sent is answered"));
        self.tries = 0;
        match answer {
            Ok(()) => {
                self.shared.queue.record(Record::of(&piece), self.is_first());
                Ok(())
            }
            Err(NbdError::Failed { action: "zero", error, .. }) if error.is_refusal() => {
                self.shared.zeroes_refused.store(true, Ordering::Relaxed);
                self.next.push_front(piece);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the blocks that are known in part, to write them whole. No other thread does so, and nothing is unanswered
    /// here: so no block is read while it is being written.
    fn complete(&mut self, edges: Vec<Edge>) -> Result<(), NbdError> {
        let mut blocks: Vec<Vec<u8>> = edges.iter().map(|edge| vec![0; len(edge.block.length)]).collect();
        let mut parts: Vec<Part<'_>> =
            edges.iter().zip(&mut blocks).map(|(edge, block)| Part::new(edge.block.start, block)).collect();
        match self.writer().read(&mut parts) {
            Ok(read) => read?,
            Err(error) => {
                self.shared.queue.put_back_edges(edges);
                return Err(error);
            }
        }
        self.next.extend(edges.iter().zip(blocks).map(|(edge, block)| edge.over(block)));
        Ok(())
    }

    fn perform(&mut self, task: Task) -> Result<(), NbdError> {
        match task {
            Task::Check => self.check()?,
            Task::Flush => {
                let settings = self.shared.client.settings();
                let (timeout, flush_timeout) = (settings.timeout, settings.flush_timeout);
                self.writer().flush(timeout, flush_timeout)??;
            }
        }
        self.tries = 0;
        self.shared.queue.task_done();
        Ok(())
    }

    /// Looks whether the server has what it has answered for.
    fn check(&mut self) -> Result<(), NbdError> {
        let records = self.shared.queue.records();
        let records: Vec<_> = records.data().collect();
        let (mut first, mut until) = (0, 0);
        while first < records.len() {
            let mut length = 0;
            while until < records.len()
                && (until == first || length + records[until].0.length <= CHECKED_AT_ONCE)
            {
                length += records[until].0.length;
                until += 1;
            }
            let mut bytes = vec![0; len(length)];
            let (mut parts, mut rest) = (Vec::new(), &mut bytes[..]);
            for (range, _) in &records[first..until] {
                let (part, behind) = rest.split_at_mut(len(range.length));
                parts.push(Part::new(range.start, part));
                rest = behind;
            }
            self.writer().read(&mut parts)??;
            let mut rest = &bytes[..];
            for (range, expected) in &records[first..until] {
                let (part, behind) = rest.split_at(len(range.length));
                if digest(part) != **expected {
                    let place = self.shared.client.place();
                    return Err(NbdError::WritesLost { place, offset: range.start, length: range.length });
                }
                rest = behind;
            }
            first = until;
        }
        Ok(())
    }
}
