//! Fetch sessions (KIP-227): the broker remembers what a consumer fetches, requests carry only
//! what changed, and answers only partitions with news. Pure: knows offsets and clocks passed in,
//! no logs. Source of the rules: Kafka's `FetchSession.scala`.

use std::collections::HashMap;

use uuid::Uuid;

/// A session lives at least so long after its last use before another may take its slot.
const EVICTION_MS: i64 = 120_000;
/// Partitions one session may hold; more is served without a session.
const MAX_PARTITIONS: usize = 100_000;

/// A partition as the client names it: by name up to v12, by id from v13.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub topic: TopicKey,
    pub partition: i32,
}

/// How the client names topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    Name(String),
    Id(Uuid),
}

/// What is asked of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub key: Key,
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub leader_epoch: i32,
}

/// What the last answer said of a partition; an answer leaves out what has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    high_watermark: i64,
    log_start_offset: i64,
}

const NOTHING_SAID: Said = Said {
    high_watermark: -1,
    log_start_offset: -1,
};

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    wants: Vec<(Want, Said)>,
    places: HashMap<Key, usize>,
    last_used_ms: i64,
}

/// The sessions of a broker.
#[derive(Debug)]
pub struct FetchSessions {
    sessions: HashMap<i32, Session>,
    slots: usize,
    last_id: i32,
}

/// Why a request's session was refused; the whole answer carries the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    NotFound,
    InvalidEpoch,
    TopicIds,
}

/// How to answer one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// For the answer: 0 when there is no session.
    pub session_id: i32,
    /// Only changed partitions go into the answer.
    pub incremental: bool,
    /// Everything to look at, in order.
    pub wants: Vec<Want>,
    epoch: i32,
}

/// The session fields of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_id: bool,
    pub now_ms: i64,
}

impl FetchSessions {
    /// Room for `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub fn new(slots: usize) -> Self {
        FetchSessions {
            sessions: HashMap::new(),
            slots,
            last_id: 0,
        }
    }

    /// Sessions alive.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True without sessions.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Works out what a request asks for.
    pub fn begin(
        &mut self,
        asked: Asked,
        wants: Vec<Want>,
        forgotten: &[Key],
    ) -> Result<Context, SessionError> {
        // 0 asks for a new session, −1 for none; any other epoch continues one.
        if !(-1..=0).contains(&asked.session_epoch) {
            return self.begin_incremental(asked, wants, forgotten);
        }
        if asked.session_id != 0 {
            self.sessions.remove(&asked.session_id);
        }
        let session_id = if asked.session_epoch == 0 {
            self.create(asked, &wants)
        } else {
            0
        };
        Ok(Context {
            session_id,
            incremental: false,
            wants,
            epoch: 1,
        })
    }

    fn create(&mut self, asked: Asked, wants: &[Want]) -> i32 {
        if wants.len() > MAX_PARTITIONS || !self.make_room(asked.now_ms) {
            return 0;
        }
        let mut id = self.last_id;
        loop {
            id = if id == i32::MAX { 1 } else { id + 1 };
            if !self.sessions.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        let mut session = Session {
            epoch: 1,
            by_id: asked.by_id,
            wants: Vec::new(),
            places: HashMap::new(),
            last_used_ms: asked.now_ms,
        };
        session.update(wants.to_vec());
        self.sessions.insert(id, session);
        id
    }

    fn make_room(&mut self, now_ms: i64) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, s)| s.last_used_ms);
        match oldest.map(|(id, s)| (*id, s.last_used_ms)) {
            Some((id, used)) if now_ms.saturating_sub(used) > EVICTION_MS => {
                self.sessions.remove(&id);
                true
            }
            _ => false,
        }
    }

    fn begin_incremental(
        &mut self,
        asked: Asked,
        wants: Vec<Want>,
        forgotten: &[Key],
    ) -> Result<Context, SessionError> {
        let session = self
            .sessions
            .get_mut(&asked.session_id)
            .ok_or(SessionError::NotFound)?;
        if session.epoch != asked.session_epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.by_id != asked.by_id {
            return Err(SessionError::TopicIds);
        }
        session.forget(forgotten);
        session.update(wants);
        session.last_used_ms = asked.now_ms;
        session.epoch = next_epoch(session.epoch);
        let epoch = session.epoch;
        if session.wants.is_empty() || session.wants.len() > MAX_PARTITIONS {
            let wants = session.wants.iter().map(|(w, _)| w.clone()).collect();
            self.sessions.remove(&asked.session_id);
            return Ok(Context {
                session_id: 0,
                incremental: false,
                wants,
                epoch,
            });
        }
        let wants = session.wants.iter().map(|(w, _)| w.clone()).collect();
        Ok(Context {
            session_id: asked.session_id,
            incremental: true,
            wants,
            epoch,
        })
    }

    /// Tells, for the answer to `context`, whether a partition goes into it, and remembers what
    /// is said. Partitions with data move to the back, so that none starves the others.
    pub fn say(&mut self, context: &Context, news: &[News]) -> Vec<bool> {
        let session = self
            .sessions
            .get_mut(&context.session_id)
            .filter(|s| s.epoch == context.epoch);
        let Some(session) = session else {
            return vec![true; news.len()];
        };
        let mut included = Vec::with_capacity(news.len());
        let mut with_data = Vec::new();
        for one in news {
            let place = session.places.get(&one.key).copied();
            let said = place
                .and_then(|p| session.wants.get_mut(p))
                .map(|(_, said)| said);
            let Some(said) = said else {
                included.push(true);
                continue;
            };
            let now = Said {
                high_watermark: one.high_watermark,
                log_start_offset: one.log_start_offset,
            };
            let changed = one.has_data || one.is_error || *said != now;
            // After an error the partition is told again even if nothing changed.
            *said = if one.is_error { NOTHING_SAID } else { now };
            if one.has_data {
                with_data.push(one.key.clone());
            }
            included.push(changed || !context.incremental);
        }
        session.move_back(&with_data);
        included
    }
}

/// What an answer could say of one partition.
#[derive(Clone, Debug)]
pub struct News {
    pub key: Key,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub has_data: bool,
    pub is_error: bool,
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl Session {
    fn update(&mut self, wants: Vec<Want>) {
        for want in wants {
            match self.places.get(&want.key).copied() {
                Some(place) => {
                    if let Some((known, _)) = self.wants.get_mut(place) {
                        *known = want;
                    }
                }
                None => {
                    self.places.insert(want.key.clone(), self.wants.len());
                    self.wants.push((want, NOTHING_SAID));
                }
            }
        }
    }

    fn forget(&mut self, keys: &[Key]) {
        if keys.is_empty() {
            return;
        }
        let gone: std::collections::HashSet<&Key> = keys.iter().collect();
        self.wants.retain(|(want, _)| !gone.contains(&want.key));
        self.renumber();
    }

    fn move_back(&mut self, keys: &[Key]) {
        // All or none having data leaves the order fair as it is.
        if keys.is_empty() || keys.len() == self.wants.len() {
            return;
        }
        let moved: std::collections::HashSet<&Key> = keys.iter().collect();
        self.wants
            .sort_by_key(|(want, _)| moved.contains(&want.key));
        self.renumber();
    }

    fn renumber(&mut self) {
        self.places = self
            .wants
            .iter()
            .enumerate()
            .map(|(at, (w, _))| (w.key.clone(), at))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        Key {
            topic: TopicKey::Name("t".into()),
            partition,
        }
    }
    fn want(partition: i32, fetch_offset: i64) -> Want {
        Want {
            key: key(partition),
            fetch_offset,
            max_bytes: 1,
            leader_epoch: -1,
        }
    }
    fn asked(session_id: i32, session_epoch: i32, now_ms: i64) -> Asked {
        Asked {
            session_id,
            session_epoch,
            by_id: false,
            now_ms,
        }
    }
    fn news(partition: i32, high_watermark: i64, has_data: bool) -> News {
        News {
            key: key(partition),
            high_watermark,
            log_start_offset: 0,
            has_data,
            is_error: false,
        }
    }

    #[test]
    fn an_answer_within_a_session_holds_only_news() {
        let mut s = FetchSessions::new(2);
        let full = s
            .begin(asked(0, 0, 0), vec![want(0, 0), want(1, 0)], &[])
            .unwrap();
        assert!(full.session_id > 0 && !full.incremental);
        assert_eq!(
            s.say(&full, &[news(0, 5, true), news(1, 0, false)]),
            [true, true]
        );

        let next = s
            .begin(asked(full.session_id, 1, 1), vec![want(0, 5)], &[])
            .unwrap();
        assert!(next.incremental);
        // The one with data went to the back.
        assert_eq!(next.wants, [want(1, 0), want(0, 5)]);
        assert_eq!(
            s.say(&next, &[news(1, 0, false), news(0, 5, false)]),
            [false, false]
        );

        let third = s
            .begin(asked(full.session_id, 2, 2), vec![], &[key(1)])
            .unwrap();
        assert_eq!(third.wants, [want(0, 5)]);
        assert_eq!(
            s.say(&third, &[news(0, 6, false)]),
            [true],
            "a moved high watermark is news"
        );
    }

    #[test]
    fn an_error_is_told_again() {
        let mut s = FetchSessions::new(2);
        let c = s.begin(asked(0, 0, 0), vec![want(0, 0)], &[]).unwrap();
        let mut bad = news(0, -1, false);
        bad.is_error = true;
        s.say(&c, &[bad.clone()]);
        let c = s.begin(asked(c.session_id, 1, 0), vec![], &[]).unwrap();
        assert_eq!(s.say(&c, &[bad]), [true]);
        let c = s.begin(asked(c.session_id, 2, 0), vec![], &[]).unwrap();
        assert_eq!(s.say(&c, &[news(0, 0, false)]), [true], "and so is its end");
    }

    #[test]
    fn unknown_sessions_and_wrong_epochs_are_refused() {
        let mut s = FetchSessions::new(2);
        assert_eq!(
            s.begin(asked(7, 1, 0), vec![], &[]),
            Err(SessionError::NotFound)
        );
        let c = s.begin(asked(0, 0, 0), vec![want(0, 0)], &[]).unwrap();
        for epoch in [2, -2] {
            assert_eq!(
                s.begin(asked(c.session_id, epoch, 0), vec![], &[]),
                Err(SessionError::InvalidEpoch)
            );
        }
        let by_id = Asked {
            by_id: true,
            ..asked(c.session_id, 1, 0)
        };
        assert_eq!(s.begin(by_id, vec![], &[]), Err(SessionError::TopicIds));
    }

    #[test]
    fn a_final_epoch_ends_the_session_and_an_empty_one_goes() {
        let mut s = FetchSessions::new(2);
        let c = s.begin(asked(0, 0, 0), vec![want(0, 0)], &[]).unwrap();
        let last = s
            .begin(asked(c.session_id, -1, 0), vec![want(0, 0)], &[])
            .unwrap();
        assert_eq!((last.session_id, s.len()), (0, 0));
        let c = s.begin(asked(0, 0, 0), vec![want(0, 0)], &[]).unwrap();
        let emptied = s
            .begin(asked(c.session_id, 1, 0), vec![], &[key(0)])
            .unwrap();
        assert_eq!((emptied.session_id, s.len()), (0, 0));
    }

    #[test]
    fn a_session_may_begin_without_partitions() {
        let mut s = FetchSessions::new(2);
        let empty = s.begin(asked(0, 0, 0), vec![], &[]).unwrap();
        assert!(empty.session_id > 0);
        let next = s
            .begin(asked(empty.session_id, 1, 0), vec![want(3, 0)], &[])
            .unwrap();
        assert_eq!(next.wants, [want(3, 0)]);
    }

    #[test]
    fn slots_are_bounded_and_old_sessions_give_way() {
        let mut s = FetchSessions::new(1);
        let first = s.begin(asked(0, 0, 0), vec![want(0, 0)], &[]).unwrap();
        let second = s.begin(asked(0, 0, 10), vec![want(0, 0)], &[]).unwrap();
        assert_eq!(second.session_id, 0, "no room: served without a session");
        let third = s
            .begin(asked(0, 0, EVICTION_MS + 1), vec![want(0, 0)], &[])
            .unwrap();
        assert!(third.session_id > 0 && third.session_id != first.session_id);
        assert_eq!(s.len(), 1);
    }
}
