//! What happens to unconfirmed transactions: replaced, conflicted, evicted, back again.
