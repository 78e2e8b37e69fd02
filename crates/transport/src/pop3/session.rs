//! A signed-in POP3 session as the port asks for it. The maildrop is read when it is first needed.

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use postroom_core::ledger::RemoteKey;
use sha2::{Digest, Sha256};

use super::conversation::Conversation;
use super::maildrop::{MAILS_LIMIT, Maildrop, is_legal};
use super::reply::numbered;
use super::retrieve;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{
    Access, CloseReport, Effect, Folder, Hint, IncomingSession, Listed, MailSink, Selected,
};

/// The largest mail in bytes that is read for the sake of its key.
const HASHED_LIMIT: u64 = 256 * 1024 * 1024;

/// A session, signed in.
#[derive(Debug)]
pub(super) struct Session {
    talk: Conversation,
    maildrop: Option<Maildrop>,
    has_deleted: bool,
}

/// Only hashes.
#[derive(Debug, Default)]
struct Hashing(Sha256);

#[async_trait]
impl MailSink for Hashing {
    async fn begin(&mut self, _key: &RemoteKey) -> std::io::Result<()> {
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        self.0.update(&piece);
        Ok(())
    }

    async fn end(&mut self, _result: Result<()>) -> std::io::Result<()> {
        Ok(())
    }
}

impl Session {
    pub(super) fn new(talk: Conversation) -> Self {
        Self { talk, maildrop: None, has_deleted: false }
    }

    /// How many mails there are and how many bytes they have, in the server's words (RFC 1939 section 5, STAT).
    pub(super) async fn statistics(&mut self) -> Result<String> {
        self.talk.begin(Stage::Folder)?;
        let reply = self.talk.granted("STAT").await;
        self.talk.end(reply).map(|reply| reply.text)
    }

    /// The maildrop; it is locked, so once is enough (RFC 1939 section 4).
    async fn maildrop(&mut self) -> Result<&mut Maildrop> {
        let maildrop = match self.maildrop.take() {
            Some(maildrop) => maildrop,
            None => self.read_maildrop().await?,
        };
        Ok(self.maildrop.insert(maildrop))
    }

    async fn read_maildrop(&mut self) -> Result<Maildrop> {
        let mut sizes: Vec<(u32, u64)> = Vec::new();
        self.talk.granted("LIST").await?;
        self.talk
            .lines(MAILS_LIMIT, &mut |line| {
                // Better no list than a short one.
                let (number, rest) = numbered(line).ok_or("an unreadable line where mails are listed")?;
                let size = rest.split(' ').next().and_then(|size| size.parse().ok());
                if sizes.last().is_some_and(|(last, _)| *last >= number) {
                    return Err("mails that are not listed in their order");
                }
                sizes.push((number, size.ok_or("a mail without a size")?));
                Ok(())
            })
            .await?;
        let mut ids: Vec<(u32, String)> = Vec::new();
        // UIDL is optional (RFC 1939 section 7).
        if !sizes.is_empty() && self.talk.ask("UIDL").await?.is_ok {
            self.talk
                .lines(MAILS_LIMIT, &mut |line| {
                    // What is no unique id takes no room; the mail's content is its key.
                    let ids_of = numbered(line).filter(|(_, id)| is_legal(id));
                    ids.extend(ids_of.map(|(number, id)| (number, id.to_owned())));
                    Ok(())
                })
                .await?;
        }
        Ok(Maildrop::new(sizes, ids))
    }

    /// Sees to it that every mail before `end` has its key.
    async fn give_keys(&mut self, end: usize) -> Result<()> {
        while let Some((place, number, size)) = self.maildrop().await?.next_without_key(end) {
            if size > HASHED_LIMIT {
                let error = Error::new(ErrorKind::TooLarge, self.talk.stage());
                return Err(
                    error.with_reply("a mail without a unique id is too large to be told by its content")
                );
            }
            let mut hashing = Hashing::default();
            retrieve::mail(&mut self.talk, number, HASHED_LIMIT, &mut hashing).await?;
            self.maildrop().await?.set_content(place, HEXLOWER.encode(&hashing.0.finalize()));
        }
        Ok(())
    }

    /// Where a mail is; none when it is not there any more.
    async fn place(&mut self, key: &RemoteKey) -> Result<Option<usize>> {
        if self.maildrop().await?.place(key).is_none() && matches!(key, RemoteKey::Content(..)) {
            self.give_keys(usize::MAX).await?;
        }
        let maildrop = self.maildrop().await?;
        Ok(maildrop.place(key).filter(|place| !maildrop.entries()[*place].is_deleted))
    }

    async fn window(&mut self, after: Option<&RemoteKey>, limit: usize) -> Result<Vec<Listed>> {
        let mut next = 0;
        if let Some(after) = after {
            self.place(after).await?;
            // A mail that was taken away tells no place: then from the start, as nothing may be missed.
            next = self.maildrop().await?.place(after).map_or(0, |place| place + 1);
        }
        let mut listed = Vec::new();
        while listed.len() < limit && next < self.maildrop().await?.len() {
            self.give_keys(next + 1).await?;
            let entry = &self.maildrop().await?.entries()[next];
            if let Some(key) = entry.key.as_ref().filter(|_| !entry.is_deleted) {
                listed.push(Listed::new(key.clone(), entry.size, None));
            }
            next += 1;
        }
        Ok(listed)
    }

    async fn mails(&mut self, mails: &[Listed], limit: u64, sink: &mut dyn MailSink) -> Result<()> {
        let mut asked = Vec::with_capacity(mails.len());
        for listed in mails {
            let entry = match self.place(&listed.key).await? {
                Some(place) => {
                    let entry = &self.maildrop().await?.entries()[place];
                    Some((entry.number, entry.size))
                }
                None => None,
            };
            asked.push((&listed.key, entry));
        }
        retrieve::mails(&mut self.talk, &asked, limit, sink).await
    }

    async fn delete(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()> {
        if effects.iter().any(|(_, effect)| *effect != Effect::Delete) {
            let error = Error::new(ErrorKind::Unsupported, Stage::Settle);
            return Err(error.with_reply("POP3 can delete, but neither mark as read nor move"));
        }
        for (key, _) in effects {
            let Some(place) = self.place(key).await? else { continue };
            let number = self.maildrop().await?.entries()[place].number;
            self.talk.granted(&format!("DELE {number}")).await?;
            self.maildrop().await?.mark_deleted(place);
            self.has_deleted = true;
        }
        Ok(())
    }

    /// RFC 1939 section 6: deletions happen when QUIT is granted.
    async fn quit(&mut self) -> Result<()> {
        self.talk.begin(Stage::Close)?;
        self.talk.timeouts.command = self.talk.timeouts.close;
        self.talk.granted("QUIT").await.map(drop)
    }
}

#[async_trait]
impl IncomingSession for Session {
    async fn folders(&mut self) -> Result<Vec<Folder>> {
        self.talk.begin(Stage::Folder)?;
        self.talk.end(Ok(Vec::new()))
    }

    async fn select<'a>(&mut self, folder: Option<&'a str>, _access: Access) -> Result<Selected> {
        self.talk.begin(Stage::Folder)?;
        let result = match folder {
            Some(_) => {
                let error = Error::new(ErrorKind::FolderMissing, Stage::Folder);
                Err(error.with_reply("POP3 has no folders"))
            }
            None => self.maildrop().await.map(|maildrop| maildrop.len()),
        };
        let count = self.talk.end(result)?;
        Ok(Selected::new(None, u32::try_from(count).unwrap_or(u32::MAX)))
    }

    async fn list<'a>(&mut self, after: Option<&'a RemoteKey>, limit: usize) -> Result<Vec<Listed>> {
        self.talk.begin(Stage::List)?;
        let result = self.window(after, limit).await;
        self.talk.end(result)
    }

    async fn fetch<'a>(
        &mut self,
        mails: &[Listed],
        limit: u64,
        sink: &'a mut (dyn MailSink + 'a),
    ) -> Result<()> {
        self.talk.begin(Stage::Fetch)?;
        let result = self.mails(mails, limit, sink).await;
        self.talk.end(result)
    }

    async fn settle(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()> {
        self.talk.begin(Stage::Settle)?;
        let result = self.delete(effects).await;
        self.talk.end(result)
    }

    async fn find(&mut self, _message_id: &str) -> Result<Vec<RemoteKey>> {
        self.talk.begin(Stage::List)?;
        self.talk.end(Err(Error::new(ErrorKind::Unsupported, Stage::List)))
    }

    async fn append(&mut self, _folder: &str, _content: Bytes) -> Result<()> {
        self.talk.begin(Stage::Settle)?;
        self.talk.end(Err(Error::new(ErrorKind::Unsupported, Stage::Settle)))
    }

    async fn wait(&mut self, _at_most: std::time::Duration) -> Result<Hint> {
        self.talk.begin(Stage::Wait)?;
        // New mail shows itself in the next session only (RFC 1939 section 4).
        self.talk.end(Ok(Hint::Poll))
    }

    async fn close(mut self: Box<Self>) -> CloseReport {
        let farewell = self.quit().await;
        if farewell.is_ok() {
            self.talk.stream.shutdown().await;
        }
        match farewell {
            Err(error) if self.has_deleted => CloseReport::Lost(error),
            _ => CloseReport::Kept,
        }
    }
}
