//! Listing what there is.

use super::failure::Failure;
use super::{AzureStore, LIST_MAX};
use crate::store::{BlobInfo, Foreign, Page, StoreError, StoredTier};
use azure_storage_blob::models::{AccessTier, BlobContainerClientListBlobsOptions};
use futures::StreamExt as _;
use repo_format::BlobName;

/// One answer of the service.
struct Listed {
    items: Vec<Item>,
    /// Where the service goes on, in its own words.
    marker: Option<String>,
}

struct Item {
    name: String,
    len: u64,
    modified: u64,
    tier: Option<StoredTier>,
}

impl AzureStore {
    /// One page, usually of one request. Where its last name cannot tell where to go on, several answers make it.
    pub(super) async fn list_page(
        &self,
        prefix: &str,
        from: Option<&BlobName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let inside = self.settings.place.prefix();
        let from = from.map(BlobName::as_str).filter(|from| *from > prefix);
        let failed = |failure| self.failed("list", &format!("{prefix}*"), failure);
        let mut page = Page::default();
        let mut last: Option<String> = None;
        let mut marker = None;
        loop {
            // A service may list more than it was asked for.
            let wanted = limit.saturating_sub(page.blobs.len()).clamp(1, LIST_MAX);
            let before = marker.clone();
            let options = BlobContainerClientListBlobsOptions {
                marker,
                maxresults: Some(i32::try_from(wanted).expect("a page is short")),
                prefix: Some(format!("{inside}{prefix}")).filter(|prefix| !prefix.is_empty()),
                start_from: from.map(|from| format!("{inside}{from}")),
                ..BlobContainerClientListBlobsOptions::default()
            };
            let listed = self.list_once(&options).await.map_err(failed)?;
            if listed.items.is_empty() && listed.marker.is_some() && listed.marker == before {
                return Err(failed((Failure::Nonsense("a listing goes on where it began"), 1)));
            }
            for item in listed.items {
                if let Some(first) = last.filter(|last| *last >= item.name) {
                    return Err(failed((Failure::Unordered { first, second: item.name }, 1)));
                }
                // A service that does not know where to start from begins at the beginning.
                let name =
                    item.name.strip_prefix(inside).filter(|name| from.is_none_or(|from| *name >= from));
                if let Some(name) = name {
                    add(&mut page, name, &item);
                }
                last = Some(item.name);
            }
            if listed.marker.is_none() {
                return Ok(page);
            }
            let listed_last = last.as_deref().and_then(|last| last.strip_prefix(inside));
            if let (Some(name), Some(blob)) = (listed_last, page.blobs.last())
                && blob.name.as_str() == name
            {
                page.next = name_behind(name);
                return Ok(page);
            }
            marker = listed.marker;
        }
    }

    async fn list_once(
        &self,
        options: &BlobContainerClientListBlobsOptions<'_>,
    ) -> Result<Listed, (Failure, u32)> {
        self.tried(
            |failed| self.settings.retry.list_deadline(failed),
            |traffic| traffic.lists += 1,
            async |_| {
                let pages = self.container.list_blobs(Some(options.clone())).map_err(Failure::of)?;
                let answer =
                    pages.into_pages().next().await.ok_or(Failure::Nonsense("a listing has no page"))?;
                let answer = answer.map_err(Failure::of)?.into_model().map_err(Failure::of)?;
                let items = answer.blob_items.into_iter().map(|item| {
                    let properties = item.properties.unwrap_or_default();
                    let modified =
                        properties.last_modified.map_or(0, |at| at.unix_timestamp_nanos() / 1_000_000);
                    Some(Item {
                        name: item.name?,
                        len: properties.content_length?,
                        modified: u64::try_from(modified).unwrap_or(0),
                        tier: properties.access_tier.as_ref().and_then(stored_tier),
                    })
                });
                let items: Option<Vec<Item>> = items.collect();
                let items = items.ok_or(Failure::Nonsense("a listed blob has no name or length"))?;
                Ok(Listed { items, marker: answer.next_marker.filter(|marker| !marker.is_empty()) })
            },
        )
        .await
    }
}

fn add(page: &mut Page, name: &str, item: &Item) {
    match BlobName::parse(name).filter(|_| name_behind(name).is_some()) {
        Some(name) => {
            let Item { len, modified, tier, .. } = *item;
            page.blobs.push(BlobInfo { name, len, modified, tier });
        }
        None if page.foreign.len() < LIST_MAX => {
            let name = name.escape_debug().to_string();
            page.foreign.push(Foreign { name, what: "another program's" });
        }
        None => {}
    }
}

/// The tier that the service names; nothing for those of accounts that Keepstone was not made for.
fn stored_tier(tier: &AccessTier) -> Option<StoredTier> {
    Some(match tier {
        AccessTier::Hot => StoredTier::Hot,
        AccessTier::Cool => StoredTier::Cool,
        AccessTier::Cold => StoredTier::Cold,
        AccessTier::Archive => StoredTier::Archive,
        _ => return None,
    })
}

/// The smallest name behind one: no name holds a byte that comes before a hyphen, and behind the two ends of canaries that
/// no other name has come `a` and all that begins otherwise. Nothing for a name of the greatest length, which the format
/// does not use.
fn name_behind(name: &str) -> Option<BlobName> {
    let behind = match (name.strip_suffix('_'), name.strip_suffix("/~")) {
        (Some(same), _) => format!("{same}a"),
        // What comes behind a slash.
        (None, Some(prefix)) => format!("{prefix}0"),
        (None, None) => format!("{name}-"),
    };
    BlobName::parse(&behind)
}
