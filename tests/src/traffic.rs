//! Packets sent in the background at a bounded rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A sender of a numbered sequence of packets.
pub trait Emit: Send + 'static {
    /// Sends the next `count` packets.
    fn emit(&mut self, count: u64);
    /// Packets sent so far, which is the number of the last one.
    fn emitted(&self) -> u64;
}

/// A sender at work in a thread of its own; stopped on drop.
#[derive(Debug)]
pub struct Traffic<E: Emit> {
    thread: Option<JoinHandle<E>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl<E: Emit> Traffic<E> {
    /// Sends `per_second` packets a second in small bursts, `most` at most.
    #[must_use]
    pub fn start(mut sender: E, per_second: u64, most: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(sender.emitted()));
        let thread = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                let begin = Instant::now();
                let mut done = 0;
                while done < most && !stop.load(Ordering::Relaxed) {
                    let elapsed = begin.elapsed().as_micros();
                    let due = u128::from(per_second) * elapsed / 1_000_000;
                    let due = u64::try_from(due).unwrap_or(most).min(most);
                    // At most a burst that fits every queue on the way.
                    let burst = due.saturating_sub(done).min(200);
                    sender.emit(burst);
                    done += burst;
                    sent.store(sender.emitted(), Ordering::Release);
                    if burst < 200 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                sender
            }
        });
        Self { thread: Some(thread), stop, sent }
    }

    /// Number of the last packet sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Ends the traffic and returns the sender, which knows how many packets it sent.
    #[must_use]
    pub fn stop(mut self) -> E {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until all packets are sent and returns the sender.
    #[must_use]
    pub fn finish(mut self) -> E {
        self.join()
    }

    fn join(&mut self) -> E {
        let thread = self.thread.take().expect("joined once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<E: Emit> Drop for Traffic<E> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
