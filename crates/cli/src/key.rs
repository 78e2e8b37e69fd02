//! `postroom key`: sealing keys.

use clap::Subcommand;
use postroom::storage::keyring::aead::Key;
use serde_json::json;

use crate::failure::Result;
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print a new key, as --key-file and POSTROOM_KEY take it. Keep it: what it seals can't be opened without it.
    Generate {
        /// Its id, no secret, unlike that of any other key; a random one unless given.
        #[arg(long)]
        id: Option<String>,
    },
}

impl Command {
    pub(crate) fn perform(&self, output: Output) -> Result<()> {
        match self {
            Self::Generate { id } => {
                let id = id.as_ref().map_or_else(random_id, |id| Ok(id.clone()))?;
                let text = Key::generate(&id)?.to_text();
                output.document(&json!({ "id": id, "key": text.as_str() }), || text.as_str().to_owned())
            }
        }
    }
}

/// Eight letters and digits, of a key that is thrown away: nothing of the kept key shows.
fn random_id() -> Result<String> {
    let text = Key::generate("k")?.to_text();
    let letters = text.chars().skip(2).filter(char::is_ascii_alphanumeric);
    Ok(letters.take(8).collect())
}
