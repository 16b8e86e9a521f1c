//! Finds the offsets of members of the kernel's structures in its BTF.
//!
//! One pass over the file stores only where each type starts: the libraries create an object for each
//! of its 150,000 types, which takes most of a second and more memory than the node agent may use.
//!
//! # Source
//!
//! `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC: u16 = 0xeb9f;
/// The size of `struct btf_type`, without the data that follows it.
const TYPE: usize = 12;
/// The size of `struct btf_member`.
const MEMBER: usize = 12;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
    /// The last that is known.
    pub(super) const LAST: u32 = ENUM64;
}

pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts. The first has the ID 1.
    starts: Vec<usize>,
    structs: HashMap<&'a [u8], usize>,
}

impl<'a> Btf<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Self> {
        let magic = file.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
        ensure!(
            magic == Some(MAGIC),
            "not a valid BTF blob for this architecture"
        );
        let header = |at| number(file, at);
        let body = header(4)?;
        let section = |offset, length| -> Result<&[u8]> {
            let start = body + header(offset)?;
            file.get(start..start + header(length)?)
                .context("the file is too short")
        };
        let mut btf = Self {
            types: section(8, 12)?,
            strings: section(16, 20)?,
            starts: Vec::new(),
            structs: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.types.len() {
            let found = Type::at(self.types, at)?;
            if found.kind == kind::STRUCT {
                self.structs.entry(self.name(found.name)?).or_insert(at);
            }
            self.starts.push(at);
            at += TYPE + found.size_of_rest()?;
        }
        Ok(())
    }

    /// The offset in bytes of the member `path` in `struct owner`. (Members of anonymous structures
    /// and unions are members of the enclosing type, as in C.)
    pub(super) fn offset_of(&self, owner: &str, path: &str) -> Result<u32> {
        let start = self.structs.get(owner.as_bytes());
        let start = *start.with_context(|| format!("the kernel's BTF has no struct {owner}"))?;
        let mut location = MemberLocation { start, bits: 0 };
        for member in path.split('.') {
            location = self
                .member(location, member.as_bytes())?
                .with_context(|| format!("the kernel's BTF has no struct {owner}.{path}"))?;
        }
        ensure!(
            location.bits.is_multiple_of(8),
            "struct {owner}.{path} is a bit field in the kernel's BTF"
        );
        Ok(location.bits / 8)
    }

    /// Finds the member `name` in the structure or union at `location`.
    fn member(&self, location: MemberLocation, name: &[u8]) -> Result<Option<MemberLocation>> {
        let owner = Type::at(self.types, location.start)?;
        if !matches!(owner.kind, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        for index in 0..owner.members {
            let at = location.start + TYPE + index * MEMBER;
            let found = self.name(number(self.types, at)?)?;
            if found != name && !found.is_empty() {
                continue;
            }
            let inner = MemberLocation {
                start: self.resolve(number(self.types, at + 4)?)?,
                bits: location.bits + owner.bits(read(self.types, at + 8)?),
            };
            if found == name {
                return Ok(Some(inner));
            }
            if let Some(member) = self.member(inner, name)? {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }

    /// Where the type `id` starts, without typedefs and qualifiers.
    fn resolve(&self, mut id: usize) -> Result<usize> {
        // A chain of typedefs and qualifiers is finite in a valid file.
        for _ in 0..self.starts.len() {
            let start = id.checked_sub(1).and_then(|index| self.starts.get(index));
            let start = *start.with_context(|| format!("the kernel's BTF has no type {id}"))?;
            let found = Type::at(self.types, start)?;
            if !matches!(found.kind, kind::TYPEDEF | kind::VOLATILE | kind::CONST) {
                return Ok(start);
            }
            id = number(self.types, start + 8)?;
        }
        bail!("the kernel's BTF has a typedef or qualifier that refers to itself")
    }

    fn name(&self, offset: usize) -> Result<&'a [u8]> {
        let rest = self.strings.get(offset..).unwrap_or_default();
        let name = rest.split(|byte| *byte == 0).next();
        name.context("the kernel's BTF has a name without a terminating NUL")
    }
}

/// A type within a structure.
#[derive(Clone, Copy)]
struct MemberLocation {
    /// Where the type starts in the section of types.
    start: usize,
    /// Its offset in the structure.
    bits: u32,
}

/// `struct btf_type`.
struct Type {
    name: usize,
    kind: u32,
    /// `vlen`.
    members: usize,
    /// `kind_flag`: offsets of members contain the sizes of bit fields, too.
    has_bit_fields: bool,
}

impl Type {
    fn at(types: &[u8], start: usize) -> Result<Self> {
        let info = read(types, start + 4)?;
        Ok(Self {
            name: number(types, start)?,
            kind: info >> 24 & 0x1f,
            members: info as usize & 0xffff,
            has_bit_fields: info >> 31 == 1,
        })
    }

    /// The size of the data that follows the type.
    fn size_of_rest(&self) -> Result<usize> {
        Ok(match self.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION => MEMBER * self.members,
            kind::DATASEC | kind::ENUM64 => 12 * self.members,
            kind::ENUM | kind::FUNC_PROTO => 8 * self.members,
            1..=kind::LAST => 0,
            unknown => bail!("the kernel's BTF has a type of the unknown kind {unknown}"),
        })
    }

    const fn bits(&self, offset: u32) -> u32 {
        if self.has_bit_fields {
            offset & 0x00ff_ffff
        } else {
            offset
        }
    }
}

fn read(bytes: &[u8], at: usize) -> Result<u32> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    let found = found.context("the kernel's BTF is truncated")?;
    Ok(u32::from_ne_bytes(*found))
}

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(read(bytes, at)? as usize)
}
