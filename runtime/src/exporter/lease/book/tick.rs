//! What time does: deadlines, signs of life that are missing, news that were not heard.

use std::time::Duration;

use bus_schema::{
    LeaseEnd,
    limits::{LEASE_ALIVE, OFFER_HEARD, OFFER_HELD},
};

use super::{Book, End, Key, Phase, Ticket, TicketState, UnitAt};

/// An offer that was missed this often is not made again.
const MISSES_MAX: u32 = 3;

impl Book {
    /// When an offer goes to the next: sooner if its client does not even say that it heard of it.
    fn offer_ends(&self, key: &Key, since: Duration, until: Duration) -> Duration {
        match self.tickets.get(key) {
            Some(ticket) if ticket.heard >= since => until,
            _ => until.min(since + OFFER_HEARD),
        }
    }

    /// Whether the exporter can hear its clients. Silence counts only while it can, and begins
    /// anew when it can again.
    pub(crate) fn connection(&mut self, connected: bool, now: Duration) {
        if connected && !self.connected {
            self.forgive(now);
        }
        self.connected = connected;
    }

    /// Every silence begins anew: the connection was away in between.
    pub(crate) fn forgive(&mut self, now: Duration) {
        for ticket in self.tickets.values_mut() {
            ticket.heard = now;
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Duration) {
        for unit in 0..self.units.len() {
            self.tick_unit(unit, now);
        }
        self.tick_tickets(now);
        for unit in 0..self.units.len() {
            self.serve(unit, now, None); // a pause may be over
        }
    }

    fn tick_unit(&mut self, unit: UnitAt, now: Duration) {
        match &self.units[unit].phase {
            Phase::Held(lease) => {
                let why = if lease.until <= now {
                    LeaseEnd::Expired
                } else if self.is_silent(&lease.key(), self.rules.keep_alive, now) {
                    LeaseEnd::Silent
                } else {
                    return;
                };
                self.end_lease(unit, End { why, text: String::new(), heir: None }, now);
            }
            Phase::Offered { key, since, until } if self.offer_ends(key, *since, *until) <= now => {
                let key = key.clone();
                self.miss(&key, now);
            }
            Phase::Unsafe { again, .. } if *again <= now => self.try_again(unit),
            _ => {}
        }
    }

    /// Whether the owner of a ticket that needs signs of life gave none for too long.
    fn is_silent(&self, key: &Key, limit: Duration, now: Duration) -> bool {
        let silent = |ticket: &Ticket| {
            let held = matches!(ticket.state, TicketState::Held);
            !(held && ticket.asked.detached) && ticket.heard + limit <= now
        };
        self.connected && self.tickets.get(key).is_some_and(silent)
    }

    /// An offer that was not taken goes to the next.
    fn miss(&mut self, key: &Key, now: Duration) {
        let Some(ticket) = self.tickets.get_mut(key) else { return };
        ticket.missed += 1;
        if ticket.missed >= MISSES_MAX {
            self.drop_ticket(key, LeaseEnd::Unconfirmed, "", now);
        } else {
            // Behind everybody who is there, for once.
            self.put_back(key, now + OFFER_HELD);
        }
    }

    fn tick_tickets(&mut self, now: Duration) {
        self.forget(now);
        let mut due = Vec::new();
        for key in &self.live {
            let ticket = &self.tickets[key];
            let over = match &ticket.state {
                TicketState::Waiting if ticket.wait_until <= now => Some(LeaseEnd::TimedOut),
                TicketState::Waiting | TicketState::Offered
                    if self.is_silent(key, LEASE_ALIVE, now) =>
                {
                    Some(LeaseEnd::Silent)
                }
                _ => None,
            };
            let told = ticket.news.as_ref().is_some_and(|news| news.next <= now);
            if over.is_some() || told {
                due.push((ticket.number, key.clone(), over));
            }
        }
        due.sort_by_key(|(number, ..)| *number); // the map has no order, and a machine has one
        for (_, key, over) in due {
            match over {
                Some(why) => self.drop_ticket(&key, why, "", now),
                None => self.repeat_news(&key, now),
            }
        }
    }

    /// Forgets how tickets ended, and which of them nobody has to be told of any more.
    fn forget(&mut self, now: Duration) {
        while self.ended.front().is_some_and(|(forget, _)| *forget <= now) {
            let Some((forget, key)) = self.ended.pop_front() else { break };
            // A ticket may have come to life again: by a transfer there and back.
            let so = TicketState::ended_until;
            if self.tickets.get(&key).is_some_and(|ticket| so(&ticket.state) == Some(forget)) {
                self.tickets.remove(&key);
            }
        }
        self.live.retain(|key| {
            let is_live = |ticket: &Ticket| {
                !matches!(ticket.state, TicketState::Ended { .. }) || ticket.news.is_some()
            };
            self.tickets.get(key).is_some_and(is_live)
        });
    }

    fn repeat_news(&mut self, key: &Key, now: Duration) {
        let Some(ticket) = self.tickets.get_mut(key) else { return };
        match &ticket.news {
            Some(news) if news.until <= now => ticket.news = None,
            Some(_) => self.tell_again(key, now),
            None => {}
        }
    }

    /// When something is due next.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        let heard = |ticket: &Ticket, limit| self.connected.then_some(ticket.heard + limit);
        let units = self.units.iter().filter_map(|unit| match &unit.phase {
            Phase::Held(lease) => {
                let ticket = self.tickets.get(&lease.key()).filter(|t| !t.asked.detached);
                let silent = ticket.and_then(|ticket| heard(ticket, self.rules.keep_alive));
                [silent, Some(lease.until)].into_iter().flatten().min()
            }
            Phase::Offered { key, since, until } => Some(self.offer_ends(key, *since, *until)),
            Phase::Unsafe { again, .. } => Some(*again),
            Phase::Free | Phase::Ending { .. } => None,
        });
        let live = self.live.iter().map(|key| &self.tickets[key]);
        let tickets = live.filter_map(|ticket| {
            let own = match &ticket.state {
                TicketState::Waiting => {
                    let paused = Some(ticket.paused_until).filter(|paused| *paused > now);
                    let over = Some(ticket.wait_until);
                    [paused, heard(ticket, LEASE_ALIVE), over].into_iter().flatten().min()
                }
                TicketState::Offered => heard(ticket, LEASE_ALIVE),
                TicketState::Held | TicketState::Ended { .. } => None,
            };
            let news = ticket.news.as_ref().map(|news| news.next);
            [own, news].into_iter().flatten().min()
        });
        let forgotten = self.ended.front().map(|(forget, _)| *forget);
        units.chain(tickets).chain(forgotten).min()
    }
}
