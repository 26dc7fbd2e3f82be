//! Who is next.

use std::{cmp::Reverse, time::Duration};

use bus_schema::{
    LeaseEnd, LeaseNews,
    limits::{LEASE_NEWS_EVERY, OFFER_HELD},
};

use super::{Book, ENDED_KEPT, Effect, End, Key, News, Phase, TicketState, UnitAt};

/// A ticket is asked about every third of its time (20 s), and a little may go wrong.
const FRESH: Duration = Duration::from_secs(25);
/// News are repeated this long; then the client is gone, or asks.
const NEWS_REPEATED: Duration = Duration::from_secs(60);

impl Book {
    /// Puts a ticket in its place: by priority, then by arrival.
    pub(super) fn enqueue(&mut self, key: &Key) {
        let rank = |key: &Key| {
            let ticket = &self.tickets[key];
            (Reverse(ticket.asked.priority), ticket.number)
        };
        let (own, unit) = (rank(key), self.tickets[key].unit);
        let at = self.units[unit].queue.partition_point(|other| rank(other) < own);
        self.units[unit].queue.insert(at, key.clone());
    }

    pub(super) fn leave_queue(&mut self, key: &Key) {
        if let Some(ticket) = self.tickets.get(key) {
            self.units[ticket.unit].queue.retain(|other| other != key);
        }
    }

    /// How many are before a ticket in its queue.
    pub(super) fn before(&self, key: &Key) -> usize {
        let queue = &self.units[self.tickets[key].unit].queue;
        queue.iter().position(|other| other == key).unwrap_or(0)
    }

    /// Offers a free subtree to the first who can take it. Whoever is `asking` just now learns of
    /// it by the answer, everybody else by news.
    pub(super) fn serve(&mut self, unit: UnitAt, now: Duration, asking: Option<&Key>) {
        let place = &self.units[unit];
        if place.phase != Phase::Free || place.closed().is_some() {
            return;
        }
        let Some(next) = place.queue.iter().find(|key| self.is_ready(key, now)).cloned() else {
            return;
        };
        self.leave_queue(&next);
        self.units[unit].phase =
            Phase::Offered { key: next.clone(), since: now, until: now + OFFER_HELD };
        if let Some(ticket) = self.tickets.get_mut(&next) {
            ticket.state = TicketState::Offered;
        }
        if asking != Some(&next) {
            self.tell(&next, now);
        }
    }

    /// Whether an offer would be heard and wanted. Whoever has not spoken for a while has probably
    /// left; the next sign of life makes it ready again.
    pub(super) fn is_ready(&self, key: &Key, now: Duration) -> bool {
        let ticket = &self.tickets[key];
        ticket.paused_until <= now && (ticket.heard + FRESH > now || !self.connected)
    }

    /// Takes an offer back; its ticket keeps its place.
    pub(super) fn put_back(&mut self, key: &Key, paused_until: Duration) {
        let Some(ticket) = self.tickets.get_mut(key) else { return };
        ticket.state = TicketState::Waiting;
        ticket.paused_until = paused_until;
        ticket.news = None;
        let unit = ticket.unit;
        self.units[unit].phase = Phase::Free;
        self.enqueue(key);
    }

    /// Tells a ticket's owner how it stands now, until it has heard.
    pub(super) fn tell(&mut self, key: &Key, now: Duration) {
        if let Some(ticket) = self.tickets.get_mut(key) {
            ticket.news_so_far += 1;
            let (number, until) = (ticket.news_so_far, now + NEWS_REPEATED);
            ticket.news = Some(News { number, next: now, until });
            self.tell_again(key, now);
        }
    }

    pub(super) fn tell_again(&mut self, key: &Key, now: Duration) {
        let standing = self.stands(key, now);
        let Some(news) = self.tickets.get_mut(key).and_then(|ticket| ticket.news.as_mut()) else {
            return;
        };
        news.next = now + LEASE_NEWS_EVERY;
        let news = LeaseNews { ticket: key.ticket, number: news.number, now: standing };
        self.effects.push(Effect::Tell(key.client.clone(), news));
    }

    /// Ends what a ticket is: a lease, an offer or a place in the queue.
    pub(super) fn drop_ticket(&mut self, key: &Key, why: LeaseEnd, text: &str, now: Duration) {
        let Some(ticket) = self.tickets.get(key) else { return };
        let unit = ticket.unit;
        match ticket.state {
            TicketState::Held => {
                self.end_lease(unit, End { why, text: text.to_owned(), heir: None }, now);
            }
            TicketState::Offered => {
                self.units[unit].phase = Phase::Free;
                self.close_ticket(key, why, text, now);
                self.serve(unit, now, None);
            }
            TicketState::Waiting => {
                self.leave_queue(key);
                self.close_ticket(key, why, text, now);
            }
            TicketState::Ended { .. } => {}
        }
    }

    /// Remembers how a ticket ended, and tells its owner unless that is who ended it.
    pub(super) fn close_ticket(&mut self, key: &Key, why: LeaseEnd, text: &str, now: Duration) {
        let by_owner = matches!(why, LeaseEnd::Released | LeaseEnd::Transferred);
        if let Some(ticket) = self.tickets.get_mut(key) {
            let forget = now + ENDED_KEPT;
            ticket.state = TicketState::Ended { why, text: text.to_owned(), forget };
            ticket.news = None;
            self.ended.push_back((forget, key.clone()));
        }
        if !by_owner {
            self.tell(key, now);
        }
    }
}
