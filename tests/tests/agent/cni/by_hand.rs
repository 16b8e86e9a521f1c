//! Run by hand.

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};

#[test]
fn run_by_hand_it_explains_itself() {
    let mut command = bounded(interceptor::binary());
    let output = output(command.arg("cni").env_remove("CNI_COMMAND"), "").expect("a run");
    assert!(output.status.success());
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in ["is a CNI plugin", "interceptor agent", "1.1.0"] {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}
