//! What is missing or damaged, told from what cannot be asked for.

use std::io;

/// Whether an error says that what was looked for is not there, or is not what it should be: not that it could not be
/// looked for.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().all(|cause| {
        let code = match cause.downcast_ref::<io::Error>() {
            Some(error) => error.raw_os_error(),
            None => cause
                .downcast_ref::<rustix::io::Errno>()
                .map(|error| error.raw_os_error()),
        };
        code.is_none_or(|code| DAMAGE.contains(&code))
    })
}

/// What the kernel says of a pin that is missing or something else (ENOENT, EBADF, EFAULT, ENOTDIR, EINVAL, and the
/// ENOTSUPP of `kernel/bpf`, which user space has no name for).
const DAMAGE: [i32; 6] = [2, 9, 14, 20, 22, 524];
