//! The keys that sign thread tokens: made once, sealed in the store's vault, kept for as long as mail that bears them may
//! be answered.

use std::sync::Arc;

use postroom_core::thread::TokenKey;
use postroom_storage::Store;
use postroom_storage::keyring::{Binding, Keyring, Sealed};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

const OWNER: &str = "token";

/// The opened keys, read once.
#[derive(Default)]
pub(crate) struct TokenKeys {
    opened: Mutex<Option<Arc<[TokenKey]>>>,
}

impl TokenKeys {
    /// The keys in the order of their numbers, at least one.
    pub(crate) async fn keys(
        &self,
        store: &dyn Store,
        keyring: &dyn Keyring,
        random: impl Fn() -> Result<[u8; 32]>,
    ) -> Result<Arc<[TokenKey]>> {
        let mut opened = self.opened.lock().await;
        if let Some(keys) = &*opened {
            return Ok(Arc::clone(keys));
        }
        let mut stored = store.values(OWNER).await?;
        if stored.is_empty() {
            let binding = Binding::new(OWNER, "1");
            let sealed = keyring.seal(&binding, &*Zeroizing::new(random()?))?;
            // Another process may have been first: the stored one counts.
            let sealed = store.put_if_absent(&binding, sealed).await?;
            stored.push((binding, sealed));
        }
        let mut keys = stored
            .iter()
            .map(|(binding, sealed)| open(keyring, binding, sealed))
            .collect::<Result<Vec<_>>>()?;
        keys.sort_by_key(TokenKey::number);
        Ok(Arc::clone(opened.insert(keys.into())))
    }
}

fn open(keyring: &dyn Keyring, binding: &Binding, sealed: &Sealed) -> Result<TokenKey> {
    let damaged = || Error::new(ErrorKind::Sealing, "open the key of thread tokens");
    let plain = keyring.open(binding, sealed)?;
    let number = binding.field.parse().map_err(|_| damaged())?;
    let key = <[u8; 32]>::try_from(plain.as_slice()).map_err(|_| damaged())?;
    Ok(TokenKey::new(number, key))
}
