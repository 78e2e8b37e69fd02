//! A signed-in IMAP session as the port asks for it. Listing, fetching, settling and waiting stand in the siblings.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::ledger::RemoteKey;

use super::conversation::{Conversation, View};
use super::folder::{decode, encode, quoted};
use super::response::{Condition, Response};
use super::token::Scanner;
use super::{append, fetch, list, settle, wait};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{
    Access, CloseReport, Effect, Folder, Hint, IncomingSession, Listed, MailSink, Selected,
};

/// The folder that every mailbox has (RFC 3501 section 5.1).
const INBOX: &str = "INBOX";

/// The most folders that are listed, and bytes of their names.
const FOLDERS_LIMIT: usize = 20_000;
const NAMES_LIMIT: usize = 4 * 1024 * 1024;

/// A session, signed in.
#[derive(Debug)]
pub(super) struct Session {
    talk: Conversation,
    selected: Option<Access>,
}

impl Session {
    pub(super) fn new(talk: Conversation) -> Self {
        Self { talk, selected: None }
    }

    /// As `begin` of the conversation, where a folder must be selected.
    fn begin_selected(&mut self, stage: Stage, access: Access) -> Result<()> {
        // First of all whether it is broken: else a lost connection would look like a folder that is missing.
        self.talk.begin(stage)?;
        let wrong = match self.selected {
            None => (ErrorKind::FolderMissing, "no folder is selected"),
            Some(Access::ReadOnly) if access == Access::ReadWrite => {
                (ErrorKind::Refused, "the folder is selected read-only")
            }
            _ => return Ok(()),
        };
        self.talk.end(Err(Error::new(wrong.0, stage).with_reply(wrong.1)))
    }

    async fn list_folders(&mut self) -> Result<Vec<Folder>> {
        let (mut folders, mut bytes) = (Vec::new(), 0);
        let completion = self
            .talk
            .command("LIST \"\" \"*\"", &mut |response| {
                match response {
                    Response::List(attributes, name) => {
                        bytes += name.len();
                        folders.push(folder(&attributes, &name));
                    }
                    Response::Unreadable => return Err("an unreadable response where folders are listed"),
                    _ => {}
                }
                if folders.len() > FOLDERS_LIMIT || bytes > NAMES_LIMIT {
                    Err("too many folders")
                } else {
                    Ok(())
                }
            })
            .await?;
        completion.accepted(Stage::Folder)?;
        Ok(folders)
    }

    async fn open_folder(&mut self, name: &str, access: Access) -> Result<Selected> {
        // RFC 3501 section 6.3.1: a failed attempt leaves no folder selected.
        self.selected = None;
        self.talk.view = View::default();
        let verb = match access {
            Access::ReadOnly => "EXAMINE",
            Access::ReadWrite => "SELECT",
        };
        let (mut epoch, mut exists, mut uid_next) = (None, None, None);
        let completion = self
            .talk
            .command(&format!("{verb} {}", quoted(&encode(name))), &mut |response| {
                match response {
                    Response::Exists(count) => exists = Some(count),
                    Response::Untagged(status) if status.condition == Condition::Ok => {
                        if let Some((code, number)) = status.code {
                            let number = Scanner::new(number).positive();
                            match code.to_ascii_uppercase().as_slice() {
                                b"UIDVALIDITY" => epoch = number,
                                b"UIDNEXT" => uid_next = number,
                                _ => {}
                            }
                        }
                    }
                    _ => {}
                }
                Ok(())
            })
            .await?;
        completion.accepted(Stage::Folder).map_err(|error| match error.kind() {
            ErrorKind::Refused
                if completion.condition == Condition::No && completion.code("NOPERM").is_none() =>
            {
                Error::new(ErrorKind::FolderMissing, Stage::Folder)
                    .with_reply(error.reply().unwrap_or_default())
            }
            _ => error,
        })?;
        // Without UIDVALIDITY no UID means anything tomorrow; without EXISTS nobody knows whether the folder is empty.
        let epoch = epoch.ok_or_else(|| self.talk.broken_rule("no UIDVALIDITY"))?;
        let exists = exists.ok_or_else(|| self.talk.broken_rule("no EXISTS"))?;
        self.talk.view.changed = false;
        self.selected = Some(access);
        Ok(Selected::new(Some(epoch), exists).with_uid_next(uid_next))
    }

    async fn search_message_id(&mut self, message_id: &str) -> Result<Vec<RemoteKey>> {
        if message_id.is_empty() || !message_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(ErrorKind::Refused, Stage::List).with_reply("this is no Message-ID"));
        }
        let criteria = format!("HEADER Message-ID {}", quoted(message_id));
        Ok(settle::search(&mut self.talk, &criteria).await?.into_iter().map(RemoteKey::Uid).collect())
    }
}

/// A name that we could not give back to the server is shown, but can't be selected.
fn folder(attributes: &[&[u8]], wire: &[u8]) -> Folder {
    let has = |wanted: &str| attributes.iter().any(|one| one.eq_ignore_ascii_case(wanted.as_bytes()));
    match decode(wire) {
        Some(name) => {
            let folder = Folder::new(name, !has("\\Noselect") && !has("\\NonExistent"));
            if has("\\Sent") { folder.with_sent() } else { folder }
        }
        None => Folder::new(String::from_utf8_lossy(wire), false),
    }
}

#[async_trait]
impl IncomingSession for Session {
    async fn folders(&mut self) -> Result<Vec<Folder>> {
        self.talk.begin(Stage::Folder)?;
        let result = self.list_folders().await;
        self.talk.end(result)
    }

    async fn select<'a>(&mut self, folder: Option<&'a str>, access: Access) -> Result<Selected> {
        self.talk.begin(Stage::Folder)?;
        let result = self.open_folder(folder.unwrap_or(INBOX), access).await;
        self.talk.end(result)
    }

    async fn list<'a>(&mut self, after: Option<&'a RemoteKey>, limit: usize) -> Result<Vec<Listed>> {
        // A key of another protocol says nothing about where to begin: then from the start, as nothing may be missed.
        let after = after.and_then(|key| list::uid(key, Stage::List).ok()).unwrap_or(0);
        self.begin_selected(Stage::List, Access::ReadOnly)?;
        let result = list::window(&mut self.talk, after, limit).await;
        self.talk.end(result)
    }

    async fn fetch<'a>(
        &mut self,
        mails: &[Listed],
        limit: u64,
        sink: &'a mut (dyn MailSink + 'a),
    ) -> Result<()> {
        self.begin_selected(Stage::Fetch, Access::ReadOnly)?;
        let result = fetch::mails(&mut self.talk, mails, limit, sink).await;
        self.talk.end(result)
    }

    async fn settle(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()> {
        self.begin_selected(Stage::Settle, Access::ReadWrite)?;
        let result = settle::all(&mut self.talk, effects).await;
        self.talk.end(result)
    }

    async fn find(&mut self, message_id: &str) -> Result<Vec<RemoteKey>> {
        self.begin_selected(Stage::List, Access::ReadOnly)?;
        let result = self.search_message_id(message_id).await;
        self.talk.end(result)
    }

    async fn append(&mut self, folder: &str, content: Bytes) -> Result<()> {
        self.talk.begin(Stage::Settle)?;
        let result = append::append(&mut self.talk, folder, &content).await;
        self.talk.end(result)
    }

    async fn wait(&mut self, at_most: std::time::Duration) -> Result<Hint> {
        self.begin_selected(Stage::Wait, Access::ReadOnly)?;
        let result = wait::change(&mut self.talk, at_most).await;
        self.talk.end(result)
    }

    async fn close(mut self: Box<Self>) -> CloseReport {
        // Each step was confirmed when it was settled; the farewell is a courtesy.
        if self.talk.begin(Stage::Close).is_ok() {
            self.talk.enter(Stage::Close, self.talk.timeouts.close);
            if let Ok(tag) = self.talk.send("LOGOUT").await {
                // The BYE that LOGOUT asks for ends this as an error, which is as good.
                let _ = self.talk.completion(&tag, &mut |_| Ok(())).await;
            }
            self.talk.stream.shutdown().await;
        }
        CloseReport::Kept
    }
}
