//! Owns the tasks of a job.
//!
//! Promise: no task outlives its supervisor: `stop` ends them and waits until they are gone, dropping it ends them without
//! waiting. A task that panics is an error with the task's name at whoever waits for it, never a silent end.
//! Work on a blocking thread cannot be ended from outside: it looks at the `Stopping` that it is given, at least between
//! two pieces of its work.
//! Not here: what a task does.

use crate::EngineError;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{Id, JoinError, JoinSet};

/// The tasks of a job that have one kind of result.
#[derive(Debug)]
pub(crate) struct Supervisor<T> {
    tasks: JoinSet<T>,
    names: HashMap<Id, &'static str>,
    stopping: Stopping,
}

/// Tells blocking work to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// Whether it should.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Drop for Supervisor<T> {
    fn drop(&mut self) {
        self.stopping.ask();
    }
}

impl<T: Send + 'static> Supervisor<T> {
    /// Without tasks.
    pub fn new() -> Supervisor<T> {
        Supervisor {
            tasks: JoinSet::new(),
            names: HashMap::new(),
            stopping: Stopping::default(),
        }
    }

    /// Starts a task. Its name is for errors: a noun.
    pub fn start(&mut self, name: &'static str, work: impl Future<Output = T> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, name);
    }

    /// Starts work on a thread for blocking work.
    pub fn start_blocking(&mut self, name: &'static str, work: impl FnOnce(Stopping) -> T + Send + 'static) {
        let stopping = self.stopping.clone();
        let id = self.tasks.spawn_blocking(move || work(stopping)).id();
        self.names.insert(id, name);
    }

    /// How many have been started and not yet been waited for.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The result of the next task that ends; none if there is no task. Cancel-safe.
    ///
    /// # Errors
    /// The task panicked.
    pub async fn next(&mut self) -> Option<Result<T, EngineError>> {
        Some(match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => {
                self.names.remove(&id);
                Ok(result)
            }
            Err(error) => Err(self.failed(error)),
        })
    }

    /// Ends every task at its next wait, blocking work where it looks, and returns when all are gone.
    pub async fn stop(&mut self) {
        self.stopping.ask();
        self.tasks.shutdown().await;
        self.names.clear();
    }

    fn failed(&mut self, error: JoinError) -> EngineError {
        let task = self.names.remove(&error.id()).unwrap_or("task");
        let what = match error.try_into_panic() {
            Ok(panic) => said(panic.as_ref()),
            Err(error) => error.to_string(),
        };
        EngineError::TaskFailed { task, what }
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    /// Ends when it is dropped, and says so.
    struct Alive(#[expect(dead_code, reason = "held")] Arc<()>);

    async fn for_ever(alive: Alive) {
        std::future::pending::<()>().await;
        drop(alive);
    }

    #[tokio::test]
    async fn every_result_is_given_once_and_then_there_is_none() {
        let mut supervisor = Supervisor::new();
        for number in [1, 2, 3] {
            supervisor.start("sum", async move { number });
        }
        assert_eq!(supervisor.len(), 3);
        let mut sum = 0;
        while let Some(number) = supervisor.next().await {
            sum += number.unwrap();
        }
        assert_eq!((sum, supervisor.len()), (6, 0));
        assert!(supervisor.names.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_the_name_of_its_task_and_the_others_go_on() {
        let mut supervisor: Supervisor<u32> = Supervisor::new();
        let (go, wait) = oneshot::channel();
        supervisor.start("upload", async { panic!("no such pack: {}", 7) });
        supervisor.start("index", async { wait.await.unwrap() });
        let error = supervisor.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the upload stopped itself: no such pack: 7");
        assert_eq!(error.kind(), ErrorKind::Defect);
        go.send(5).unwrap();
        assert_eq!(supervisor.next().await.unwrap().unwrap(), 5);
        assert!(supervisor.next().await.is_none());
    }

    #[tokio::test]
    async fn stopping_ends_every_task_before_it_returns() {
        let alive = Arc::new(());
        let mut supervisor = Supervisor::new();
        for _ in 0..3 {
            supervisor.start("upload", for_ever(Alive(alive.clone())));
        }
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 4);
        supervisor.stop().await;
        assert_eq!((Arc::strong_count(&alive), supervisor.len()), (1, 0));
        assert!(supervisor.next().await.is_none());
    }

    #[tokio::test]
    async fn blocking_work_is_told_to_stop_and_waited_for_and_its_panic_has_its_name() {
        let alive = Arc::new(());
        let mut supervisor = Supervisor::new();
        let (began, begins) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (held, began) = (Alive(alive.clone()), began.clone());
            supervisor.start_blocking("worker", move |stopping| {
                began.send(()).unwrap();
                while !stopping.is_asked() {
                    std::thread::yield_now();
                }
                drop(held);
            });
        }
        begins.recv().unwrap();
        begins.recv().unwrap();
        supervisor.stop().await;
        assert_eq!(Arc::strong_count(&alive), 1);
        supervisor.start_blocking("worker", |_| panic!("no room"));
        let error = supervisor.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the worker stopped itself: no room");
    }

    #[tokio::test]
    async fn blocking_work_ends_after_its_supervisor_is_dropped() {
        let (gone, ended) = oneshot::channel::<()>();
        let mut supervisor = Supervisor::new();
        supervisor.start_blocking("worker", move |stopping| {
            while !stopping.is_asked() {
                std::thread::yield_now();
            }
            drop(gone);
        });
        drop(supervisor);
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn a_supervisor_that_is_dropped_takes_its_tasks_with_it() {
        let (gone, ended) = oneshot::channel::<()>();
        let mut supervisor = Supervisor::new();
        supervisor.start("upload", async move {
            std::future::pending::<()>().await;
            drop(gone);
        });
        tokio::task::yield_now().await;
        drop(supervisor);
        assert!(ended.await.is_err());
    }
}
