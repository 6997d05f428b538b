//! Descriptors: adding them, taking them off, and giving their addresses away.
//!
//! A private key in what somebody sends is refused by the parser before anything else is looked at.
//! Nothing here says or logs the text of a descriptor; who wants to tell two apart has their ids.

mod giving;

use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::quotas::{Quotas, Reserved, Whose};
use super::scans::{Scans, range_of};
use super::socket::Parsing;
use super::watchlist::AGAIN;
use crate::auth::{Principal, Scope};
use crate::clock::now_ms;
use crate::config::Limits;
use crate::derivation::DerivedScripts;
use crate::descriptors::{DescriptorProblem, WalletDescriptor};
use crate::indexer::InputRefused;
use crate::limits::TokenId;
use crate::reads::{StoreView, run_detached};
use crate::tracker::{
    ApplyError, Baseline, DescriptorId, DescriptorRequest, DescriptorRow, Input, LOOKAHEAD, ScanId,
    WalletRow,
};
use crate::wire::ApiError;
use crate::wire::request::descriptors::no_such_descriptor;
use crate::wire::request::history::{HistoryOption, Range, RangeRequest};

pub use giving::{Given, no_such_keychain};

impl From<DescriptorProblem> for ApiError {
    fn from(problem: DescriptorProblem) -> Self {
        let code = match &problem {
            DescriptorProblem::Secret(_) => "private_key",
            DescriptorProblem::WrongNetwork { .. } => "wrong_network",
            DescriptorProblem::Ambiguous { .. } => "ambiguous_descriptor",
            _ => "invalid_descriptor",
        };
        Self::bad_request(code, problem.to_string())
    }
}

/// What is asked for of a descriptor.
#[derive(Debug, Clone, Default)]
pub struct Addition {
    pub label: Option<String>,
    /// `None`: as it is, or 20 of a new one.
    pub gap_limit: Option<u32>,
    /// Last index that is to be watched at least.
    pub last: Option<u32>,
    pub depths: Vec<u8>,
    pub history: Option<HistoryOption>,
}

/// A descriptor that is there now, with its scripts.
#[derive(Debug, Clone, Copy)]
pub struct Added {
    pub id: DescriptorId,
    pub is_new: bool,
    pub scan: Option<ScanId>,
    pub head: u64,
}

pub struct Descriptors {
    pub scans: Arc<Scans>,
    pub derived: DerivedScripts,
    pub parsing: Parsing,
    pub quotas: Arc<Quotas>,
    pub limits: watch::Receiver<Limits>,
    /// Held by who takes the next index: of many at once each would try all that the others get.
    pub giving: Mutex<()>,
    /// Ends waiting.
    pub stop: CancellationToken,
}

/// What an addition comes to.
struct Plan {
    is_new: bool,
    /// Scripts that are to be watched besides.
    more: usize,
    /// The token for which its scripts count.
    owner: Option<TokenId>,
    range: Option<Range>,
}

impl Descriptors {
    /// Watches a descriptor for who asks, or gives one that is watched what is new in the request.
    /// All its first scripts are watched when this returns.
    pub async fn add(
        self: &Arc<Self>,
        principal: &Principal,
        wallet: &WalletDescriptor,
        asked: Addition,
    ) -> Result<Added, ApiError> {
        principal.require(Scope::Watch)?;
        let id = DescriptorId(wallet.id());
        let history = self.scans.watchlist.history(asked.history);
        let request = DescriptorRequest {
            text: wallet.text().to_owned(),
            keychains: wallet.keychains(),
            is_ranged: wallet.is_ranged(),
            label: asked.label,
            gap_limit: asked.gap_limit,
            range: asked.last.map_or(0, |last| last.saturating_add(1)),
            depths: asked.depths,
            baseline: history.into(),
        };
        let is_said = asked.history.is_some();
        let adding = (self.clone(), principal.clone());
        run_detached(async move {
            let (descriptors, principal) = adding;
            loop {
                let adding = descriptors.try_to_add(&principal, id, &request, history, is_said);
                match adding.await? {
                    Some(added) => return Ok(added),
                    None => sleep(AGAIN).await,
                }
            }
        })
        .await
    }

    /// Has one that is watched told with these depths, too: whether that is new. Who may only read
    /// is refused then.
    pub async fn ensure_told(
        &self,
        principal: &Principal,
        id: DescriptorId,
        depths: Vec<u8>,
    ) -> Result<bool, ApiError> {
        let allowed = principal.require(Scope::Watch);
        let scans = self.scans.clone();
        run_detached(async move {
            // It must not be removed and come back by this.
            let _list = scans.watchlist.hold().await;
            let read = move |view: &StoreView<'_>| view.wallet_rows(&id);
            let (row, wallet) = scans.reads.run(read).await?;
            if depths.iter().all(|depth| row.depths.contains(depth)) {
                return Ok(false);
            }
            allowed.map_err(|refusal| {
                let error = ApiError::from(refusal);
                let message = format!(
                    "The descriptor is not watched with these confirmations. {}",
                    error.message
                );
                ApiError { message, ..error }
            })?;
            let request = DescriptorRequest {
                text: wallet.text,
                keychains: row.keychains.len(),
                is_ranged: row.is_ranged,
                label: None,
                gap_limit: None,
                range: 0,
                depths,
                baseline: wallet.baseline,
            };
            let input = Input::AddDescriptor {
                descriptor: id,
                request,
                now: now_ms(),
            };
            scans.indexer.apply(input).await?;
            Ok(true)
        })
        .await
    }

    /// `None` while it is still being removed.
    async fn try_to_add(
        &self,
        principal: &Principal,
        id: DescriptorId,
        request: &DescriptorRequest,
        history: HistoryOption,
        is_said: bool,
    ) -> Result<Option<Added>, ApiError> {
        let plan = self.plan(id, request, history, is_said).await?;
        let owner = principal.token().map(|token| token.id.0);
        // More of one that is there counts for who added it, if that was a token.
        let counts_for = if plan.is_new { owner } else { plan.owner };
        let is_theirs = counts_for == owner || owner.is_none() || counts_for.is_none();
        if plan.more > 0 && !is_theirs && !principal.may(Scope::Admin) {
            return Err(counts_for_another());
        }
        let whose = match counts_for == owner {
            true => Whose::Asking,
            false => Whose::Descriptor,
        };
        let reserved = counts_for.map(|token| self.reserve(token, plan.more, whose));
        let reserved = reserved.transpose()?;
        let input = Input::AddDescriptor {
            descriptor: id,
            request: request.clone(),
            now: now_ms(),
        };
        let done = self.scans.indexer.apply_of(input, owner).await;
        // From now on the row says how many scripts it wants, which are counted.
        drop(reserved);
        let done = match done {
            Ok(done) => done,
            Err(InputRefused::Apply(ApplyError::StillLeaving(_))) => return Ok(None),
            Err(refused) => return Err(refused.into()),
        };
        self.wait_for(&id, DescriptorRow::is_derived).await?;
        let (scan, head) = match plan.range {
            Some(range) => {
                let (_, scan, head) = self.scan(id, range).await?;
                (Some(scan), head)
            }
            None => (None, done.head),
        };
        Ok(Some(Added {
            id,
            is_new: plan.is_new,
            scan,
            head,
        }))
    }

    /// Refuses what cannot be done before anything is changed.
    async fn plan(
        &self,
        id: DescriptorId,
        request: &DescriptorRequest,
        history: HistoryOption,
        is_said: bool,
    ) -> Result<Plan, ApiError> {
        let most = self.limits.borrow().descriptor_scripts;
        let request = request.clone();
        let plan = self.scans.reads.run(move |view| {
            let known = view.descriptor(&id)?.zip(view.wallet(&id)?);
            if let Some((_, wallet)) = &known {
                check_history(wallet, request.baseline, is_said)?;
            }
            let row = known.as_ref().map(|(row, _)| row);
            let (wanted, has) = (
                scripts_with(row, &request),
                row.map_or(0, DescriptorRow::scripts),
            );
            let more = wanted.saturating_sub(has);
            // What is there already is not refused.
            if more > 0 && wanted > most as u64 {
                return Err(too_many_scripts(wanted, most));
            }
            let range = match history {
                HistoryOption::From(from) => {
                    Some(range_of(view, RangeRequest::Heights { from, to: None })?)
                }
                HistoryOption::None | HistoryOption::Utxo => None,
            };
            Ok(Plan {
                is_new: row.is_none(),
                more: usize::try_from(more).unwrap_or(usize::MAX),
                owner: view.reader.owner_of(&id)?,
                range,
            })
        });
        plan.await
    }

    /// Room for so many scripts of a token.
    fn reserve(&self, owner: TokenId, count: usize, whose: Whose) -> Result<Reserved, ApiError> {
        match self.quotas.reserve(owner, count)? {
            Some(reserved) => Ok(reserved),
            None => Err(self.quotas.addresses_refused(&owner, count, whose)?),
        }
    }

    async fn wait_for(
        &self,
        id: &DescriptorId,
        is_enough: impl Fn(&DescriptorRow) -> bool,
    ) -> Result<DescriptorRow, ApiError> {
        let waiting = self.derived.wait_for(id, is_enough);
        let waited = self.stop.run_until_cancelled(waiting).await;
        let row = waited.ok_or_else(ApiError::stopping)??;
        row.ok_or_else(|| match self.derived.has_ended() {
            true => ApiError::stopping(),
            false => no_such_descriptor(),
        })
    }

    /// Has the history of a descriptor scanned: how many scripts, over which heights, the scan, and
    /// the head after that.
    pub async fn scan_history(
        self: &Arc<Self>,
        id: DescriptorId,
        range: RangeRequest,
    ) -> Result<(usize, Range, ScanId, u64), ApiError> {
        let planned = self.scans.reads.run(move |view| {
            let (_, wallet) = view.wallet_rows(&id)?;
            check_history(&wallet, Baseline::IfMissing, true)?;
            range_of(view, range)
        });
        let (range, descriptors) = (planned.await?, self.clone());
        let scanned = run_detached(async move { descriptors.scan(id, range).await });
        let (count, scan, head) = scanned.await?;
        Ok((count, range, scan, head))
    }

    /// Opens a history scan of all scripts of a descriptor, also of those that are derived while it
    /// goes: how many there are now, the scan, and the head after that.
    async fn scan(&self, id: DescriptorId, range: Range) -> Result<(usize, ScanId, u64), ApiError> {
        let _list = self.scans.watchlist.hold().await;
        let rows = self.scans.reads.run(move |view| view.wallet_rows(&id));
        let (row, _) = rows.await?;
        let Range { from, to, .. } = range;
        let open = |scan| Input::OpenDescriptorScan {
            scan,
            descriptor: id,
            from,
            to,
            now: now_ms(),
        };
        let (scan, done) = self.scans.open_as(open).await?;
        let count = usize::try_from(row.scripts()).unwrap_or(usize::MAX);
        Ok((count, scan, done.head))
    }

    /// Takes a descriptor off the list: the head after that.
    pub async fn remove(&self, id: DescriptorId) -> Result<u64, ApiError> {
        let scans = self.scans.clone();
        run_detached(async move {
            let _list = scans.watchlist.hold_for_removal().await;
            let now = now_ms();
            let remove = Input::RemoveDescriptor {
                descriptor: id,
                now,
            };
            match scans.indexer.apply(remove).await {
                Ok(done) => Ok(done.head),
                Err(InputRefused::Apply(ApplyError::NoSuchDescriptor(_))) => {
                    Err(no_such_descriptor())
                }
                Err(refused) => Err(refused.into()),
            }
        })
        .await
    }
}

/// Scripts that are watched once a request is fulfilled.
fn scripts_with(row: Option<&DescriptorRow>, request: &DescriptorRequest) -> u64 {
    if !request.is_ranged {
        return request.keychains as u64;
    }
    let gap_limit = request.gap_limit(row);
    let lookahead = LOOKAHEAD.max(gap_limit.saturating_mul(2));
    let reach = gap_limit.max(request.range);
    let windows = (0..request.keychains).map(|place| {
        let known = row.and_then(|row| row.keychains.get(place));
        let used = known.map_or(0, |it| it.next_index().saturating_add(gap_limit));
        let window = known.map_or(0, |it| it.window).max(used).max(reach);
        u64::from(window.saturating_add(lookahead))
    });
    windows.sum()
}

/// The past of one that was added without it is not found out any more.
fn check_history(wallet: &WalletRow, asked: Baseline, is_said: bool) -> Result<(), ApiError> {
    if !is_said || asked == Baseline::Skip || wallet.baseline != Baseline::Skip {
        return Ok(());
    }
    let message = "This descriptor was added with `\"history\": \"none\"`, and stays so. Remove it with DELETE /descriptors/<id>, and add it again.";
    Err(ApiError::conflict("history_is_none", message))
}

fn too_many_scripts(count: u64, most: usize) -> ApiError {
    let message = format!(
        "With this range and gap limit {count} scripts would be watched, their lookahead included, and a descriptor may have {most} when it is added (limits.descriptor_scripts). Lower range or gap_limit, or have the limit raised."
    );
    ApiError::bad_request("too_many_scripts", message).of_limit("descriptor_scripts")
}

/// More of a descriptor that counts for somebody else.
fn counts_for_another() -> ApiError {
    let message = "This descriptor was added by somebody else, and its scripts count for them: this token cannot have more of them watched, one of scope admin can.";
    ApiError::new(StatusCode::FORBIDDEN, "not_yours", message)
}
