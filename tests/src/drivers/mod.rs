//! The client libraries the suite runs with, and a pool of their drivers: a driver process serves many tests.

mod external;
mod own;
mod rdkafka;
mod seen;

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use crate::driver::Driver;
use crate::server::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    Rdkafka,
    Confluent,
    KafkaPython2,
    KafkaPython3,
    Java39,
    Java41,
    /// The small client of this workspace that producer, consumer and the command line tools are built on.
    Own,
}

impl Library {
    pub const ALL: [Library; 7] = [
        Library::Rdkafka,
        Library::Confluent,
        Library::KafkaPython2,
        Library::KafkaPython3,
        Library::Java39,
        Library::Java41,
        Library::Own,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Library::Rdkafka => "rdkafka",
            Library::Confluent => "confluent",
            Library::KafkaPython2 => "kafka-python-2",
            Library::KafkaPython3 => "kafka-python-3",
            Library::Java39 => "java-3.9",
            Library::Java41 => "java-4.1",
            Library::Own => "own",
        }
    }

    pub fn idempotent(self) -> bool {
        self != Library::KafkaPython2
    }

    /// Whether it can send a header without a value.
    pub fn null_headers(self) -> bool {
        !matches!(self, Library::KafkaPython2 | Library::KafkaPython3)
    }

    pub fn cooperative(self) -> bool {
        !matches!(
            self,
            Library::KafkaPython2 | Library::KafkaPython3 | Library::Own
        )
    }

    pub fn static_members(self) -> bool {
        self != Library::KafkaPython2
    }

    fn start(self) -> Box<dyn Driver> {
        match self {
            Library::Rdkafka => Box::new(rdkafka::Rdkafka::default()),
            Library::Confluent => Box::new(external::python("confluent", "confluent")),
            Library::KafkaPython2 => Box::new(external::python("kafka-python-2", "kafka-python")),
            Library::KafkaPython3 => Box::new(external::python("kafka-python-3", "kafka-python")),
            Library::Java39 => Box::new(external::java("3.9")),
            Library::Java41 => Box::new(external::java("4.1")),
            Library::Own => Box::new(own::Own::new()),
        }
    }

    /// A driver of this library, connected to `server`: an idle one, or a new one.
    pub fn driver(self, server: &Server) -> Lease {
        self.driver_at(&server.bootstrap())
    }

    pub fn driver_at(self, bootstrap: &str) -> Lease {
        let idle = {
            let mut pool = POOL
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let found = pool.iter().position(|(library, _)| *library == self);
            found.map(|i| pool.swap_remove(i).1)
        };
        let mut driver = idle.unwrap_or_else(|| self.start());
        driver
            .connect(bootstrap)
            .expect("connect only notes the address");
        Lease {
            library: self,
            driver: Some(driver),
        }
    }
}

static POOL: Mutex<Vec<(Library, Box<dyn Driver>)>> = Mutex::new(Vec::new());

/// A driver on loan from the pool.
pub struct Lease {
    library: Library,
    driver: Option<Box<dyn Driver>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // After a failure its members may still be in a group: let it go with them.
        if let (Some(driver), false) = (self.driver.take(), std::thread::panicking()) {
            POOL.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push((self.library, driver));
        }
    }
}

impl Deref for Lease {
    type Target = dyn Driver;

    fn deref(&self) -> &Self::Target {
        self.driver.as_deref().expect("present until dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.driver.as_deref_mut().expect("present until dropped")
    }
}
