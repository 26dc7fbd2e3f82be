//! The keeper: the task that owns the book of leases. It hears what clients want, writes the
//! journal, moves the fences, and sees to it that what ended is cut off and made safe.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    AdminAction, AdminAsk, Administered, Board, ClientName, EventKind, LeaseAction, LeaseAsk,
    LeaseNews, Leased, Refusal, RefusalCode, codec, limits::CLOSURE_REASON_BYTES_MAX,
    message::ResetCode, subject::FromExporter,
};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Hooks, Journal, LeaseRules, Leases, Word,
    book::{Book, Closure, Effect, Entry, Phase, Queues, Standing, UnitAt},
    finish::{self, NotReady},
};
use crate::exporter::core::Core;

/// Words that are dealt with together, with one write of the journal.
const WORDS_AT_ONCE: usize = 256;
/// The connection is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Whoever was not here for longer was stopped, and cannot say who was silent meanwhile.
const STOPPED: Duration = Duration::from_secs(5);
/// The board is published at least this often, for a broker that lost its store.
const BOARD_EVERY: Duration = Duration::from_secs(30);
/// A journal that cannot be written is tried again this often.
const JOURNAL_AGAIN: Duration = Duration::from_secs(5);
/// An answer that the connection does not take at once is not waited for: it is asked for again.
const SEND_WITHIN: Duration = Duration::from_millis(200);

/// Owns the leases of one exporter.
pub(crate) struct Keeper {
    core: Arc<Core>,
    book: Book,
    journal: Option<Journal>,
    hooks: Arc<Hooks>,
    /// Subtrees that are to be nobody's, and who waits for that.
    suspended: Vec<(Vec<UnitAt>, oneshot::Sender<()>)>,
    /// The leases whose hook after them has run, of subtrees that are not ready all the same.
    after_has_run: HashMap<UnitAt, u64>,
    /// The hooks before leases that run, or have run.
    begun: HashMap<UnitAt, Beginning>,
    inbox: mpsc::Receiver<Word>,
    clock: Clock,
    /// How often the connection was made, and when it was last looked at.
    connects: u64,
    looked: Instant,
    /// Why the journal cannot be written, if so, and when it is tried again.
    broken: Option<(String, Instant)>,
    board: BoardShown,
}

/// A hook before a lease: how it is stopped, and waited for.
struct Beginning {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What was published of the board, and when.
struct BoardShown {
    record: Bytes,
    at: Instant,
}

/// The exporter's own time since 1970. In one run it never steps.
struct Clock {
    anchor: Duration,
    began: Instant,
}

impl Clock {
    /// `not_before` is the last moment of the last run that is known of.
    fn new(not_before: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { anchor: now.max(not_before), began: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.anchor + self.began.elapsed()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.began + at.saturating_sub(self.anchor)
    }
}

/// An answer that is on its way, once what it says is on the disk.
struct Answer {
    reply: String,
    message: Bytes,
    grants: bool,
}

impl Keeper {
    /// Takes over what the last run left.
    pub(crate) fn new(
        core: Arc<Core>,
        rules: LeaseRules,
        hooks: Hooks,
        inbox: mpsc::Receiver<Word>,
        journal: Option<(Journal, Vec<Entry>)>,
    ) -> Self {
        let mut book = Book::new(rules, hooks.before.is_some());
        let (journal, entries) = journal.map_or((None, Vec::new()), |(j, e)| (Some(j), e));
        let newest = entries.iter().filter_map(Entry::since).max().unwrap_or_default();
        let clock = Clock::new(newest);
        book.replay(entries, clock.now());
        let connects = core.control().connects();
        let looked = Instant::now();
        Self {
            core,
            book,
            journal,
            hooks: Arc::new(hooks),
            suspended: Vec::new(),
            begun: HashMap::new(),
            after_has_run: HashMap::new(),
            inbox,
            clock,
            connects,
            looked,
            broken: None,
            board: BoardShown { record: Bytes::new(), at: looked },
        }
    }

    /// Takes over what the registry shows as held: for an exporter without a state directory.
    pub(crate) async fn take_over(&mut self) {
        if self.journal.is_some() {
            return;
        }
        tracing::warn!(
            "no state directory: a restart knows only of leases that the broker remembers"
        );
        if let Some(board) = finish::last_board(&self.core).await {
            self.book.adopt(board, self.clock.now());
        }
    }

    /// Moves every fence to where the book says: before the first call is heard.
    pub(crate) fn raise_fences(&self) {
        (0..self.book.units.len()).for_each(|unit| self.admit(unit));
    }

    /// The subtrees that somebody holds.
    pub(crate) fn held(&self) -> Vec<UnitAt> {
        let held = |at: &UnitAt| matches!(self.book.units[*at].phase, Phase::Held(_));
        (0..self.book.units.len()).filter(held).collect()
    }

    /// Serves until the exporter stops.
    pub(crate) async fn run(mut self) {
        self.carry_out(Vec::new()).await;
        loop {
            let now = self.clock.now();
            let due = self.book.due(now).map(|at| self.clock.instant(at));
            let wake =
                (self.looked + LOOK_EVERY).min(due.unwrap_or_else(|| self.looked + LOOK_EVERY));
            let word = tokio::select! {
                biased;
                () = self.core.stop.cancelled() => return,
                word = self.inbox.recv() => word,
                () = sleep_until(wake) => None,
            };
            self.look_at_the_connection();
            let mut answers = Vec::new();
            let mut next = word;
            while let Some(word) = next {
                answers.extend(self.hear(word));
                let more = answers.len() < WORDS_AT_ONCE;
                next = more.then(|| self.inbox.try_recv().ok()).flatten();
            }
            self.book.tick(self.clock.now());
            self.carry_out(answers).await;
            self.tell_who_waits_for_nobody();
        }
    }

    /// Tells those who suspended subtrees when nobody has them any more.
    fn tell_who_waits_for_nobody(&mut self) {
        let mut waiting = Vec::new();
        for (units, done) in self.suspended.drain(..) {
            match units.iter().all(|unit| self.book.units[*unit].is_nobodys()) {
                true => drop(done.send(())), // or it was given up
                false => waiting.push((units, done)),
            }
        }
        self.suspended = waiting;
    }

    fn look_at_the_connection(&mut self) {
        let now = self.clock.now();
        let connected = self.core.control().is_connected();
        self.book.connection(connected, now);
        let connects = self.core.control().connects();
        let away = std::mem::replace(&mut self.connects, connects) != connects;
        let stopped = self.looked.elapsed() > STOPPED;
        self.looked = Instant::now();
        if away || stopped {
            self.book.forgive(now);
            self.board.record.clear(); // the broker may have lost it
        }
    }

    // --- words -------------------------------------------------------------------------------

    fn hear(&mut self, word: Word) -> Option<Answer> {
        let now = self.clock.now();
        match word {
            Word::Lease { client, ask, reply } => {
                let message = self.lease(&client, ask, now);
                let grants = matches!(message, Answered::Leased(Leased::Held(_)));
                Some(Answer { reply, message: message.encode(), grants })
            }
            Word::Admin { client, ask, reply } => {
                let answer = match self.admin(&client, ask, now) {
                    Ok(text) => Administered::Done { text },
                    Err(refusal) => Administered::Refused(refusal),
                };
                Some(Answer { reply, message: codec::encode(&answer), grants: false })
            }
            Word::Show => {
                self.board.record.clear();
                None
            }
            Word::Close { why } => {
                self.book.leave(why, now);
                None
            }
            Word::Suspend { units, done } => {
                self.book.suspend(&units, now);
                self.suspended.push((units, done));
                None
            }
            Word::GoOn { units } => {
                self.book.go_on(&units, now);
                None
            }
            Word::Reloaded { rules, hooks } => {
                let fences = self.core.leases.fences();
                let shared = Arc::new((*rules).clone());
                (0..fences.len()).for_each(|unit| fences.at(unit).follow(&shared));
                let paths = (0..fences.len()).map(|unit| fences.at(unit).path.clone());
                self.book.reload(*rules, hooks.before.is_some(), paths.collect(), now);
                self.hooks = Arc::new(*hooks);
                None
            }
            Word::Begun { unit, epoch, hook } => {
                self.book.begun(unit, epoch, hook, now);
                None
            }
            Word::Settled { unit, epoch, ready } => {
                if let Err(NotReady { after_has_run: true, .. }) = &ready {
                    self.after_has_run.insert(unit, epoch);
                } else {
                    self.after_has_run.remove(&unit);
                }
                self.book.settled(unit, epoch, ready.map_err(|not| not.why), now);
                None
            }
        }
    }

    fn lease(&mut self, client: &ClientName, ask: LeaseAsk, now: Duration) -> Answered {
        let refused = |refusal| Answered::Leased(Leased::Refused(refusal));
        if ask.action == LeaseAction::Status {
            let at = match self.unit(&ask.path, ask.driver) {
                Ok(unit) => Some(self.book.units[unit].path.clone()),
                Err(refusal) => return refused(refusal),
            };
            let board = self.book.board(self.core.incarnation, Queues::Shown, now);
            return Answered::Board(Board { at, ..board });
        }
        if let (LeaseAction::Acquire(_), Some((why, _))) = (&ask.action, &self.broken) {
            return refused(Refusal::new(RefusalCode::Failed, why));
        }
        // Where a ticket says which, the path need not.
        let by_ticket = ask.ticket.is_some() && !matches!(ask.action, LeaseAction::Acquire(_));
        let unit = match by_ticket {
            true => Ok(0),
            false => self.unit(&ask.path, ask.driver),
        };
        match unit {
            Ok(unit) => Answered::Leased(self.book.hear(client, ask.ticket, unit, ask.action, now)),
            Err(refusal) => refused(refusal),
        }
    }

    fn admin(
        &mut self,
        client: &ClientName,
        ask: AdminAsk,
        now: Duration,
    ) -> Result<String, Refusal> {
        let unit = || Leases::unit(&self.core.name, &self.core.slots(), &ask.path, ask.driver);
        match ask.action {
            AdminAction::Kick { reason, ticket } => {
                let reason = match reason.is_empty() {
                    true => format!("by {client}"),
                    false => format!("{reason} (by {client})"),
                };
                match ticket {
                    Some(ticket) => self.book.kick_ticket(ticket, &reason, now),
                    None => self.book.kick(unit()?, &reason, now),
                }
            }
            AdminAction::Drain { reason, .. } if reason.len() > CLOSURE_REASON_BYTES_MAX => {
                let text = format!("a reason has at most {CLOSURE_REASON_BYTES_MAX} bytes");
                Err(Refusal::new(RefusalCode::TooLarge, text)
                    .with_limit(CLOSURE_REASON_BYTES_MAX as u64))
            }
            AdminAction::Drain { reason, maintenance } => {
                let closure = Closure { by: client.clone(), reason, maintenance };
                Ok(self.book.drain(unit()?, &closure, now))
            }
            AdminAction::Resume => Ok(self.book.resume_grants(unit()?, client, now)),
            // It is not the keeper's to answer, and does not get here.
            AdminAction::Reload => {
                Err(Refusal::new(RefusalCode::Failed, "leases are not what is reloaded"))
            }
        }
    }

    fn unit(
        &self,
        path: &bus_schema::Path,
        driver: Option<bus_schema::DriverId>,
    ) -> Result<UnitAt, Refusal> {
        Leases::unit(&self.core.name, &self.core.slots(), path, driver)
    }

    // --- what follows ------------------------------------------------------------------------

    /// Does what the book says, in its order: the disk first, then the fences, then words.
    async fn carry_out(&mut self, mut answers: Vec<Answer>) {
        let mut effects = self.book.effects();
        if let Err(why) = self.keep(&effects).await {
            let refused = Leased::Refused(Refusal::new(RefusalCode::Failed, &why));
            for answer in answers.iter_mut().filter(|answer| answer.grants) {
                answer.message = codec::encode(&refused);
            }
            effects.extend(self.take_back(&effects, &why));
        }
        // Fences before words: whoever is told that it is over has been cut off.
        for unit in effects.iter().filter_map(Effect::admits) {
            self.admit(unit);
        }
        if self.journal.is_none() {
            self.show_board().await; // it is all that the next run will know: before it is answered
        }
        for answer in answers {
            self.send(self.core.control().publish(answer.reply, answer.message)).await;
        }
        for effect in effects {
            self.carry_out_one(effect).await;
        }
        self.show_board().await;
    }

    async fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Keep(_) | Effect::Admit(_) => {}
            Effect::Begin(unit) => self.begin(unit),
            Effect::Finish(unit) => self.finish(unit),
            Effect::Waited(waited) => self.core.stats.leases.granted(waited),
            Effect::Tell(client, news) => self.news(client, news).await,
            Effect::Event { kind, unit, client, epoch, reason } => {
                let path = &self.core.leases.fence(unit).path;
                tracing::info!(%kind, %path, client = client.as_ref().map(tracing::field::display), epoch, reason, "lease");
                self.core.stats.leases.happened(&kind);
                self.core.event(kind, path, client, epoch, reason);
            }
        }
    }

    /// Puts entries on the disk, and returns when they are there.
    async fn keep(&mut self, effects: &[Effect]) -> Result<(), String> {
        let entries: Vec<_> = effects.iter().filter_map(Effect::kept).cloned().collect();
        let again = self.broken.as_ref().is_some_and(|(_, again)| *again <= Instant::now());
        if entries.is_empty() && !again {
            return Ok(());
        }
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let rewrite = (self.broken.is_some() || journal.is_long()).then(|| self.book.summary());
        let written = tokio::task::spawn_blocking(move || {
            let written = match rewrite {
                Some(summary) => journal.rewrite(&summary),
                None => journal.append(&entries),
            };
            (journal, written)
        });
        let (journal, written) = written.await.expect("a write does not panic");
        self.journal = Some(journal);
        match written {
            Ok(()) => {
                self.broken = None;
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "no lease is granted until the journal can be written");
                self.broken = Some((error.to_string(), Instant::now() + JOURNAL_AGAIN));
                Err(error.to_string())
            }
        }
    }

    /// What was granted and could not be written down is ended again.
    fn take_back(&mut self, effects: &[Effect], why: &str) -> Vec<Effect> {
        let now = self.clock.now();
        for effect in effects {
            if let Effect::Event { kind: EventKind::LeaseGranted, unit, .. } = effect {
                let _ = self.book.kick(*unit, why, now); // it is there: it was granted just now
            }
        }
        self.book.effects()
    }

    /// Moves the fence, and cuts off what may go on no longer.
    fn admit(&self, unit: UnitAt) {
        let fence = self.core.leases.fence(unit);
        let standing = self.book.standing(unit);
        let lease = self.book.units[unit].lease();
        let until = lease.map(|lease| self.clock.instant(lease.until));
        fence.set(standing, until);
        let may_go_on = fence.lets_go_on();
        self.core.ledger().cut(&may_go_on);
        let text = "the lease that it was opened under has ended";
        self.core.switchboard.cut(&may_go_on, ResetCode::LeaseEnded, text);
    }

    fn begin(&mut self, unit: UnitAt) {
        let Standing::Closed { lease: Some(lease), .. } = self.book.standing(unit) else { return };
        let (core, hooks) = (self.core.clone(), self.hooks.clone());
        let stop = self.core.stop.child_token();
        let ends = stop.clone();
        let task = self.core.tasks.spawn(async move {
            let epoch = lease.epoch;
            let hook = finish::before(&core, &hooks, unit, &lease, &ends).await;
            // Full only if thousands wait, and then the lease ends by its own time.
            let _ = core.leases.tell(Word::Begun { unit, epoch, hook });
        });
        self.begun.insert(unit, Beginning { stop, task });
    }

    fn finish(&mut self, unit: UnitAt) {
        let Some(lease) = self.book.units[unit].lease().cloned() else { return };
        let has_run = self.after_has_run.get(&unit) == Some(&lease.epoch);
        let begun = self.begun.remove(&unit);
        let (core, hooks) = (self.core.clone(), self.hooks.clone());
        self.core.tasks.spawn(async move {
            let epoch = lease.epoch;
            if let Some(Beginning { stop, task }) = begun {
                stop.cancel(); // the lease may have ended before it began
                let _ = task.await;
            }
            let ready = finish::finish(&core, &hooks, unit, &lease, has_run).await;
            let word = Word::Settled { unit, epoch, ready };
            let _ = core.leases.words.send(word).await; // gone: the exporter stops
        });
    }

    async fn news(&self, client: ClientName, news: LeaseNews) {
        let session = news.ticket.session();
        let subject = FromExporter::Lease(self.core.name.clone(), client, session);
        self.say(subject.under(&self.core.root), codec::encode(&news)).await;
    }

    /// Says what has no answer, and is none.
    async fn say(&self, subject: String, message: Bytes) {
        self.send(self.core.control().say(subject, &self.core.mark, message)).await;
    }

    async fn send(&self, sending: impl Future) {
        if self.core.control().is_connected() {
            // What is lost is asked for again, or told again.
            let _ = timeout(SEND_WITHIN, sending).await;
        }
    }

    /// Publishes who has what, if that has changed.
    async fn show_board(&mut self) {
        let now = self.clock.now();
        let shown = self.book.shown();
        let unchanged = shown == self.board.record && self.board.at.elapsed() < BOARD_EVERY;
        if unchanged {
            return;
        }
        let board = self.book.board(self.core.incarnation, Queues::Counted, now);
        self.core.stats.leases.show(&board.units);
        if !self.core.control().is_connected() {
            return;
        }
        self.board = BoardShown { record: shown, at: Instant::now() };
        let subject = FromExporter::Board(self.core.name.clone()).under(&self.core.root);
        self.say(subject, codec::encode(&board)).await;
    }
}

enum Answered {
    Leased(Leased),
    Board(Board),
}

impl Answered {
    fn encode(&self) -> Bytes {
        match self {
            Self::Leased(leased) => codec::encode(leased),
            Self::Board(board) => codec::encode(board),
        }
    }
}

impl Effect {
    fn kept(&self) -> Option<&Entry> {
        match self {
            Self::Keep(entry) => Some(entry),
            _ => None,
        }
    }

    fn admits(&self) -> Option<UnitAt> {
        match self {
            Self::Admit(unit) => Some(*unit),
            _ => None,
        }
    }
}
