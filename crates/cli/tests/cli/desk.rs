//! A desk at which the binary is called: a folder with a database and a key, and an in-process mail server.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use postroom_testkit::{MailServer, Protocol, Relay};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

pub(crate) const PASSWORD: &str = "canary-Pa55word";

/// What a call said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The one document on stdout.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The documents on stdout, one per line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// The document of a refusal on stderr; nothing is on stdout.
    #[track_caller]
    pub(crate) fn refusal(&self, code: &str) -> Value {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        let told: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(told["error"], code, "{self:?}");
        told
    }

    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.document()["id"].as_str().expect("an id").to_owned()
    }
}

/// A database, a key, a mail server.
pub(crate) struct Desk {
    pub(crate) folder: TempDir,
    pub(crate) server: MailServer,
    key: String,
}

impl Desk {
    /// With tables, and the account `box@acme.example`.
    pub(crate) async fn new() -> Self {
        let server = MailServer::builder()
            .account("box@acme.example", PASSWORD)
            .relay(Relay::Anyone)
            .start()
            .await
            .expect("a mail server");
        Self::over(server).await
    }

    /// With tables, at this server.
    pub(crate) async fn over(server: MailServer) -> Self {
        let mut desk = Self { folder: tempfile::tempdir().expect("a folder"), server, key: String::new() };
        desk.key = desk.call(&["key", "generate"]).await.stdout.trim().to_owned();
        let migrated = desk.call(&["migrate"]).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name).display().to_string()
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// A call that is not started yet, in an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command
            .args(arguments)
            .env_clear()
            .env("POSTROOM_DATABASE", format!("sqlite://{}", self.path("postroom.db").display()))
            .env("POSTROOM_KEY", &self.key)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn call(&self, arguments: &[&str]) -> Said {
        self.call_with(arguments, "").await
    }

    /// As `call`, with text on stdin.
    pub(crate) async fn call_with(&self, arguments: &[&str], stdin: &str) -> Said {
        finished(self.command(arguments), stdin).await
    }

    /// As `call`, in JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Said {
        self.call(&[&["--json"], arguments].concat()).await
    }

    pub(crate) async fn json_with(&self, arguments: &[&str], stdin: &str) -> Said {
        self.call_with(&[&["--json"], arguments].concat(), stdin).await
    }

    /// An outbox on the server, without TLS or sign-in.
    pub(crate) async fn outbox(&self, sender: &str) -> String {
        let port = self.server.smtp_port().to_string();
        let form =
            ["mailbox", "add", "outbox", "--description", "out", "--server", "127.0.0.1", "--port", &port];
        self.json(&[&form[..], &["--tls", "none", "--auth", "none", "--sender", sender]].concat()).await.id()
    }

    /// The inbox of `box@acme.example` by IMAP with STARTTLS. All mail counts.
    pub(crate) async fn inbox(&self) -> String {
        self.json_with(
            &self.inbox_form(&["mailbox", "add", "inbox"]).iter().map(String::as_str).collect::<Vec<_>>(),
            PASSWORD,
        )
        .await
        .id()
    }

    /// The options of that inbox after the words of a command.
    pub(crate) fn inbox_form(&self, words: &[&str]) -> Vec<String> {
        let ca = self.file("ca.pem", self.server.ca_pem());
        let port = self.server.port(Protocol::Imap).to_string();
        let options = [
            "--description",
            "in",
            "--server",
            "localhost",
            "--port",
            &port,
            "--user",
            "box@acme.example",
            "--password-stdin",
            "--provider",
            "imap",
            "--baseline",
            "all",
            "--ca",
            &ca,
        ];
        words.iter().chain(&options).map(|word| (*word).to_owned()).collect()
    }

    /// The files that a folder holds, by name.
    pub(crate) fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.path(folder))
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        folder.read_dir().map(|entries| entries.map(|entry| entry.expect("an entry").path()).collect());
    let mut found: Vec<PathBuf> = entries.unwrap_or_default();
    found.sort();
    found
}

pub(crate) async fn finished(mut command: Command, stdin: &str) -> Said {
    let mut child = command.spawn().expect("the binary starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // A command that does not read its stdin may have closed it.
    let _ = pipe.write_all(stdin.as_bytes()).await;
    drop(pipe);
    let output = child.wait_with_output().await.expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
