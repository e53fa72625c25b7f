//! Where lines of the log wait until they are written: a thread writes them, many at a time.
//!
//! A system call for each line would be a fifth of what a small answer costs, and a pipe that nobody reads would stop whoever
//! has something to tell, which is everybody.

use std::io::Write;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long lines wait for others to be written with.
const GATHER: Duration = Duration::from_millis(5);
/// As many bytes are written without waiting for more.
const ENOUGH_BYTES: usize = 64 << 10;
/// How many bytes wait at the most. What comes beyond is lost, and told as a number of lines.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long the end of the process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a line may wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// One of many.
    Routine,
    /// To be written at once, with all that waits.
    News,
}

/// Takes lines. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Sink(Arc<Shared>);

/// Writes what waits when it goes; or gives up, where nobody reads it.
#[derive(Debug)]
#[must_use = "what waits is written when it goes"]
pub struct Flush(Sink);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write, or to hurry with.
    news: Condvar,
    /// All that waited is written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    is_urgent: bool,
    /// Whether what was taken from here is being written.
    is_writing: bool,
    lost: u64,
}

impl Sink {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(out: impl Write + Send + 'static) -> std::io::Result<(Self, Flush)> {
        Self::start_with(out, GATHER)
    }

    fn start_with(out: impl Write + Send + 'static, gather: Duration) -> std::io::Result<(Self, Flush)> {
        let sink = Self::default();
        let writing = sink.clone();
        thread::Builder::new().name("log".into()).spawn(move || writing.write_for_ever(out, gather))?;
        Ok((sink.clone(), Flush(sink)))
    }

    /// Takes a line, in one or more pieces. Never waits for it to be written.
    pub(super) fn push(&self, pieces: &[&[u8]], urgency: Urgency) {
        let mut waiting = self.lock();
        let before = waiting.lines.len();
        if before + pieces.iter().map(|piece| piece.len()).sum::<usize>() > WAITING_BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        pieces.iter().for_each(|piece| waiting.lines.extend_from_slice(piece));
        // Waking the thread is a system call too: once for the first line, once for enough of them.
        let is_enough = before < ENOUGH_BYTES && waiting.lines.len() >= ENOUGH_BYTES;
        let hurries = !waiting.is_urgent && (urgency == Urgency::News || is_enough);
        waiting.is_urgent |= hurries;
        if (before == 0 || hurries) && !waiting.is_writing {
            drop(waiting);
            self.0.news.notify_one();
        }
    }

    fn write_for_ever(&self, mut out: impl Write, gather: Duration) {
        let mut batch = Vec::new();
        loop {
            let lost = self.take(&mut batch, gather);
            // Where standard error is closed there is nobody to tell.
            let _ = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            batch.shrink_to(ENOUGH_BYTES);
            if lost > 0 {
                tracing::warn!(
                    lines = lost,
                    "lines of the log were lost, because nobody read it as fast as it is written"
                );
            }
        }
    }

    /// Waits until there is something, and for `gather` more where that may wait; how many lines were lost since.
    fn take(&self, batch: &mut Vec<u8>, gather: Duration) -> u64 {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        if waiting.lines.is_empty() {
            self.0.idle.notify_all();
        }
        let some = self.0.news.wait_while(waiting, |waiting| waiting.lines.is_empty());
        let some = some.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.0.news.wait_timeout_while(some, gather, |waiting| !waiting.is_urgent);
        let (mut gathered, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut gathered.lines, batch);
        gathered.is_urgent = false;
        gathered.is_writing = true;
        mem::take(&mut gathered.lost)
    }

    /// Waits until all is written, for `patience` at the most.
    fn flush(&self, patience: Duration) {
        let mut waiting = self.lock();
        waiting.is_urgent = true;
        self.0.news.notify_one();
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // What nobody reads by then is nobody's.
        let _ = self.0.idle.wait_timeout_while(waiting, patience, is_busy);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

    use super::*;

    /// Longer than any test.
    const NEVER: Duration = Duration::from_secs(3600);

    /// Each write is told, and waits until somebody takes it.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_owned()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn pipe(gather: Duration) -> (Sink, Flush, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::sync_channel(0);
        let (sink, flush) = Sink::start_with(Pipe(sender), gather).unwrap();
        (sink, flush, receiver)
    }

    /// What was pushed is being written from then on, until somebody takes it from the pipe.
    fn until_it_writes(sink: &Sink) {
        while !sink.lock().is_writing {
            thread::yield_now();
        }
    }

    #[test]
    fn lines_that_come_while_others_are_written_are_one_write_in_their_order() {
        let (sink, _flush, written) = pipe(Duration::ZERO);
        sink.push(&[b"first\n"], Urgency::Routine);
        until_it_writes(&sink);
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}\n")).collect();
        lines.iter().for_each(|line| sink.push(&[b"", line.as_bytes()], Urgency::Routine));
        assert_eq!(written.recv().unwrap(), b"first\n");
        assert_eq!(written.recv().unwrap(), lines.concat().into_bytes());
    }

    #[test]
    fn news_hurry_and_take_along_what_waits() {
        let (sink, _flush, written) = pipe(NEVER);
        sink.push(&[b"a request\n"], Urgency::Routine);
        assert!(written.recv_timeout(GATHER * 4).is_err(), "it waits for others");
        sink.push(&[b"trouble\n"], Urgency::News);
        assert_eq!(written.recv().unwrap(), b"a request\ntrouble\n");
    }

    #[test]
    fn enough_lines_wait_for_no_more() {
        let (sink, _flush, written) = pipe(NEVER);
        let line = vec![b'a'; ENOUGH_BYTES / 2];
        sink.push(&[&line], Urgency::Routine);
        sink.push(&[&line], Urgency::Routine);
        assert_eq!(written.recv().unwrap().len(), ENOUGH_BYTES);
    }

    #[test]
    fn what_waits_is_written_at_the_end() {
        let (sink, flush, written) = pipe(NEVER);
        let reader = thread::spawn(move || written.recv().unwrap());
        sink.push(&[b"the last\n"], Urgency::Routine);
        drop(flush);
        assert_eq!(reader.join().unwrap(), b"the last\n");
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_loses_lines_by_number() {
        let (sink, flush, written) = pipe(Duration::ZERO);
        sink.push(&[b"first\n"], Urgency::News);
        until_it_writes(&sink);
        let line = vec![b'a'; WAITING_BYTES_MAX / 4];
        (0..6).for_each(|_| sink.push(&[&line], Urgency::News));
        assert_eq!(sink.lock().lost, 2);
        let (done, ended): (Sender<()>, _) = mpsc::channel();
        thread::spawn(move || {
            drop(flush);
            done.send(()).unwrap();
        });
        ended.recv_timeout(FLUSH_TIMEOUT * 10).expect("the end of the process waits for nobody who does not read");
        assert_eq!(written.recv().unwrap(), b"first\n");
        assert_eq!(written.recv().unwrap().len(), WAITING_BYTES_MAX);
    }
}
