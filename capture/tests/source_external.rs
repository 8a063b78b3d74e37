//! Sources that the crate does not have itself: opened through a `SourceOpener`, and reporting
//! their peer.

mod support;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use capture::pipeline::{Capture, CaptureError, CaptureState, Spec, counters};
use capture::ring::{Append, Writer};
use capture::source::{
    ExternalSource, Observer, ReconnectPatience, Rest, Source, SourceControl, SourceEnd,
    SourceError, SourceName, SourceOpener, SourceOptions,
};
use protocol::linktype::LinkType;
use support::{data, directory, time};
use wait::wait_until;

/// A peer that sends one packet to each source that reaches it.
#[derive(Debug, Default)]
struct Peer {
    is_there: AtomicBool,
    attempts: AtomicU32,
}

#[derive(Debug)]
struct Opener {
    written: String,
    peer: Arc<Peer>,
    rest: Rest,
}

impl SourceOpener for Opener {
    fn written(&self) -> &str {
        &self.written
    }

    fn default_alias(&self) -> String {
        "far/peer".to_owned()
    }

    fn open(&self, options: &SourceOptions<'_>) -> Result<Box<dyn Source>, SourceError> {
        assert_eq!(options.snaplen, 262_144);
        if self.written == "far:" {
            let why = "write it as far:NAME".to_owned();
            return Err(SourceError::Malformed { name: self.written.clone(), why });
        }
        Ok(Box::new(Connecting { peer: Arc::clone(&self.peer), rest: self.rest }))
    }
}

#[derive(Debug)]
struct Connecting {
    peer: Arc<Peer>,
    rest: Rest,
}

impl Source for Connecting {
    fn link_type(&self) -> Option<LinkType> {
        None
    }

    fn rest(&self) -> Rest {
        self.rest
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn run(
        &mut self,
        writer: &mut Writer,
        control: &SourceControl,
        observer: &mut dyn Observer,
    ) -> Result<SourceEnd, SourceError> {
        loop {
            let patience = ReconnectPatience::begin();
            while !self.peer.is_there.load(Ordering::SeqCst) {
                self.peer.attempts.fetch_add(1, Ordering::SeqCst);
                let why = "nobody is there".to_owned();
                observer.away(writer, &SourceError::Lost { name: "far:peer".to_owned(), why });
                if !patience.wait(control) {
                    return Ok(SourceEnd::Stopped);
                }
            }
            writer.declare(LinkType::ETHERNET, 262_144).expect("nothing else is sent");
            observer.back(writer);
            let number = writer.ring().geometry().segment_size;
            assert_eq!(writer.append(time(number), 64, &data(number, 64)), Append::Stored);
            writer.publish();
            observer.tick(writer);
            while self.peer.is_there.load(Ordering::SeqCst) {
                if control.must_stop() {
                    return Ok(SourceEnd::Stopped);
                }
                let _ = ReconnectPatience::begin().wait(control);
            }
        }
    }
}

fn spec(directory: &std::path::Path, written: &str, peer: &Arc<Peer>, rest: Rest) -> Spec {
    let (written, peer) = (written.to_owned(), Arc::clone(peer));
    Spec {
        alias: "test".to_owned(),
        source: SourceName::External(ExternalSource::new(Opener { written, peer, rest })),
        filter: None,
        snaplen: 262_144,
        promiscuous: true,
        precision: protocol::time::Precision::Nano,
        ring_size: 4 << 20,
        is_default_ring: false,
        kernel_buffer: None,
        backend: capture::source::InterfaceBackend::default(),
        workers: capture::source::Workers::ONE,
        inject_speed: capture::injection::InjectSpeed::default(),
        export_keys: true,
        ring_dir: directory.to_owned(),
        flows: capture::flow::FlowOptions::default(),
    }
}

#[test]
fn a_capture_starts_without_its_peer_and_finds_it_again() {
    for rest in [Rest::Closed, Rest::Resumed] {
        let (directory, peer) = (directory(), Arc::new(Peer::default()));
        let spec = spec(directory.path(), "far:peer", &peer, rest);
        assert_eq!(
            (spec.source.to_string().as_str(), spec.source.default_alias().as_str()),
            ("far:peer", "far_peer")
        );
        let capture = Capture::start_new(spec).unwrap().capture;
        let stored = || counters(&**capture.store()).0.stored;
        let is = |state| capture.condition().state == state;
        wait_until("it looks for its peer", || is(CaptureState::Retrying));
        assert_eq!(capture.condition().error.as_deref(), Some("far:peer: nobody is there"));
        wait_until("it looks again", || peer.attempts.load(Ordering::SeqCst) > 3);
        assert_eq!(capture.interruptions().len(), 1, "one absence, many attempts");

        peer.is_there.store(true, Ordering::SeqCst);
        wait_until("it has a packet", || is(CaptureState::Running) && stored() == 1);
        assert!(capture.interruptions().iter().all(|one| one.ended.is_some()));
        peer.is_there.store(false, Ordering::SeqCst);
        wait_until("the peer is missed", || is(CaptureState::Retrying));
        peer.is_there.store(true, Ordering::SeqCst);
        wait_until("it has another packet", || is(CaptureState::Running) && stored() == 2);
        assert_eq!(capture.interruptions().len(), 2);

        capture.stop();
        assert_eq!(capture.condition().state, CaptureState::Stopped);
        capture.start().unwrap();
        wait_until("it goes on", || is(CaptureState::Running) && stored() == 3);
        let holes = if rest == Rest::Resumed { 0 } else { 3 };
        assert_eq!(capture.store().holes(), holes, "{rest:?}");
    }
}

#[test]
fn a_stop_does_not_wait_for_the_peer() {
    let (directory, peer) = (directory(), Arc::new(Peer::default()));
    let spec = spec(directory.path(), "far:peer", &peer, Rest::Resumed);
    let capture = Capture::start_new(spec).unwrap().capture;
    wait_until("it looks", || capture.condition().state == CaptureState::Retrying);
    capture.stop();
    assert_eq!(capture.condition().state, CaptureState::Stopped);
    assert!(capture.interruptions().iter().all(|one| one.ended.is_some()));
}

#[test]
fn what_is_written_makes_the_source() {
    let peer = Arc::new(Peer::default());
    let directory = directory();
    let of = |written| spec(directory.path(), written, &peer, Rest::Closed);
    assert!(of("far:a").is_same_capture(&of("far:a")));
    assert!(!of("far:a").is_same_capture(&of("far:b")));
    let refused = Capture::start_new(of("far:")).unwrap_err();
    assert!(matches!(refused, CaptureError::Source(_)));
    assert_eq!(refused.to_string(), "far:: write it as far:NAME");
}
