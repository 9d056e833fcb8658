//! What is shown while it runs: the progress bar, on a terminal only, and words about silence.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::stall::{Change, Stall};
use super::{Console, Tally, grouped, records};

/// A bar over `total` records, or a spinner when the stream has no end; hidden if standard
/// error is no terminal or `quiet`.
pub fn bar(total: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet || !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    let template = match total {
        Some(_) => "{bar:30} {human_pos}/{human_len} · {rate} · {eta} left{msg}",
        None => "{spinner} {human_pos} records · {rate} · {elapsed}{msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("rate", write_rate));
    }
    bar
}

fn write_rate(state: &ProgressState, out: &mut dyn Write) {
    let per_second = state.per_sec();
    let decimals = usize::from(per_second < 100.0);
    let _ = write!(out, "{per_second:.decimals$}/s");
}

/// Keeps the bar at what was acknowledged and says when the broker falls silent, until aborted.
pub async fn follow(bar: ProgressBar, tally: Arc<Tally>, console: Console) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut stall = Stall::new(Instant::now());
    loop {
        tick.tick().await;
        let counts = tally.counts();
        match stall.look(&counts, Instant::now()) {
            Some(Change::Silent) => console.warn(&format!(
                "the broker does not answer; trying on, with {} waiting",
                records(counts.outstanding())
            )),
            Some(Change::Answers(after)) => console.note(&format!(
                "the broker answers again, after {:.0} s",
                after.as_secs_f64()
            )),
            None => {}
        }
        if bar.is_hidden() {
            continue;
        }
        let mut message = String::new();
        if counts.failed > 0 {
            message += &format!(" · {} failed", grouped(counts.failed));
        }
        if counts.malformed > 0 {
            message += &format!(" · {} rows left out", grouped(counts.malformed));
        }
        bar.set_message(message);
        bar.set_position(counts.acked);
        bar.tick();
    }
}
