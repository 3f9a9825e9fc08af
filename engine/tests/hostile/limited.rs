//! Processes of this test's own program, each under limits that the kernel keeps.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The environment's variable that names the case to run.
pub const CASE: &str = "KEEPSTONE_HOSTILE_CASE";
/// Seconds of processor time.
const CPU_SECONDS: u32 = 5;
/// The most that may ever have been in memory.
const RESIDENT_KIB_MAX: u64 = 512 << 10;
/// Address space, where a bomb ends before it harms the machine. More than what may be resident: the allocator and
/// threads' stacks reserve much that is never touched.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Processes at a time.
const AT_ONCE: usize = 2;

/// Runs each case in a process; returns what the failed ones said.
pub fn each_in_a_process(names: &[&str]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failures.lock().unwrap().extend(failure(name));
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn failure(name: &str) -> Option<String> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("prlimit")
        .args([format!("--cpu={CPU_SECONDS}"), format!("--as={ADDRESS_SPACE}"), "--core=0".to_owned()])
        .arg(program)
        .args(["--exact", "one_case", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .expect("prlimit of util-linux is installed");
    if output.status.success() {
        return None;
    }
    let [done, said] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    Some(format!("--- {name}: {}\n{said}{done}", output.status))
}

/// Asserts that this process never had more in memory than is allowed.
pub fn assert_little_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells it");
    let peak_kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak_kib <= RESIDENT_KIB_MAX, "{peak_kib} KiB were in memory");
}
