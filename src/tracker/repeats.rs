//! Coinbases that came again. Where BIP 34 is not active (on the main chain before 2012, on
//! networks of one's own) two blocks may hold the same coinbase; everything is kept by txid, so
//! both have one row.
//!
//! # Laws
//!
//! 1. The newest block counts: the transaction stands there, and its outputs are created anew. For
//!    those who know it from before it moves on (confirmed to confirmed) and is not announced
//!    again: history has one entry, the balance has both amounts.
//! 2. Rows remember what the newest block hid: a transaction, which earlier blocks hold it; an
//!    output, who had spent the earlier ones. When the newest block goes, this comes back: the
//!    transaction is confirmed where it was, its outputs are spent as they were.
//! 3. An output that nobody had spent (BIP 30 let this happen twice) is overwritten: it never comes
//!    back, as it does not in the node. What spends it in the mempool spends the new one.
//! 4. History scans bring both in any order: the block of a spend says which of them it spends
//!    ([`OutputRow::spent_in`]).
//!
//! (What spends nothing but such outputs may come again, too. Its outputs follow the same laws; but
//! while the second one is unconfirmed it counts for the first.)

use bitcoin::Txid;

use super::{EarlierOutput, OutputRow, Spend, Status, TxRow};

impl OutputRow {
    /// The row when a block creates it, perhaps again.
    pub(super) fn created_in(mut self, height: u32) -> Self {
        if let Some(known) = self.height.replace(height)
            && known < height
            && let Some(spend) = self.spent
            && let Some(spent_at) = spend.height
        {
            self.spent = None;
            self.earlier.push(EarlierOutput {
                height: known,
                spender: spend.txid,
                spent_at,
            });
        }
        self
    }

    /// The row when it is known that a block spent what one at `created` created.
    pub(super) fn spent_in(mut self, created: u32, spender: Txid, spent_at: u32) -> Self {
        if self.height.is_none_or(|newest| newest <= created) {
            let height = Some(spent_at);
            self = self.created_in(created);
            self.spent = Some(Spend {
                txid: spender,
                height,
            });
            return self;
        }
        self.earlier.retain(|earlier| earlier.height != created);
        self.earlier.push(EarlierOutput {
            height: created,
            spender,
            spent_at,
        });
        self.earlier.sort_unstable_by_key(|earlier| earlier.height);
        self
    }

    /// The row when the newest block that created it goes: `None` if there was no earlier one.
    pub(super) fn without_newest(mut self) -> Option<Self> {
        let earlier = self.earlier.pop()?;
        self.height = Some(earlier.height);
        self.spent = Some(Spend {
            txid: earlier.spender,
            height: Some(earlier.spent_at),
        });
        Some(self)
    }

    /// Which block created what a block at this height spends, as far as the row tells.
    pub(super) fn created_before(&self, height: u32) -> Option<u32> {
        let earlier = self.earlier.iter().rev().map(|earlier| earlier.height);
        let mut all = self.height.into_iter().chain(earlier);
        all.find(|created| *created <= height)
    }
}

impl TxRow {
    /// Notes a block that holds it beside the one that its status names.
    pub(super) fn add_earlier(&mut self, height: u32) {
        if let Err(place) = self.earlier.binary_search(&height) {
            self.earlier.insert(place, height);
        }
    }

    /// The newest block that holds it of those up to this height.
    pub(super) fn confirmed_before(&self, height: u32) -> Option<u32> {
        let newest = match self.status {
            Status::Confirmed { block, .. } => Some(block.height),
            _ => None,
        };
        let earlier = self.earlier.iter().rev().copied();
        let mut all = newest.into_iter().chain(earlier);
        all.find(|known| *known <= height)
    }
}
