//! The few `bpf(2)` commands that aya 0.14 does not have: links of every program type that can be
//! pinned and updated, loading a program that is generated at runtime, maps of another build's layout,
//! and the query of programs that other owners have attached.

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_link_info};

/// `BPF_F_ALLOW_MULTI`: the mode of links, which other programs should use, too.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_BEFORE`, without a relative program: before all others.
const BEFORE: u32 = 1 << 3;
/// The maximum number of programs that a query returns.
const QUERY_SIZE: usize = 64;

/// Calls `bpf(2)`. The arguments of every command here are plain numbers and pointers to memory that
/// outlives the call.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the attributes are fully initialized, and the kernel reads no more than their size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// The same, for commands that return a new file descriptor.
fn bpf_fd(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn no_attributes() -> bpf_attr {
    // SAFETY: the union is plain numbers, for which zero is valid; the kernel requires zeros in
    // everything that a command does not use.
    unsafe { mem::zeroed() }
}

fn as_u32(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// The same licence as of the programs in the object.
const LICENCE: &CStr = c"Dual MIT/GPL";

const VERIFIER_LOG_SIZE: usize = 64 * 1024;

/// Loads a program of these instructions. If the kernel refuses the program, loads it again to get
/// the verifier's log, which the error ends with.
#[doc(alias = "BPF_PROG_LOAD")]
pub(super) fn prog_load(
    name: &str,
    kind: u32,
    attach_type: u32,
    code: &[bpf_insn],
) -> io::Result<OwnedFd> {
    let refused = match prog_load_with_log(name, kind, attach_type, code, &mut []) {
        Err(error) => error,
        loaded => return loaded,
    };
    let mut log = vec![0; VERIFIER_LOG_SIZE];
    match prog_load_with_log(name, kind, attach_type, code, &mut log) {
        Err(_) => Err(with_verifier_log(&refused, &log)),
        loaded => loaded,
    }
}

/// Without a log, the error stays as it is.
fn with_verifier_log(error: &io::Error, log: &[u8]) -> io::Error {
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    match text.trim_end() {
        "" => io::Error::new(error.kind(), error.to_string()),
        text => io::Error::new(
            error.kind(),
            format!("{error}; the verifier's log:\n{text}"),
        ),
    }
}

fn prog_load_with_log(
    name: &str,
    kind: u32,
    attach_type: u32,
    code: &[bpf_insn],
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attributes = no_attributes();
    // SAFETY: all variants are plain numbers, and all bytes are zero.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = kind;
    load.expected_attach_type = attach_type;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = u32::try_from(code.len()).map_err(io::Error::other)?;
    load.license = LICENCE.as_ptr() as u64;
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
    }
    // C's `char` is signed on x86-64 only; the names are ASCII.
    let letters = load.prog_name.iter_mut().zip(name.bytes());
    letters.for_each(|(to, letter)| *to = letter.try_into().unwrap_or_default());
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

/// Puts `program` into a map of programs, and replaces an existing one.
pub(super) fn prog_array_set(map: &impl AsFd, index: u32, program: &impl AsFd) -> io::Result<()> {
    let value = as_u32(program);
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_2.map_fd = as_u32(map);
    attributes.__bindgen_anon_2.key = std::ptr::from_ref(&index) as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = std::ptr::from_ref(&value) as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// The key after `key` in a map, or the first; `None` after the last. Keys are as long as the map's.
pub(super) fn map_next_key(
    map: &impl AsFd,
    key: Option<&[u8]>,
    length: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut next = vec![0; length];
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_2.map_fd = as_u32(map);
    attributes.__bindgen_anon_2.key = key.map_or(0, |key| key.as_ptr() as u64);
    attributes.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
    match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(|_| Some(next)),
    }
}

/// The value of `key`, as long as the map's values are; `None` if there is none.
pub(super) fn map_lookup(
    map: &impl AsFd,
    key: &[u8],
    length: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; length];
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_2.map_fd = as_u32(map);
    attributes.__bindgen_anon_2.key = key.as_ptr() as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(|_| Some(value)),
    }
}

/// Attaches a program to a cgroup or network namespace. Links to cgroups never exclude other programs.
pub(super) fn link_create(
    program: &impl AsFd,
    target: &impl AsFd,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = no_attributes();
    attributes.link_create.__bindgen_anon_1.prog_fd = as_u32(program);
    attributes.link_create.__bindgen_anon_2.target_fd = as_u32(target);
    attributes.link_create.attach_type = attach_type;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// Attaches a program to an interface of the calling thread's network namespace, before all others.
pub(super) fn link_create_at_interface(
    program: &impl AsFd,
    index: u32,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = no_attributes();
    attributes.link_create.__bindgen_anon_1.prog_fd = as_u32(program);
    attributes.link_create.__bindgen_anon_2.target_ifindex = index;
    attributes.link_create.attach_type = attach_type;
    attributes.link_create.flags = BEFORE;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

/// Replaces the program of a link, with no moment in which none runs.
pub(super) fn link_update(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let mut attributes = no_attributes();
    attributes.link_update.link_fd = as_u32(link);
    attributes.link_update.__bindgen_anon_1.new_prog_fd = as_u32(program);
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Pins a BPF object on a bpffs.
pub(super) fn obj_pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = as_u32(object);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Opens a pinned BPF object.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attributes)
}

fn link_info(link: &impl AsFd) -> io::Result<bpf_link_info> {
    // SAFETY: plain numbers, for which zero is valid.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attributes = no_attributes();
    attributes.info.bpf_fd = as_u32(link);
    attributes.info.info_len = u32::try_from(size_of::<bpf_link_info>()).expect("a small type");
    attributes.info.info = std::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// The ID of the program that a link attaches.
pub(super) fn link_program_id(link: &impl AsFd) -> io::Result<u32> {
    Ok(link_info(link)?.prog_id)
}

/// The inode of the network namespace that a link is attached to; 0 if that was deleted.
pub(super) fn link_netns_inode(link: &impl AsFd) -> io::Result<u32> {
    let info = link_info(link)?;
    // SAFETY: the kernel has filled in the variant of a netns link, all of it numbers.
    Ok(unsafe { info.__bindgen_anon_1.netns.netns_ino })
}

/// The index of the interface that a link is attached to; 0 if that was deleted.
pub(super) fn link_interface(link: &impl AsFd) -> io::Result<u32> {
    let info = link_info(link)?;
    // SAFETY: the kernel has filled in the variant of an interface's link, all of it numbers.
    Ok(unsafe { info.__bindgen_anon_1.tcx.ifindex })
}

/// The ID of the cgroup that a link is attached to; 0 if that was deleted.
pub(super) fn link_cgroup_id(link: &impl AsFd) -> io::Result<u64> {
    let info = link_info(link)?;
    // SAFETY: the kernel has filled in the variant of a cgroup link, all of it numbers.
    Ok(unsafe { info.__bindgen_anon_1.cgroup.cgroup_id })
}

/// The IDs of the programs that are attached to a cgroup itself without `BPF_F_ALLOW_MULTI`, which
/// excludes other programs at the cgroup and below it.
pub(super) fn exclusive_programs(cgroup: &impl AsFd, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; QUERY_SIZE];
    let mut attributes = no_attributes();
    attributes.query.__bindgen_anon_1.target_fd = as_u32(cgroup);
    attributes.query.attach_type = attach_type;
    attributes.query.prog_ids = ids.as_mut_ptr() as u64;
    attributes.query.__bindgen_anon_2.prog_cnt = u32::try_from(QUERY_SIZE).expect("a small number");
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)?;
    // SAFETY: the kernel has written the numbers of this variant.
    let (flags, count) = unsafe {
        (
            attributes.query.attach_flags,
            attributes.query.__bindgen_anon_2.prog_cnt,
        )
    };
    let count = if flags & ALLOW_MULTI == 0 { count } else { 0 };
    Ok(ids[..count as usize].to_vec())
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::{
        BPF_EXIT, BPF_JMP, bpf_attach_type::BPF_SK_LOOKUP, bpf_prog_type::BPF_PROG_TYPE_SK_LOOKUP,
    };

    use super::*;

    #[test]
    fn a_refused_program_comes_with_the_verifier_log() {
        let exit = bpf_insn {
            code: u8::try_from(BPF_JMP | BPF_EXIT).unwrap(),
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        };
        let (kind, attach_type) = (BPF_PROG_TYPE_SK_LOOKUP as u32, BPF_SK_LOOKUP as u32);
        let error = prog_load("icept_refused", kind, attach_type, &[exit]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the verifier's log:\n"), "{text}");
        assert!(text.contains("R0 !read_ok"), "{text}");
    }
}
