//! Guests: their input, their output, and that nothing of them is left.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lab::{Boot, Exit, Guest, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn output_and_exit_status_are_returned() -> Result<()> {
    let guest = Boot::new("sh")
        .args(["-c", "echo out; echo err >&2; exit 7"])
        .start()?;
    let finished = guest.wait()?;
    assert_eq!(finished.exit, Exit::Code(7));
    assert_eq!(finished.stdout, "out\n");
    assert!(finished.stderr.ends_with("err\n"), "{}", finished.stderr);
    Ok(())
}

#[test]
fn the_signal_that_ended_the_command_is_returned() -> Result<()> {
    let finished = Boot::new("sh").args(["-c", "kill -9 $$"]).start()?.wait()?;
    assert_eq!(finished.exit, Exit::Signal(9));
    assert_eq!(finished.exit.code(), 137);
    Ok(())
}

#[test]
fn environment_directory_and_arguments_are_passed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let finished =
        Boot::script(r#"printf '%s|' "$PWD" "$LAB_WORD" "$LAB_SCRATCH"; touch "$LAB_SCRATCH/x""#)
            .env("LAB_WORD", "two words \"quoted\"")
            .current_dir(directory.path())
            .run()?;
    let expected = format!(
        "{}|two words \"quoted\"|/run/lab|",
        directory.path().display()
    );
    assert_eq!(finished.stdout, expected);
    Ok(())
}

#[test]
fn ipvs_and_its_schedulers_are_available() -> Result<()> {
    Boot::script(
        "cat /proc/net/ip_vs
         for s in rr wrr lc wlc lblc lblcr dh sh mh sed nq fo ovf; do ipvsadm -A -t 192.0.2.1:80 -s $s; ipvsadm -C; done",
    )
    .run()?;
    Ok(())
}

#[test]
fn a_missing_required_module_is_named() {
    let error = Boot::new("true")
        .need("no_such_module")
        .run()
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "this kernel has no module no_such_module, which this run needs"
    );
}

#[test]
fn a_missing_command_is_named() {
    let error = Boot::new("no-such-command").run().unwrap_err().to_string();
    assert!(
        error.contains("could not start `no-such-command`"),
        "{error}"
    );
}

#[test]
fn files_survive_a_power_cut_and_the_kernel_s_memory_does_not() -> Result<()> {
    let state = tempfile::tempdir()?;
    let first =
        Boot::script("ipvsadm -A -t 192.0.2.1:80; echo kept > state; echo ready; sleep 1000")
            .current_dir(state.path())
            .start()?;
    first.wait_for_output("ready", Duration::from_secs(60))?;
    first.pull_the_plug();
    let second = Boot::script("cat state; ipvsadm -Ln")
        .current_dir(state.path())
        .run()?;
    assert!(second.stdout.starts_with("kept\n"), "{}", second.stdout);
    assert!(!second.stdout.contains("192.0.2.1"), "{}", second.stdout);
    Ok(())
}

#[test]
fn a_script_returns_its_output_or_why_it_failed() -> Result<()> {
    let guest = start_with_scripts(Boot::new(env!("CARGO_BIN_EXE_lab")))?;
    let printed = guest.run_script("echo $((6 * 7)); cat /proc/net/ip_vs", MINUTE)?;
    assert!(printed.starts_with("42\nIP Virtual Server"), "{printed}");
    let error = guest.run_script("echo so far; false; echo on", MINUTE);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("ended with status 1") && error.ends_with("\nso far\n"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_script_for_a_guest_that_has_ended_fails_at_once() -> Result<()> {
    let guest = Boot::new("true").start()?;
    wait_until("the end of the guest", MINUTE, || {
        Ok(guest.is_finished().then_some(()))
    })?;
    let error = format!("{:#}", guest.run_script("true", MINUTE).unwrap_err());
    assert!(error.contains("the guest ended"), "{error}");
    Ok(())
}

#[test]
fn a_disk_keeps_its_files_over_a_power_cut() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk");
    fs::File::create_new(&disk)?.set_len(64 << 20)?;
    let boot = || start_with_scripts(Boot::new(env!("CARGO_BIN_EXE_lab")).disk(&disk));
    let first = boot()?;
    let script = "mkfs.ext4 -q /dev/ubda; mount /dev/ubda /mnt; echo kept > /mnt/file; sync";
    first.run_script(script, MINUTE)?;
    first.pull_the_plug();
    let second = boot()?.run_script("mount /dev/ubda /mnt; cat /mnt/file", MINUTE)?;
    assert_eq!(second, "kept\n");
    Ok(())
}

/// Starts a guest whose command runs scripts.
fn start_with_scripts(boot: Boot) -> Result<Guest> {
    let guest = boot.args(["run-scripts"]).start()?;
    guest.wait_for_output("ready for scripts", MINUTE)?;
    Ok(guest)
}

#[test]
fn a_guest_that_takes_too_long_is_ended() {
    let error = Boot::new("sleep")
        .args(["1000"])
        .timeout(Duration::from_secs(4))
        .run();
    assert!(error.unwrap_err().to_string().contains("gave up after 4s"));
}

#[test]
fn a_panic_of_the_kernel_ends_the_guest_and_is_in_the_error() {
    let crash = Boot::script("echo c > /proc/sysrq-trigger; sleep 1000");
    let error = crash.kernel(lab::Kernel::UserMode).run();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("ended without a verdict") && error.contains("Kernel panic"),
        "{error}"
    );
}

#[test]
fn nothing_is_left_when_the_lab_is_ended() -> Result<()> {
    for signal in ["TERM", "INT", "KILL"] {
        let place = tempfile::tempdir()?;
        let ready = place.path().join("ready");
        let script = format!("touch {}; sleep 1000", ready.display());
        let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["run", "--", "sh", "-c", &script])
            .env("TMPDIR", place.path())
            .spawn()?;
        let minute = Duration::from_secs(60);
        wait_until("the guest", minute, || Ok(ready.exists().then_some(())))?;
        let marker = place.path().display().to_string();
        assert!(!processes_that_mention(&marker)?.is_empty());
        Command::new("kill")
            .args(["-s", signal, &lab.id().to_string()])
            .status()?;
        let status = wait_until("the end of the lab", minute, || Ok(lab.try_wait()?))?;
        assert!(!status.success());
        wait_until("the end of the guest", minute, || {
            Ok(processes_that_mention(&marker)?.is_empty().then_some(()))
        })?;
        // A separate process removes the directory after a SIGKILL.
        wait_until("the directory of the run to go", minute, || {
            let left = fs::read_dir(place.path())?
                .filter_map(Result::ok)
                .filter(|entry| entry.file_name() != "ready")
                .count();
            Ok((left == 0).then_some(()))
        })?;
    }
    Ok(())
}

/// The command lines, except the lab's own, that contain `text`.
fn processes_that_mention(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(line) = fs::read(entry?.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) && line.contains("guest-init") {
            found.push(line);
        }
    }
    Ok(found)
}
