//! System calls by name, and which have nothing to do with files.
//!
//! What is not listed as such is taken for a call on files, also one that nobody thought of: so none is forgotten.

use std::ffi::c_long;

use nix::libc;

macro_rules! table {
    ($($call:ident)*) => { &[$((libc::$call, stringify!($call))),*] };
}

/// Calls that neither change nor look at a file, or that change the caller's descriptors alone.
const NONE_OF_FILES: &[(c_long, &str)] = table! {
    SYS_brk SYS_capget SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_close
    SYS_close_range SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
    SYS_execve SYS_exit SYS_exit_group SYS_fcntl SYS_futex SYS_get_robust_list SYS_getegid SYS_geteuid SYS_getgid
    SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getrusage SYS_getsid SYS_gettid SYS_getuid
    SYS_inotify_init1 SYS_ioctl SYS_kill SYS_lseek SYS_madvise SYS_membarrier SYS_mmap SYS_mprotect SYS_mremap
    SYS_munmap SYS_nanosleep SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_ppoll SYS_prctl SYS_prlimit64
    SYS_pselect6 SYS_recvfrom SYS_recvmsg SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigprocmask
    SYS_rt_sigreturn SYS_rt_sigtimedwait SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_yield SYS_sendmsg
    SYS_sendto SYS_set_robust_list SYS_set_tid_address SYS_setpgid SYS_setpriority SYS_setsid SYS_sigaltstack
    SYS_socket SYS_socketpair SYS_sysinfo SYS_tgkill SYS_tkill SYS_umask SYS_uname SYS_wait4 SYS_waitid
};

#[cfg(target_arch = "x86_64")]
const OLD_NONE_OF_FILES: &[(c_long, &str)] = table! {
    SYS_alarm SYS_arch_prctl SYS_dup2 SYS_epoll_create SYS_epoll_wait SYS_fork SYS_getpgrp SYS_inotify_init SYS_pause
    SYS_pipe SYS_poll SYS_select SYS_time SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const OLD_NONE_OF_FILES: &[(c_long, &str)] = &[];

/// For their names alone.
const OF_FILES: &[(c_long, &str)] = table! {
    SYS_chdir SYS_copy_file_range SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod
    SYS_fchmodat SYS_fchown SYS_fchownat SYS_fdatasync SYS_flock SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate
    SYS_getcwd SYS_getdents64 SYS_inotify_add_watch SYS_inotify_rm_watch SYS_linkat SYS_mkdirat SYS_mknodat
    SYS_newfstatat SYS_openat SYS_openat2 SYS_pread64 SYS_preadv SYS_pwrite64 SYS_pwritev SYS_read SYS_readlinkat
    SYS_readv SYS_renameat SYS_renameat2 SYS_sendfile SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_tee SYS_truncate SYS_unlinkat SYS_utimensat SYS_write SYS_writev
};

#[cfg(target_arch = "x86_64")]
const OLD_OF_FILES: &[(c_long, &str)] = table! {
    SYS_access SYS_chmod SYS_chown SYS_creat SYS_getdents SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_open
    SYS_readlink SYS_rename SYS_rmdir SYS_stat SYS_symlink SYS_unlink SYS_utime SYS_utimes
};
#[cfg(not(target_arch = "x86_64"))]
const OLD_OF_FILES: &[(c_long, &str)] = &[];

pub(super) fn is_none_of_files(call: c_long) -> bool {
    NONE_OF_FILES.iter().chain(OLD_NONE_OF_FILES).any(|(listed, _)| *listed == call)
}

pub(super) fn name(call: c_long) -> String {
    let named = OF_FILES.iter().chain(OLD_OF_FILES).find(|(listed, _)| *listed == call);
    named.map_or_else(|| format!("call {call}"), |(_, name)| name.trim_start_matches("SYS_").to_owned())
}
