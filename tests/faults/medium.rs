//! A medium that fails. One is really full: a file system of two MiB. It can be mounted by root only; without that the test says so and
//! shows nothing, unless `POSTROOM_TMPFS` is set, as `cargo xtask test` does when it is root and mounting works. Another one fails at fsync
//! alone, by a library before the C library.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postroom::core::queue::State;
use postroom::engine::{Event, Observer, Work};
use postroom_testkit::MailServer;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::house::{PATIENCE, linked, mail, opened, options, queue, show, smtp, sqlite, submit};
#[cfg(target_os = "linux")]
use crate::preload::library;

/// A small file system, which goes with this.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Also while somebody still has its files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[derive(Default)]
struct Alarm(AtomicUsize);

impl Observer for Alarm {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::StoreFailed { .. }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_is_reported_and_the_worker_goes_on_when_there_is_space() {
    let Some(small) = Small::mount() else {
        assert!(std::env::var_os("POSTROOM_TMPFS").is_none(), "a tmpfs can't be mounted");
        return println!("skipped: a tmpfs can't be mounted; root can");
    };
    let server = MailServer::start().await.unwrap();
    let (store, _) = sqlite(small.path(), Duration::ZERO).await;
    let alarm = Arc::new(Alarm::default());
    let postroom = opened(store, Arc::new(smtp(PATIENCE)), alarm.clone(), options());
    linked(&postroom, "ACME", server.smtp_port(), 2).await;
    let waiting = [submit(&postroom, "ACME").await, submit(&postroom, "ACME").await];
    // All the space that is left.
    let filler = small.path().join("filler");
    let fill =
        Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", filler.display())).output();
    assert!(!fill.unwrap().status.success(), "the file system is not full");
    let large = mail("ACME", &["ana@customer.example"]).with_html("x".repeat(300_000));
    let refused = postroom.submit(&large).await.expect_err("there is no space");
    assert!(refused.to_string().contains("full"), "{refused}");
    let worker = postroom.clone();
    let _worker = JoinSet::from_iter([async move {
        worker.run_with(Work::all(), std::future::pending()).await.unwrap();
    }]);
    while alarm.0.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.accepted_count(), 0, "nothing is sent that can't be marked");
    std::fs::remove_file(filler).unwrap();
    server.expect_accepted(2, PATIENCE).await;
    let settled = async {
        for mail in &waiting {
            while show(&postroom, mail).await.item.state != State::Accepted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("results are stored when there is space");
    assert_eq!(queue(&postroom).await.len(), 2, "half of the refused mail is there");
    postroom.submit(&large).await.expect("there is space again");
    server.expect_accepted(3, PATIENCE).await;
}

/// What tells the test below that it is its own child, with a C library whose fsync the test commands.
const SYNC_FAILS: &str = "POSTROOM_SYNC_FAILS";
const SYNCED: &str = "POSTROOM_SYNCED";

// In a process of its own, before whose C library another one lies. Would miss a disk that lies about what it has synced.
#[cfg(target_os = "linux")]
#[test]
fn an_error_of_fsync_alone_is_reported_and_nothing_returns_before_it_is_synced() {
    const NAME: &str = "medium::an_error_of_fsync_alone_is_reported_and_nothing_returns_before_it_is_synced";
    if let (Some(fails), Some(synced)) = (std::env::var_os(SYNC_FAILS), std::env::var_os(SYNCED)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(with_failing_sync(Path::new(&fails), Path::new(&synced)));
        return println!("every promise was looked at");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = library(folder.path(), include_str!("fsync.c")) else {
        return println!("skipped: there is no C compiler");
    };
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env("LD_PRELOAD", library)
        .env(SYNC_FAILS, folder.path().join("fails"))
        .env(SYNCED, folder.path().join("synced"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("every promise was looked at"), "the child ran no test: {said}");
}

#[cfg(target_os = "linux")]
async fn with_failing_sync(fails: &Path, synced: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::start().await.unwrap();
    let (store, _) = sqlite(folder.path(), Duration::ZERO).await;
    let alarm = Arc::new(Alarm::default());
    let postroom = opened(store, Arc::new(smtp(PATIENCE)), alarm.clone(), options());
    linked(&postroom, "ACME", server.smtp_port(), 2).await;
    let calls = || std::fs::metadata(synced).map_or(0, |book| book.len());
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let before = calls();
        waiting.push(submit(&postroom, "ACME").await);
        assert!(calls() > before, "`submit` returned and nothing was synced");
    }
    std::fs::write(fails, "").unwrap();
    let refused = postroom.submit(&mail("ACME", &["ana@customer.example"])).await;
    let refused = refused.expect_err("it can't be synced");
    assert!(refused.to_string().contains("its medium failed"), "{refused}");
    let worker = postroom.clone();
    let _worker = JoinSet::from_iter([async move {
        worker.run_with(Work::all(), std::future::pending()).await.unwrap();
    }]);
    while alarm.0.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.accepted_count(), 0, "nothing is sent whose mark is not synced");
    std::fs::remove_file(fails).unwrap();
    server.expect_accepted(waiting.len(), PATIENCE).await;
    let settled = async {
        for mail in &waiting {
            while show(&postroom, mail).await.item.state != State::Accepted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("results are stored when the medium works");
    assert_eq!(queue(&postroom).await.len(), waiting.len(), "half of the refused mail is there");
}
