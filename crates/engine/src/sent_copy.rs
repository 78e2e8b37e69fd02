//! Sent copy: an accepted mail is put into a folder of the outbox's companion inbox. It begins after the acceptance is
//! committed and touches the queue no more, so it can never cause a mail to be sent again. A copy waits while its companion rests or
//! can't be reached. One that fails on the way is reported with the companion's health and not tried again: whether the server took it
//! is not known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postroom_core::id::MailboxId;
use postroom_core::mailbox::Mailbox;
use postroom_storage::HealthBook;

use crate::copies::CopyOrder;
use crate::error::Result;
use crate::unlock::grant::Locked;
use crate::worker::Worker;

/// What failures say was being done.
const DOING: &str = "sent copy";

/// How long copies wait for a server that could not be reached, and for a person who has to mend their inbox.
const AGAIN: Duration = Duration::from_secs(60);

/// Makes the copies that one companion gets, over one session as long as it lasts.
pub(crate) async fn copy(worker: Arc<Worker>, companion: MailboxId, orders: Vec<CopyOrder>) {
    let postroom = &worker.postroom;
    let Some(transport) = &postroom.ports.incoming else { return };
    let route = async {
        let mailbox = postroom.mailbox(companion).await?;
        if !mailbox.is_active() {
            tracing::warn!(target: "postroom", "no sent copy: companion {companion} is not in use");
            return Ok(None);
        }
        if let Some(rest) = rest(&worker, &mailbox).await? {
            worker.copies.order_after(rest, companion, orders);
            return Ok(None);
        }
        let Some(route) = postroom.route(&mailbox).await? else {
            // The settings have changed: it is begun anew, by those of now.
            worker.copies.order_after(Duration::ZERO, companion, orders);
            return Ok(None);
        };
        Ok::<_, Locked>(Some((route, VecDeque::from(orders))))
    };
    let (route, mut orders) = match route.await {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(locked) => return worker.is_locked(companion, DOING, locked).await,
    };
    let mut session = None;
    while let Some(order) = orders.pop_front() {
        let content = match postroom.read_body(order.body, None).await {
            Ok(content) => content,
            Err(error) => {
                worker.stumbles(companion, DOING, error).await;
                continue;
            }
        };
        let open = match session.take() {
            Some(open) => open,
            None => match transport.open(&route).await {
                Ok(open) => open,
                Err(error) if postroom.asks_anew(&route, &error).await => {
                    orders.push_front(order);
                    return worker.copies.order_after(Duration::ZERO, companion, orders.into());
                }
                Err(error) => {
                    worker.fails_doing(companion, DOING, &error).await;
                    orders.push_front(order);
                    break;
                }
            },
        };
        match session.insert(open).append(&order.folder, content).await {
            Ok(()) => {}
            Err(error) => {
                session = None;
                worker.fails_doing(companion, DOING, &error).await;
            }
        }
    }
    if !orders.is_empty() {
        worker.copies.order_after(AGAIN, companion, orders.into());
    }
    if let Some(session) = session {
        session.close().await;
    }
}

/// For how long its companion is to be left alone, if it is: a server that refused the sign-in would lock the account.
async fn rest(worker: &Worker, companion: &Mailbox) -> Result<Option<Duration>> {
    let book: &dyn HealthBook = worker.postroom.store();
    let (health, now) = (book.health(companion.id).await?, worker.postroom.now());
    Ok(health.rests(now).then(|| health.next_attempt.map_or(AGAIN, |next| next.since(now))))
}
