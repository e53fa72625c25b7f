//! What goes wrong, and when.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::Asked;
use crate::support::gate::PATIENCE;

/// One way of going wrong. A number is how many hundredths of the body were sent until then.
#[derive(Clone)]
pub enum Fault {
    /// The connection ends in order.
    Truncated(usize),
    /// The same after so many bytes, where there are more.
    TruncatedAfter(usize),
    /// The connection is reset.
    Reset(usize),
    /// Nothing more comes, and the connection stays open.
    SilentAt(usize),
    /// Not even a head comes.
    Silent,
    /// A byte of the body at a time, with this pause after each.
    Trickle(Duration),
    /// Waits for the test before the head.
    Hold(Latch),
    /// Waits for the test within the body.
    HoldAt(usize, Latch),
    /// Other bytes of the same length.
    WrongBytes,
    /// More bytes, and a length that says so.
    Extra,
    /// More bytes, in chunks, without a length.
    ExtraChunked,
    /// The right answer, and after it another one for which nobody asked.
    Unasked,
    /// No length: the body ends with the connection.
    NoLength,
    /// The length is so many bytes off.
    Length(i64),
    /// Another status, and a reason.
    Status(u16),
    /// Another status, without a body.
    Bare(u16),
    /// The same, and when to come again.
    StatusRetryAfter(u16, u32),
    /// 200, this type (none, if it is empty) and this body, whatever was asked for; no digest is named.
    Instead(&'static str, &'static str),
    /// The type is this; left out, if it is empty.
    Type(&'static str),
    /// A redirect to this URL, or to this path.
    Redirect(String),
    /// A redirect to the same path at another server: `http://host:port`.
    RedirectHost(String),
    /// This header is this; left out, if it is empty.
    Header(&'static str, &'static str),
    /// `Docker-Content-Digest` is this; left out, if it is empty.
    Digest(String),
    /// 200 and all of it, whatever range was asked for.
    WholeForRange,
    /// 206 and another range than was asked for.
    WrongRange,
    /// This status where a range is asked for, without a body.
    StatusForRange(u16),
}

/// Something waits until the test lets it go on.
#[derive(Clone, Default)]
pub struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody go on, from now on.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits; false, if nobody opened it.
    pub(super) fn wait(&self) -> bool {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        *open
    }
}

/// A fault, and what it is for.
pub(super) struct Rule {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) numbers: std::ops::Range<usize>,
    pub(super) seen: usize,
    pub(super) fault: Fault,
}

/// What goes wrong with this request, which is counted.
pub(super) fn matching(rules: &mut [Rule], asked: &Asked) -> Vec<Fault> {
    let mut faults = Vec::new();
    for rule in rules.iter_mut().filter(|rule| rule.method == asked.method && asked.path.contains(&rule.path)) {
        if rule.numbers.contains(&rule.seen) {
            faults.push(rule.fault.clone());
        }
        rule.seen += 1;
    }
    faults
}
