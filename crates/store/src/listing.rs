//! Listings of more than one page.
//!
//! Promise: `list_all` returns every name once and in order, or fails; a store that repeats a
//! page, goes backwards or leaves the prefix is reported, never followed for ever.
//! Not here: a page itself (`Store::list_page`).

use crate::{Call, Key, More, ObjectMeta, Operation, Page, Prefix, Store, StoreError};

/// How many names `list_all` asks for at once. S3 caps a page at 1,000; a directory is read anew for
/// each page, so that a large page spares it work.
pub const LIST_PAGE_MAX: usize = 100_000;

/// All objects under `prefix` whose name sorts after `start_after`, in byte order.
pub async fn list_all(
    store: &dyn Store,
    prefix: &Prefix,
    start_after: Option<&Key>,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let mut objects: Vec<ObjectMeta> = Vec::new();
    loop {
        let last = objects.last().map(|object| &object.key).or(start_after);
        let page = store.list_page(prefix, last, LIST_PAGE_MAX).await?;
        refuse_wrong_order(prefix, last, &page)?;
        let more = page.more;
        objects.extend(page.objects);
        if more == More::No {
            return Ok(objects);
        }
    }
}

/// A page must begin after the last name, be sorted, stay under the prefix, and bring something if more follows.
fn refuse_wrong_order(prefix: &Prefix, last: Option<&Key>, page: &Page) -> Result<(), StoreError> {
    let damaged = |detail: String| StoreError::Damaged {
        call: Call::on_prefix(Operation::List, prefix),
        detail,
    };
    if page.objects.is_empty() && page.more == More::Yes {
        return Err(damaged("an empty page says that more follows".to_owned()));
    }
    let mut last = last;
    for object in &page.objects {
        if last.is_some_and(|last| object.key <= *last) {
            return Err(damaged(format!("{} is listed again or out of order", object.key)));
        }
        if !object.key.starts_with(prefix) {
            return Err(damaged(format!("{} does not begin with the prefix", object.key)));
        }
        last = Some(&object.key);
    }
    Ok(())
}
