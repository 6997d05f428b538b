//! The task of one session: drives the machine with what comes from requests, sockets, the layer
//! above and the clock.
//!
//! One `poll_fn` looks at all sources in a fixed order, so that nothing is spawned, split or locked
//! for a session. After each event, and before the next packet of the client is taken, the
//! transport is given what waits in the outbox and then what the layer above has
//! ([`Handler::poll_next`]). Every source either goes through tokio's budget or is bounded, so a
//! client that sends without end cannot keep the task from giving way.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;
use tracing::debug;

use super::error::{CloseReason, Refused};
use super::handler::{Handler, Work};
use super::inbox::{SessionCommand, SessionRequest};
use super::message::MessageGroup;
use super::outbox::{Next, OutboxReceiver, OutboxSignal};
use super::packet::Frame;
use super::registry::{RegisteredSession, RunningGuard, SessionRegistry};
use super::session::{Output, PollAnswer, PostAnswer, Session, SocketRole};
use super::websocket::{SocketEvent, WebSocket};

/// How long a deadline may be away when there is none.
const FAR: Duration = Duration::from_secs(86_400);

/// How long a session that [`Handler::poll_end`] ends may take to get rid of what is queued.
const END_TIMEOUT: Duration = Duration::from_millis(500);

enum Event {
    Command(SessionCommand),
    Socket(SocketRole, SocketEvent),
    Closing(CloseReason),
    /// The layer above wants no more of the session.
    Ended(CloseReason),
    WorkDone,
    /// The outbox has something.
    Pump,
    Deadline,
}

/// What the layer above knows of the session; taken when it ends.
struct Known<H: Handler> {
    state: Arc<H::Session>,
    registered: RegisteredSession,
}

pub(super) struct SessionTask<H: Handler> {
    handler: Arc<H>,
    known: Option<Known<H>>,
    registry: Arc<SessionRegistry>,
    /// Until the layer above has been told of the end.
    _running: RunningGuard,
    machine: Session,
    outbox: OutboxReceiver,
    main: Option<Box<WebSocket>>,
    probe: Option<Box<WebSocket>>,
    poll: Option<oneshot::Sender<Result<PollAnswer, Refused>>>,
    post: Option<oneshot::Sender<PostAnswer>>,
    /// Dropped at the end, for a POST whose body is still being read.
    post_pass: Option<oneshot::Sender<()>>,
    work: Option<Work>,
    /// When the timer wakes the task.
    wakes_at: Option<Instant>,
    /// A packet of the client was given to the layer above since it was last seen to have room.
    may_be_full: bool,
    /// The outbox and the layer above have nothing to be sent, as far as the task knows: it asks
    /// again when it was woken or something has happened but that the transport took more.
    is_drained: bool,
    /// The layer above has said that it wants no more of the session.
    has_ended: bool,
}

impl<H: Handler> SessionTask<H> {
    pub(super) fn new(
        handler: Arc<H>,
        state: Arc<H::Session>,
        registered: RegisteredSession,
        outbox: OutboxReceiver,
        machine: Session,
        main: Option<Box<WebSocket>>,
    ) -> Box<Self> {
        let registry = registered.registry().clone();
        // Boxed, because a future that owns it by value has room for it twice.
        Box::new(Self {
            handler,
            _running: registry.running(),
            registry,
            known: Some(Known { state, registered }),
            machine,
            outbox,
            main,
            probe: None,
            poll: None,
            post: None,
            post_pass: None,
            work: None,
            wakes_at: None,
            may_be_full: false,
            is_drained: false,
            has_ended: false,
        })
    }

    pub(super) async fn run(mut self: Box<Self>) {
        let sleep = tokio::time::sleep(FAR);
        tokio::pin!(sleep);
        poll_fn(|cx| {
            self.is_drained = false;
            let mut time = now();
            loop {
                self.pump(cx, time);
                if self.machine.is_closed() {
                    return Poll::Ready(());
                }
                let event = ready!(self.poll_event(cx, time, sleep.as_mut()));
                if matches!(event, Event::Deadline) {
                    time = now();
                }
                self.handle(cx, time, event);
            }
        })
        .await
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        sleep: Pin<&mut Sleep>,
    ) -> Poll<Event> {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Event::WorkDone);
        }
        // Before requests: a client that upgrades and then polls at once has moved, whichever
        // connection woke us.
        for (role, socket) in [
            (SocketRole::Main, &mut self.main),
            (SocketRole::Probe, &mut self.probe),
        ] {
            let read = self.machine.wants_frame(role);
            if let Some(socket) = socket
                && let Poll::Ready(event) = socket.poll(cx, read)
            {
                return Poll::Ready(Event::Socket(role, event));
            }
        }
        if let Some(known) = &self.known
            && let Poll::Ready(command) = known.registered.inbox.poll_command(cx)
        {
            return Poll::Ready(Event::Command(command));
        }
        if let Poll::Ready(signal) = self.outbox.poll(cx, self.machine.wants_message()) {
            return Poll::Ready(match signal {
                OutboxSignal::Send => Event::Pump,
                OutboxSignal::Close(reason) => Event::Closing(reason),
            });
        }
        if let Poll::Ready(reason) = self.poll_end(cx) {
            return Poll::Ready(Event::Ended(reason));
        }
        self.poll_deadline(cx, now, sleep)
    }

    /// Asked once for each time that the task waits: a client that sends without end does not keep
    /// it from that.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        match &self.known {
            Some(known) if !self.has_ended => {
                let end = self.handler.poll_end(&known.state, cx);
                self.has_ended = end.is_ready();
                end
            }
            _ => Poll::Pending,
        }
    }

    /// Looked at last and set only when the task is about to wait, because a deadline moves with
    /// every frame written. That is safe: the machine runs the deadlines that passed with every
    /// input. A timer that is set is not asked again before its time.
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut sleep: Pin<&mut Sleep>,
    ) -> Poll<Event> {
        let above = |known: &Known<H>| self.handler.deadline(&known.state);
        let deadline = [self.machine.deadline(), self.known.as_ref().and_then(above)]
            .into_iter()
            .flatten()
            .min();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(Event::Deadline);
        }
        if self.wakes_at == deadline {
            return Poll::Pending;
        }
        self.wakes_at = deadline;
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        sleep.as_mut().reset(deadline.into());
        // Else it may say that the task has done enough for now, and not wake it in time.
        let timer = std::pin::pin!(unconstrained(sleep));
        timer.poll(cx).map(|()| {
            self.wakes_at = None;
            Event::Deadline
        })
    }

    fn handle(&mut self, cx: &mut Context<'_>, now: Instant, event: Event) {
        self.is_drained &= matches!(
            event,
            Event::Socket(_, SocketEvent::Written | SocketEvent::Progressed)
        );
        match event {
            Event::Pump => {}
            Event::Deadline => self.tick(now),
            Event::Command(SessionCommand::Request(request)) => self.request(cx, now, request),
            Event::Command(SessionCommand::RequestLost) => self.machine.request_lost(now),
            Event::Command(SessionCommand::Shutdown) => {
                self.close(now, CloseReason::ServerShuttingDown)
            }
            // Never let in, it would have ended soon.
            Event::Command(SessionCommand::Evicted) => {
                self.machine.abandon(CloseReason::PingTimeout)
            }
            Event::Closing(reason) => self.close(now, reason),
            Event::Ended(reason) => {
                self.work_over(now);
                self.flush_outbox();
                self.machine.close_until(now, reason, now + END_TIMEOUT);
            }
            Event::Socket(role, event) => match event {
                SocketEvent::Received(frame) => self.machine.frame(now, role, frame),
                SocketEvent::Written => self.machine.written(now, role),
                SocketEvent::Progressed => self.machine.write_progressed(now, role),
                SocketEvent::Ended(end) => self.machine.socket_ended(now, role, end),
            },
            Event::WorkDone => self.work_over(now),
        }
    }

    /// The work is done, or is not wanted any more.
    fn work_over(&mut self, now: Instant) {
        if self.work.take().is_some() {
            self.machine.resume(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.machine.tick(now);
        if let Some(known) = &self.known
            && self
                .handler
                .deadline(&known.state)
                .is_some_and(|deadline| deadline <= now)
        {
            self.handler.tick(&known.state, now);
        }
    }

    fn request(&mut self, cx: &mut Context<'_>, now: Instant, request: SessionRequest) {
        match request {
            SessionRequest::Poll(answer) => match self.machine.poll_opened(now) {
                Ok(()) => self.poll = Some(answer),
                Err(refused) => {
                    // The first poll is answered before the second one.
                    self.pump(cx, now);
                    let _ = answer.send(Err(refused));
                }
            },
            SessionRequest::PostOpened { octets, verdict } => {
                let verdict_of = match self.machine.post_opened(now, octets) {
                    Ok(()) => {
                        let (pass, over) = oneshot::channel();
                        self.post_pass = Some(pass);
                        Ok(over)
                    }
                    Err(refused) => {
                        self.pump(cx, now);
                        Err(refused)
                    }
                };
                let _ = verdict.send(verdict_of);
            }
            SessionRequest::PostBody(body, answer) => {
                self.post = Some(answer);
                self.machine.post_body(now, body);
            }
            SessionRequest::PostRefused => self.machine.post_refused(now),
            SessionRequest::Socket(socket) => {
                if self.machine.socket_opened(now) {
                    self.probe = Some(socket);
                } else {
                    self.close_in_background(socket, None);
                }
            }
        }
    }

    /// The layer above, or the service, ends the session. What was queued before goes out, unless
    /// the client does not read.
    fn close(&mut self, now: Instant, reason: CloseReason) {
        if reason == CloseReason::SlowConsumer {
            return self.machine.abandon(reason);
        }
        self.flush_outbox();
        self.machine.close(now, reason);
    }

    fn flush_outbox(&mut self) {
        while self.machine.is_open()
            && let Next::Group(group) = self.outbox.take()
        {
            self.machine.send(group);
        }
    }

    /// Gives the machine what it can take and does what it says, until nothing is left to do.
    fn pump(&mut self, cx: &mut Context<'_>, now: Instant) {
        loop {
            if !self.is_drained {
                self.pull(cx);
                let is_full = self.is_full();
                self.machine.hold_back(now, is_full);
            }
            loop {
                match self.machine.next_output(now) {
                    // Most of what comes out.
                    Some(Output::Write(role, frame)) => self.write(role, frame),
                    Some(output) => {
                        self.perform(output);
                        break;
                    }
                    None => return,
                }
            }
        }
    }

    /// Gives the machine what its transport can take.
    fn pull(&mut self, cx: &mut Context<'_>) {
        while self.machine.wants_message() {
            match self.next_group(cx) {
                Some(group) => self.machine.send(group),
                None => {
                    self.is_drained = true;
                    return;
                }
            }
        }
    }

    /// What waits in the outbox; behind it, what the layer above has.
    fn next_group(&mut self, cx: &mut Context<'_>) -> Option<MessageGroup> {
        match self.outbox.take() {
            Next::Group(group) => return Some(group),
            Next::End => return None,
            Next::Pull => {}
        }
        let known = self.known.as_ref()?;
        if self.work.is_some() || !self.machine.is_open() {
            return None;
        }
        match self.handler.poll_next(&known.state, cx) {
            Poll::Ready(group) => Some(group),
            Poll::Pending => None,
        }
    }

    /// Whether so many answers wait that no further packet of the client is taken. What waits in
    /// the layer above grows by what the client asks for alone.
    fn is_full(&mut self) -> bool {
        let above = |known: &Known<H>| self.handler.is_full(&known.state);
        let is_full = self.may_be_full && self.known.as_ref().is_some_and(above);
        self.may_be_full &= is_full || self.work.is_some();
        is_full || self.outbox.is_full()
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Poll(answer) => {
                if let Some(poll) = self.poll.take() {
                    let _ = poll.send(Ok(answer));
                }
            }
            Output::Post(answer) => {
                if let Some(post) = self.post.take() {
                    let _ = post.send(answer);
                }
            }
            Output::Write(role, frame) => self.write(role, frame),
            Output::CloseSocket(role, code) => {
                if let Some(socket) = self.socket(role).take() {
                    self.close_in_background(socket, code);
                }
            }
            Output::Promote => self.main = self.probe.take(),
            Output::Deliver(message) => {
                self.is_drained = false;
                self.may_be_full = true;
                if let Some(known) = &self.known {
                    self.work = self.handler.message(&known.state, message);
                    if self.work.is_some() {
                        self.machine.pause();
                    }
                }
            }
            Output::Closed(reason) => self.end(reason),
        }
    }

    fn write(&mut self, role: SocketRole, frame: Frame) {
        if let Some(socket) = self.socket(role) {
            socket.start(frame);
        }
    }

    fn socket(&mut self, role: SocketRole) -> &mut Option<Box<WebSocket>> {
        match role {
            SocketRole::Main => &mut self.main,
            SocketRole::Probe => &mut self.probe,
        }
    }

    /// Closes a socket in a task of its own: the session does not wait for it, a shutdown does.
    fn close_in_background(&self, socket: Box<WebSocket>, code: Option<u16>) {
        let running = self.registry.running();
        tokio::spawn(async move {
            socket.close_gracefully(code).await;
            drop(running);
        });
    }

    /// The one way out: no request finds the session any more, its work is dropped, the layer above
    /// is told. Once.
    fn end(&mut self, reason: CloseReason) {
        let Some(Known { state, registered }) = self.known.take() else {
            return;
        };
        drop(registered);
        self.work = None;
        self.post_pass = None;
        debug!(%reason, "session closed");
        self.handler.close(&state, reason);
    }
}

/// When the task panics or the runtime drops it, the layer above is told too.
impl<H: Handler> Drop for SessionTask<H> {
    fn drop(&mut self) {
        self.end(CloseReason::TransportError);
    }
}

/// The clock that tokio's timers go by, which tests can stop.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
