//! The loop that ties it together: poll → part (rotate, plan) → upload → commit. All state lives in
//! one task; only uploads and listings run beside it. Knows the group client and everything of this
//! crate but the command line.

mod assign;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use wire::client::group::{CommitOffset, Event, GroupConsumer, TopicPartition};
use wire::client::{Client, ClientError};

use crate::part::Part;
use crate::report::{Report, Totals};
use crate::rotate::Rules;
use crate::store::{Found, Place, StoreError};
use crate::upload::{Outcome, Uploader};

/// Pause between commits, so that a thousand objects a second are not a thousand commits.
const COMMIT_PAUSE: Duration = Duration::from_millis(250);
/// How long a rebalance is held up for objects on their way.
const GIVE_BACK: Duration = Duration::from_secs(10);
/// How long the broker may be out of reach at the end before the last commit is given up.
const LAST_COMMIT: Duration = Duration::from_secs(30);
/// How long saying good-bye to the broker may take.
const LEAVE: Duration = Duration::from_secs(5);
/// Pause before asking a broker again that failed to answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Why the sink had to stop.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Broker(#[from] ClientError),
    #[error(
        "the last commit did not succeed ({0}); everything read is stored, and the next start will recognise it"
    )]
    LastCommit(String),
    #[error("an inner task failed: {0}")]
    Task(#[from] JoinError),
}

/// What the sink is to do.
pub struct Settings {
    pub rules: Rules,
    pub once: bool,
    pub memory_budget: usize,
    pub max_in_flight: usize,
}

/// What runs beside the loop, and what it brings back.
enum Done {
    Uploaded {
        tp: TopicPartition,
        term: u64,
        id: u64,
        outcome: Result<Outcome, StoreError>,
    },
    Listed {
        tp: TopicPartition,
        term: u64,
        found: Result<Vec<Found>, StoreError>,
    },
    /// Its partition was taken away meanwhile.
    Cancelled { upload: bool },
}

/// A partition of this member.
struct Owned {
    /// Tells assignments apart: late reports of an earlier one are not for this.
    term: u64,
    topic_id: Arc<str>,
    state: State,
    /// Dropping it ends what runs for this partition.
    alive: watch::Sender<()>,
}

enum State {
    /// Not known yet where to begin.
    New,
    Listing(assign::Offsets),
    Reading(Box<Part>),
}

/// The sink.
pub struct Sink {
    consumer: GroupConsumer,
    client: Client,
    uploader: Arc<Uploader>,
    settings: Settings,
    owned: HashMap<TopicPartition, Owned>,
    tasks: JoinSet<Done>,
    flying: usize,
    terms: u64,
    /// Ends seen first, with `--once`.
    targets: HashMap<TopicPartition, i64>,
    assigned_once: bool,
    paused: bool,
    stopping: Option<Instant>,
    ask_at: Instant,
    commit_at: Instant,
    last_refusal: Option<ClientError>,
    totals: Totals,
    report: Report,
}

impl Sink {
    pub fn new(
        consumer: GroupConsumer,
        client: Client,
        uploader: Arc<Uploader>,
        settings: Settings,
        report: Report,
    ) -> Self {
        let now = Instant::now();
        Sink {
            consumer,
            client,
            uploader,
            settings,
            owned: HashMap::new(),
            tasks: JoinSet::new(),
            flying: 0,
            terms: 0,
            targets: HashMap::new(),
            assigned_once: false,
            paused: false,
            stopping: None,
            ask_at: now,
            commit_at: now,
            last_refusal: None,
            totals: Totals::default(),
            report,
        }
    }

    /// Stores until told to stop, until the end with `--once`, or until somebody has to do something.
    /// Says the last words in any case.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), SinkError> {
        let mut result = self.work(&mut stop).await;
        if result.is_err() {
            // What is stored may still be committed; if not, the next start recognises it.
            let _ = tokio::time::timeout(LEAVE, self.commit(true)).await;
        }
        let (totals, lag) = (self.totals, self.lag());
        let left = tokio::time::timeout(LEAVE, self.consumer.close()).await;
        if let (Ok(()), Ok(Err(e))) = (&result, left) {
            self.uploader
                .notices
                .tell("leave", &format!("could not leave the group properly: {e}"));
        }
        self.tasks.abort_all();
        let store = &self.uploader.store;
        let look = store.how_to_look(self.uploader.format);
        self.report
            .finish(totals, lag, &store.location(), &look, Instant::now());
        if result.is_ok()
            && self.settings.once
            && totals == Totals::default()
            && self.targets.is_empty()
        {
            result = Err(SinkError::Broker(ClientError::Invalid(
                "no partition of the topic was assigned to this member: the topic does not exist, or other members of \
                 the group have all of its partitions (see --group)"
                    .into(),
            )));
        }
        result
    }

    async fn work(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), SinkError> {
        loop {
            let now = Instant::now();
            self.prepare_new(now).await?;
            self.reading().for_each(|part| part.tick(now));
            if self.stopping.is_none() && (*stop.borrow() || self.is_all_read()) {
                self.begin_stop(now);
            }
            self.balance_memory();
            self.start_uploads();
            self.commit(false).await?;
            if self.is_finished()? {
                return Ok(());
            }
            let (totals, lag) = (self.totals, self.lag());
            self.report.tick(totals, lag, now);
            let wait = self.wait(totals, lag);
            tokio::select! {
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.on_done(done?)?,
                event = self.consumer.poll(wait) => {
                    if let Some(event) = event? {
                        self.on_event(event).await?;
                    }
                }
                // An error means that nobody can ask for a stop any more.
                _ = stop.changed(), if self.stopping.is_none() && !*stop.borrow() => {}
            }
        }
    }

    fn reading(&mut self) -> impl Iterator<Item = &mut Part> {
        self.owned.values_mut().filter_map(|o| match &mut o.state {
            State::Reading(part) => Some(part.as_mut()),
            _ => None,
        })
    }

    /// How long there is nothing to do unless something comes.
    fn wait(&self, totals: Totals, lag: Option<i64>) -> Duration {
        let parts = self.owned.values().filter_map(|o| match &o.state {
            State::Reading(part) => Some(part),
            _ => None,
        });
        let commit = parts
            .clone()
            .any(|p| p.commit_due().is_some())
            .then_some(self.commit_at);
        let ask = self
            .owned
            .values()
            .any(|o| matches!(o.state, State::New))
            .then_some(self.ask_at);
        let first = parts
            .filter_map(|p| p.deadline())
            .chain(commit)
            .chain(ask)
            .chain(self.report.deadline(totals, lag))
            .min();
        let wait = first.map_or(LONGEST_WAIT, |at| {
            at.saturating_duration_since(Instant::now())
        });
        wait.clamp(Duration::from_millis(1), LONGEST_WAIT)
    }

    async fn on_event(&mut self, event: Event) -> Result<(), SinkError> {
        match event {
            Event::Assigned(tps) => self.on_assigned(tps),
            Event::Revoked(tps) => self.give_back(&tps).await?,
            Event::Lost(tps) => {
                tps.iter().for_each(|tp| drop(self.owned.remove(tp)));
            }
            Event::Records {
                tp,
                records,
                high_watermark,
                next_offset,
            } => {
                if let (
                    None,
                    Some(Owned {
                        state: State::Reading(part),
                        ..
                    }),
                ) = (self.stopping, self.owned.get_mut(&tp))
                {
                    self.totals.skipped_existing +=
                        part.accept(records, high_watermark, next_offset, Instant::now());
                    if part.is_read() {
                        self.consumer.pause(&tp);
                    }
                }
            }
            Event::Error(error) => {
                self.uploader
                    .notices
                    .tell("broker", &format!("broker: {error}"));
                if let ClientError::OffsetOutOfRange {
                    topic, partition, ..
                } = error
                {
                    // Where to go on is decided by what is in the store as well.
                    self.start_over(&TopicPartition::new(topic, partition));
                }
            }
        }
        Ok(())
    }

    fn on_done(&mut self, done: Done) -> Result<(), SinkError> {
        match done {
            Done::Cancelled { upload } => self.flying -= usize::from(upload),
            Done::Listed { tp, term, found } => {
                let found = found?;
                if self.owned.get(&tp).is_some_and(|o| o.term == term) {
                    self.begin_reading(&tp, found)?;
                }
            }
            Done::Uploaded {
                tp,
                term,
                id,
                outcome,
            } => {
                self.flying -= 1;
                let outcome = outcome?;
                self.totals.records_stored += outcome.records;
                self.totals.objects_written += outcome.objects;
                self.totals.bytes_written += outcome.bytes;
                self.totals.skipped_existing += outcome.skipped;
                if let Some(Owned {
                    term: now,
                    state: State::Reading(part),
                    ..
                }) = self.owned.get_mut(&tp)
                    && *now == term
                {
                    part.finish(id, outcome.covered_to);
                }
            }
        }
        Ok(())
    }

    fn start_uploads(&mut self) {
        for (tp, owned) in &mut self.owned {
            let State::Reading(part) = &mut owned.state else {
                continue;
            };
            while self.flying < self.settings.max_in_flight
                && let Some(start) = part.start(&mut self.totals.skipped_existing)
            {
                self.flying += 1;
                let place = Place {
                    topic: Arc::clone(&tp.topic),
                    partition: tp.partition,
                };
                let work = Arc::clone(&self.uploader).store(
                    place,
                    Arc::clone(&owned.topic_id),
                    start.batch,
                );
                let (tp, term, id) = (tp.clone(), owned.term, start.id);
                let mut alive = owned.alive.subscribe();
                self.tasks.spawn(async move {
                    tokio::select! {
                        outcome = work => Done::Uploaded { tp, term, id, outcome },
                        _ = alive.changed() => Done::Cancelled { upload: true },
                    }
                });
            }
        }
    }

    /// Pauses reading while too much waits to be stored.
    fn balance_memory(&mut self) {
        let (mut open, mut queued) = (0, 0);
        for part in self.reading() {
            open += part.open_bytes();
            queued += part.queued_bytes();
        }
        // What is being stored is there twice: as records and encoded.
        let used = open + 2 * queued;
        let budget = self.settings.memory_budget;
        if used > budget && queued == 0 {
            // Many partitions, each with a little: storing the largest is the way out.
            if let Some(part) = self.reading().max_by_key(|p| p.open_bytes()) {
                part.cut();
            }
        }
        let paused = if self.paused {
            used > budget / 2
        } else {
            used > budget
        };
        if paused != self.paused {
            self.paused = paused;
            self.apply_pauses();
        }
    }

    fn apply_pauses(&mut self) {
        for (tp, owned) in &self.owned {
            match &owned.state {
                State::Reading(part)
                    if !self.paused && self.stopping.is_none() && !part.is_read() =>
                {
                    self.consumer.resume(tp);
                }
                _ => self.consumer.pause(tp),
            }
        }
    }

    /// Commits what is stored, if it is time to.
    async fn commit(&mut self, now_or_never: bool) -> Result<(), SinkError> {
        let now = Instant::now();
        if !now_or_never && now < self.commit_at {
            return Ok(());
        }
        let due: Vec<_> = self
            .owned
            .iter()
            .filter_map(|(tp, owned)| match &owned.state {
                State::Reading(part) => Some((tp.clone(), CommitOffset::at(part.commit_due()?))),
                _ => None,
            })
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.commit_at = now + COMMIT_PAUSE;
        match self.consumer.commit(&due).await {
            Ok(()) => {
                self.last_refusal = None;
                for (tp, offset) in due {
                    if let Some(Owned {
                        state: State::Reading(part),
                        ..
                    }) = self.owned.get_mut(&tp)
                    {
                        part.committed(offset.offset);
                    }
                }
                Ok(())
            }
            Err(fenced @ ClientError::Fenced { .. }) => Err(fenced.into()),
            Err(error) => {
                // During a rebalance the next poll tells what to do; else it is tried again.
                let rebalance = matches!(
                    error,
                    ClientError::RebalanceInProgress
                        | ClientError::IllegalGeneration
                        | ClientError::UnknownMember
                );
                if !rebalance && !error.is_retriable() {
                    return Err(error.into());
                }
                if !rebalance {
                    self.uploader.notices.tell(
                        "commit",
                        &format!("committing offsets: {error}; tried again"),
                    );
                }
                self.commit_at = Instant::now() + ASK_AGAIN;
                self.last_refusal = Some(error);
                Ok(())
            }
        }
    }

    /// Before partitions go to another member: lets objects on their way arrive, commits, forgets the
    /// rest (the new owner reads it again).
    async fn give_back(&mut self, tps: &[TopicPartition]) -> Result<(), SinkError> {
        let deadline = tokio::time::Instant::now() + GIVE_BACK;
        let mut given: Vec<&TopicPartition> = Vec::new();
        for tp in tps {
            match self.owned.get_mut(tp) {
                Some(Owned {
                    state: State::Reading(part),
                    ..
                }) => {
                    part.drop_unstarted();
                    given.push(tp);
                }
                _ => drop(self.owned.remove(tp)),
            }
        }
        while given.iter().any(|tp| self.is_flying(tp)) {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(done)) => self.on_done(done?)?,
                // Too slow, or nothing left: whoever comes next adopts what still arrives.
                Ok(None) | Err(_) => break,
            }
        }
        self.commit(true).await?;
        tps.iter().for_each(|tp| drop(self.owned.remove(tp)));
        Ok(())
    }

    fn is_flying(&self, tp: &TopicPartition) -> bool {
        matches!(self.owned.get(tp), Some(Owned { state: State::Reading(part), .. }) if part.flying() > 0)
    }

    /// With `--once`: whether everything there was at the start was read.
    fn is_all_read(&mut self) -> bool {
        if !self.settings.once || !self.assigned_once {
            return false;
        }
        let positions = self.consumer.positions();
        self.owned
            .iter_mut()
            .all(|(tp, owned)| match &mut owned.state {
                State::Reading(part) => {
                    // Offsets without records (transaction markers) come without an event, so the
                    // client's position counts too.
                    if let Some(&position) = positions.get(tp) {
                        part.advance(position);
                    }
                    part.is_read()
                }
                _ => false,
            })
    }

    fn begin_stop(&mut self, now: Instant) {
        self.stopping = Some(now);
        self.reading().for_each(Part::cut);
        self.apply_pauses();
    }

    fn is_finished(&mut self) -> Result<bool, SinkError> {
        if self.stopping.is_none() || !self.reading().all(|p| p.is_idle()) {
            return Ok(false);
        }
        if self.reading().all(|p| p.commit_due().is_none()) {
            return Ok(true);
        }
        match &self.last_refusal {
            Some(error) if self.stopping.is_some_and(|at| at.elapsed() > LAST_COMMIT) => {
                Err(SinkError::LastCommit(error.to_string()))
            }
            _ => {
                if self.last_refusal.is_none() {
                    self.commit_at = Instant::now();
                }
                Ok(false)
            }
        }
    }

    /// How many records of the partitions read here are not stored, once that is known.
    fn lag(&self) -> Option<i64> {
        if !self.assigned_once {
            return None;
        }
        self.owned
            .values()
            .try_fold(0i64, |sum, owned| match &owned.state {
                State::Reading(part) => Some(sum.saturating_add(part.lag())),
                _ => None,
            })
    }
}
