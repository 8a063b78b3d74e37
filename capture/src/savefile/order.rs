//! The byte order of a savefile: the order of the machine that wrote it.

/// Byte order of the numbers in a savefile, or in one section of a pcapng file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "little") { Self::Little } else { Self::Big };

    /// The other byte order.
    #[must_use]
    pub const fn swapped(self) -> Self {
        match self {
            Self::Little => Self::Big,
            Self::Big => Self::Little,
        }
    }

    /// 16 bits in this order.
    #[must_use]
    pub const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    /// 32 bits in this order.
    #[must_use]
    pub const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    /// The 32-bit numbers in `bytes`; missing ones are 0.
    #[inline]
    pub(crate) fn words<const N: usize>(self, bytes: &[u8]) -> [u32; N] {
        let mut words = [0; N];
        for (word, field) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = self.u32(*field);
        }
        words
    }

    /// A signed number of 64 bits in this order.
    #[must_use]
    pub const fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }
}

/// Takes fields off the front of `bytes`. Every method returns `None` if `bytes` ends too early.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8], order: ByteOrder) -> Self {
        Self { bytes, order }
    }

    pub(super) const fn order(&self) -> ByteOrder {
        self.order
    }

    /// The bytes that have not been taken yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| self.order.u16(bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| self.order.u32(bytes))
    }

    /// The next `len` bytes. The padding to a multiple of four is taken too.
    pub(super) fn padded(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, _) = self.bytes.split_at_checked(len)?;
        self.bytes = self.bytes.get(len.checked_next_multiple_of(4)?..)?;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }
}
