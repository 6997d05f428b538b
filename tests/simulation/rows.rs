//! What was committed: the rows and the log, in memory and perhaps also in a real store; and what
//! of it survives a death.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use satwatch::indexer;
use satwatch::store::{ChainInfo, StoreReader, Writer, open_at_boot};
use satwatch::tracker::{ChangeSet, Event, MemoryView, Tracker, Transition};
use tempfile::TempDir;

use crate::pretended::{self, descriptors::LOOKAHEAD};

/// How far a commit had come.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    transitions: usize,
    events: usize,
    /// Of the write-ahead log, which has everything since the start of the process.
    bytes: u64,
}

pub struct Disk {
    folder: TempDir,
    chain: ChainInfo,
    boots: u32,
    pub open: Option<(Writer, StoreReader)>,
}

pub struct Rows {
    /// The fold of the change sets.
    pub view: Rc<RefCell<MemoryView>>,
    pub past: Vec<(ChangeSet, Vec<Event>)>,
    pub log: Vec<(u64, Event)>,
    pub disk: Option<Disk>,
    /// The highest number that anybody may have seen.
    told: u64,
    /// The next number, without a disk.
    next: u64,
    /// The last commit that is on the disk for certain, and those since.
    marks: Vec<Mark>,
}

impl Rows {
    pub fn in_memory() -> Self {
        Self {
            view: Rc::default(),
            past: Vec::new(),
            log: Vec::new(),
            disk: None,
            told: 0,
            next: 1,
            marks: vec![Mark::default()],
        }
    }

    pub fn on_disk(chain: ChainInfo) -> Self {
        // Where there is one, a disk in memory: lives are many, and each syncs often.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.expect("there is room for a folder");
        Self {
            disk: Some(Disk {
                folder,
                chain,
                boots: 0,
                open: None,
            }),
            ..Self::in_memory()
        }
    }

    /// A process starts: a tracker as the rows say.
    pub fn start(&mut self, key: [u8; 16]) -> Tracker {
        let Some(disk) = &mut self.disk else {
            return pretended::load(&self.view.borrow(), key);
        };
        let boot = format!("boot-{}", disk.boots);
        let (writer, reader) =
            open_at_boot(disk.folder.path(), Some(disk.chain), 0, &boot).expect("the store opens");
        let next = writer.head_after(1);
        assert!(
            next > self.told,
            "numbers are not given twice: {next} after {}",
            self.told
        );
        let last = self.log.last().map_or(0, |(number, _)| *number);
        assert_eq!(writer.head(), last, "the head is the last event's number");
        let tracker = indexer::load(&reader, key).expect("the store reads");
        let tracker = tracker.looking_ahead(LOOKAHEAD);
        self.check_store(&reader);
        let disk = self.disk.as_mut().expect("it is there");
        disk.open = Some((writer, reader));
        let mark = self.mark();
        self.marks = vec![mark];
        tracker
    }

    /// The store holds the fold of the change sets, and their events.
    fn check_store(&self, reader: &StoreReader) {
        let view = self.view.borrow();
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.tip().expect("it reads"), view.tip());
        for (script, row) in &view.watches {
            let stored = snapshot.watch(script).expect("it reads");
            assert_eq!(stored.as_ref(), Some(row), "the stored row of a script");
        }
        for (outpoint, row) in &view.outputs {
            let stored = snapshot.output(outpoint).expect("it reads");
            assert_eq!(stored.as_ref(), Some(row), "the stored row of an output");
        }
        for (txid, row) in &view.txs {
            let stored = snapshot.tx(txid).expect("it reads");
            assert_eq!(stored.as_ref(), Some(row), "the stored row of {txid}");
        }
        for (descriptor, row) in &view.descriptors {
            let stored = snapshot.descriptor(descriptor).expect("it reads");
            assert_eq!(stored.as_ref(), Some(row), "the stored row of a descriptor");
        }
        for (height, row) in &view.blocks {
            let stored = snapshot.block(height).expect("it reads");
            assert_eq!(stored.as_ref(), Some(row), "the stored row of a block");
        }
        for (scan, row) in &view.scans {
            let stored = snapshot.scan(scan).expect("it reads");
            assert_eq!(stored.as_ref(), Some(row), "the stored row of scan {scan}");
        }
        assert_eq!(
            snapshot.open_scans().expect("it reads"),
            view.open_scans(),
            "the stored scans that are open"
        );
        let counts = snapshot.counts().expect("it reads");
        assert_eq!(
            (counts.addresses + counts.derived, counts.transactions),
            (view.watches.len() as u64, view.txs.len() as u64),
            "no stored row is left over"
        );
        let stored = reader.read_events(0, usize::MAX).expect("it reads");
        assert_eq!(stored, self.log, "the stored log is what was told");
    }

    /// One commit; the number of the last event after it.
    pub fn commit(&mut self, transitions: &[Transition], sync: bool) -> u64 {
        let (first, head) = match &mut self.disk {
            None => {
                let count: usize = transitions.iter().map(|it| it.events.len()).sum();
                let first = self.next;
                self.next += count as u64;
                (first, self.next - 1)
            }
            Some(disk) => {
                let (writer, _) = disk.open.as_mut().expect("a process runs");
                let first = writer.head_after(1);
                let head = writer.commit(transitions, sync).expect("it can be written");
                (first, head)
            }
        };
        let mut number = first;
        for transition in transitions {
            self.view.borrow_mut().commit(&transition.changes);
            for event in &transition.events {
                self.log.push((number, event.clone()));
                number += 1;
            }
            self.past
                .push((transition.changes.clone(), transition.events.clone()));
        }
        self.told = self.told.max(number - 1);
        let mark = self.mark();
        if sync {
            self.marks.clear();
        }
        self.marks.push(mark);
        head
    }

    fn mark(&self) -> Mark {
        let bytes = self.disk.as_ref().map_or(0, |disk| {
            let log = newest_write_ahead_log(disk.folder.path());
            fs::metadata(log).expect("it is there").len()
        });
        Mark {
            transitions: self.past.len(),
            events: self.log.len(),
            bytes,
        }
    }

    /// The process is dead. `loses`: with the machine's power, and with it up to so many of the
    /// commits that were not synced.
    pub fn die(&mut self, loses: Option<u8>) {
        if let Some(disk) = &mut self.disk {
            disk.open = None;
        }
        let Some(loses) = loses else { return };
        let kept = self.marks.len().saturating_sub(1 + usize::from(loses));
        let mark = self.marks[kept];
        self.marks.truncate(kept + 1);
        while self.past.len() > mark.transitions {
            let Some((changes, _)) = self.past.pop() else {
                break;
            };
            self.view.borrow_mut().commit(&changes.inverse());
        }
        self.log.truncate(mark.events);
        // Numbers that were given are not given again.
        self.next = self.told + 1;
        if let Some(disk) = &mut self.disk {
            disk.boots += 1;
            let log = newest_write_ahead_log(disk.folder.path());
            let log = File::options().write(true).open(log).expect("it is there");
            log.set_len(mark.bytes).expect("it can be cut");
        }
    }
}

fn newest_write_ahead_log(path: &Path) -> PathBuf {
    let files = fs::read_dir(path.join("db")).expect("there is a database");
    files
        .map(|entry| entry.expect("the folder reads").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("there is a write-ahead log")
}
