//! A headless Chromium with one tab, driven by the `DevTools` protocol over a pair of pipes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{cgroup, lab::wait_until, spawn::spawn};

/// Joins the cgroup, then the network namespace. The browser reads commands from descriptor 3 and writes
/// to descriptor 4.
const SCRIPT: &str = r#"
echo $$ > "$1/cgroup.procs" || exit
shift
exec "$@" 3<&0 4>&1 </dev/null >/dev/null
"#;

/// The browser needs no sandbox: it shows pages of the tested agent only. Its sandbox refuses root, and
/// the page serves only root.
const OPTIONS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en-US",
    "--remote-debugging-pipe",
];

/// Time limit of a command.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The browser. Killed when dropped, with the processes of its cgroup.
pub struct Chromium {
    child: Child,
    cgroup: PathBuf,
    commands: ChildStdin,
    messages: Receiver<Value>,
    events: Vec<Value>,
    session: Option<String>,
    last_id: u64,
}

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Whether the user prefers dark colors.
    pub is_dark: bool,
}

impl Chromium {
    /// Starts one with its files in `dir`, in a cgroup and in the network namespace at a path.
    pub fn start(dir: &Path, cgroup: &Path, netns: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(cgroup)
            .arg("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["setpriv", "--pdeathsig=KILL", "chromium"])
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", dir.display()))
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("stderr"))?);
        let mut child = spawn(command)?;
        let commands = child.stdin.take().context("stdin")?;
        let replies = BufReader::new(child.stdout.take().context("stdout")?);
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in replies.split(0).map_while(Result::ok) {
                let parsed = serde_json::from_slice(&message).unwrap_or_default();
                if sender.send(parsed).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            cgroup: cgroup.to_owned(),
            commands,
            messages,
            events: Vec::new(),
            session: None,
            last_id: 0,
        };
        browser.open_tab()?;
        Ok(browser)
    }

    fn open_tab(&mut self) -> Result<()> {
        let tab = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let target = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", &target)?;
        let session = attached["sessionId"].as_str().context("no session")?;
        self.session = Some(session.to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        self.call(
            "Emulation.setFocusEmulationEnabled",
            &json!({"enabled": true}),
        )
        .map(drop)
    }

    /// Calls a method of the protocol.
    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands.write_all(message.to_string().as_bytes())?;
        self.commands.write_all(&[0])?;
        loop {
            let reply = self.messages.recv_timeout(TIMEOUT);
            let mut reply = reply.with_context(|| format!("no reply to {method}"))?;
            if reply["id"] == json!(id) {
                ensure!(reply.get("error").is_none(), "{method}: {reply}");
                return Ok(reply["result"].take());
            }
            self.events.push(reply);
        }
    }

    /// Opens a page, and waits until its scripts have run.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", &json!({"url": url}))?;
        match opened["errorText"].as_str() {
            Some(error) => bail!("{url}: {error}"),
            None => self
                .wait_for("location.href !== 'about:blank' && document.readyState === 'complete'"),
        }
    }

    /// The value of a JavaScript expression.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", &parameters)?;
        let exception = result.get("exceptionDetails");
        ensure!(exception.is_none(), "{expression}: {exception:?}");
        Ok(result["result"]["value"].take())
    }

    /// Waits until an expression is true. The error has the text of the page.
    pub fn wait_for(&mut self, expression: &str) -> Result<()> {
        let waited = wait_until(expression, || Ok(self.evaluate(expression)? == json!(true)));
        waited.with_context(|| match self.evaluate("document.body?.innerText") {
            Ok(text) => text.as_str().unwrap_or_default().to_owned(),
            Err(error) => format!("{error:#}"),
        })
    }

    /// Presses a key, such as `/` or `Escape`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let mut down = json!({"type": "keyDown", "key": key});
        if key.chars().count() == 1 {
            down["text"] = json!(key);
        }
        self.call("Input.dispatchKeyEvent", &down)?;
        let up = json!({"type": "keyUp", "key": key});
        self.call("Input.dispatchKeyEvent", &up).map(drop)
    }

    /// Types text into the focused field.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text}))
            .map(drop)
    }

    /// Shows the page on this screen.
    pub fn set_screen(&mut self, screen: Screen) -> Result<()> {
        let Screen {
            width,
            height,
            is_dark,
        } = screen;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}))
            .map(drop)
    }

    /// A picture of the screen, as PNG.
    pub fn screenshot(&mut self) -> Result<Vec<u8>> {
        let picture = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        let data = picture["data"].as_str().context("no picture")?;
        Ok(BASE64_STANDARD.decode(data)?)
    }

    /// Errors and warnings of the pages so far, and their requests to other servers than `origin`.
    pub fn problems(&mut self, origin: &str) -> Result<Vec<String>> {
        // What was reported before this reply has been received.
        self.evaluate("null")?;
        let problems = self.events.iter();
        let problems = problems.filter(|event| is_problem(event, origin));
        Ok(problems.map(ToString::to_string).collect())
    }
}

fn is_problem(event: &Value, origin: &str) -> bool {
    let parameters = &event["params"];
    let is_bad = |level: &Value| matches!(level.as_str(), Some("error" | "warning"));
    match event["method"].as_str() {
        Some("Runtime.exceptionThrown") => true,
        Some("Runtime.consoleAPICalled") => is_bad(&parameters["type"]),
        Some("Log.entryAdded") => is_bad(&parameters["entry"]["level"]),
        Some("Network.requestWillBeSent") => {
            let url = parameters["request"]["url"].as_str().unwrap_or_default();
            !url.starts_with(origin) && !url.starts_with("data:")
        }
        _ => false,
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
        if let Err(error) = cgroup::remove(&self.cgroup) {
            eprintln!("{}: {error}", self.cgroup.display());
        }
    }
}
