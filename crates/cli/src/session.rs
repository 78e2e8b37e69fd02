//! What every command shares: the options of all of them, the store that they name, the sealing keys, and the postroom over both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postroom::Postroom;
use postroom::core::id::Actor;
use postroom::engine::Builder;
use postroom::storage::Store;
use postroom::storage::keyring::aead::AeadKeyring;
use postroom::storage::keyring::{Keyring, NoKeys};
use postroom::transport::by_protocol::ByProtocol;
use postroom::transport::oauth::ReqwestClient;
use postroom::transport::smtp::SmtpTransport;

use crate::failure::{Failure, Result};
use crate::output::{Output, note};
use crate::rows::Rows;

/// Where the keys are when no file is named.
const KEYS: &str = "POSTROOM_KEY";

/// The options of every command.
#[derive(clap::Args)]
pub(crate) struct Shared {
    /// Where the rows are: sqlite://FILE, postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE. A URL with a password is better given by the
    /// variable.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "POSTROOM_DATABASE",
        default_value = "sqlite://postroom.db",
        hide_env_values = true
    )]
    pub(crate) database: String,
    /// Who makes the change, for the audit.
    #[arg(long, global = true, value_name = "NAME", default_value = "cli")]
    actor: Actor,
    /// The sealing keys, as `id:base64`, several separated by commas, the first being the active one. Without it they are taken
    /// from the variable POSTROOM_KEY.
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print one JSON document on stdout, or one per line for a listing. What a rule refuses is then told on stderr as
    /// {"error", "message", "violations": [{"field", "rule", "message"}]}.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A command's hold on the system.
pub(crate) struct Session {
    pub(crate) postroom: Postroom,
    pub(crate) actor: Actor,
    pub(crate) output: Output,
    rows: Rows,
}

impl Session {
    pub(crate) fn store(&self) -> &dyn Store {
        self.postroom.store()
    }

    /// Closes the store, so that its file holds everything by itself. What was written is safe without it, too.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.rows.close()).await;
    }
}

impl Shared {
    pub(crate) fn output(&self) -> Output {
        Output::new(self.json)
    }

    /// Performs a command over the open store.
    pub(crate) async fn within(&self, perform: impl AsyncFnOnce(&Session) -> Result<()>) -> Result<()> {
        let session = self.open_with(|builder| builder).await?;
        let done = perform(&session).await;
        session.close().await;
        done
    }

    /// Opens the store for a command that adds ports of its own.
    pub(crate) async fn open_with(&self, extend: impl FnOnce(Builder) -> Builder) -> Result<Session> {
        let rows = Rows::connect(&self.database).await?;
        let builder = Postroom::builder(rows.store())
            .with_keyring(self.keyring()?)
            .with_outgoing(Arc::new(SmtpTransport::new()))
            .with_incoming(Arc::new(ByProtocol::new()))
            .with_http_client(Arc::new(ReqwestClient::new()));
        Ok(Session {
            postroom: extend(builder).build(),
            actor: self.actor.clone(),
            output: self.output(),
            rows,
        })
    }

    fn keyring(&self) -> Result<Arc<dyn Keyring>> {
        let (text, place) = match &self.key_file {
            Some(path) => (self.key_file_text(path)?, path.display().to_string()),
            None => match std::env::var(KEYS) {
                Ok(text) if !text.trim().is_empty() => (text, KEYS.to_owned()),
                Ok(_) | Err(std::env::VarError::NotPresent) => return Ok(Arc::new(NoKeys::new())),
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(Failure::Usage(format!("{KEYS}: it is no text; write id:base64")));
                }
            },
        };
        // A file may hold a key on each line.
        let joined = text.split_whitespace().collect::<Vec<_>>().join(",").replace(",,", ",");
        match AeadKeyring::parse(&joined) {
            Ok(keyring) => Ok(Arc::new(keyring)),
            Err(_) => Err(Failure::Usage(format!(
                "{place}: these are no sealing keys; write id:base64 as `postroom key generate` prints it"
            ))),
        }
    }

    fn key_file_text(&self, path: &Path) -> Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |error: std::io::Error| Failure::file(path, &error);
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            note(&format!("warning: {} can be read by others; run chmod 600 on it", path.display()));
        }
        std::fs::read_to_string(path).map_err(failed)
    }
}
