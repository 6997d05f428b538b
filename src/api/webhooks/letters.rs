//! What people ask of a webhook's dead letters, done by its task, so that nothing else writes their
//! rows.

use super::Command;
use super::task::Work;
use crate::api::error::ApiError;
use crate::store::{ConsumerEdit, DeadLetter};

/// Dead letters that are read and written at a time.
const ROWS: usize = 1000;

impl Work<'_> {
    /// A command whose asker has gone is done all the same. An error means that the store cannot be
    /// read or written.
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), ApiError> {
        match command {
            Command::Resend { numbers, answer } => {
                let count = match numbers {
                    None => Ok(self.resend_all().await?),
                    Some(numbers) => match self.those(&numbers).await? {
                        Some(letters) => Ok(self.resend(letters).await?),
                        None => Err(no_such_letter()),
                    },
                };
                let _ = answer.send(count);
            }
            Command::Drop { number, answer } => {
                let count = match number {
                    None => Ok(self.drop_all().await?),
                    Some(number) => match self.those(&[number]).await? {
                        Some(letters) => Ok(self.forget(letters).await?),
                        None => Err(no_such_letter()),
                    },
                };
                let _ = answer.send(count);
            }
        }
        Ok(())
    }

    pub(super) async fn letter(&self, number: u64) -> Result<Option<DeadLetter>, ApiError> {
        let name = self.consumer.name.clone();
        self.app
            .read(move |app| Ok(app.reader.dead_letter(&name, number)?))
            .await
    }

    /// `None` when one of them is none.
    async fn those(&self, numbers: &[u64]) -> Result<Option<Vec<(u64, DeadLetter)>>, ApiError> {
        let mut letters = Vec::new();
        for number in numbers {
            let Some(letter) = self.letter(*number).await? else {
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
    pub(super) async fn resume_letters(&mut self) -> Result<(), ApiError> {
        let mut after = 0;
        loop {
            let letters = self.page(after).await?;
            let Some((last, _)) = letters.last() else {
                return Ok(());
            };
            after = *last;
            self.send_again(
                letters
                    .into_iter()
                    .filter(|(_, letter)| letter.again)
                    .collect(),
            );
        }
    }

    fn send_again(&mut self, letters: Vec<(u64, DeadLetter)>) {
        let now = self.clock.now();
        for (number, letter) in letters {
            self.schedule
                .again(number, letter.event.kind.script().copied(), now);
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
        let count = letters.len();
        self.send_again(letters);
        Ok(count)
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
                .map(|(number, _)| ConsumerEdit::DropDeadLetter(*number))
                .collect(),
        )
        .await?;
        let now = self.clock.now();
        for (number, letter) in &letters {
            self.schedule
                .forget(*number, letter.event.kind.script().copied(), now);
        }
        self.letters = self.letters.saturating_sub(letters.len());
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

pub fn no_such_letter() -> ApiError {
    let message = "There is no such dead letter; GET /consumers/{name}/dead_letters lists those that there are. Nothing was changed.";
    ApiError::new(hyper::StatusCode::NOT_FOUND, "no_such_dead_letter", message)
}
