//! What is in force follows the tokens file, and the store what was seen of it and used.
//!
//! At a start `begin` looks at the file, and a [`Problem`] refuses it. Later the task looks twice a
//! second, and at once when it is told to (`SIGHUP`); then a problem is said and what was in force
//! stays. What closes is put in force before the store remembers it, what opens after that.
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

use super::begin::{Begun, Place};
use super::guard::Guard;
use super::judge::{InForce, Problem, judge};
use super::tokens_file::TokensFile;
use crate::access::Line;
use crate::clock::now_ms;
use crate::indexer::{self, IndexerStopped};
use crate::store::{AuthEdit, AuthMark, TokenKey};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(500);
/// Milliseconds between two writes of when a token was used last.
const USES: u64 = 60_000;

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
        begun: Begun,
        guard: Guard,
        indexer: indexer::Handle,
    ) -> Result<Self, IndexerStopped> {
        let mut stored = Stored {
            mark: begun.remembered.mark,
            used: begun.remembered.used.into_iter().collect(),
        };
        if stored.mark != begun.mark {
            let written = write(indexer.clone(), vec![AuthEdit::Mark(begun.mark)]).await?;
            stored.take(&written);
        }
        guard.load_sessions(begun.remembered.sessions);
        guard.put_in_force(begun.in_force);
        Ok(Self {
            place,
            guard,
            indexer,
            mark: begun.mark,
            stored,
            appearance: None,
            problem: None,
        })
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
            self.guard.end_expired(now_ms());
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
        let is_first = self.appearance.replace(appearance).is_none();
        match judge(seen, self.mark, self.place.exposed.as_ref()) {
            Ok((in_force, mark)) => {
                if !is_first || mark != self.mark {
                    say(&in_force, mark);
                }
                self.problem = None;
                self.guard.set_problem(None);
                self.take(in_force, mark);
            }
            Err(problem) => {
                let path = self.place.tokens_file.display();
                if self.problem.as_ref() != Some(&problem) {
                    tracing::warn!("tokens file {path}: {problem}. What was in force stays");
                }
                self.guard.set_problem(Some(problem.to_string()));
                self.problem = Some(problem);
            }
        }
    }

    fn take(&mut self, in_force: InForce, mark: AuthMark) {
        self.mark = mark;
        match in_force {
            InForce::Open => self.open(),
            tokens @ InForce::Tokens(_) => self.guard.put_in_force(tokens),
        }
    }

    /// Puts in force that everything is open, if the store remembers that it is.
    fn open(&self) {
        if !self.mark.on && self.stored.mark == self.mark {
            self.guard.put_in_force(InForce::Open);
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

fn say(in_force: &InForce, mark: AuthMark) {
    let line = Line {
        who: "satwatch token",
        address: None,
        what: "tokens file",
        concerns: None,
        outcome: match in_force {
            InForce::Open => "off",
            InForce::Tokens(_) => "on",
        },
    };
    line.write_change();
    match in_force {
        InForce::Open => tracing::warn!(
            serial = mark.serial,
            "authentication is off: whoever reaches the daemon may do everything"
        ),
        InForce::Tokens(tokens) => tracing::info!(
            serial = mark.serial,
            tokens = tokens.len(),
            "authentication is on: every request needs a token"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::auth::{Credential, FileSeen, Principal, Scope, TokenText, begin, change};
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
        let changed = change(path, 0, now_ms(), |seen| {
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
            let guard = Guard::default();
            let task = TokensTask::new(place, begun, guard.clone(), indexer).await;
            let admit = |text: &TokenText| guard.admit(Credential::Token(text.reveal()));
            Self {
                principals: texts.iter().map(|it| admit(it).expect("known")).collect(),
                folder,
                guard,
                task: Some(task.expect("nothing is to be written")),
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
            let ended = timeout(PATIENCE, self.principals[place].ended()).await;
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
        task.problem = Some(Problem::Unreadable("too many open files".to_owned()));
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
}
