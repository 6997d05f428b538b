//! What people ask of a webhook: its dead letters sent again or forgotten, and what waits tried
//! now. Its task does it, so that nothing else writes its rows.

use super::failing::Rows;
use super::schedule::Tried;
use super::task::{Work, key_of};
use super::{Command, Retried};
use crate::api::error::ApiError;
use crate::store::{ConsumerEdit, DeadLetter};

/// Dead letters that are read and written at a time.
const ROWS: usize = 1000;

impl Work<'_> {
    /// A command whose asker has gone is done all the same. An error means that the store cannot be
    /// read or written.
    pub(super) async fn execute(&mut self, command: Command) -> Result<(), ApiError> {
        match command {
            Command::Resend { numbers, answer } => {
                let count = match numbers {
                    _ if self.schedule.is_stopped() => Err(stopped(&self.consumer.name)),
                    None => Ok(self.resend_all().await?),
                    Some(numbers) => match self.those(&numbers).await? {
                        Some(letters) => Ok(self.resend(letters).await?),
                        None => Err(no_such_dead_letter()),
                    },
                };
                let _ = answer.send(count);
            }
            Command::Drop { number, answer } => {
                let count = match number {
                    None => Ok(self.drop_all().await?),
                    Some(number) => match self.those(&[number]).await? {
                        Some(letters) => Ok(self.forget(letters).await?),
                        None => Err(no_such_dead_letter()),
                    },
                };
                let _ = answer.send(count);
            }
            Command::Retry { answer } => {
                let _ = answer.send(Ok(self.retry().await?));
            }
            Command::Resume { answer } => {
                if self.schedule.is_stopped() {
                    self.retry().await?;
                    self.show();
                }
                let _ = answer.send(Ok(()));
            }
        }
        Ok(())
    }

    async fn retry(&mut self) -> Result<Retried, ApiError> {
        let resumed = self.schedule.is_stopped();
        if resumed {
            self.edit(vec![ConsumerEdit::Resume]).await?;
        }
        Ok(Retried {
            count: self.schedule.retry(self.clock.now()),
            resumed,
            dead_letters: self.dead_letters,
        })
    }

    pub(super) async fn dead_letter(&self, number: u64) -> Result<Option<DeadLetter>, ApiError> {
        let name = self.consumer.name.clone();
        self.app
            .read(move |app| Ok(app.reader.dead_letter(&name, number)?))
            .await
    }

    /// `None` when one of them is none.
    async fn those(&self, numbers: &[u64]) -> Result<Option<Vec<(u64, DeadLetter)>>, ApiError> {
        let mut letters = Vec::new();
        for number in numbers {
            let Some(letter) = self.dead_letter(*number).await? else {
                return Ok(None);
            };
            letters.push((*number, letter));
        }
        Ok(Some(letters))
    }

    async fn page(&self, after: u64) -> Result<Vec<(u64, DeadLetter)>, ApiError> {
        let name = self.consumer.name.clone();
        self.app
            .read(move |app| Ok(app.reader.dead_letters(&name, after, ROWS)?))
            .await
    }

    /// At the start: those that were asked for and not sent.
    pub(super) async fn begin_resends(&mut self, resent: &mut Rows) -> Result<(), ApiError> {
        let mut after = 0;
        loop {
            let letters = self.page(after).await?;
            let Some((last, _)) = letters.last() else {
                return Ok(());
            };
            after = *last;
            for (number, letter) in letters.iter().filter(|(_, letter)| letter.again) {
                let (key, tried) = (key_of(&letter.event), resent.take(*number));
                self.schedule.resend(*number, key, tried, self.clock.now());
            }
        }
    }

    async fn resend_all(&mut self) -> Result<usize, ApiError> {
        let (mut after, mut count) = (0, 0_usize);
        loop {
            let letters = self.page(after).await?;
            let Some((last, _)) = letters.last() else {
                return Ok(count);
            };
            after = *last;
            count = count.saturating_add(self.resend(letters).await?);
        }
    }

    async fn resend(&mut self, letters: Vec<(u64, DeadLetter)>) -> Result<usize, ApiError> {
        let mark = |(number, letter): &(u64, DeadLetter)| {
            ConsumerEdit::DeadLetter(
                *number,
                DeadLetter {
                    again: true,
                    ..letter.clone()
                },
            )
        };
        self.edit(
            letters
                .iter()
                .filter(|(_, letter)| !letter.again)
                .map(mark)
                .collect(),
        )
        .await?;
        let now = self.clock.now();
        for (number, letter) in &letters {
            let key = key_of(&letter.event);
            self.schedule.resend(*number, key, Tried::default(), now);
        }
        Ok(letters.len())
    }

    async fn drop_all(&mut self) -> Result<usize, ApiError> {
        let mut count = 0_usize;
        loop {
            let letters = self.page(0).await?;
            if letters.is_empty() {
                return Ok(count);
            }
            count = count.saturating_add(self.forget(letters).await?);
        }
    }

    async fn forget(&mut self, letters: Vec<(u64, DeadLetter)>) -> Result<usize, ApiError> {
        self.edit(
            letters
                .iter()
                .flat_map(|(number, _)| {
                    let (number, resend) = (*number, true);
                    [
                        ConsumerEdit::DropDeadLetter(number),
                        ConsumerEdit::NotFailing { number, resend },
                    ]
                })
                .collect(),
        )
        .await?;
        let now = self.clock.now();
        for (number, letter) in &letters {
            self.schedule
                .drop_resend(*number, key_of(&letter.event), now);
        }
        self.dead_letters = self.dead_letters.saturating_sub(letters.len());
        Ok(letters.len())
    }

    async fn edit(&self, edits: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        match self.consumer.edit(&self.app.indexer, edits).await? {
            true => Ok(()),
            // It has ended, and this task does so at once.
            false => std::future::pending().await,
        }
    }
}

fn stopped(name: &str) -> ApiError {
    let message = format!(
        "The webhook of {name} is stopped: its receiver answered 410 Gone. Resume it with POST /consumers/{name}/retry, then send its dead letters again. Nothing was changed."
    );
    ApiError::new(hyper::StatusCode::CONFLICT, "webhook_stopped", message)
}

pub fn no_such_dead_letter() -> ApiError {
    let message = "There is no such dead letter; GET /consumers/{name}/dead_letters lists those that there are. Nothing was changed.";
    ApiError::new(hyper::StatusCode::NOT_FOUND, "no_such_dead_letter", message)
}
