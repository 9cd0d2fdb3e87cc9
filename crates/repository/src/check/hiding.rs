//! What stands where objects may be meant, and is none.
//!
//! Promise: whatever listings met that may hide an object is told with its name; nothing of it is opened or followed.
//! Not here: objects under names of no format (inventory).

use crate::{Repository, layout};

/// Something that may hide objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hiding {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: &'static str,
}

impl Repository {
    /// What the listings of this process have met so far, in order of the names: links, special files, and folders that
    /// have the name of an object.
    pub fn hiding(&self) -> Vec<Hiding> {
        let (store, told) = (self.store(), |what| move |name| Hiding { name, what });
        let passed_over = store.passed_over().into_iter().map(told(
            "a link or special file, which this program never writes and never follows",
        ));
        let folders = store.folders().into_iter();
        let folders = folders.filter(|name| layout::is_of_an_object(name));
        let mut hiding: Vec<Hiding> = passed_over
            .chain(folders.map(told("a directory in the place of an object")))
            .collect();
        hiding.sort_by(|a, b| a.name.cmp(&b.name));
        hiding
    }
}
