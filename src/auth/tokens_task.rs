//! What is in force follows the tokens file, and the store what was seen of it and used.
//!
//! At a start `begin` looks at the file, and a [`Problem`] refuses it. Later the task looks twice a
//! second, and at once when it is told to (`SIGHUP`); then a problem is said and what was in force
//! stays, but for what a newer file takes away. What closes is put in force before the store
//! remembers it, what opens after that.
//!
//! The store may take long to write, behind a block: it is not waited for, one write is under way
//! at a time, and the next one has all that came meanwhile.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::begin::{AuthStart, Place};
use super::changed::Changed;
use super::guard::Guard;
use super::judge::{InForce, Problem, in_force, judge, narrowed};
use super::tokens_file::{FileSeen, TokensFile, date};
use crate::access::Line;
use crate::clock::now_ms;
use crate::indexer::{self, IndexerStopped};
use crate::store::{AuthEdit, AuthMark, TokenKey};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(500);
/// Milliseconds between two writes of when a token was used last.
const USES: u64 = 60_000;
/// Milliseconds between two lines about a token that ends soon.
const REMIND: u64 = 86_400_000;

/// By what a change of the file shows; what kind of error, if it cannot be looked at.
type Appearance = Result<[i64; 6], ErrorKind>;

fn appearance(path: &Path) -> Appearance {
    let found = fs::metadata(path).map_err(|error| error.kind())?;
    Ok([
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}

/// Keeps what is in force up to date.
pub struct TokensTask {
    place: Place,
    guard: Guard,
    indexer: indexer::Handle,
    /// What was seen of the file last.
    mark: AuthMark,
    stored: Stored,
    appearance: Option<Appearance>,
    problem: Option<Problem>,
    /// When it was said of a token that it ends soon.
    reminded: HashMap<TokenKey, u64>,
}

/// What the store has.
struct Stored {
    mark: AuthMark,
    used: HashMap<TokenKey, u64>,
}

impl Stored {
    fn take(&mut self, written: &[AuthEdit]) {
        for edit in written {
            match edit {
                AuthEdit::Mark(mark) => self.mark = *mark,
                AuthEdit::Used(id, at) => _ = self.used.insert(*id, *at),
                AuthEdit::Gone(id) => _ = self.used.remove(id),
                // The guard has them.
                AuthEdit::Session(..) | AuthEdit::SessionGone(_) => {}
            }
        }
    }
}

/// Answers with what was written.
async fn write(
    indexer: indexer::Handle,
    edits: Vec<AuthEdit>,
) -> Result<Vec<AuthEdit>, IndexerStopped> {
    let sync = edits.iter().any(|edit| matches!(edit, AuthEdit::Mark(_)));
    indexer.edit_auth(edits.clone(), sync).await?;
    Ok(edits)
}

impl TokensTask {
    /// Puts in force what was begun with, once the store remembers it.
    pub async fn new(
        place: Place,
        begun: AuthStart,
        indexer: indexer::Handle,
    ) -> Result<(Self, Guard), IndexerStopped> {
        begun.say(&place.tokens_file, now_ms());
        let mut stored = Stored {
            mark: begun.remembered.mark,
            used: begun.remembered.used.into_iter().collect(),
        };
        if stored.mark != begun.mark {
            let written = write(indexer.clone(), vec![AuthEdit::Mark(begun.mark)]).await?;
            stored.take(&written);
        }
        let guard = Guard::new(begun.in_force);
        guard.load_sessions(begun.remembered.sessions);
        // Those that had expired before are no news.
        guard.end_expired(now_ms());
        let task = Self {
            place,
            guard: guard.clone(),
            indexer,
            mark: begun.mark,
            stored,
            appearance: None,
            problem: None,
            reminded: HashMap::new(),
        };
        Ok((task, guard))
    }

    /// Until it is told to stop; then it writes what is not written. An error: the indexer has
    /// stopped.
    pub async fn run(
        mut self,
        mut reloads: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Result<(), IndexerStopped> {
        let mut writing = pin!(Fuse::terminated());
        loop {
            let anew = tokio::select! {
                () = stop.cancelled() => break,
                written = &mut writing => {
                    let written: Vec<_> = written?;
                    self.written(&written);
                    false
                }
                // Whoever sends has ended: then nobody asks any more.
                Ok(()) = reloads.changed() => true,
                () = sleep(LOOK) => false,
            };
            self.follow_clock(now_ms());
            self.look(anew).await;
            if writing.is_terminated() {
                let mut due = self.due(USES);
                due.extend(self.guard.sweep_sessions(now_ms()));
                if due.is_empty() {
                    continue;
                }
                writing.set(write(self.indexer.clone(), due).fuse());
                // It is sent now: what a logout writes comes behind it.
                let sent = poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx)));
                if let Poll::Ready(written) = sent.await {
                    let written: Vec<_> = written?;
                    self.written(&written);
                }
            }
        }
        if !writing.is_terminated() {
            let written: Vec<_> = writing.await?;
            self.written(&written);
        }
        let due = self.due(0);
        if !due.is_empty() {
            write(self.indexer.clone(), due).await?;
        }
        Ok(())
    }

    /// At the file, if it has changed, could not be used, or is to be read anew.
    async fn look(&mut self, anew: bool) {
        // What was wrong need not have been the file.
        let anew = anew || self.problem.is_some();
        let (path, before) = (self.place.tokens_file.clone(), self.appearance);
        let looked = spawn_blocking(move || {
            let now = appearance(&path);
            let changed = anew || before != Some(now);
            changed.then(|| (now, TokensFile::look(&path)))
        });
        let (appearance, seen) = match looked.await {
            Ok(Some(looked)) => looked,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "the tokens file was not looked at"),
        };
        self.appearance = Some(appearance);
        self.take(seen);
    }

    fn take(&mut self, seen: FileSeen) {
        let exposed = self.place.exposed.as_ref();
        let file = match judge(seen, self.mark) {
            Ok(file) => file,
            Err(problem) => return self.keep(problem),
        };
        match in_force(file.as_ref(), self.mark, exposed) {
            Ok((in_force, mark)) => {
                self.problem = None;
                self.guard.set_problem(None);
                let is_newer = mark != self.mark;
                self.mark = mark;
                match in_force {
                    InForce::Open => self.open(),
                    in_force => self.put_in_force(in_force, is_newer, "taken"),
                }
            }
            Err(problem) => {
                self.keep(problem);
                if let Some(file) = file.filter(|_| self.guard.is_on()) {
                    let live = self.guard.tokens();
                    let left = narrowed(live.iter().map(|it| &it.token), &file);
                    let is_newer = file.serial != self.mark.serial;
                    // That it is on is remembered, too: it stays on.
                    self.mark = AuthMark {
                        on: true,
                        ..file.mark(self.mark)
                    };
                    self.put_in_force(
                        InForce::Tokens(left),
                        is_newer,
                        "taken in what it takes away",
                    );
                }
            }
        }
    }

    /// What was in force stays.
    fn keep(&mut self, problem: Problem) {
        let path = self.place.tokens_file.display();
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!("tokens file {path}: {problem}. What was in force stays");
        }
        self.guard.set_problem(Some(problem.to_string()));
        self.problem = Some(problem);
    }

    fn put_in_force(&self, in_force: InForce, is_newer: bool, outcome: &str) {
        let was_on = self.guard.is_on();
        let changed = self.guard.put_in_force(in_force);
        if is_newer || !changed.is_none() {
            say(&changed, outcome);
        }
        match (was_on, self.guard.is_on()) {
            (true, false) => tracing::warn!(
                "authentication is off: whoever reaches the daemon may do everything"
            ),
            (false, true) => {
                tracing::info!("authentication is on: every request needs a token");
            }
            _ => {}
        }
    }

    /// Puts in force that everything is open, if the store remembers that it is.
    fn open(&self) {
        if !self.mark.on && self.stored.mark == self.mark && self.guard.is_on() {
            self.put_in_force(InForce::Open, true, "off");
        }
    }

    /// What has expired, and what ends soon.
    fn follow_clock(&mut self, now: u64) {
        for (name, ended) in self.guard.end_expired(now) {
            let line = Line {
                who: &name,
                address: None,
                what: "token",
                concerns: Some(&ended.to_string()),
                outcome: "expired",
            };
            line.write_change();
        }
        let before = std::mem::take(&mut self.reminded);
        for live in self.guard.tokens() {
            let token = &live.token;
            let Some(ends) = token.ends_soon(now) else {
                continue;
            };
            let said = before.get(&token.id.0).copied();
            let said = said.filter(|said| now.abs_diff(*said) < REMIND);
            if said.is_none() {
                tracing::warn!("token {} ends on {}", token.name, date(ends));
            }
            self.reminded.insert(token.id.0, said.unwrap_or(now));
        }
    }

    fn written(&mut self, edits: &[AuthEdit]) {
        self.stored.take(edits);
        self.open();
    }

    /// What the store is to be told: of uses those that are so many milliseconds younger than what
    /// it has.
    fn due(&self, younger: u64) -> Vec<AuthEdit> {
        let (stored, live) = (&self.stored, self.guard.tokens());
        let mark = Some(AuthEdit::Mark(self.mark)).filter(|_| stored.mark != self.mark);
        let uses = live.iter().filter_map(|live| {
            let (id, used) = (live.token.id.0, live.last_used()?);
            let known = stored.used.get(&id).copied().unwrap_or_default();
            let is_due = used > known && used - known >= younger;
            is_due.then_some(AuthEdit::Used(id, used))
        });
        let mut due: Vec<_> = mark.into_iter().chain(uses).collect();
        // Tokens that are not asked for stay in the file.
        if self.guard.is_on() {
            let ids: HashSet<_> = live.iter().map(|live| live.token.id.0).collect();
            let gone = stored.used.keys().filter(|id| !ids.contains(*id));
            due.extend(gone.map(|id| AuthEdit::Gone(*id)));
        }
        due
    }
}

fn say(changed: &Changed, outcome: &str) {
    let line = Line {
        who: "satwatch token",
        address: None,
        what: "tokens file",
        concerns: Some(&changed.to_string()),
        outcome,
    };
    line.write_change();
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::auth::{Credential, Principal, Scope, TokenText, Waits, begin, change};
    use crate::remedy::Remedy;
    use crate::store::RememberedAuth;

    /// By the clock of the runtime, which goes on at once when everybody waits.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A tokens file with a token for each name, all in force, and an indexer that is busy.
    struct Busy {
        folder: TempDir,
        guard: Guard,
        task: Option<TokensTask>,
        principals: Vec<Principal>,
        reloads: watch::Sender<u64>,
        stop: CancellationToken,
        _indexer: Box<dyn Send>,
    }

    fn change_tokens(path: &Path, work: impl FnOnce(&mut TokensFile)) {
        let changed = change(path, AuthMark::default(), now_ms(), |seen| {
            let mut file = match seen {
                FileSeen::Good(file) => file,
                _ => TokensFile::default(),
            };
            work(&mut file);
            Ok((file, ()))
        });
        changed.expect("the folder is ours");
    }

    impl Busy {
        async fn with(names: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let place = Place {
                tokens_file: folder.path().join("tokens.toml"),
                first_token_file: None,
                exposed: None,
            };
            let texts: Vec<_> = names.iter().map(|_| TokenText::random()).collect();
            change_tokens(&place.tokens_file, |file| {
                for (name, text) in names.iter().zip(&texts) {
                    file.add(name, Scope::Read, text, None, now_ms())
                        .expect("new");
                }
            });
            let mut begun = begin(&place, RememberedAuth::default(), now_ms()).expect("good");
            begun.remembered.mark = begun.mark;
            let (indexer, thread) = indexer::Handle::busy();
            let task = TokensTask::new(place, begun, indexer).await;
            let (task, guard) = task.expect("nothing is to be written");
            let admit = |text: &TokenText| guard.admit(Credential::Token(text.reveal()));
            Self {
                principals: texts.iter().map(|it| admit(it).expect("known")).collect(),
                folder,
                guard,
                task: Some(task),
                reloads: watch::Sender::new(0),
                stop: CancellationToken::new(),
                _indexer: Box::new(thread),
            }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("tokens.toml")
        }

        fn run(&mut self) -> JoinHandle<Result<(), IndexerStopped>> {
            let task = self.task.take().expect("it runs once");
            tokio::spawn(task.run(self.reloads.subscribe(), self.stop.clone()))
        }

        fn revoke(&self, name: &str) {
            change_tokens(&self.path(), |file| {
                file.tokens.retain(|it| it.name != name)
            });
        }

        async fn ends(&self, place: usize) {
            let ended = timeout(PATIENCE, self.principals[place].ended(Waits::Session)).await;
            ended.unwrap_or_else(|_| panic!("token {place} has not ended"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_while_the_indexer_is_busy_and_the_daemon_opens_after_it() {
        let mut busy = Busy::with(&["a", "b", "c"]).await;
        let _running = busy.run();
        // What is to be written of the first one is under way when the second one is revoked.
        for (place, name) in ["a", "b"].into_iter().enumerate() {
            busy.revoke(name);
            busy.ends(place).await;
        }
        assert!(!busy.principals[2].has_ended());
        change_tokens(&busy.path(), |file| file.on = false);
        sleep(LOOK * 10).await;
        assert!(busy.guard.is_on(), "the store does not know yet");
        change_tokens(&busy.path(), |file| file.on = true);
        busy.revoke("c");
        busy.ends(2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_could_not_be_read_once_is_read_again_as_it_is() {
        let mut busy = Busy::with(&["a"]).await;
        busy.revoke("a");
        let path = busy.path();
        let task = busy.task.as_mut().expect("it does not run yet");
        // As it is left by a look whose file could be found and not be opened.
        task.appearance = Some(appearance(&path));
        task.problem = Some(Problem::Unreadable {
            why: "too many open files".to_owned(),
            remedy: None,
        });
        task.look(false).await;
        assert!(busy.principals[0].has_ended() && busy.guard.problem().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn sighup_has_the_file_read_at_once() {
        let mut busy = Busy::with(&["a", "b"]).await;
        let _running = busy.run();
        busy.revoke("a");
        busy.ends(0).await;
        let asked = Instant::now();
        busy.revoke("b");
        busy.reloads.send_modify(|count| *count += 1);
        busy.ends(1).await;
        assert_eq!(asked.elapsed(), Duration::ZERO, "nobody waited");
    }

    #[tokio::test(start_paused = true)]
    async fn a_use_is_written_once_a_minute_and_at_the_end() {
        let mut busy = Busy::with(&["a"]).await;
        let live = busy.guard.tokens().remove(0);
        let (id, first) = (live.token.id.0, live.last_used().expect("it was used"));
        let task = busy.task.as_mut().expect("it does not run yet");
        let due = task.due(USES);
        assert_eq!(due, [AuthEdit::Used(id, first)]);
        task.written(&due);
        live.check(first + USES - 1).expect("it is good");
        assert!(task.due(USES).is_empty());
        assert_eq!(task.due(0), [AuthEdit::Used(id, first + USES - 1)]);
        live.check(first + USES).expect("it is good");
        assert_eq!(task.due(USES), [AuthEdit::Used(id, first + USES)]);
        busy.revoke("a");
        let task = busy.task.as_mut().expect("it does not run yet");
        task.look(false).await;
        let mark = AuthEdit::Mark(task.mark);
        assert_eq!(task.due(USES), [mark, AuthEdit::Gone(id)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_file_that_would_open_the_daemon_to_others_takes_away_what_it_lacks() {
        let mut busy = Busy::with(&["a", "b", "c"]).await;
        let task = busy.task.as_mut().expect("it does not run yet");
        task.place.exposed = Some(Remedy::TokenOrLoopback { port: 5005 });
        let _running = busy.run();
        change_tokens(&busy.path(), |file| file.on = false);
        sleep(LOOK * 10).await;
        assert!(busy.guard.is_on() && busy.guard.problem().is_some());
        assert!(!busy.principals.iter().any(Principal::has_ended));
        busy.revoke("a");
        busy.ends(0).await;
        change_tokens(&busy.path(), |file| file.tokens[0].scope = Scope::Metrics);
        busy.ends(1).await;
        assert!(busy.guard.is_on() && !busy.principals[2].has_ended());
        // Gives nothing, and what is to be remembered is that it is on.
        change_tokens(&busy.path(), |file| {
            let text = TokenText::random();
            file.tokens[1].scope = Scope::Admin;
            file.add("d", Scope::Admin, &text, None, now_ms())
                .expect("new");
            file.on = false;
        });
        sleep(LOOK * 10).await;
        let scopes: Vec<_> = busy
            .guard
            .tokens()
            .iter()
            .map(|it| it.token.scope)
            .collect();
        assert_eq!(scopes, [Scope::Metrics, Scope::Read]);
        assert!(!busy.principals[2].has_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_file_that_is_not_taken_its_serial_is_remembered_and_that_tokens_are_asked_for() {
        let mut busy = Busy::with(&["a"]).await;
        let path = busy.path();
        let task = busy.task.as_mut().expect("it does not run yet");
        task.place.exposed = Some(Remedy::TokenOrLoopback { port: 5005 });
        change_tokens(&path, |file| file.on = false);
        let FileSeen::Good(file) = TokensFile::look(&path) else {
            panic!("it was written");
        };
        task.look(false).await;
        let expected = AuthMark {
            on: true,
            ..file.mark(task.mark)
        };
        assert_eq!(task.due(USES)[0], AuthEdit::Mark(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_token_ends_soon_is_said_once_a_day() {
        let mut busy = Busy::with(&["a"]).await;
        let mut live = busy.guard.tokens()[0].token.clone();
        live.expires = Some(live.created + 100 * 86_400);
        let (id, ends) = (live.id.0, (live.created + 100 * 86_400) * 1000);
        busy.guard.put_in_force(InForce::Tokens(vec![live]));
        let task = busy.task.as_mut().expect("it does not run yet");
        let mut said = |left: u64| {
            task.follow_clock(ends - left);
            task.reminded.get(&id).map(|at| ends - at)
        };
        let day = 86_400_000;
        assert_eq!(said(22 * day), None);
        for (left, said_at) in [(210, 210), (205, 210), (200, 200), (191, 200), (5, 5)] {
            assert_eq!(said(left * day / 10), Some(said_at * day / 10));
        }
        assert_eq!(said(0), None, "it has ended");
    }
}
