//! Called by a person.

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};

#[test]
fn called_by_hand_it_says_what_it_is() {
    let mut command = bounded(interceptor::binary());
    let output = output(command.arg("cni").env_remove("CNI_COMMAND"), "").expect("a run");
    assert!(output.status.success());
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in ["is a CNI plugin", "interceptor agent", "1.1.0"] {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}
