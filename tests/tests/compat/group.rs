//! A group under test: members of one or several libraries, and what they hold and have read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tests::driver::{Open, Read, Record};
use tests::drivers::{Lease, Library};
use tests::server::Server;
use tests::wait::PATIENCE;

use crate::support::{THEN_MS, produce, unique};

pub struct Group {
    bootstrap: String,
    pub name: String,
    pub topic: String,
    partitions: i32,
    assignor: &'static str,
    drivers: BTreeMap<Library, Lease>,
    pub members: BTreeMap<String, Seat>,
    /// All that was ever read, by members that left too.
    pub read: Vec<Read>,
    produced: usize,
}

#[derive(Default)]
pub struct Seat {
    library: Option<Library>,
    version: u64,
    pub assignment: BTreeSet<i32>,
    pub assigned: u64,
    pub revoked: u64,
    pub lost: u64,
}

impl Group {
    pub fn new(server: &Server, topic: &str, partitions: i32, assignor: &'static str) -> Group {
        Group {
            bootstrap: server.bootstrap(),
            name: unique("group"),
            topic: topic.to_owned(),
            partitions,
            assignor,
            drivers: BTreeMap::new(),
            members: BTreeMap::new(),
            read: Vec::new(),
            produced: 0,
        }
    }

    pub fn join(&mut self, member: &str, library: Library, instance: Option<&str>) {
        let driver = self
            .drivers
            .entry(library)
            .or_insert_with(|| library.driver_at(&self.bootstrap));
        let request = Open {
            member: member.to_owned(),
            group: self.name.clone(),
            topics: vec![self.topic.clone()],
            assignor: self.assignor,
            instance: instance.map(str::to_owned),
        };
        driver.open(&request).unwrap();
        self.members.insert(
            member.to_owned(),
            Seat {
                library: Some(library),
                ..Seat::default()
            },
        );
    }

    pub fn leave(&mut self, member: &str) {
        self.look(member, 0);
        let seat = self.members.remove(member).unwrap();
        let driver = self.drivers.get_mut(&seat.library.unwrap()).unwrap();
        driver.close(member).unwrap();
    }

    pub fn commit(&mut self, member: &str, metadata: &str) {
        let library = self.members[member].library.unwrap();
        self.drivers
            .get_mut(&library)
            .unwrap()
            .commit(member, metadata)
            .unwrap();
    }

    /// Takes in what happened to a member.
    fn look(&mut self, member: &str, wait_ms: u64) {
        let seat = self.members.get_mut(member).unwrap();
        let driver = self.drivers.get_mut(&seat.library.unwrap()).unwrap();
        let state = driver.state(member, seat.version, wait_ms).unwrap();
        assert_eq!(state.failure, None, "{member}");
        seat.version = state.version;
        seat.assignment = state.assignment.iter().map(|(_, p)| *p).collect();
        (seat.assigned, seat.revoked, seat.lost) = (state.assigned, state.revoked, state.lost);
        self.read.extend(state.records);
    }

    /// Watches the members until `condition` holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, condition: impl Fn(&Group) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for member in self.members.keys().cloned().collect::<Vec<_>>() {
                self.look(&member, 20);
            }
            if condition(self) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {}",
                self.describe()
            );
        }
    }

    fn describe(&self) -> String {
        let seats: Vec<String> = self
            .members
            .iter()
            .map(|(m, s)| format!("{m} {:?}", s.assignment))
            .collect();
        format!(
            "{} of {} records read; {}",
            self.read.len(),
            self.produced,
            seats.join(", ")
        )
    }

    /// Every partition has one owner, and nobody holds two more than another.
    #[track_caller]
    pub fn until_balanced(&mut self) {
        self.until("a balanced assignment", Group::balanced);
    }

    fn balanced(&self) -> bool {
        let all: Vec<i32> = self
            .members
            .values()
            .flat_map(|s| s.assignment.iter().copied())
            .collect();
        let distinct: BTreeSet<i32> = all.iter().copied().collect();
        let sizes = || self.members.values().map(|s| s.assignment.len());
        let even = sizes().max().unwrap_or(0) - sizes().min().unwrap_or(0) <= 1;
        all.len() == self.partitions as usize && distinct.len() == all.len() && even
    }

    /// Writes `count` numbered records over all partitions.
    pub fn produce(&mut self, count: usize) {
        let numbered = self.produced..self.produced + count;
        let partition = |i: usize| (i % self.partitions as usize) as i32;
        let records = numbered
            .map(|i| Record::new(partition(i), THEN_MS, "k", &i.to_string()))
            .collect();
        Library::Rdkafka
            .driver_at(&self.bootstrap)
            .produce(&produce(&self.topic, records))
            .unwrap();
        self.produced += count;
    }

    /// Everything produced was read, each record once.
    #[track_caller]
    pub fn until_all_read_once(&mut self) {
        self.until("all records", |g| g.distinct().len() >= g.produced);
        let mut places: Vec<(i32, i64)> =
            self.read.iter().map(|r| (r.partition, r.offset)).collect();
        places.sort_unstable();
        let twice: Vec<_> = places
            .windows(2)
            .filter(|w| w[0] == w[1])
            .map(|w| w[0])
            .collect();
        assert!(
            twice.is_empty(),
            "read twice (partition, offset): {twice:?}; {}",
            self.describe()
        );
    }

    fn distinct(&self) -> BTreeSet<(i32, i64)> {
        self.read.iter().map(|r| (r.partition, r.offset)).collect()
    }

    pub fn committed(&mut self, library: Library) -> Vec<(Option<i64>, String)> {
        let (name, topic, partitions) = (
            &self.name,
            &self.topic,
            (0..self.partitions).collect::<Vec<_>>(),
        );
        let driver = self
            .drivers
            .entry(library)
            .or_insert_with(|| library.driver_at(&self.bootstrap));
        let found = driver.committed(name, topic, &partitions).unwrap();
        found.into_iter().map(|c| (c.offset, c.metadata)).collect()
    }
}
