//! What a process does so that requests come first.

/// How much lower the priority of a thread is that gives way: a third of the time of a thread that carries requests where both want
/// the same processor (sched(7): each step is a factor of 1.25).
const GIVES_WAY: i32 = 5;

/// Lets threads that carry requests go before the calling one. To build a table of ten thousand routes takes milliseconds, in which
/// requests on the same processor would wait.
///
/// A brake does not depend on it: a tripwire acts in the thread of the request that trips it. If the system refuses, nothing changes.
pub fn give_way() {
    // On Linux priorities are those of threads, and no process id means the calling thread (setpriority(2)).
    let now = rustix::process::getpriority_process(None).unwrap_or_default();
    let _ = rustix::process::setpriority_process(None, now + GIVES_WAY);
}

/// Takes memory in small pages, from now on and for the whole process. The allocator asks for huge ones, of which an idle connection
/// or route keeps all of 2 MiB resident for its few KiB; requests are not slower without them.
///
/// If the system refuses, nothing changes.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
