//! The terminal: a screen that is redrawn, and keys.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Read as _},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use terminal_size::terminal_size_of;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{self, Receiver},
    time::sleep,
};

use crate::stdio;

/// The alternate screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2Jmeasuring ...";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The screen. The terminal is restored when it is dropped.
pub(super) struct Screen {
    /// What the terminal was, if keys are read from it.
    before: Option<Termios>,
    /// Receives one message when the user wants to quit.
    quit: Receiver<()>,
}

impl Screen {
    /// Nothing if standard output is no terminal.
    pub(super) fn open() -> Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let (send, quit) = mpsc::channel(1);
        let before = io::stdin()
            .is_terminal()
            .then(read_single_keys)
            .transpose()?;
        match &before {
            Some(_) => drop(thread::spawn(move || wait_for_q(&send))),
            // The channel stays open.
            None => drop(thread::spawn(move || {
                let _sender = send;
                thread::park();
            })),
        }
        let screen = Self { before, quit };
        stdio::print(ENTER)?;
        Ok(Some(screen))
    }

    /// What replaces the screen by `lines`. Each line is overwritten in place, so that nothing flickers.
    pub(super) fn drawn(&self, lines: &[String]) -> String {
        let (columns, rows) = terminal_size_of(io::stdout()).map_or((80, 24), |(columns, rows)| {
            (usize::from(columns.0), usize::from(rows.0))
        });
        let mut text = "\x1b[H".to_owned();
        let last = rows.saturating_sub(1);
        for line in lines.iter().take(last) {
            let line: String = line.chars().take(columns).collect();
            let _written = write!(text, "{line}\x1b[K\r\n");
        }
        let hidden = lines.len().saturating_sub(last);
        let more = match hidden {
            0 => String::new(),
            hidden => format!("{hidden} more; "),
        };
        let keys = if self.before.is_some() { "q or " } else { "" };
        text + &more + keys + "Ctrl-C quits\x1b[K\x1b[J"
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _unwritten = stdio::print(LEAVE);
        if let Some(before) = &self.before {
            let _failed = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Delivers keys without Enter, and does not show them. Returns the earlier state.
fn read_single_keys() -> Result<Termios> {
    let before = tcgetattr(io::stdin()).context("cannot read the state of the terminal")?;
    let mut single = before.clone();
    single.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
    tcsetattr(io::stdin(), SetArg::TCSANOW, &single)
        .context("cannot set the state of the terminal")?;
    Ok(before)
}

/// Returns at `q`, or at the end of the input. Otherwise it ends with the process.
fn wait_for_q(quit: &mpsc::Sender<()>) {
    let keys = io::stdin().lock().bytes();
    let _first = keys.map_while(Result::ok).find(|key| *key == b'q');
    let _received = quit.try_send(());
}

/// What ends the command.
pub(super) struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    pub(super) fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next update. False if the user ends the command before.
    pub(super) async fn wait(&mut self, interval: Duration, screen: Option<&mut Screen>) -> bool {
        let quit = async {
            match screen {
                Some(screen) => drop(screen.quit.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(interval) => true,
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => false,
            () = quit => false,
        }
    }
}
