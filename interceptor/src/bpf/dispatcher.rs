//! The small program at the `sk_lookup` hook of each network namespace. The hook has no helper that
//! returns the namespace's cookie, so the program contains it.
//!
//! It calls the program that all namespaces share (`icept_lookup`), which is much larger: the verifier
//! needs 30 ms for that one and 0.1 ms for this. So the instructions are generated here, instead of
//! loading another instance of a program of the object; and an upgrade replaces the shared program for
//! all namespaces at once.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_CALL, BPF_DW, BPF_EXIT, BPF_IMM, BPF_JEQ, BPF_JMP, BPF_JNE, BPF_K,
    BPF_LD, BPF_LDX, BPF_LSH, BPF_MEM, BPF_MOV, BPF_OR, BPF_PSEUDO_MAP_FD, BPF_ST, BPF_STX,
    BPF_SUB, BPF_W, BPF_X,
    bpf_attach_type::BPF_SK_LOOKUP,
    bpf_func_id,
    bpf_func_id::{BPF_FUNC_map_lookup_elem, BPF_FUNC_tail_call},
    bpf_insn,
    bpf_prog_type::BPF_PROG_TYPE_SK_LOOKUP,
};
use interceptor_ebpf::{CALLER_SHIFT, Call, NetnsCookie};

use super::{maps::Maps, sys};

/// The name in `bpftool`.
const NAME: &str = "icept_dispatch";

/// The index of `icept_lookup` in the map of shared programs.
const LOOKUP_INDEX: u32 = 0;

/// The offset of `protocol` in `struct bpf_sk_lookup`.
const PROTOCOL: i16 = 12;

const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;

/// Makes the programs of all network namespaces call `lookup`.
pub fn share(maps: &Maps, lookup: &impl AsFd) -> Result<()> {
    sys::prog_array_set(maps.shared.fd(), LOOKUP_INDEX, lookup)
        .context("cannot share the sk_lookup program")
}

/// Loads the program of the network namespace with this cookie.
///
/// # Minimum kernel version
///
/// 5.9, for `sk_lookup`.
pub fn load(maps: &Maps, netns: NetnsCookie) -> Result<OwnedFd> {
    let [calls, shared] = [&maps.calls, &maps.shared].map(|map| map.fd().as_fd());
    load_with(calls, shared, netns)
        .with_context(|| format!("failed to load the BPF program {NAME}"))
}

fn load_with(
    calls: BorrowedFd<'_>,
    shared: BorrowedFd<'_>,
    netns: NetnsCookie,
) -> io::Result<OwnedFd> {
    let code = code(calls, shared, netns);
    let (kind, attach_type) = (BPF_PROG_TYPE_SK_LOOKUP as u32, BPF_SK_LOOKUP as u32);
    sys::prog_load(NAME, kind, attach_type, &code)
}

/// [`Call`] describes what is written into the slot, and why.
fn code(calls: BorrowedFd<'_>, shared: BorrowedFd<'_>, netns: NetnsCookie) -> Vec<bpf_insn> {
    let [r0, r1, r2, r3, context, caller, word, stack] = [0, 1, 2, 3, 6, 7, 8, 10];
    let mut code = vec![
        copy(context, r1),
        load_word(r2, context, PROTOCOL),
        set(r0, SK_PASS),
        skip_unless_equal(r2, libc::IPPROTO_TCP),
        // slot = bpf_map_lookup_elem(calls, &0)
        clear_word(stack, -4),
        copy(r2, stack),
        add(r2, -4),
    ];
    code.extend(load_map(r1, calls));
    code.extend([
        call(BPF_FUNC_map_lookup_elem),
        skip_if_equal(r0, 0),
        // The difference of two pointers is a plain number to the verifier; a pointer is not.
        copy(caller, context),
        subtract(caller, r0),
        shift_up(caller, CALLER_SHIFT.cast_signed()),
    ]);
    for (part, number) in Call::cookie_parts(netns).into_iter().zip(0..) {
        code.extend([
            copy(word, caller),
            or(word, part.into()),
            store(r0, 8 * number, word),
        ]);
    }
    code.push(copy(r1, context));
    code.extend(load_map(r2, shared));
    code.extend([
        set(r3, LOOKUP_INDEX.cast_signed()),
        call(BPF_FUNC_tail_call),
        // The tail call has failed: no connection passes without a verdict.
        set(r0, SK_DROP),
        exit(),
    ]);
    aim_skips(&mut code);
    code
}

/// Sets the targets of all conditional jumps to the end, with r0 as it is: 0 if there is no slot.
fn aim_skips(code: &mut [bpf_insn]) {
    let end = code.len() - 1;
    for (at, instruction) in code.iter_mut().enumerate() {
        let operation = u32::from(instruction.code);
        if operation == BPF_JMP | BPF_JNE | BPF_K || operation == BPF_JMP | BPF_JEQ | BPF_K {
            instruction.off = i16::try_from(end - at - 1).expect("a short program");
        }
    }
}

fn instruction(operation: u32, registers: [u8; 2], offset: i16, immediate: i32) -> bpf_insn {
    let [destination, source] = registers;
    bpf_insn {
        code: u8::try_from(operation).expect("an operation is a byte"),
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(destination, source),
        off: offset,
        imm: immediate,
    }
}

fn copy(to: u8, from: u8) -> bpf_insn {
    instruction(BPF_ALU64 | BPF_MOV | BPF_X, [to, from], 0, 0)
}

fn set(to: u8, value: i32) -> bpf_insn {
    instruction(BPF_ALU64 | BPF_MOV | BPF_K, [to, 0], 0, value)
}

fn add(to: u8, value: i32) -> bpf_insn {
    instruction(BPF_ALU64 | BPF_ADD | BPF_K, [to, 0], 0, value)
}

fn subtract(to: u8, from: u8) -> bpf_insn {
    instruction(BPF_ALU64 | BPF_SUB | BPF_X, [to, from], 0, 0)
}

fn shift_up(to: u8, bits: i32) -> bpf_insn {
    instruction(BPF_ALU64 | BPF_LSH | BPF_K, [to, 0], 0, bits)
}

fn or(to: u8, bits: i32) -> bpf_insn {
    instruction(BPF_ALU64 | BPF_OR | BPF_K, [to, 0], 0, bits)
}

fn load_word(to: u8, base: u8, offset: i16) -> bpf_insn {
    instruction(BPF_LDX | BPF_MEM | BPF_W, [to, base], offset, 0)
}

fn clear_word(base: u8, offset: i16) -> bpf_insn {
    instruction(BPF_ST | BPF_MEM | BPF_W, [base, 0], offset, 0)
}

fn store(base: u8, offset: i16, from: u8) -> bpf_insn {
    instruction(BPF_STX | BPF_MEM | BPF_DW, [base, from], offset, 0)
}

/// A map's address requires two instructions.
fn load_map(to: u8, map: BorrowedFd<'_>) -> [bpf_insn; 2] {
    let pseudo = u8::try_from(BPF_PSEUDO_MAP_FD).expect("a register's number");
    [
        instruction(BPF_LD | BPF_IMM | BPF_DW, [to, pseudo], 0, map.as_raw_fd()),
        instruction(0, [0, 0], 0, 0),
    ]
}

fn call(helper: bpf_func_id) -> bpf_insn {
    instruction(BPF_JMP | BPF_CALL, [0, 0], 0, helper as i32)
}

fn skip_unless_equal(register: u8, value: i32) -> bpf_insn {
    instruction(BPF_JMP | BPF_JNE | BPF_K, [register, 0], 0, value)
}

fn skip_if_equal(register: u8, value: i32) -> bpf_insn {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, [register, 0], 0, value)
}

fn exit() -> bpf_insn {
    instruction(BPF_JMP | BPF_EXIT, [0, 0], 0, 0)
}
