//! The keyring that seals with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): 256-bit keys, random 192-bit nonces. A
//! ciphertext is bound to its version, key, row and field; whatever of it is changed or moved fails to open.
//!
//! ```
//! use postroom_storage::keyring::{Binding, Keyring, aead::{AeadKeyring, Key}};
//!
//! let text = Key::generate("2026")?.to_text();
//! let keyring = AeadKeyring::parse(text.as_str())?;
//! let password = Binding::new("mailbox/7", "password");
//! let sealed = keyring.seal(&password, b"secret")?;
//! assert_eq!(*keyring.open(&password, &sealed)?, b"secret");
//! assert!(keyring.open(&Binding::new("mailbox/8", "password"), &sealed).is_err());
//! # Ok::<(), postroom_storage::Error>(())
//! ```

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::envelope::{Binding, Keyring, Sealed};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const ID_LIMIT: usize = 64;

/// A key with its id. The id is no secret and stands in every ciphertext.
pub struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    /// A new random key.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`] when the id is none, or the system gives no randomness.
    pub fn generate(id: &str) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill(&mut *bytes)?;
        Ok(Self { id: key_id(id)?, bytes })
    }

    /// Reads `ID:BASE64`, an id of 1 to 64 letters, digits, `.`, `_` or `-`, and 32 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`]. The error says nothing of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || refused("read a key, which is ID:BASE64 of 32 bytes");
        let (id, encoded) = text.trim().split_once(':').ok_or_else(invalid)?;
        // The decoder's own error tells where and which character: it is dropped on purpose.
        let decoded = BASE64.decode(encoded.as_bytes()).map(Zeroizing::new).map_err(|_| invalid())?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if decoded.len() != KEY_BYTES {
            return Err(invalid());
        }
        bytes.copy_from_slice(&decoded);
        Ok(Self { id: key_id(id)?, bytes })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The text form, for the place where keys are kept. It is wiped when dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(BASE64.encode(&*self.bytes));
        Zeroizing::new(format!("{}:{}", self.id, *encoded))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Keys, the first of which seals; all of them open. A new key is put in front; an old one goes once nothing is sealed
/// under it any more.
#[derive(Debug)]
pub struct AeadKeyring {
    active: Key,
    former: Vec<Key>,
}

impl AeadKeyring {
    /// One key.
    #[must_use]
    pub fn new(active: Key) -> Self {
        Self { active, former: Vec::new() }
    }

    /// Adds a key that only opens.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`] when a key has the same id.
    pub fn with_former(mut self, key: Key) -> Result<Self> {
        if self.key(&key.id).is_some() {
            return Err(refused("add a key whose id is taken"));
        }
        self.former.push(key);
        Ok(self)
    }

    /// Reads `ID:BASE64,ID:BASE64`, the active key first.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`]. The error says nothing of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys = text.split(',').map(Key::parse);
        let active = keys.next().unwrap_or_else(|| Err(refused("read no key")))?;
        keys.try_fold(Self::new(active), |keyring, key| keyring.with_former(key?))
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.active.id
    }

    /// The id of the key that a ciphertext was sealed under: what is not the active one is to be sealed again.
    #[must_use]
    pub fn key_of(sealed: &Sealed) -> Option<&str> {
        Envelope::parse(sealed.as_bytes()).map(|envelope| envelope.key)
    }

    fn key(&self, id: &str) -> Option<&Key> {
        std::iter::once(&self.active).chain(&self.former).find(|key| key.id == id)
    }
}

impl Keyring for AeadKeyring {
    fn seal(&self, binding: &Binding, plain: &[u8]) -> Result<Sealed> {
        let mut nonce = [0; NONCE_BYTES];
        fill(&mut nonce)?;
        let id = self.active.id.as_bytes();
        let aad = associated(&self.active.id, binding);
        let payload = Payload { msg: plain, aad: &aad };
        let text = self.active.cipher().encrypt(&XNonce::from(nonce), payload);
        let text = text.map_err(|_| refused("seal a secret"))?;
        let length = u8::try_from(id.len()).map_err(|_| refused("seal a secret"))?;
        Ok(Sealed::from_bytes([&[VERSION, length], id, &nonce, &text].concat()))
    }

    fn open(&self, binding: &Binding, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>> {
        let envelope = Envelope::parse(sealed.as_bytes()).ok_or_else(|| refused("read a sealed secret"))?;
        let key = self.key(envelope.key).ok_or_else(|| refused("open a secret whose key is not given"))?;
        let aad = associated(envelope.key, binding);
        let payload = Payload { msg: envelope.text, aad: &aad };
        let plain = key.cipher().decrypt(&XNonce::from(envelope.nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| refused("open a secret"))
    }
}

/// The parts of a ciphertext: version, length of the key's id, the id, nonce, text.
struct Envelope<'a> {
    key: &'a str,
    nonce: [u8; NONCE_BYTES],
    text: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, length], rest) = bytes.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(length))?;
        let (nonce, text) = rest.split_first_chunk()?;
        let key = std::str::from_utf8(key).ok()?;
        (version == VERSION).then_some(Self { key, nonce: *nonce, text })
    }
}

/// What a ciphertext is bound to. Each part has its length in front, which keeps `ab, c` apart from `a, bc`.
fn associated(key: &str, binding: &Binding) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for part in [key, &binding.owner, &binding.field] {
        bytes.extend(part.len().to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

fn key_id(text: &str) -> Result<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=ID_LIMIT).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(refused("name a key with 1 to 64 letters, digits, '.', '_' or '-'"))
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| refused("take randomness from the system").with_source(error))
}

fn refused(stage: &'static str) -> Error {
    Error::new(ErrorKind::Sealing, stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> Binding {
        Binding::new("mailbox/7", "password")
    }

    fn keyring(id: &str) -> AeadKeyring {
        AeadKeyring::new(Key::generate(id).expect("a key"))
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_row_and_field_only() {
        let keyring = keyring("a");
        for plain in [&b""[..], b"secret", &[0; 5000]] {
            let sealed = keyring.seal(&password(), plain).expect("seal");
            assert_eq!(*keyring.open(&password(), &sealed).expect("open"), plain);
            for (owner, field) in [
                ("mailbox/8", "password"),
                ("mailbox/7", "token"),
                ("mailbox/7p", "assword"),
                ("mailbox/", "7password"),
                ("password", "mailbox/7"),
                ("", ""),
            ] {
                let moved = keyring.open(&Binding::new(owner, field), &sealed);
                assert_eq!(moved.expect_err("moved").kind(), &ErrorKind::Sealing, "{owner} {field}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_fails_to_open() {
        let keyring = keyring("a-key").with_former(Key::generate("b-key").expect("a key")).expect("two keys");
        let sealed = keyring.seal(&password(), b"secret").expect("seal");
        let bytes = sealed.as_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(keyring.open(&password(), &Sealed::from_bytes(flipped)).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            let cut = Sealed::from_bytes(bytes[..length].to_vec());
            assert!(keyring.open(&password(), &cut).is_err(), "{length} bytes");
        }
        assert!(keyring.open(&password(), &sealed).is_ok());
    }

    #[test]
    fn a_ciphertext_says_nothing_of_its_text_and_no_two_are_the_same() {
        let keyring = keyring("a");
        let one = keyring.seal(&password(), b"canary-0123456789").expect("seal");
        let two = keyring.seal(&password(), b"canary-0123456789").expect("seal");
        assert_ne!(one, two);
        assert!(!one.as_bytes().windows(6).any(|part| part == b"canary"));
    }

    #[test]
    fn the_key_of_the_same_id_and_other_bytes_does_not_open() {
        let sealed = keyring("a").seal(&password(), b"secret").expect("seal");
        assert!(keyring("a").open(&password(), &sealed).is_err());
        assert!(keyring("b").open(&password(), &sealed).is_err());
    }

    #[test]
    fn a_former_key_opens_and_the_active_one_seals() {
        let old = Key::generate("2025").expect("a key").to_text();
        let sealed = AeadKeyring::parse(&old).expect("one key").seal(&password(), b"secret").expect("seal");
        let new = Key::generate("2026").expect("a key").to_text();
        let rotated = AeadKeyring::parse(&format!("{}, {}", *new, *old)).expect("two keys");
        assert_eq!(*rotated.open(&password(), &sealed).expect("open"), b"secret");
        let again = rotated.seal(&password(), b"secret").expect("seal");
        assert_eq!((AeadKeyring::key_of(&sealed), AeadKeyring::key_of(&again)), (Some("2025"), Some("2026")));
        let alone = AeadKeyring::parse(&new).expect("one key");
        assert!(alone.open(&password(), &again).is_ok());
        assert!(alone.open(&password(), &sealed).is_err(), "the old key was removed too early");
    }

    #[test]
    fn no_error_and_no_debug_form_tells_a_key() {
        let key = Key::generate("2026").expect("a key");
        let text = key.to_text();
        let secret = text.split_once(':').expect("ID:BASE64").1;
        let broken = [
            secret.to_owned(),
            format!("2026:{}", &secret[1..]),
            format!("2026:{secret}AAAA"),
            format!("2026:*{secret}"),
            format!(":{secret}"),
            format!("a b:{secret}"),
            format!("{}:{secret}", "x".repeat(65)),
            format!("2026:{secret},2026:{secret}"),
            format!("2026:{secret},"),
            String::new(),
        ];
        for text in broken {
            let error = AeadKeyring::parse(&text).expect_err("no key");
            let said = format!("{error} {error:?}");
            assert!(!said.contains(&secret[2..20]), "{said}");
            assert_eq!(error.kind(), &ErrorKind::Sealing);
        }
        let said = format!("{key:?} {:?}", AeadKeyring::parse(&text).expect("a key"));
        assert!(said.contains("2026") && !said.contains(&secret[..8]), "{said}");
        let bytes: Vec<String> = key.bytes.iter().take(4).map(ToString::to_string).collect();
        assert!(!said.contains(&bytes.join(", ")), "{said}");
    }
}
