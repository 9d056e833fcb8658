//! One run of the demo, from the start of the broker to its end.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::child::{Heard, Name, Program, arguments, find};
use super::probe::{Offsets, Probe, cluster_of, distance, sum};
use super::view::{Numbers, Screen, byte_size, counted};
use super::{DemoArgs, DemoError, Format, GROUP, TOPIC, lake};

/// Kafka's port.
const PORT: u16 = 9092;
/// How long the broker may take to answer: after a crash it has a log's tail to check.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a program may take to end in good order.
const END_WITHIN: Duration = Duration::from_secs(60);
/// The same when something has failed and there is nothing left to wait for.
const FAIL_WITHIN: Duration = Duration::from_secs(5);
/// How long storing may stand still while records wait.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often programs are looked after and the view is drawn.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProducerStatus {
    records_acked: u64,
    records_failed: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConsumerStatus {
    records_stored: u64,
    objects_written: u64,
    bytes_written: u64,
    /// Found in the lake, from a run that could not commit any more.
    skipped_existing: u64,
}

/// Runs the demo.
pub async fn demo(args: DemoArgs) -> Result<(), DemoError> {
    let programs = [find("producer")?, find("consumer")?];
    let mut screen = Screen::new(Instant::now());
    let address = format!("127.0.0.1:{}", choose_port(&mut screen)?);
    let mut signals = Signals::new()?;
    let (heard, hearing) = mpsc::channel(256);
    let broker = Program::start(
        Name::Broker,
        &std::env::current_exe()?,
        &broker_arguments(&args, &address),
        &heard,
    )?;
    let mut stage = Stage {
        programs: vec![broker],
        hearing,
        screen,
        tick: ticker(),
        numbers: Numbers::default(),
        producer: ProducerStatus::default(),
        consumer: ConsumerStatus::default(),
        nobody_looks: false,
        forward: false,
    };
    let played = stage.play(&args, &address, &programs, &heard, &mut signals);
    let result = played.await;
    let closed = stage.close(result.is_ok(), &mut signals).await;
    let stored = result?;
    closed?;
    stage.farewell(&args, &stored);
    Ok(())
}

/// Kafka's port, or any that is free.
fn choose_port(screen: &mut Screen) -> Result<u16, DemoError> {
    if TcpListener::bind(("127.0.0.1", PORT)).is_ok() {
        return Ok(PORT);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(DemoError::NoPort)?;
    let port = listener.local_addr().map_err(DemoError::NoPort)?.port();
    let _ = screen.say(&format!(
        "Port {PORT} is taken by another program: this demo's broker listens on port {port}."
    ));
    Ok(port)
}

fn broker_arguments(args: &DemoArgs, address: &str) -> Vec<OsString> {
    arguments([
        &"--listen",
        &address,
        &"--data-dir",
        &args.data_dir,
        &"--log-level",
        &"warn",
        // The group has one member: there is nobody to wait for.
        &"--override",
        &"group.initial.rebalance.delay.ms=0",
    ])
}

fn producer_arguments(args: &DemoArgs, address: &str, start_row: i64) -> Vec<OsString> {
    let start_row = start_row.to_string();
    let mut all = arguments([
        &"--bootstrap-server",
        &address,
        &"--topic",
        &TOPIC,
        &"--loop",
        &"--start-row",
        &start_row,
        &"--rate",
        &args.rate,
        &"--quiet",
        &"--status",
        &"json",
    ]);
    if let Some(count) = args.count {
        all.extend(arguments([&"--count", &count.to_string()]));
    }
    all
}

fn consumer_arguments(args: &DemoArgs, address: &str) -> Vec<OsString> {
    let mut all = arguments([
        &"--bootstrap-server",
        &address,
        &"--topic",
        &TOPIC,
        &"--group",
        &GROUP,
        // A static member: after a crash it has its partitions back at once.
        &"--instance-id",
        &"demo",
        &"--to",
        &args.lake,
        &"--format",
        &args.format.name(),
        &"--rotate-interval",
        &"1s",
        &"--status",
        &"json",
    ]);
    if let Some(url) = &args.endpoint_url {
        all.extend(arguments([&"--endpoint-url", url]));
    }
    all
}

/// The consumer's advice names its own flag, which has another name here.
fn in_our_words(line: &str) -> String {
    line.replace("(--to)", "(--lake)")
        .replace("correct --to", "correct --lake")
}

fn ticker() -> Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Everything that asks the demo to end.
struct Signals {
    all: [Signal; 3],
}

impl Signals {
    fn new() -> Result<Signals, DemoError> {
        Ok(Signals {
            all: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// How the run went.
struct Run {
    stopped: bool,
    produced_well: bool,
    stored_well: bool,
    /// Where storing began.
    committed: Offsets,
    /// Where the topic ends.
    ends: Offsets,
}

/// What was stored in this run.
struct Stored {
    records: u64,
    total: i64,
    /// Each record was found in the lake, not only told of.
    counted: bool,
}

/// The programs and what is known of them.
struct Stage {
    programs: Vec<Program>,
    hearing: mpsc::Receiver<Heard>,
    screen: Screen,
    tick: Interval,
    numbers: Numbers,
    producer: ProducerStatus,
    consumer: ConsumerStatus,
    /// Standard output is closed: as good as Ctrl-C.
    nobody_looks: bool,
    /// Whether what the programs say on standard error is shown.
    forward: bool,
}

impl Stage {
    async fn play(
        &mut self,
        args: &DemoArgs,
        address: &str,
        [producer, consumer]: &[PathBuf; 2],
        heard: &mpsc::Sender<Heard>,
        signals: &mut Signals,
    ) -> Result<Stored, DemoError> {
        let probe = self.ready(address, &args.data_dir, signals).await?;
        self.forward = true;
        let (begin, committed) = (probe.ends().await?, probe.committed().await?);
        self.numbers.backlog = u64::try_from(distance(&committed, &begin)).unwrap_or(0);
        self.welcome(args, address, &begin);
        self.start(
            Name::Consumer,
            consumer,
            consumer_arguments(args, address),
            heard,
        )?;
        let row = sum(&begin);
        self.start(
            Name::Producer,
            producer,
            producer_arguments(args, address, row),
            heard,
        )?;

        let stopped = self.stream(signals).await?;
        let produced_well = self.end(Name::Producer, END_WITHIN, signals).await?;
        let ends = self.drain(&probe, signals).await?;
        self.forward = false;
        let stored_well = self.end(Name::Consumer, END_WITHIN, signals).await?;

        let run = Run {
            stopped,
            produced_well,
            stored_well,
            committed,
            ends,
        };
        self.judge(args, &run)
    }

    /// Whether everything that was to be stored is.
    fn judge(&mut self, args: &DemoArgs, run: &Run) -> Result<Stored, DemoError> {
        let mut problems = Vec::new();
        let produced = &self.producer;
        if !run.produced_well {
            let failed = produced.records_failed;
            problems.push(format!(
                "the producer failed, {failed} records were not acknowledged"
            ));
        }
        if let Some(count) = args.count.filter(|count| *count != produced.records_acked) {
            let acked = produced.records_acked;
            let why = if run.stopped { ", stopped early" } else { "" };
            problems.push(format!("{acked} of {count} records were produced{why}"));
        }
        if !run.stored_well {
            let words = self.last_words(Name::Consumer);
            problems.push(format!("the consumer failed{words}"));
        }
        let folder = lake::folder(&args.lake);
        let counted = folder.is_some() && args.format != Format::Parquet;
        if let Some(folder) = folder {
            problems.extend(lake::check(folder, &run.committed, &run.ends).err());
        }
        // Counting beats telling: the consumer may rightly tell of fewer than there are, since that
        // of a demo killed just now may have stored some in its last moments.
        let wanted = u64::try_from(distance(&run.committed, &run.ends)).unwrap_or(0);
        let told = self.consumer.records_stored + self.consumer.skipped_existing;
        if !counted && told < wanted {
            problems.push(format!("the consumer stored {told} records of {wanted}"));
        }
        if !problems.is_empty() {
            return Err(DemoError::NotStored(problems.join("; ")));
        }
        Ok(Stored {
            records: wanted,
            total: sum(&run.ends),
            counted,
        })
    }

    fn welcome(&mut self, args: &DemoArgs, address: &str, begin: &Offsets) {
        let rate = if args.rate == "max" {
            "as fast as it goes".into()
        } else {
            format!("{} a second", args.rate)
        };
        let mut text = format!(
            "producer ({rate}) → broker {address}, topic {TOPIC} → consumer → {} ({})\n",
            args.lake,
            args.format.name()
        );
        let carried = sum(begin);
        if carried > 0 {
            text += &format!(
                "Carrying on at record {carried}: {} holds the earlier ones",
                args.data_dir.display()
            );
            if self.numbers.backlog > 0 {
                text += &format!(", {} of them not stored yet", self.numbers.backlog);
            }
            text += ".\n";
        }
        text += match args.count {
            Some(_) => "Ends by itself; Ctrl-C ends it earlier.",
            None => "Ctrl-C ends it, with everything stored.",
        };
        self.tell(&text);
    }

    fn farewell(&mut self, args: &DemoArgs, stored: &Stored) {
        self.screen.settle();
        let numbers = &self.numbers;
        let mut text = format!(
            "Stored {} in {} ({}) in {}{}; {} in all.",
            counted(stored.records, "record", "records"),
            counted(numbers.objects, "object", "objects"),
            byte_size(numbers.bytes),
            args.lake,
            if stored.counted {
                ", each one counted there"
            } else {
                ""
            },
            counted(
                u64::try_from(stored.total).unwrap_or(0),
                "record",
                "records"
            ),
        );
        if stored.total > 0 {
            text += "\nLook at it:";
            for line in lake::advice(args) {
                text += &format!("\n  {line}");
            }
        }
        text += &format!(
            "\nThe broker's log is in {}. The same command carries on from here.",
            args.data_dir.display()
        );
        self.tell(&text);
    }

    fn tell(&mut self, text: &str) {
        self.nobody_looks |= self.screen.say(text).is_err();
    }

    fn start(
        &mut self,
        name: Name,
        path: &Path,
        arguments: Vec<OsString>,
        heard: &mpsc::Sender<Heard>,
    ) -> Result<(), DemoError> {
        self.programs
            .push(Program::start(name, path, &arguments, heard)?);
        Ok(())
    }

    fn program(&mut self, name: Name) -> Option<&mut Program> {
        self.programs
            .iter_mut()
            .find(|program| program.name == name)
    }

    fn last_words(&mut self, name: Name) -> String {
        self.program(name)
            .map_or_else(String::new, |program| program.last_words())
    }

    /// Waits until the broker answers.
    async fn ready(
        &mut self,
        address: &str,
        data_dir: &Path,
        signals: &mut Signals,
    ) -> Result<Probe, DemoError> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let connected = tokio::net::TcpStream::connect(address).await.is_ok();
            // First: what answers may be somebody else's broker that got the port before ours.
            self.alive(&[Name::Broker])?;
            if connected && let Some(ours) = cluster_of(data_dir) {
                return match Probe::connect(address, &ours).await? {
                    Some(probe) => Ok(probe),
                    None => Err(DemoError::Stranger(address.to_string())),
                };
            }
            if Instant::now() > deadline {
                return Err(DemoError::NotReady {
                    address: address.to_string(),
                    seconds: READY_WITHIN.as_secs(),
                    said: self.last_words(Name::Broker),
                });
            }
            if self.pass_time(None, signals).await {
                return Err(DemoError::GivenUp);
            }
        }
    }

    /// Lets things happen until the next tick, and shows them. True if the demo is to stop.
    async fn pass_time(&mut self, doing: Option<&str>, signals: &mut Signals) -> bool {
        loop {
            tokio::select! {
                biased;
                () = signals.next() => return true,
                _ = self.tick.tick() => break,
                Some(heard) = self.hearing.recv() => self.hear(heard),
            }
        }
        if let Some(doing) = doing {
            self.nobody_looks |= self
                .screen
                .show(&self.numbers, doing, Instant::now())
                .is_err();
        }
        false
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Status(Name::Producer, line) => {
                if let Ok(status) = serde_json::from_str(&line) {
                    self.producer = status;
                    self.numbers.acknowledged = self.producer.records_acked;
                }
            }
            Heard::Status(Name::Consumer, line) => {
                if let Ok(status) = serde_json::from_str(&line) {
                    self.consumer = status;
                    let consumer = &self.consumer;
                    self.numbers.stored = consumer.records_stored + consumer.skipped_existing;
                    self.numbers.objects = consumer.objects_written;
                    self.numbers.bytes = consumer.bytes_written;
                }
            }
            Heard::Status(Name::Broker, _) => {}
            Heard::Said(name, line) => {
                if self.forward {
                    let line = in_our_words(&line);
                    self.tell(&format!("{}: {line}", name.text()));
                } else if let Some(program) = self.program(name) {
                    // To explain a failure, if it comes to that.
                    program.said(line);
                }
            }
            Heard::Closed(name) => {
                if let Some(program) = self.program(name) {
                    program.pipe_closed();
                }
            }
        }
    }

    /// An error if one of these has ended.
    fn alive(&mut self, names: &[Name]) -> Result<(), DemoError> {
        for &name in names {
            let Some(program) = self.program(name) else {
                continue;
            };
            if let Some(status) = program.ended() {
                return Err(DemoError::Died {
                    name: name.text(),
                    status: status.to_string(),
                    said: program.last_words(),
                });
            }
        }
        Ok(())
    }

    /// Until the producer has ended by itself or somebody wants to stop; true for the latter.
    async fn stream(&mut self, signals: &mut Signals) -> Result<bool, DemoError> {
        loop {
            if self.pass_time(Some("streaming"), signals).await || self.nobody_looks {
                return Ok(true);
            }
            self.alive(&[Name::Broker, Name::Consumer])?;
            if self
                .program(Name::Producer)
                .and_then(Program::ended)
                .is_some()
            {
                return Ok(false);
            }
        }
    }

    /// Ends a program and waits for it; true if it ended well. It is given up at a signal.
    async fn end(
        &mut self,
        name: Name,
        within: Duration,
        signals: &mut Signals,
    ) -> Result<bool, DemoError> {
        if let Some(program) = self.program(name) {
            program.terminate();
        }
        let deadline = Instant::now() + within;
        let doing = format!("ending the {}", name.text());
        loop {
            let ended = self.program(name).map(Program::ended);
            match ended {
                None => return Ok(true),
                Some(Some(status)) => return Ok(ExitStatus::success(&status)),
                Some(None) => {}
            }
            if self.pass_time(Some(&doing), signals).await {
                return Err(DemoError::GivenUp);
            }
            if Instant::now() > deadline
                && let Some(program) = self.program(name)
            {
                program.kill();
                return Err(DemoError::Stuck {
                    name: name.text(),
                    seconds: within.as_secs(),
                    said: program.last_words(),
                });
            }
        }
    }

    /// Waits until the group has committed everything there is; returns where it ends.
    async fn drain(&mut self, probe: &Probe, signals: &mut Signals) -> Result<Offsets, DemoError> {
        let ends = probe.ends().await?;
        let mut last_left = i64::MAX;
        let mut last_progress = Instant::now();
        loop {
            let left = distance(&probe.committed().await?, &ends);
            if left == 0 {
                return Ok(ends);
            }
            self.alive(&[Name::Broker, Name::Consumer])?;
            if left < last_left {
                last_left = left;
                last_progress = Instant::now();
            }
            if last_progress.elapsed() > PATIENCE {
                return Err(DemoError::NothingStored {
                    seconds: PATIENCE.as_secs(),
                    left,
                    said: self.last_words(Name::Consumer),
                });
            }
            if self.pass_time(Some("storing the rest"), signals).await {
                return Err(DemoError::GivenUp);
            }
        }
    }

    /// Ends whatever still runs, the broker last. A signal hurries it.
    async fn close(&mut self, well: bool, signals: &mut Signals) -> Result<(), DemoError> {
        self.forward = false;
        let mut outcome = Ok(());
        for name in [Name::Producer, Name::Consumer, Name::Broker] {
            let within = if well || name == Name::Broker {
                END_WITHIN
            } else {
                FAIL_WITHIN
            };
            match self.end(name, within, signals).await {
                Ok(true) => {}
                // How producer and consumer ended was judged before.
                Ok(false) if name != Name::Broker => {}
                Ok(false) => {
                    let said = self.last_words(name);
                    let problem = format!("the broker did not end cleanly{said}");
                    outcome = outcome.and(Err(DemoError::NotStored(problem)));
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.screen.settle();
        outcome
    }
}
