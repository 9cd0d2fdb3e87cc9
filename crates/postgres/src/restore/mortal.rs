//! Calls that change a restored directory, each of which a test may let the process die at.
//!
//! Promise: outside of this crate's unit tests a call is made and nothing else happens.
//! Not here: files of the databases, at whose calls the sweep of the engine's jobs dies.

use super::error::RestoreError;

/// Makes a call that changes the directory. With `half`, it can also end in the middle.
#[cfg(not(test))]
pub(super) fn call<T>(
    _what: &str,
    _half: impl FnOnce(),
    act: impl FnOnce() -> Result<T, RestoreError>,
) -> Result<T, RestoreError> {
    act()
}

#[cfg(test)]
pub(super) use deadly::{Death, call, calls_of, with_death};

#[cfg(test)]
mod deadly {
    use super::RestoreError;
    use std::cell::RefCell;
    use std::io;
    use std::path::Path;

    /// How the process dies at its call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::restore) enum Death {
        Before,
        Half,
        After,
    }

    #[derive(Debug, Default)]
    struct Life {
        /// The number of the deadly call, from 1 on.
        point: Option<(usize, Death)>,
        calls: Vec<String>,
        dead: bool,
    }

    thread_local! {
        static LIFE: RefCell<Life> = RefCell::default();
    }

    /// Runs `run` in a process that dies at this call.
    pub(in crate::restore) fn with_death<T>(point: Option<(usize, Death)>, run: impl FnOnce() -> T) -> T {
        let calls = Vec::new();
        LIFE.replace(Life {
            point,
            calls,
            dead: false,
        });
        let answer = run();
        LIFE.replace(Life::default());
        answer
    }

    /// The calls that `run` makes.
    pub(in crate::restore) fn calls_of(run: impl FnOnce()) -> Vec<String> {
        LIFE.replace(Life::default());
        run();
        LIFE.take().calls
    }

    /// Makes a call, dies at it, or is dead already.
    pub(in crate::restore) fn call<T>(
        what: &str,
        half: impl FnOnce(),
        act: impl FnOnce() -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        let fate = LIFE.with_borrow_mut(|life| {
            if life.dead {
                return Err(died());
            }
            life.calls.push(what.to_owned());
            let now = life.point.filter(|(at, _)| *at == life.calls.len());
            life.dead = now.is_some();
            Ok(now.map(|(_, death)| death))
        });
        match fate? {
            None => act(),
            Some(Death::Before) => Err(died()),
            Some(Death::Half) => {
                half();
                Err(died())
            }
            Some(Death::After) => act().and_then(|_| Err(died())),
        }
    }

    fn died() -> RestoreError {
        let error = io::Error::other("the process died here, as the test asked");
        RestoreError::io("go on with", Path::new("the restore"))(error)
    }
}
