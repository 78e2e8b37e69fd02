//! Sent copy: an accepted mail is put into a folder of the outbox's companion inbox. It begins after the acceptance is
//! committed and touches the queue no more, so it can never cause a mail to be sent again. A copy that fails is reported
//! with the companion's health and not tried again: whether the server took it is not known.

use std::sync::Arc;

use postroom_core::id::MailboxId;

use crate::error::said;
use crate::worker::{CopyOrder, Worker};

/// What failures say was being done.
const DOING: &str = "sent copy";

/// Makes the copies that one companion gets, over one session as long as it lasts.
pub(crate) async fn copy(worker: Arc<Worker>, companion: MailboxId, orders: Vec<CopyOrder>) {
    let postroom = &worker.postroom;
    let Some(transport) = &postroom.ports.incoming else { return };
    let companion = match postroom.mailbox(companion).await {
        Ok(companion) if companion.is_active() => companion,
        Ok(_) => {
            return tracing::warn!(target: "postroom", "no sent copy: companion {companion} is not in use");
        }
        Err(error) => return worker.stumbles(companion, DOING, error).await,
    };
    let route = match postroom.route(&companion).await {
        Ok(Some(route)) => route,
        // The settings have changed: it is begun anew, by those of now.
        Ok(None) => return worker.order_again(companion.id, orders),
        Err(error) => return worker.stumbles(companion.id, DOING, error).await,
    };
    let mut session = None;
    for order in orders {
        let content = match postroom.read_body(order.body, None).await {
            Ok(content) => content,
            Err(error) => {
                worker.stumbles(companion.id, DOING, error).await;
                continue;
            }
        };
        let appended = async {
            let open = match session.take() {
                Some(open) => session.insert(open),
                None => session.insert(transport.open(&route).await?),
            };
            open.append(&order.folder, content).await
        };
        if let Err(error) = appended.await {
            session = None;
            worker.fails_beside(companion.id, format!("{DOING}: {}", said(&error))).await;
        }
    }
    if let Some(session) = session {
        session.close().await;
    }
}
