//! A map of maps, which aya makes only from an object.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};

/// Creates an array of maps like `inner`.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn create(name: &str, entries: u32, inner: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[expect(
        unsafe_code,
        reason = "the attributes of the call are a union of structures of integers"
    )]
    // SAFETY: all zeros are a value of every one of them.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: writing one of the structures reads none of the others.
    let create = unsafe { &mut attributes.__bindgen_anon_1 };
    create.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32;
    create.key_size = 4;
    create.value_size = 4;
    create.max_entries = entries;
    create.inner_map_fd = inner.as_raw_fd().cast_unsigned();
    for (to, from) in create.map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    #[expect(unsafe_code, reason = "the call has no safe wrapper")]
    // SAFETY: the kernel reads the attributes, as many bytes as it is told, and keeps nothing of them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_MAP_CREATE,
            &raw const attributes,
            size_of::<bpf_attr>(),
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: the kernel has just handed it out, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
