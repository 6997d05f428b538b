//! What people ask of a webhook's task: its dead letters sent again or forgotten, and what waits
//! tried now. The task does it, so that nothing else writes its rows.

use super::partitions::partition_of;
use super::requests::Retried;
use super::task::WebhookTask;
use super::{Command, Webhooks, changed};
use crate::consumers::Consumer;
use crate::store::{ConsumerEdit, DeadLetter};
use crate::wire::error::ApiError;

/// Dead letters that are read and written at a time.
const ROWS: usize = 1000;

impl WebhookTask<'_> {
    /// A command whose asker has gone is done all the same.
    pub(super) async fn execute(&mut self, command: Command) {
        match command {
            Command::Resend { numbers, answer } => _ = answer.send(self.resend(numbers).await),
            Command::Drop { number, answer } => _ = answer.send(self.forget(number).await),
            Command::Retry { if_stopped, answer } => _ = answer.send(self.retry(if_stopped).await),
        }
    }

    async fn retry(&mut self, if_stopped: bool) -> Result<Retried, ApiError> {
        let resumed = self.partitions.is_stopped();
        if resumed {
            self.edit(vec![ConsumerEdit::Resume]).await?;
        }
        let count = match resumed || !if_stopped {
            true => self.partitions.retry(),
            false => 0,
        };
        self.show();
        Ok(Retried {
            count,
            resumed,
            dead_letters: self.dead_letters,
        })
    }

    async fn resend(&mut self, numbers: Option<Vec<u64>>) -> Result<usize, ApiError> {
        if self.partitions.is_stopped() {
            return Err(stopped(&self.consumer.name));
        }
        let (reads, name) = (&self.webhooks.parts.reads, self.consumer.name.clone());
        let all = reads.run_long(move |view| match numbers {
            Some(numbers) => {
                for number in &numbers {
                    let letter = view.reader.dead_letter(&name, *number)?;
                    letter.ok_or_else(no_such_dead_letter)?;
                }
                Ok(numbers)
            }
            None => {
                let letters = view.reader.dead_letters(&name, 0);
                Ok(letters
                    .map(|it| Ok(it?.0))
                    .collect::<Result<_, ApiError>>()?)
            }
        });
        let all = all.await?;
        for numbers in all.chunks(ROWS) {
            let (numbers, name) = (numbers.to_vec(), self.consumer.name.clone());
            let letters = reads.run(move |view| {
                let letter = |number: u64| Ok((number, view.reader.dead_letter(&name, number)?));
                numbers
                    .into_iter()
                    .map(letter)
                    .collect::<Result<Vec<_>, ApiError>>()
            });
            let (mut edits, mut resends) = (Vec::new(), Vec::new());
            for (number, letter) in letters.await? {
                let Some(letter) = letter else { continue };
                resends.push((partition_of(letter.event.kind.subject_id()), number));
                let letter = DeadLetter {
                    again: true,
                    ..letter
                };
                edits.push(ConsumerEdit::DeadLetter(number, letter));
            }
            self.edit(edits).await?;
            for (partition, number) in resends {
                self.partitions.resend(partition, number);
            }
        }
        Ok(all.len())
    }

    async fn forget(&mut self, number: Option<u64>) -> Result<usize, ApiError> {
        let count = forget(self.webhooks, self.consumer, number).await?;
        self.partitions.drop_resends(number);
        self.dead_letters = self.dead_letters.saturating_sub(count);
        Ok(count)
    }

    async fn edit(&self, edits: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        match self.consumer.edit(edits).await? {
            true => Ok(()),
            // It has ended, and this task does so at once.
            false => Err(changed()),
        }
    }
}

/// Forgets this dead letter, or all. How many.
pub async fn forget(
    webhooks: &Webhooks,
    consumer: &Consumer,
    number: Option<u64>,
) -> Result<usize, ApiError> {
    let name = consumer.name.clone();
    let count = webhooks.parts.reads.run(move |view| match number {
        Some(number) => {
            let letter = view.reader.dead_letter(&name, number)?;
            letter.map(|_| 1).ok_or_else(no_such_dead_letter)
        }
        None => Ok(view.reader.dead_letter_count(&name)?),
    });
    let count = count.await?;
    let edit = number.map_or(ConsumerEdit::DropDeadLetters, ConsumerEdit::DropDeadLetter);
    match consumer.edit(vec![edit]).await? {
        true => Ok(count),
        false => Err(changed()),
    }
}

fn stopped(name: &str) -> ApiError {
    let message = format!(
        "The webhook of {name} is stopped: its receiver answered 410 Gone. Resume it with POST /consumers/{name}/retry, then send its dead letters again. Nothing was changed."
    );
    ApiError::conflict("webhook_stopped", message)
}

fn no_such_dead_letter() -> ApiError {
    let message = "There is no such dead letter; GET /consumers/{name}/dead_letters lists those that there are. Nothing was changed.";
    ApiError::not_found("no_such_dead_letter", message)
}
