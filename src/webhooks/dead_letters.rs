//! What people ask of a webhook: its dead letters sent again or forgotten, and what waits tried
//! now. Its task does it, so that nothing else writes its rows.

use super::Command;
use super::failing::Rows;
use super::partitions::partition_of;
use super::requests::Retried;
use super::task::WebhookTask;
use crate::store::{ConsumerEdit, DeadLetter};
use crate::wire::error::ApiError;

/// Dead letters that are read and written at a time.
const ROWS: usize = 1000;

impl WebhookTask<'_> {
    /// A command whose asker has gone is done all the same. An error means that the store cannot be
    /// read or written.
    pub(super) async fn execute(&mut self, command: Command) -> Result<(), ApiError> {
        match command {
            Command::Resend { numbers, answer } => {
                let count = match numbers {
                    _ if self.partitions.is_stopped() => Err(stopped(&self.consumer.name)),
                    None => Ok(self.resend_all().await?),
                    Some(numbers) => self.resend_these(numbers).await?,
                };
                let _ = answer.send(count);
            }
            Command::Drop { number, answer } => {
                let _ = answer.send(self.drop_dead_letters(number).await?);
            }
            Command::Retry { answer } => {
                let _ = answer.send(Ok(self.retry().await?));
            }
            Command::Resume { answer } => {
                if self.partitions.is_stopped() {
                    self.retry().await?;
                    self.show();
                }
                let _ = answer.send(Ok(()));
            }
        }
        Ok(())
    }

    async fn retry(&mut self) -> Result<Retried, ApiError> {
        let resumed = self.partitions.is_stopped();
        if resumed {
            self.edit(vec![ConsumerEdit::Resume]).await?;
        }
        Ok(Retried {
            count: self.partitions.retry(),
            resumed,
            dead_letters: self.dead_letters,
        })
    }

    pub(super) async fn dead_letter(&self, number: u64) -> Result<Option<DeadLetter>, ApiError> {
        let name = self.consumer.name.clone();
        self.webhooks
            .read(move |reader| Ok(reader.dead_letter(&name, number)?))
            .await
    }

    async fn page(&self, after: u64) -> Result<Vec<(u64, DeadLetter)>, ApiError> {
        let name = self.consumer.name.clone();
        self.webhooks
            .read(move |reader| Ok(reader.dead_letters(&name, after, ROWS)?))
            .await
    }

    /// At the start: those that were asked for and not sent.
    pub(super) async fn begin_resends(&mut self, resent: &Rows) -> Result<(), ApiError> {
        let mut after = 0;
        loop {
            let letters = self.page(after).await?;
            let Some((last, _)) = letters.last() else {
                return Ok(());
            };
            after = *last;
            for (number, letter) in letters.iter().filter(|(_, letter)| letter.again) {
                let partition = partition_of(letter.event.kind.script());
                self.partitions
                    .resend(partition, *number, resent.tried(*number));
            }
        }
    }

    async fn resend_these(
        &mut self,
        numbers: Vec<u64>,
    ) -> Result<Result<usize, ApiError>, ApiError> {
        let mut letters = Vec::new();
        for number in numbers {
            match self.dead_letter(number).await? {
                Some(letter) => letters.push((number, letter)),
                None => return Ok(Err(no_such_dead_letter())),
            }
        }
        Ok(Ok(self.resend(letters).await?))
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
        let marked = |(number, letter): &(u64, DeadLetter)| {
            let letter = DeadLetter {
                again: true,
                ..letter.clone()
            };
            ConsumerEdit::DeadLetter(*number, letter)
        };
        self.edit(letters.iter().map(marked).collect()).await?;
        for (number, letter) in &letters {
            let partition = partition_of(letter.event.kind.script());
            self.partitions.resend(partition, *number, None);
        }
        Ok(letters.len())
    }

    async fn drop_dead_letters(
        &mut self,
        number: Option<u64>,
    ) -> Result<Result<usize, ApiError>, ApiError> {
        let count = match number {
            None => {
                self.edit(vec![ConsumerEdit::DropDeadLetters]).await?;
                self.partitions.drop_all_resends();
                self.dead_letters
            }
            Some(number) => {
                let Some(letter) = self.dead_letter(number).await? else {
                    return Ok(Err(no_such_dead_letter()));
                };
                self.edit(vec![ConsumerEdit::DropDeadLetter(number)])
                    .await?;
                self.partitions
                    .drop_resend(partition_of(letter.event.kind.script()), number);
                1
            }
        };
        self.dead_letters = self.dead_letters.saturating_sub(count);
        Ok(Ok(count))
    }

    async fn edit(&self, edits: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        match self.consumer.edit(edits).await? {
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
    ApiError::conflict("webhook_stopped", message)
}

pub fn no_such_dead_letter() -> ApiError {
    let message = "There is no such dead letter; GET /consumers/{name}/dead_letters lists those that there are. Nothing was changed.";
    ApiError::not_found("no_such_dead_letter", message)
}
