//! The agent's page, in a real browser.

use std::{env, fs, path::Path};

use interceptor_testkit::{
    chromium::{Chromium, Screen},
    command::{bounded, run},
    lab::{dial, wait_until},
    machine::Exclusive,
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, Pod, REMOTE},
};
use serde_json::json;

use crate::alone;

const PAGE: &str = "http://127.0.0.1:15029/";
/// Set to a directory to get pictures of the page.
const PICTURES: &str = "INTERCEPTOR_TEST_PICTURES";

const SCREENS: [(&str, Screen); 4] = [
    ("wide-light", screen(1280, false)),
    ("wide-dark", screen(1280, true)),
    ("phone-light", screen(390, false)),
    ("phone-dark", screen(390, true)),
];

const fn screen(width: u32, is_dark: bool) -> Screen {
    Screen {
        width,
        height: 900,
        is_dark,
    }
}

/// A connection by a process whose name looks like an element, from the cgroup and the network namespace of
/// the process `$1`.
const DIAL_AS_ELEMENT: &str = r#"
root=$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2 .*/\1/p' /proc/mounts | head -n 1)
echo $$ > "$root$(sed -n s/^0:://p /proc/$1/cgroup)/cgroup.procs" || exit
exec nsenter --net=/proc/$1/ns/net bash -c '
    echo -n "<b id=bold>x" > /proc/self/comm
    exec 3<> /dev/tcp/10.2.0.9/80
'
"#;

struct Scene {
    browser: Chromium,
    agent: AgentProcess,
    web: Pod,
    db: Pod,
    _plain: Pod,
    node: Node,
}

type PickPod = fn(&Scene) -> &Pod;

impl Scene {
    fn new(alone: &Exclusive) -> Self {
        let node = Node::alone(Driver::Systemd, alone).expect("a node");
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let run = |manifest| node.run(manifest).expect("a pod");
        let [web, db] = ["web", "db"].map(|name| run(Manifest::of_mesh(name, &node.new_uid())));
        let plain = run(Manifest::plain("plain", &node.new_uid()));
        let cgroup = node.cgroup.child("system.slice/browser").expect("a cgroup");
        let files = node.dir().join("chromium");
        let mut browser = Chromium::start(&files, &cgroup, node.host.path()).expect("Chromium");
        browser.open(PAGE).expect("the page");
        Self {
            browser,
            agent,
            web,
            db,
            _plain: plain,
            node,
        }
    }

    #[track_caller]
    fn wait_for(&mut self, expression: &str) {
        let waited = self.browser.wait_for(expression);
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.log()));
    }

    /// Waits until `expression` is true while the pod makes connections.
    #[track_caller]
    fn dial_until(&mut self, pod: PickPod, expression: &str) {
        let waited = wait_until(expression, || {
            let app = pod(self).app()?;
            assert_eq!(dial(app, REMOTE)?, CAPTURED);
            Ok(self.browser.evaluate(expression)? == json!(true))
        });
        let text = self.browser.evaluate("document.body.innerText");
        waited.unwrap_or_else(|error| panic!("{error:#}\n{text:?}\n{}", self.agent.log()));
    }

    fn run(&mut self, script: &str) {
        self.browser.evaluate(script).expect("a script");
    }

    /// Sets a field as a user does.
    fn set(&mut self, id: &str, value: &str) {
        self.run(&format!(
            "{{ const field = document.getElementById('{id}'); field.value = '{value}';
            field.dispatchEvent(new Event('input', {{ bubbles: true }})); }}"
        ));
    }

    /// Checks that the view fits a narrow phone, and takes pictures if they are wanted.
    #[track_caller]
    fn check_view(&mut self, name: &str) {
        let narrow = Screen {
            width: 360,
            ..SCREENS[0].1
        };
        self.browser.set_screen(narrow).expect("a screen");
        let width = self
            .browser
            .evaluate("document.documentElement.scrollWidth");
        assert_eq!(width.expect("a width"), json!(narrow.width), "{name}");
        self.take_pictures(name);
        self.browser.set_screen(SCREENS[0].1).expect("a screen");
    }

    fn take_pictures(&mut self, name: &str) {
        let Some(dir) = env::var_os(PICTURES) else {
            return;
        };
        for (kind, screen) in SCREENS {
            self.browser.set_screen(screen).expect("a screen");
            let picture = self.browser.screenshot().expect("a picture");
            let file = Path::new(&dir).join(format!("{name}-{kind}.png"));
            fs::write(file, picture).expect("a file");
        }
    }

    #[track_caller]
    fn expect_no_problem(&mut self) {
        let problems = self.browser.problems(PAGE).expect("problems");
        assert_eq!(problems, Vec::<String>::new());
    }

    /// How many flows the agent has read.
    fn observed(&self) -> usize {
        let (_, lines) = self.agent.api("/v1/flows").expect("flows");
        lines.matches("{\"flow\"").count()
    }
}

fn row_has(table: &str, texts: &[&str]) -> String {
    format!(
        "[...document.querySelectorAll('#{table} tr')].some(row => {}.every(text => \
         row.textContent.includes(text)))",
        json!(texts)
    )
}

/// Whether there are rows, and all of this pod.
fn only_rows_of(pod: &str) -> String {
    format!(
        "{{ const rows = [...document.querySelectorAll('#flow-rows tr')];
        rows.length > 0 && rows.every(row => row.textContent.includes('{pod}')) }}"
    )
}

#[test]
fn the_page_shows_pods_their_policy_and_explanations() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    scene.wait_for("document.getElementById('health').textContent === 'agent ready'");
    scene.wait_for(&row_has(
        "pod-rows",
        &[
            "shop/web",
            "captured",
            "a sidecar was injected into the pod",
        ],
    ));
    scene.wait_for(&row_has(
        "pod-rows",
        &["shop/plain", "skipped", "it has no istio-proxy container"],
    ));
    scene.check_view("pods");
    scene.browser.press("/").expect("a key");
    scene.browser.write("shop/pla").expect("text");
    scene.wait_for("document.querySelectorAll('#pod-rows tr').length === 1");
    scene.browser.press("Escape").expect("a key");
    scene.wait_for("document.querySelectorAll('#pod-rows tr').length > 2");
    scene.dial_until(
        |scene| &scene.web,
        "[...document.querySelectorAll('#pod-rows tr')].some(row => \
         row.textContent.includes('shop/web') && row.children[4].textContent !== '0')",
    );
    scene.run("location.hash = '#/pod/shop%2Fweb'");
    scene
        .wait_for("document.getElementById('pod-status').textContent.includes('all destinations')");
    scene.run("document.querySelector('#rules summary').click()");
    scene.wait_for(
        "document.getElementById('rules-text').textContent.includes('-A ISTIO_OUTPUT -j ISTIO_REDIRECT')",
    );
    scene.set("explain-to", REMOTE);
    scene.run("document.querySelector('#explain button').click()");
    scene.wait_for(
        "document.getElementById('explained').textContent.includes('the destination is included (-i)')",
    );
    scene.check_view("pod");
    scene.set("explain-to", "10.2.0.9");
    scene.run("document.querySelector('#explain button').click()");
    scene.wait_for(
        "document.getElementById('explained').textContent.includes('expected an IP address and a port')",
    );
    scene.browser.press("Escape").expect("a key");
    scene.run("document.activeElement.blur()");
    scene.browser.press("Escape").expect("a key");
    scene.wait_for("!document.getElementById('pods').hidden");
    // The request with a wrong address failed on purpose.
    let problems = scene.browser.problems(PAGE).expect("problems");
    let others = problems
        .iter()
        .filter(|one| !one.contains("explain?to=10.2.0.9&"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_page_shows_live_flows_with_filters() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    scene.wait_for(&row_has("pod-rows", &["shop/web", "captured"]));
    let _dialled = dial(scene.web.app().expect("the app"), REMOTE).expect("a dial");
    assert_eq!(scene.observed(), 0, "flows are read without their view");
    scene.browser.press("f").expect("a key");
    let captured = [
        "CAPTURED",
        "10.2.0.9:80",
        "the destination is included (-i)",
        "prefix_included",
        "interceptor-tes",
    ];
    let pods: [(PickPod, _); 2] = [
        (|scene| &scene.web, "shop/web"),
        (|scene| &scene.db, "shop/db"),
    ];
    for (pod, name) in pods {
        scene.dial_until(
            pod,
            &row_has("flow-rows", &[&[name], &captured[..]].concat()),
        );
    }
    dial_as_element(&scene.web);
    scene.wait_for(&row_has("flow-rows", &["shop/web", "<b id=bold>x"]));
    scene.wait_for("document.getElementById('bold') === null");
    scene.check_view("flows");
    scene.browser.press("/").expect("a key");
    scene.browser.write("shop/db").expect("text");
    scene.wait_for(&only_rows_of("shop/db"));
    scene.dial_until(|scene| &scene.web, &only_rows_of("shop/db"));
    for (field, other, own) in [
        ("flow-verdict", "REFUSED", "CAPTURED"),
        ("flow-address", "10.2.0.8", "10.2.0.9"),
        ("flow-port", "443", "80"),
        ("flow-reason", "", "prefix_included"),
    ] {
        if !other.is_empty() {
            scene.set(field, other);
            scene.wait_for("document.querySelectorAll('#flow-rows tr').length === 0");
        }
        scene.set(field, own);
        scene.wait_for(&only_rows_of("shop/db"));
    }
    scene.run("document.getElementById('flow-pause').click()");
    scene.dial_until(
        |scene| &scene.db,
        "/paused, [1-9]/.test(document.getElementById('flow-count').textContent)",
    );
    scene.run("document.activeElement.blur()");
    scene.browser.press("p").expect("a key");
    scene.wait_for("!document.getElementById('pods').hidden");
    until_not_observed(&scene);
    scene.expect_no_problem();
}

/// The next agent finds a pod that cannot be captured.
#[test]
fn the_page_reconnects_and_shows_problems() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    scene.wait_for("document.getElementById('connection').className === 'live'");
    scene.agent.kill().expect("killed");
    scene.wait_for("document.getElementById('connection').className === 'lost'");
    let unknown =
        Manifest::of_mesh("sandboxed", &scene.node.new_uid()).with_runtime_class("no-such");
    let _sandboxed = scene.node.schedule(unknown).expect("a pod");
    scene.agent = scene.node.start_ready_agent(&[]).expect("an agent");
    scene.wait_for("document.getElementById('connection').className === 'live'");
    scene.wait_for(&row_has(
        "pod-rows",
        &["shop/sandboxed", "failed", "no-such"],
    ));
    scene.node.api.set_unavailable(true);
    scene.agent.kill().expect("killed");
    scene.agent = scene.node.start_agent(&[]).expect("an agent");
    scene.wait_for("document.getElementById('health').textContent === 'agent not ready'");
    scene.wait_for("document.getElementById('problems').textContent.includes('pod list')");
    scene.check_view("problems");
    let problems = scene.browser.problems(PAGE).expect("problems");
    let others = problems.iter().filter(|one| !one.contains("v1/events"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
}

fn dial_as_element(pod: &Pod) {
    let mut command = bounded("sh");
    let pid = pod.app().expect("the app").pid().to_string();
    command.args(["-c", DIAL_AS_ELEMENT, "sh", &pid]);
    run(&mut command, "").expect("a connection");
}

/// The agent stops to read when the view is left.
fn until_not_observed(scene: &Scene) {
    wait_until("the end of the observation", || {
        let before = scene.observed();
        dial(scene.web.app()?, REMOTE)?;
        std::thread::sleep(crate::observe::QUIET);
        Ok(scene.observed() == before)
    })
    .expect("no observation");
}
