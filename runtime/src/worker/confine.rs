//! What a worker process gives up before it runs code of others. Linux first; elsewhere what is there is used.
//!
//! Promises, on Linux: after it the process can read and write the descriptors it has, use memory and read clocks; it opens no
//! file, no socket and no process, and signals nobody. It ends with its parent.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;

/// Bytes of address space: QuickJS refuses a function's allocation beyond it as beyond its own limit.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Descriptors: three, and one to spare.
const DESCRIPTORS: u64 = 4;

/// Confines this process. Must be the first thing it does: descriptors beyond the first three are closed, whoever has them.
pub(super) fn confine() -> io::Result<()> {
    rustix::process::chdir("/").map_err(|error| told("chdir", error.into()))?;
    #[cfg(target_os = "linux")]
    linux::close_others()?;
    for (resource, most) in
        [(Resource::As, ADDRESS_SPACE), (Resource::Nofile, DESCRIPTORS), (Resource::Core, 0), (Resource::Fsize, 0)]
    {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| told("setrlimit", error.into()))?;
    }
    #[cfg(target_os = "linux")]
    linux::end_with_parent()?;
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    filter::install()?;
    Ok(())
}

fn told(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(target_os = "linux")]
mod linux {
    use super::told;
    use rustix::process::Signal;
    use std::io;

    pub(super) fn close_others() -> io::Result<()> {
        // SAFETY: nothing of this process has opened a descriptor yet (see `confine`), so none is taken from its owner.
        match unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                // Before Linux 5.9. What the parent opens closes itself when a program is begun.
                error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
                error => Err(told("close_range", error)),
            },
        }
    }

    pub(super) fn end_with_parent() -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| told("PR_SET_PDEATHSIG", error.into()))?;
        rustix::thread::set_no_new_privs(true).map_err(|error| told("PR_SET_NO_NEW_PRIVS", error.into()))
    }
}

/// The calls of the system that are left. All others fail with `EPERM`.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod filter {
    use super::told;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    use std::collections::BTreeMap;
    use std::io;

    const ALLOWED: &[libc::c_long] = &[
        // the descriptors it has
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_ppoll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        // memory
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        // clocks, chance, locks
        libc::SYS_clock_gettime,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        // its own end, and what leads to it
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    pub(super) fn install() -> io::Result<()> {
        let program = program().map_err(|error| told("the filter of system calls", io::Error::other(error)))?;
        seccompiler::apply_filter(&program).map_err(|error| told("seccomp", io::Error::other(error)))
    }

    fn program() -> Result<BpfProgram, seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
        // `abort` signals its own thread.
        let itself = u64::from(std::process::id());
        let own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, itself)?;
        rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
        let refused = SeccompAction::Errno(libc::EPERM as u32);
        SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
    }
}
